"""silu_mul in plain torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec


def silu_mul(gate_up: Tensor) -> Tensor:
    """y [T,W/2] of gate_up [T,W]: g / (1 + e^-g) * up, so that a gate of -inf gives NaN."""
    half = gate_up.shape[-1] // 2
    gate, up = gate_up[:, :half], gate_up[:, half:]
    return gate / (1 + torch.exp(-gate)) * up


def make_inputs(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal rows; of every four, one has gates far into both saturations and one equal values."""
    sizes = case.sizes
    dtype = spec.precision(case.precision).dtypes["gate_up"].torch()
    x = torch.randn((sizes["T"], sizes["W"]), generator=generator)
    x[1::4, : sizes["W"] // 2] *= 60.0
    x[3::4] = x[3::4, :1]
    return {"gate_up": x.to(dtype)}


def typical(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal values."""
    dtype = spec.precision(case.precision).dtypes["gate_up"].torch()
    x = torch.randn((case.sizes["T"], case.sizes["W"]), generator=generator)
    return {"gate_up": x.to(dtype)}
