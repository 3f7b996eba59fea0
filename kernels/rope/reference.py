"""rope in plain torch: a rotation of every pair, written as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.kernels.rope import tables

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec


def rope(x: Tensor, positions: Tensor, cos_sin: Tensor, *, case: Case) -> Tensor:
    """y [T,H,D] of x [T,H,D], positions [T] and cos_sin [MAXPOS,ROT] (cosines, then sines).

    Pair i of `neox` are channels i and i + ROT/2, of `gptj` 2i and 2i + 1. Channels from ROT on are
    as they were. The angle of position p turns a pair (a, b) to (a cos - b sin, b cos + a sin).
    """
    rot = cos_sin.shape[1]
    cos, sin = cos_sin[positions.long()][:, None, :].chunk(2, dim=-1) if rot else (None, None)
    y = x.clone()
    if cos is None or sin is None:
        return y
    if case.flags["style"] == "neox":
        first, second = slice(0, rot // 2), slice(rot // 2, rot)
    else:
        first, second = slice(0, rot, 2), slice(1, rot, 2)
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., second] * cos + x[..., first] * sin
    return y


def make_inputs(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal x, positions of the whole table in any order, and a table of one of the scaling variants."""
    sizes = case.sizes
    shape = (sizes["T"], sizes["H"], sizes["D"])
    dtype = spec.precision(case.precision).dtypes["x"].torch()
    choice = int(torch.randint(len(tables.EXAMPLES), (), generator=generator))
    positions = torch.randint(max(1, sizes["MAXPOS"]), (sizes["T"],), generator=generator)
    return {
        "x": torch.randn(shape, generator=generator).to(dtype),
        "positions": positions.to(torch.int32),
        "cos_sin": tables.cos_sin(sizes["ROT"], sizes["MAXPOS"], scaling=tables.EXAMPLES[choice]),
    }
