"""grouped_gemm in plain torch and fp64: one product a group, slow and obvious."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.kernels.gemm import reference as gemm
from tilewright.kernels.grouped_gemm.spec import experts_used, rows_used

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec


def grouped_gemm(
    a: Tensor,
    b: Tensor,
    ends: Tensor,
    bias: Tensor | None = None,
    row_scale: Tensor | None = None,
    col_scale: Tensor | None = None,
) -> Tensor:
    """C [T,N] in fp64: rows ends[e-1]..ends[e] of a [T,K] times b[e] [N,K], scaled, plus bias[e]; other rows are 0."""
    c = torch.zeros((a.shape[0], b.shape[1]), dtype=torch.float64)
    begin = 0
    for expert, end in enumerate(ends.tolist()):
        c[begin:end] = gemm.gemm(
            a[begin:end],
            b[expert].t(),
            None if bias is None else bias[expert],
            None if row_scale is None else row_scale[begin:end],
            None if col_scale is None else col_scale[expert],
        )
        begin = end
    return c


def to_panel16(b: Tensor, sizes: Mapping[str, float]) -> Tensor:
    """[E,N,K] to [E, ceil(N/16), ceil(K/KR), 16, KR]: gemm's panel16, expert by expert.

    Bundles take it as it stands, so that it calls nothing of gemm's.
    """
    kr = int(sizes["KR"])
    experts, n, k = b.shape
    panels, groups = -(-n // 16), -(-k // kr)
    room = torch.zeros((experts, panels * 16, groups * kr), dtype=b.dtype)
    room[:, :n, :k] = b
    return room.view(experts, panels, 16, groups, kr).permute(0, 1, 3, 2, 4).contiguous()


def make_inputs(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal values, int8 over its whole range; groups as a router makes them: a few large, many small, some empty."""
    size = case.sizes
    dtypes = spec.precision(case.precision).dtypes
    found = {"ends": draw_ends(size["T"], size["E"], generator)}
    for tensor in spec.inputs:
        if tensor.name in found or not tensor.present(case):
            continue
        shape, dtype = [size[str(d)] for d in tensor.dims], dtypes[tensor.name]
        if dtype.is_integer:
            low, high = (-128, 128) if dtype.bytes == 1 else (-100_000, 100_001)
            drawn = torch.randint(low, high, shape, generator=generator)
        else:
            drawn = torch.randn(shape, generator=generator)
            drawn = drawn.abs() * 0.01 + 0.001 if tensor.init == "scale" else drawn
        found[tensor.name] = drawn.to(dtype.torch())
    return found


def draw_ends(rows: int, experts: int, generator: torch.Generator) -> Tensor:
    """[E] int32, where each group ends: `experts_used` groups at random places share `rows_used` rows."""
    used, taken = experts_used(rows, experts), rows_used(rows, experts)
    counts = torch.zeros(experts, dtype=torch.int64)
    if used:
        chosen = torch.randperm(experts, generator=generator)[:used]
        weights = torch.empty(used).exponential_(generator=generator)
        extra = torch.multinomial(weights, max(1, taken - used), True, generator=generator)
        counts[chosen] = 1 + torch.bincount(extra[: taken - used], minlength=used)
    return counts.cumsum(0).to(torch.int32)
