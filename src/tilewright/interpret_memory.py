"""Bounds of memory in Triton's interpreter, which itself follows any address.

A compiled kernel that reads or writes beside its tensors may fault, or may not, and the interpreter dies
with the whole process. Here every lane that a mask leaves on must lie in what a tensor of the launch
spans, from its first element to its last.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilewright.errors import KernelFailed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Span:
    """What a tensor argument spans: addresses `first` to `end`, in bytes."""

    name: str
    first: int
    end: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> Span:
        elements = 0
        if tensor.numel():
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            elements = sum((size - 1) * stride for size, stride in steps) + 1
        first = tensor.data_ptr()
        return cls(name, first, first + elements * tensor.element_size(), tuple(tensor.shape))


class Memory:
    """The tensors of one launch. Spans may overlap, as those of views do."""

    def __init__(self, names: Sequence[str], arguments: Iterable[Any]) -> None:
        import torch

        given = zip(names, arguments, strict=False)
        self._spans = [Span.of(n, a) for n, a in given if isinstance(a, torch.Tensor)]
        joined: list[list[int]] = []
        for span in sorted(self._spans, key=lambda s: s.first):
            if joined and span.first <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], span.end)
            elif span.first < span.end:
                joined.append([span.first, span.end])
        self._firsts = [first for first, _ in joined]
        self._ends = [end for _, end in joined]

    def check(self, what: str, pointers: Any, mask: Any, size: int) -> None:
        """Raises KernelFailed, naming the line, for lanes of `size` bytes that lie in no tensor."""
        import numpy as np

        # Masks of one lane may be integers.
        taken = pointers[np.broadcast_to(mask, pointers.shape).astype(bool)]
        if not taken.size or self._hold(int(taken.min()), int(taken.max()) + size):
            return
        for address in np.unique(taken).tolist():
            if not self._hold(address, address + size):
                raise KernelFailed(f"{_line()}: {what} {self._place(address)}")

    def _hold(self, first: int, end: int) -> bool:
        at = bisect_right(self._firsts, first) - 1
        return at >= 0 and end <= self._ends[at]

    def _place(self, address: int) -> str:
        if not self._spans:
            return f"address {address:#x}, and the kernel was given no tensor"

        def distance(span: Span) -> int:
            return span.first - address if address < span.first else address - span.end

        near = min(self._spans, key=distance)
        shape = "x".join(map(str, near.shape)) or "scalar"
        side = "before" if address < near.first else "past"
        return f"memory of no tensor, {abs(distance(near))} bytes {side} {near.name} [{shape}]"


def guard(builder: Any, memory: Memory) -> None:
    """Make loads, stores and atomics of an interpreter's builder class check `memory`."""
    import numpy as np

    def size_of(pointers: Any) -> int:
        return max(1, int(pointers.get_element_ty().primitive_bitwidth) // 8)

    def masked(operation: Callable[..., Any], what: str, mask_at: int) -> Callable[..., Any]:
        def checked(self: Any, *operands: Any) -> Any:
            pointers = operands[0]
            memory.check(what, pointers.data, operands[mask_at].data, size_of(pointers))
            return operation(self, *operands)

        return checked

    def atomic(operation: Callable[..., Any], pointers_at: int, mask_at: int) -> Callable[..., Any]:
        def checked(self: Any, *operands: Any) -> Any:
            pointers = operands[pointers_at]
            mask = operands[mask_at].data if mask_at else np.ones_like(pointers.data, dtype=bool)
            memory.check("changes", pointers.data, mask, size_of(pointers))
            return operation(self, *operands)

        return checked

    builder.create_masked_load = masked(builder.create_masked_load, "reads", 1)
    builder.create_masked_store = masked(builder.create_masked_store, "writes", 2)
    builder.create_atomic_rmw = atomic(builder.create_atomic_rmw, 1, 3)
    builder.create_atomic_cas = atomic(builder.create_atomic_cas, 0, 0)


def _line() -> str:
    """File and line of the kernel that is running."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if name.split(".")[0] != "triton" and not name.startswith(("tilewright.interpret",)):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
