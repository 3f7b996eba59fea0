"""gemm_w4 in plain torch and fp64: weights dequantised, then multiplied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.kernels.gemm_w4.formats import (
    SYM_ZERO,
    codes_to_panel16,
    codes_to_rows,
    groups_to_panel16,
)

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec

__all__ = ["gemm_w4", "groups_to_panel16", "make_inputs", "codes_to_panel16", "codes_to_rows"]


def dequantised(
    b: Tensor, scale: Tensor, zero: Tensor | None, minimum: Tensor | None, group: int
) -> Tensor:
    """[N,K] fp64 weights of codes b [N,K] and per-group scale, zero, minimum [N,G].

    scale * (code - 8), scale * (code - zero), or scale * code + minimum; exact, since codes have 4 bits and
    scales 11.
    """

    def spread(value: Tensor) -> Tensor:
        return value.double().repeat_interleave(group, dim=1)[:, : b.shape[1]]

    codes = b.double()
    if minimum is not None:
        return codes * spread(scale) + spread(minimum)
    middle = SYM_ZERO if zero is None else spread(zero)
    return (codes - middle) * spread(scale)


def gemm_w4(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    minimum: Tensor | None = None,
    row_scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    case: Case,
) -> Tensor:
    """C [M,N] of a [M,K] and the dequantised weights, times row_scale [M], plus bias [N]; fp64."""
    weights = dequantised(b, scale, zero, minimum, int(case.flags["group"]))
    c = a.double() @ weights.t()
    if row_scale is not None:
        c = c * row_scale.double()[:, None]
    if bias is not None:
        c = c + bias.double()
    return c


def make_inputs(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal activations, or int8 over their whole range; codes over theirs; scales around 0.01.

    Minima put the middle code near zero, as quantisers of weights do.
    """
    m, n, k, g = (case.sizes[name] for name in ("M", "N", "K", "G"))
    dtypes = spec.precision(case.precision).dtypes

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def codes(*shape: int) -> Tensor:
        return torch.randint(16, shape, generator=generator)

    scale = (0.01 * torch.exp(0.5 * normal(n, g))).half()
    found = {"b": codes(n, k).to(torch.int32), "scale": scale}
    if case.flags["activations"] == "int8":
        found["a"] = torch.randint(-128, 128, (m, k), generator=generator).to(torch.int8)
        found["row_scale"] = 0.01 * torch.exp(0.5 * normal(m))
    else:
        found["a"] = normal(m, k).to(dtypes["a"].torch())
    if case.flags["zero"] == "asym":
        found["zero"] = codes(n, g).to(torch.uint8)
    if case.flags["zero"] == "min":
        found["minimum"] = (-7.5 * scale.float() * torch.exp(0.3 * normal(n, g))).half()
    if case.flags["bias"] == "yes":
        found["bias"] = normal(n).to(dtypes["bias"].torch())
    return found
