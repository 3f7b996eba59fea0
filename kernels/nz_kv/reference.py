"""nz_kv in plain torch: rows of pages are assigned, and read, by slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._kv.reference import to_nz
from tilewright.kernels._kv.slots import draw_slots

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec

__all__ = ["make_inputs", "nz_kv", "to_nz"]


def nz_kv(
    slots: Tensor, pages: Tensor, x: Tensor | None = None, *, case: Case
) -> Tensor | tuple[Tensor, Tensor]:
    """The pages [P,16,HKV,D] after writing x [T,HKV,D], or the pages and y [T,HKV,D] read from them.

    Rows of y whose slot is -1 are 0.
    """
    flat = pages.flatten(0, 1)
    there = slots >= 0
    rows = slots[there].long()
    if x is not None:
        flat = flat.clone()
        flat[rows] = x[there]
        return flat.reshape(pages.shape)
    y = torch.zeros((slots.shape[0], *pages.shape[2:]), dtype=pages.dtype)
    y[there] = flat[rows]
    return pages, y


def make_inputs(
    spec: KernelSpec, case: Case, generator: torch.Generator
) -> dict[str, Tensor | None]:
    """Slots as batches of sequences leave them, over elements of every kind of value."""
    sizes = case.sizes
    t, heads, d, p = (sizes[name] for name in ("T", "HKV", "D", "P"))
    dtype = spec.precision(case.precision).dtypes["pages"].torch()
    slots, _ = draw_slots(t, p, t, generator, shuffle=True)
    write = case.flags["direction"] == "write"
    return {
        "x": _values((t, heads, d), dtype, generator) if write else None,
        "slots": slots,
        "pages": _values((p, PAGE, heads, d), dtype, generator),
    }


def _values(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if not dtype.is_floating_point:
        return torch.randint(-128, 128, shape, generator=generator, dtype=torch.int32).to(dtype)
    return torch.randn(shape, generator=generator).to(dtype)
