"""gemm in plain torch and fp64: slow, obvious, and what every backend is compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def gemm(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    row_scale: Tensor | None = None,
    col_scale: Tensor | None = None,
) -> Tensor:
    """C[M,N] = A[M,K] @ B[K,N], scaled per row and per column, plus bias[N]; fp64.

    int8 products summed in fp64 are exact up to K = 2**39.
    """
    c = a.to(torch.float64) @ b.to(torch.float64)
    if row_scale is not None:
        c = c * row_scale[:, None]
    if col_scale is not None:
        c = c * col_scale[None, :]
    if bias is not None:
        c = c + bias.to(torch.float64)[None, :]
    return c


def to_nk(b: Tensor, sizes: Mapping[str, float]) -> Tensor:
    """[K,N] to [N,K], the layout of torch's Linear weights."""
    return b.t().contiguous()


def to_panel16(b: Tensor, sizes: Mapping[str, float]) -> Tensor:
    """[K,N] to [ceil(N/16), ceil(K/KR), 16, KR], zero padded.

    A panel is 16 columns; within it the KR consecutive k values of one column lie together, which is
    what dot-product instructions load (KR = 4 / element size; 1 for fp16). 64 bytes a row for fp32,
    bf16 and int8.
    """
    kr = int(sizes["KR"])
    k, n = b.shape
    panels, groups = -(-n // 16), -(-k // kr)
    room = torch.zeros((groups * kr, panels * 16), dtype=b.dtype)
    room[:k, :n] = b
    return room.view(groups, kr, panels, 16).permute(2, 0, 3, 1).contiguous()
