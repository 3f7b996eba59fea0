"""Inputs that change under a kernel's hands: private memory, patches of it, and the truth kept beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilewright.inputs import Inputs, from_logical, lay_out
from tilewright.perf.watch import secret

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.spec import Tensor

Bits = npt.NDArray[Any]
Index = tuple[npt.NDArray[np.intp], ...]

# States of the inputs are subsets of this many patches: 2**10 before one comes again.
PATCHES = 10
_MOST_ELEMENTS = 64
_BITS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


def bits(value: torch.Tensor) -> Bits:
    """A tensor's memory as integers of the same width, shared: NaN equals itself, and any dtype has it."""
    import torch

    view: Bits = value.detach().view(getattr(torch, _BITS[value.element_size()])).numpy()
    return view


@dataclass(frozen=True, slots=True)
class Place:
    """Some elements of one tensor: in the kernel's memory and in the truth, with their two values."""

    live: Bits
    truth: Bits
    index: Index
    off: Bits
    on: Bits

    def put(self, state: bool) -> None:
        values = self.on if state else self.off
        self.live[self.index] = values
        self.truth[self.index] = values

    def stores(self, state: bool) -> list[tuple[int, int, int]]:
        """The same as (address, value, bytes), for the kernel's memory only."""
        values = self.on if state else self.off
        offsets = sum(
            (i * s for i, s in zip(self.index, self.live.strides, strict=True)), np.intp(0)
        )
        width = self.live.itemsize
        mask = (1 << (8 * width)) - 1
        base = self.live.__array_interface__["data"][0]
        flat = np.broadcast_to(offsets, values.shape)
        return [(base + int(o), int(v) & mask, width) for o, v in zip(flat, values, strict=True)]


@dataclass(frozen=True, slots=True)
class Patch:
    """A few elements of every input that may be patched; `logical` gives their values for the reference."""

    places: tuple[Place, ...]
    logical: tuple[tuple[str, Index, Bits], ...]


@dataclass(frozen=True, slots=True)
class Base:
    """One whole set of inputs and the patches on it. `values` is never shown to a kernel."""

    values: Inputs
    patches: tuple[Patch, ...]

    def logical(self, mask: int) -> Inputs:
        """The inputs with the patches of a mask, for the reference (logical tensors only)."""
        found = {k: None if v is None else v.clone() for k, v in self.values.logical.items()}
        for number, patch in enumerate(self.patches):
            if mask >> number & 1:
                for name, index, on in patch.logical:
                    value = found[name]
                    assert value is not None
                    bits(value)[index] = on
        return Inputs(found, {})


def private(family: Family, case: Case, inputs: Inputs) -> Inputs:
    """The same inputs in memory that nobody else has."""
    import torch

    copies = {
        k: None if v is None else v.clone(memory_format=torch.contiguous_format)
        for k, v in inputs.logical.items()
    }
    return from_logical(family, case, copies)


def patchable(spec_tensor: Tensor, value: torch.Tensor, made: bool) -> bool:
    """Whether elements may change places: floats may, and integers that the spec draws independently.

    Offsets, indices and packed formats have a meaning that another element's value would break.
    """
    if value.numel() < 2 or value.element_size() not in _BITS:
        return False
    if value.dtype.is_floating_point:
        return True
    return not made and spec_tensor.init in ("normal", "uniform")


