"""Linear layers by how their weights are kept; each is applied through the ops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tilewright.engine.calls import empty
from tilewright.engine.layout import code_panels, group_panels, panels, rounded
from tilewright.engine.ops import Ops, name_of
from tilewright.kernels.gemm_w4 import formats
from tilewright.models.checkpoint import Q4

__all__ = ["Dense", "Grouped4", "Int8", "Linear", "Tapped", "Weight", "rounded"]

GROUP = 32  # of GGUF's Q4_1


@dataclass(frozen=True, slots=True)
class Weight:
    """W [N,K] as the backend of its op reads it: panels on the host, rows elsewhere.

    `parts` are inputs of the op by name, `logical` what the reference takes in their place (none on the host).
    """

    n: int
    k: int
    layout: str
    parts: Mapping[str, Tensor]
    logical: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, ops: Ops, op: str, w: Tensor) -> Weight:
        """Laid out for the backend that `op` is assigned to."""
        n, k = w.shape
        if ops.backends.of(op) != "host":
            return cls(n, k, "NK", {"b": w}, {"b": w.t()})
        return cls(n, k, "panel16", {"b": panels(w)})

    @property
    def bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.parts.values())


class Linear(ABC):
    """y[T,N] = x[T,K] W^T (+ bias)."""

    n: int
    k: int

    @abstractmethod
    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """y in the type of x."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes of weights that a call reads."""


class Tapped(Linear):
    """A linear that tells what goes into it."""

    def __init__(self, linear: Linear, tell: Callable[[Tensor], object]) -> None:
        self._linear, self._tell = linear, tell
        self.n, self.k = linear.n, linear.k

    @property
    def bytes(self) -> int:
        """See Linear."""
        return self._linear.bytes

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """See Linear."""
        self._tell(x)
        return self._linear(ops, x)


class _Laid(Linear):
    """A linear on weights that `lay` laid out."""

    def __init__(self, ops: Ops, w: Any, bias: Tensor | None = None) -> None:
        """`w` is what `lay` takes or what it gave."""
        self._w: Weight = w if isinstance(w, Weight) else self.lay(ops, w)
        self._bias, self.n, self.k = bias, self._w.n, self._w.k

    @staticmethod
    @abstractmethod
    def lay(ops: Ops, w: Any) -> Weight:
        """What a call reads of W [N,K]."""

    @property
    def bytes(self) -> int:
        """See Linear."""
        return self._w.bytes

    def _flags(self) -> dict[str, str]:
        return {"b_layout": self._w.layout, "bias": "no" if self._bias is None else "yes"}


class Dense(_Laid):
    """Weights in the type of the activations."""

    @staticmethod
    def lay(ops: Ops, w: Tensor) -> Weight:
        """See _Laid."""
        return Weight.of(ops, "gemm", w)

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """See Linear."""
        y = empty(x, x.shape[0], self.n)
        ops.call(
            "gemm",
            name_of(x),
            {**self._flags(), "scale": "none"},
            {"M": x.shape[0], "N": self.n, "K": self.k},
            {"a": x, "bias": self._bias, **self._w.parts},
            {"c": y},
            logical=self._w.logical,
        )
        return y


class Int8(_Laid):
    """W8A8: int8 weights with a scale a column of C, activations quantised token by token in the call."""

    def __init__(self, ops: Ops, w: Tensor | Weight, bias: Tensor | None = None) -> None:
        super().__init__(ops, w, None if bias is None else bias.float())

    @staticmethod
    def lay(ops: Ops, w: Tensor) -> Weight:
        """See _Laid; rounded here."""
        codes, scale = rounded(w)
        laid = Weight.of(ops, "gemm", codes)
        return replace(laid, parts={**laid.parts, "col_scale": scale})

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """See Linear."""
        y = empty(x, x.shape[0], self.n)
        q, row_scale = ops.quantize(x)
        ops.call(
            "gemm",
            f"int8->{name_of(x)}",
            {**self._flags(), "scale": "row_col"},
            {"M": x.shape[0], "N": self.n, "K": self.k},
            {"a": q, "bias": self._bias, "row_scale": row_scale, **self._w.parts},
            {"c": y},
            logical=self._w.logical,
        )
        return y


