"""Outputs under watch: plain memory of the right kind, guarded on both sides, poisoned in several ways."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tilewright.inputs import restore
from tilewright.perf.watch import secret
from tilewright.perf.watch.caught import Cheated
from tilewright.perf.watch.memory import LiveInputs, overlap

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case
    from tilewright.inputs import Inputs
    from tilewright.registry import Family

# What an output holds before a call that is checked: what no kernel writes, plausible values that are wrong, or
# what an earlier call left.
POISONS = ("nan", "stale", "none")


def plain_outputs(
    family: Family, case: Case, given: Mapping[str, torch.Tensor], inputs: LiveInputs, who: str
) -> dict[str, torch.Tensor]:
    """The launch's outputs, each held by itself from now on; raises Cheated for anything but plain memory.

    A subclass of Tensor, a lazy conjugate or a mapping that computes when it is asked could put off the work
    until the comparison; memory shared with an input or between outputs could hold an answer already.
    """
    import torch

    found: dict[str, torch.Tensor] = {}
    for tensor in family.spec.outputs:
        if not tensor.present(case):
            continue
        value = given[tensor.name]
        name = f"output '{tensor.name}'"
        if type(value) is not torch.Tensor:
            raise Cheated(
                who, f"gives its {name} as a {type(value).__name__}, not as a plain tensor"
            )
        expected = (family.spec.dtype_of(tensor, case).torch(), family.spec.shape(tensor, case))
        if (value.dtype, tuple(value.shape)) != expected:
            raise Cheated(
                who,
                f"gives its {name} as {value.dtype} {tuple(value.shape)} instead of {expected[0]} {expected[1]}",
            )
        if (
            value.layout is not torch.strided
            or value.is_conj()
            or value.is_neg()
            or value.requires_grad
        ):
            raise Cheated(who, f"gives its {name} as a view that is computed when it is read")
        if value.device.type != "cpu":
            raise Cheated(who, f"gives its {name} on {value.device}, where it is not timed")
        for other, memory, _ in inputs.pairs():
            if overlap(value, memory):
                raise Cheated(who, f"gives its {name} in the memory of input '{other}'")
        for other, memory in found.items():
            if overlap(value, memory):
                raise Cheated(
                    who, f"gives its outputs '{tensor.name}' and '{other}' in the same memory"
                )
        found[tensor.name] = value
    return found


def poison(outputs: Mapping[str, torch.Tensor], kind: str, inputs: Inputs) -> None:
    """Fill outputs by one of POISONS: NaN or the largest integer, or their own values in other places.

    Those that are changed in place get back what `inputs` say they held before.
    """
    import torch

    for value in outputs.values():
        if kind == "nan":
            top = math.nan if value.dtype.is_floating_point else torch.iinfo(value.dtype).max
            torch.Tensor.fill_(value, top)
        elif kind == "stale" and value.numel() > 1:
            shift = 1 + secret.below(value.numel() - 1)
            torch.Tensor.copy_(value, torch.roll(value.reshape(-1), shift).view(value.shape))
    restore(outputs, inputs)


def copies(outputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the outputs hold at this moment."""
    import torch

    return {name: torch.Tensor.clone(value) for name, value in outputs.items()}


class Guards:
    """Bytes before and after each output that no kernel may write, where its memory has such."""

    def __init__(self, outputs: Mapping[str, torch.Tensor]) -> None:
        self._kept: list[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = []
        drawn = np.random.default_rng(secret.seed())
        for name, value in outputs.items():
            for room in _around(value):
                room[:] = drawn.integers(0, 256, size=room.shape, dtype=np.uint8)
                self._kept.append((name, room, room.copy()))

    def broken(self) -> str | None:
        """The output around which something was written; None if there is none."""
        for name, room, before in self._kept:
            if not np.array_equal(room, before):
                return name
        return None


def _around(value: torch.Tensor) -> Iterator[npt.NDArray[np.uint8]]:
    """The bytes of a contiguous output's storage that are not its own."""
    import torch

    if value.numel() == 0 or not value.is_contiguous():
        return
    storage = torch.tensor([], dtype=torch.uint8).set_(value.untyped_storage()).numpy()
    first = value.storage_offset() * value.element_size()
    last = first + value.numel() * value.element_size()
    for room in (storage[:first], storage[last:]):
        if room.size:
            yield room