class LiveInputs:
    """The memory a kernel reads, and the truth: an equal copy that follows each change we make to it."""

    def __init__(self, family: Family, case: Case, inputs: Inputs) -> None:
        self.family, self.case = family, case
        self.live = private(family, case, inputs)
        self.truth = private(family, case, inputs)
        self.base: Base | None = None
        self.mask = 0
        self._step = 0
        # For each packed input, the physical place of each logical element; None where it has none of its own.
        self._moves: dict[str, npt.NDArray[np.intp] | None] = {}

    def pairs(self) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Every tensor a kernel gets, once, with its truth."""
        seen = set()
        for live, truth in (
            (self.live.physical, self.truth.physical),
            (self.live.logical, self.truth.logical),
        ):
            for name, value in live.items():
                other = truth[name]
                if value is None or other is None or value.data_ptr() in seen:
                    continue
                seen.add(value.data_ptr())
                yield name, value, other

    def make_base(self, values: Inputs, patches: int = PATCHES) -> Base:
        """A set of inputs with patches; takes as long as laying it out, for packed layouts once a patch."""
        values = private(self.family, self.case, values)
        choices = self._choices(values) if patches else {}
        found = []
        for number in range(patches):
            places: list[Place] = []
            logical = []
            for tensor in self.family.spec.inputs:
                if number < len(choices.get(tensor.name, ())):
                    index, on = choices[tensor.name][number]
                    logical.append((tensor.name, index, on))
                    places += self._places(tensor, values, index, on)
            found.append(Patch(tuple(places), tuple(logical)))
        return Base(values, tuple(p for p in found if p.places))

    def _choices(self, values: Inputs) -> dict[str, list[tuple[Index, Bits]]]:
        """For each tensor, disjoint sets of elements with values found elsewhere in it."""
        made = self.family.spec.make_inputs is not None
        found: dict[str, list[tuple[Index, Bits]]] = {}
        for tensor in self.family.spec.inputs:
            value = values.logical.get(tensor.name)
            if value is None or not patchable(tensor, value, made):
                continue
            count = value.numel()
            each = int(np.clip(np.sqrt(count), 1, _MOST_ELEMENTS))
            patches = min(PATCHES, max(1, count // each))
            drawn = np.random.default_rng(secret.seed())
            chosen = drawn.choice(count, size=(patches, min(each, count)), replace=False)
            source = drawn.integers(0, count, size=chosen.shape)
            flat = bits(value).reshape(-1)
            found[tensor.name] = [
                (tuple(np.unravel_index(c, tuple(value.shape))), flat[s].copy())
                for c, s in zip(chosen, source, strict=True)
            ]
        return found

    def _places(self, tensor: Tensor, values: Inputs, index: Index, on: Bits) -> Iterator[Place]:
        logical, physical = values.logical[tensor.name], values.physical[tensor.name]
        live, truth = self.live, self.truth
        seen = set()
        for kind in ("logical", "physical"):
            target = getattr(live, kind)[tensor.name]
            if target is None or logical is None or physical is None or target.data_ptr() in seen:
                continue
            seen.add(target.data_ptr())
            memory, mirror = bits(target), bits(getattr(truth, kind)[tensor.name])
            if kind == "logical" or tensor.layout(self.case).pack is None:
                yield Place(memory, mirror, index, bits(logical)[index], on)
                continue
            where = self._moved(tensor, values, index)
            if where is None:
                changed = logical.clone()
                bits(changed)[index] = on
                packed = bits(lay_out(self.family, tensor, self.case, changed))
                where = np.nonzero(packed != bits(physical))
                values_there = packed[where]
            else:
                values_there = on
            if len(where[0]):
                yield Place(memory, mirror, where, bits(physical)[where], values_there)

    def _moved(self, tensor: Tensor, values: Inputs, index: Index) -> Index | None:
        """Where a layout that only moves elements puts these; None for one that does something else."""
        logical, physical = values.logical[tensor.name], values.physical[tensor.name]
        assert logical is not None and physical is not None
        if tensor.name not in self._moves:
            self._moves[tensor.name] = _inverse(
                lambda value: lay_out(self.family, tensor, self.case, value), logical, physical
            )
        inverse = self._moves[tensor.name]
        if inverse is None:
            return None
        flat = inverse[np.ravel_multi_index(index, tuple(logical.shape))]
        return tuple(np.unravel_index(flat, tuple(physical.shape)))

    def set(self, base: Base) -> None:
        """Put another set of inputs into the kernel's memory, in place."""
        for kind in ("physical", "logical"):
            for name, value in getattr(base.values, kind).items():
                if value is not None:
                    getattr(self.live, kind)[name].copy_(value)
                    getattr(self.truth, kind)[name].copy_(value)
        self.base, self.mask = base, 0

    def next_patch(self) -> tuple[Patch, bool] | None:
        """The patch to switch next and to what: in Gray code, so that no state comes twice in 2**PATCHES."""
        assert self.base is not None
        if not self.base.patches:
            return None
        self._step += 1
        number = ((self._step & -self._step).bit_length() - 1) % len(self.base.patches)
        self.mask ^= 1 << number
        return self.base.patches[number], bool(self.mask >> number & 1)

    def change(self) -> None:
        """Change a few elements of every input in place; takes microseconds."""
        following = self.next_patch()
        if following is not None:
            patch, state = following
            for place in patch.places:
                place.put(state)

    def stores(self, calls: int) -> list[list[tuple[int, int, int]]]:
        """The changes of that many calls as stores, already made in the truth."""
        lists = []
        for _ in range(calls):
            following = self.next_patch()
            stores: list[tuple[int, int, int]] = []
            if following is not None:
                patch, state = following
                for place in patch.places:
                    stores += place.stores(state)
                    place.truth[place.index] = place.on if state else place.off
            lists.append(stores)
        return lists

    def disturbed(self) -> str | None:
        """The name of an input that is not what we put there, with the memory around it; None if all are."""
        for name, live, truth in self.pairs():
            if not _same_around(live, truth):
                return name
        return None


def _inverse(
    pack: Callable[[torch.Tensor], torch.Tensor], logical: torch.Tensor, physical: torch.Tensor
) -> npt.NDArray[np.intp] | None:
    """Flat physical place of each logical element, found by packing their numbers; None if that is no move."""
    import torch

    count = logical.numel()
    # Numbers from 1: padding is 0. In fp64, which holds them exactly.
    numbers = torch.arange(1, count + 1, dtype=torch.float64).view(logical.shape)
    packed = pack(numbers).reshape(-1).numpy().astype(np.intp)
    places = np.flatnonzero(packed)
    inverse = np.full(count, -1, dtype=np.intp)
    inverse[packed[places] - 1] = places
    same = len(places) == count and bool((inverse >= 0).all())
    if not same or not np.array_equal(
        bits(physical).reshape(-1)[inverse], bits(logical).reshape(-1)
    ):
        return None
    return inverse


def _same_around(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two views and what lies around them are the same bytes, as far as both memories reach.

    Alignment may place equal views at other offsets of their memory.
    """
    first, second = _whole(one), _whole(other)
    i, j = (v.storage_offset() * v.element_size() for v in (one, other))
    before, after = min(i, j), min(first.size - i, second.size - j)
    return np.array_equal(first[i - before : i + after], second[j - before : j + after])


def _whole(value: torch.Tensor) -> npt.NDArray[np.uint8]:
    """All bytes of a tensor's storage: what lies around a padded view as well."""
    import torch

    flat: npt.NDArray[np.uint8] = (
        torch.tensor([], dtype=torch.uint8).set_(value.untyped_storage()).numpy()
    )
    return flat


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have bytes in common."""
    low, high = _extent(one)
    other_low, other_high = _extent(other)
    return low < other_high and other_low < high


def _extent(value: torch.Tensor) -> tuple[int, int]:
    last = sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
    return value.data_ptr(), value.data_ptr() + (
        (last + 1) * value.element_size() if value.numel() else 0
    )
