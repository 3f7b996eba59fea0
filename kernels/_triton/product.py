# A @triton.jit function is source for another compiler; its parameters have no Python types.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""What Triton kernels of matrix products share: the sum over K of one tile."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sum_products(
    a_tile,
    b_tile,
    row_ok,
    col_ok,
    begin,
    end,
    stride_ak,
    stride_bk,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    ACCUMULATE: tl.constexpr,  # tl.float32, or tl.int32 for int8 operands
    WIDEN: tl.constexpr,  # cast operands to fp32 after the load, see tilewright.interpret
):
    """Sums [TILE_M, TILE_N] over k in [begin, end) of A times B; the tiles of pointers stand at `begin`."""
    ks = tl.arange(0, TILE_K)
    acc = tl.zeros((TILE_M, TILE_N), dtype=ACCUMULATE)
    # In 64 bits before a stride comes to it: a launch from Python passes strides in 32 where they fit.
    depth = tl.full((), TILE_K, tl.int64)
    for k in range(begin, end, TILE_K):
        k_ok = ks < end - k
        x = tl.load(a_tile, mask=row_ok[:, None] & k_ok[None, :], other=0)
        y = tl.load(b_tile, mask=k_ok[:, None] & col_ok[None, :], other=0)
        if WIDEN:
            x = x.to(tl.float32)
            y = y.to(tl.float32)
        acc = tl.dot(x, y, acc, input_precision="ieee", out_dtype=ACCUMULATE)
        a_tile += depth * stride_ak
        b_tile += depth * stride_bk
    return acc
