"""Inputs of a case, drawn from a seed: never zeros, never reused silently.

Reference code receives logical tensors; backends receive the physical ones (layout and memory of
the case). Both come from the same draw.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tilewright.dims import evaluate
from tilewright.registry import Family

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case
    from tilewright.dtypes import DType
    from tilewright.spec import Ref, Tensor


# A page on either side, so that an output lies on its own lines and is aligned as before.
GUARD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Inputs:
    """`logical` for the reference, `physical` for kernels; absent optionals are None.

    `drawn` inputs can be had again from their case and seed; real ones cannot.
    """

    logical: Mapping[str, torch.Tensor | None]
    physical: Mapping[str, torch.Tensor | None]
    drawn: bool = False


def draw(family: Family, case: Case, seed: int) -> Inputs:
    """Draw every input of a case from `seed` (the spec's own `make_inputs`, or by each tensor's `init`)."""
    return _draw(family, case, seed, family.spec.make_inputs)


def draw_typical(family: Family, case: Case, seed: int) -> Inputs:
    """As `draw`, for calls that are timed: what calls in use look like (the spec's `typical`, if it has one)."""
    return _draw(family, case, seed, family.spec.typical or family.spec.make_inputs)


def _draw(family: Family, case: Case, seed: int, make: Ref | None) -> Inputs:
    import torch

    spec = family.spec
    generator = torch.Generator().manual_seed(seed)
    if make is not None:
        logical = dict(make.resolve(family.package)(spec, case, generator))
    else:
        logical = {t.name: _draw_one(family, t, case, generator) for t in spec.given}
    return replace(from_logical(family, case, logical), drawn=True)


def from_logical(family: Family, case: Case, logical: Mapping[str, torch.Tensor | None]) -> Inputs:
    """Inputs from logical tensors that the caller already has, such as real weights."""
    physical = {}
    for tensor in family.spec.given:
        value = logical.get(tensor.name)
        physical[tensor.name] = None if value is None else lay_out(family, tensor, case, value)
    return Inputs(dict(logical), physical)


def lay_out(family: Family, tensor: Tensor, case: Case, value: torch.Tensor) -> torch.Tensor:
    """A logical tensor in the layout and memory of the case."""
    return place(tensor, case, _packed(family, tensor, case, value))


def place(tensor: Tensor, case: Case, value: torch.Tensor) -> torch.Tensor:
    """A tensor that has its layout, in own memory as the case wants it."""
    layout = tensor.layout(case)
    if tensor.align:
        return aligned(value, tensor.align, layout.blocked, case.memory == "padded")
    if case.memory == "padded":
        return padded(value, layout.blocked)
    return value.contiguous()


def aligned(
    value: torch.Tensor, align: int, blocked: int = 0, padding: bool = False
) -> torch.Tensor:
    """The same values with the address and the stride of the first dim multiples of `align` bytes.

    With `padding` it is a view into larger memory, as `padded` makes it. Around the values lie NaN, or 77.
    """
    import torch

    free = value.dim() - blocked if padding else 0
    room = [size + 3 if i < free else size for i, size in enumerate(value.shape)]
    unit = math.lcm(align, value.element_size()) // value.element_size()
    strides = [1] * value.dim()
    for i in reversed(range(value.dim() - 1)):
        strides[i] = strides[i + 1] * max(1, room[i + 1])
    strides[0] = -(-strides[0] // unit) * unit
    before = sum(strides[:free])
    memory = torch.empty(room[0] * strides[0] + unit, dtype=value.dtype)
    memory.fill_(_poison_of(value.dtype))
    address = memory.data_ptr() + before * value.element_size()
    shift = -address % align // value.element_size()
    view = memory.as_strided(value.shape, strides, shift + before)
    view.copy_(value)
    return view


def _poison_of(dtype: torch.dtype) -> float:
    return math.nan if dtype.is_floating_point else 77


def padded(value: torch.Tensor, blocked: int = 0) -> torch.Tensor:
    """The same values as a view into larger memory, which starts before and ends after it.

    Rows are not adjacent; the `blocked` trailing dims stay as they are. Around the view lie NaN (77
    for integers), so that a kernel that reads beyond its input shows.
    """
    import torch

    free = value.dim() - blocked
    if free <= 0:
        return value.contiguous()
    larger = [size + 3 if i < free else size for i, size in enumerate(value.shape)]
    room = torch.empty(larger, dtype=value.dtype)
    room.fill_(_poison_of(value.dtype))
    place = tuple(
        slice(1, 1 + size) if i < free else slice(None) for i, size in enumerate(value.shape)
    )
    view = room[place]
    view.copy_(value)
    return view


def _draw_one(
    family: Family, tensor: Tensor, case: Case, generator: torch.Generator
) -> torch.Tensor | None:
    import torch

    if not tensor.present(case):
        return None
    sizes = family.spec.sizes_of(case)
    shape = tuple(int(evaluate(d, sizes)) for d in tensor.dims)
    dtype = family.spec.dtype_of(tensor, case)
    if dtype.is_integer:
        low, high = _integer_range(dtype)
        return torch.randint(low, high + 1, shape, generator=generator, dtype=torch.int64).to(
            dtype.torch()
        )
    values = torch.randn(shape, generator=generator, dtype=torch.float32)
    if tensor.init == "scale":
        values = values.abs() * 0.01 + 0.001
    return values.to(dtype.torch())


def _integer_range(dtype: DType) -> tuple[int, int]:
    if dtype.bytes == 1:
        return (-128, 127) if dtype.name == "int8" else (0, 255)
    return -100_000, 100_000


def make_outputs(family: Family, case: Case, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Outputs of one launch: poisoned ones to be written, and own copies of what is changed in place."""
    outputs = empty_outputs(family, case)
    for tensor in family.spec.outputs:
        value = inputs.physical.get(tensor.name)
        if tensor.inout and value is not None:
            outputs[tensor.name] = place(tensor, case, value.clone())
    order = [t.name for t in family.spec.outputs]
    return dict(sorted(outputs.items(), key=lambda item: order.index(item[0])))


def restore(outputs: Mapping[str, torch.Tensor], inputs: Inputs) -> None:
    """Put back what outputs that are changed in place held before the launch."""
    import torch

    for name, value in outputs.items():
        before = inputs.physical.get(name)
        if before is not None and before.shape == value.shape:
            torch.Tensor.copy_(value, before)


def empty_outputs(family: Family, case: Case, poison: bool = True) -> dict[str, torch.Tensor]:
    """Outputs to be written; poisoned (NaN, or a conspicuous integer) so that an unwritten element shows."""

    outputs = {}
    for tensor in family.spec.outputs:
        if tensor.inout or not tensor.present(case):
            continue
        dtype = family.spec.dtype_of(tensor, case)
        value = _guarded(family.spec.shape(tensor, case), dtype.torch())
        if poison:
            value.fill_(
                math.nan if not dtype.is_integer else min(2**31 - 1, 2 ** (8 * dtype.bytes - 1) - 1)
            )
        outputs[tensor.name] = value
    return outputs


def _guarded(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Uninitialised contiguous memory with GUARD_BYTES of the same storage before and after it.

    Whoever times a kernel fills these and sees whether it wrote beyond its output.
    """
    import torch

    count = math.prod(shape)
    guard = GUARD_BYTES // dtype.itemsize
    return torch.empty(count + 2 * guard, dtype=dtype)[guard : guard + count].view(shape)


def reference_outputs(family: Family, case: Case, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Run the family's reference on the logical inputs, in fp64; outputs are in the layout of the case.

    A reference with a parameter `case` is given the case.
    """
    import torch

    function = family.spec.reference.resolve(family.package)
    wide: dict[str, Any] = {
        name: None
        if value is None
        else (value.to(torch.float64) if value.dtype.is_floating_point else value)
        for name, value in inputs.logical.items()
    }
    if "case" in inspect.signature(function).parameters:
        wide["case"] = case
    present = [t for t in family.spec.outputs if t.present(case)]
    result = function(**wide)
    values = result if isinstance(result, tuple) else (result,)
    return {
        t.name: _packed(family, t, case, value) for t, value in zip(present, values, strict=True)
    }


def _packed(family: Family, tensor: Tensor, case: Case, value: torch.Tensor) -> torch.Tensor:
    pack = tensor.layout(case).pack
    if pack is None:
        return value
    return pack.resolve(family.package)(value, family.spec.sizes_of(case))  # type: ignore[no-any-return]