class Routed(Int8):
    """W8A8 with bf16 weights beside the int8 ones: each row takes those that a selection says.

    `words` are the selection, read anew by every call, and `counts` int32 [3] is written by it: see
    kernels/mask_gemm. Activations are bf16; whose token a row is stands in `ops.owner`.
    """

    def __init__(
        self,
        ops: Ops,
        w: Tensor | Weight,
        bias: Tensor | None,
        layer: int,
        words: Tensor,
        counts: Tensor,
    ) -> None:
        super().__init__(ops, w, bias)
        self._layer, self._words, self._counts = layer, words, counts

    @staticmethod
    def lay(ops: Ops, w: Tensor) -> Weight:
        """See _Laid; rounded to int8 and to bf16."""
        codes, scale = rounded(w)
        b8, b16 = (Weight.of(ops, "mask_gemm", v) for v in (codes, w.to(torch.bfloat16)))
        parts = {"b8": b8.parts["b"], "b16": b16.parts["b"], "col_scale": scale}
        return replace(b8, parts=parts, logical={})

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """See Linear."""
        y = empty(x, x.shape[0], self.n)
        q, row_scale = ops.quantize(x)
        ops.call(
            "mask_gemm",
            name_of(x),
            {**self._flags(), "layer": str(self._layer)},
            {"M": x.shape[0], "N": self.n, "K": self.k, "W": len(self._words)},
            {"a8": q, "a": x, "row_scale": row_scale, "bias": self._bias, **self._w.parts}
            | {"selection": self._words, "owner": ops.owner},
            {"c": y, "counts": self._counts},
        )
        return y


class Grouped4(_Laid):
    """W4A16 on the codes of a GGUF Q4_1 tensor: bit for bit what its dequantisation gives; W4A8 with `int8`.

    Codes of 8 bits come as [N,2K] of their halves (see Checkpoint.q4), which `x` is repeated for.
    """

    def __init__(
        self, ops: Ops, w: Q4 | Weight, bias: Tensor | None = None, int8: bool = False
    ) -> None:
        super().__init__(ops, w, bias.float() if int8 and bias is not None else bias)
        self._int8 = int8

    @staticmethod
    def lay(ops: Ops, w: Q4) -> Weight:
        """See _Laid."""
        n, k = w.codes.shape
        shared = {"scale": w.scale, "minimum": w.minimum}
        if ops.backends.of("gemm_w4") == "host":
            parts = {name: group_panels(value) for name, value in shared.items()}
            return Weight(n, k, "panel16", parts | {"b": code_panels(w.codes)})
        codes = w.codes.int()
        parts = shared | {"b": formats.codes_to_rows(codes, {})}
        return Weight(n, k, "rows", parts, {"b": codes, **shared})

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """See Linear."""
        y = empty(x, x.shape[0], self.n)
        precision, row_scale = name_of(x), None
        if self._int8:
            precision = f"int8->{precision}"
            x, row_scale = ops.quantize(x)
        if self.k > x.shape[1]:
            once, x = x, empty(x, x.shape[0], self.k)
            ops.between(partial(torch.cat, [once] * (self.k // once.shape[1]), dim=1, out=x))
        flags = {**self._flags(), "group": str(GROUP), "zero": "min"}
        flags |= {"activations": "int8" if self._int8 else "float"}
        ops.call(
            "gemm_w4",
            precision,
            flags,
            {"M": x.shape[0], "N": self.n, "K": self.k, "G": -(-self.k // GROUP)},
            {"a": x, "row_scale": row_scale, "bias": self._bias, **self._w.parts},
            {"c": y},
            logical=self._w.logical,
        )
        return y
