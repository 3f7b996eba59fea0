"""rmsnorm in plain torch: the formula, after a sum that rounds as every backend's does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.kernels.rmsnorm.spec import SPEC

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec


def rmsnorm(
    x: Tensor, weight: Tensor, residual: Tensor | None = None, *, case: Case
) -> Tensor | tuple[Tensor, Tensor]:
    """y [T,D] of x [T,D] and weight [D]; with a residual [T,D] also h [T,D].

    h = x + residual in fp32, then rounded to the type of x: later layers read the rounded one.
    """
    h = x
    if residual is not None:
        kind = SPEC.precision(case.precision).dtypes["x"].torch()
        h = (x.float() + residual.float()).to(kind).to(x.dtype)
    y = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + case.number("eps")) * weight
    return y if residual is None else (y, h)


def make_inputs(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal rows of very different magnitudes: every fourth large, small, or of equal values."""
    sizes = case.sizes
    dtype = spec.precision(case.precision).dtypes["x"].torch()
    x = torch.randn((sizes["T"], sizes["D"]), generator=generator)
    x[1::4] *= 1000.0
    x[2::4] *= 1e-3
    x[3::4] = x[3::4, :1]
    found = {
        "x": x.to(dtype),
        "weight": torch.randn((sizes["D"],), generator=generator).to(dtype),
    }
    if case.flags["residual"] == "yes":
        residual = torch.randn((sizes["T"], sizes["D"]), generator=generator)
        found["residual"] = residual.to(dtype)
    return found
