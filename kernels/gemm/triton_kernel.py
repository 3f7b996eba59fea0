# A @triton.jit function is source for another compiler; its parameters have no Python types.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""The kernels of gemm in Triton: `kernel` makes a tile of C, or of the sums over a part of K, which `merge` adds.

Strides are in elements; offsets have 64 bits, since a tensor may hold more than 2**31 elements.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tilewright.kernels._triton.product import sum_products


@triton.jit
def finish(
    acc,
    rows,
    cols,
    row_ok,
    col_ok,
    bias,
    row_scale,
    col_scale,
    stride_bias,
    stride_row_scale,
    stride_col_scale,
    SCALE: tl.constexpr,  # 0 none, 1 per row and column, 2 per column
):
    """Sums with their scales and bias; `bias` may be null."""
    if SCALE != 0:
        result = acc.to(tl.float32)
        if SCALE == 1:
            by_row = tl.load(row_scale + rows * stride_row_scale, mask=row_ok, other=0)
            result = result * by_row[:, None]
        by_col = tl.load(col_scale + cols * stride_col_scale, mask=col_ok, other=0)
        result = result * by_col[None, :]
    else:
        result = acc
    if bias is not None:
        # One binary serves both cases: a null bias masks its own load.
        given = bias.to(tl.int64) != 0
        addend = tl.load(bias + cols * stride_bias, mask=col_ok & given, other=0)
        result = result + addend.to(result.dtype)[None, :]
    return result


@triton.jit
def kernel(
    a,
    b,
    bias,
    row_scale,
    col_scale,
    c,
    partial,
    M,
    N,
    K,
    stride_am,
    stride_ak,
    stride_bk,
    stride_bn,
    stride_bias,
    stride_row_scale,
    stride_col_scale,
    stride_cm,
    stride_cn,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    SPLIT: tl.constexpr,
    ACCUMULATE: tl.constexpr,
    SCALE: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """C[M,N] = (A[M,K] @ B[K,N]) * scales + bias; with SPLIT, partial[s,M,N] = the sums over part s of K.

    Parts are cut at whole steps of K; program_id(1) is the part.
    """
    tiles_m = tl.cdiv(M, TILE_M)
    tiles_n = tl.cdiv(N, TILE_N)
    program = tl.program_id(0)
    tile_row, tile_col = tl.swizzle2d(
        program // tiles_n, program % tiles_n, tiles_m, tiles_n, GROUP_M
    )
    begin = 0
    end = K
    if SPLIT > 1:
        share = tl.cdiv(tl.cdiv(K, TILE_K), SPLIT) * TILE_K
        begin = tl.minimum(tl.program_id(1) * share, K)
        end = tl.minimum(begin + share, K)
    rows = tile_row * TILE_M + tl.arange(0, TILE_M)
    cols = tile_col * TILE_N + tl.arange(0, TILE_N)
    ks = (begin + tl.arange(0, TILE_K)).to(tl.int64)
    row_ok = rows < M
    col_ok = cols < N
    rows = rows.to(tl.int64)
    cols = cols.to(tl.int64)
    a_tile = a + rows[:, None] * stride_am + ks[None, :] * stride_ak
    b_tile = b + ks[:, None] * stride_bk + cols[None, :] * stride_bn
    acc = sum_products(
        a_tile, b_tile, row_ok, col_ok, begin, end, stride_ak, stride_bk,
        TILE_M, TILE_N, TILE_K, ACCUMULATE, WIDEN,
    )  # fmt: skip
    both = row_ok[:, None] & col_ok[None, :]
    if SPLIT > 1:
        in_all = tl.program_id(1).to(tl.int64) * M + rows
        tl.store(partial + in_all[:, None] * N + cols[None, :], acc, mask=both)
    else:
        result = finish(
            acc, rows, cols, row_ok, col_ok, bias, row_scale, col_scale,
            stride_bias, stride_row_scale, stride_col_scale, SCALE,
        )  # fmt: skip
        c_tile = c + rows[:, None] * stride_cm + cols[None, :] * stride_cn
        tl.store(c_tile, result.to(c.dtype.element_ty), mask=both)


@triton.jit
def merge(
    partial,
    bias,
    row_scale,
    col_scale,
    c,
    M,
    N,
    stride_bias,
    stride_row_scale,
    stride_col_scale,
    stride_cm,
    stride_cn,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    SPLIT: tl.constexpr,
    SCALE: tl.constexpr,
):
    """C[M,N] from partial[SPLIT,M,N], added in the order of K."""
    tiles_n = tl.cdiv(N, COLS)
    program = tl.program_id(0)
    rows = program // tiles_n * ROWS + tl.arange(0, ROWS)
    cols = program % tiles_n * COLS + tl.arange(0, COLS)
    row_ok = rows < M
    col_ok = cols < N
    both = row_ok[:, None] & col_ok[None, :]
    rows = rows.to(tl.int64)
    cols = cols.to(tl.int64)
    acc = tl.load(partial + rows[:, None] * N + cols[None, :], mask=both, other=0)
    for s in tl.static_range(1, SPLIT):
        in_all = tl.full((), s, tl.int64) * M + rows
        acc += tl.load(partial + in_all[:, None] * N + cols[None, :], mask=both, other=0)
    result = finish(
        acc, rows, cols, row_ok, col_ok, bias, row_scale, col_scale,
        stride_bias, stride_row_scale, stride_col_scale, SCALE,
    )  # fmt: skip
    c_tile = c + rows[:, None] * stride_cm + cols[None, :] * stride_cn
    tl.store(c_tile, result.to(c.dtype.element_ty), mask=both)
