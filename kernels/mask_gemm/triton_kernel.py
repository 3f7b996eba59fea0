"""The kernels of mask_gemm in Triton: rows grouped by path, then tiles of one path each."""

from __future__ import annotations

import triton
import triton.language as tl

from tilewright.kernels._triton.product import sum_products
from tilewright.kernels.mask_gemm import layout

# Before the order of rows: how many run in bf16 and how many in int8.
HEADER = tl.constexpr(4)
BITS = tl.constexpr(layout.BITS)
STEP_WORDS = tl.constexpr(layout.STEP_WORDS)
GROUP_ROWS = tl.constexpr(layout.GROUP_ROWS)
MOST_ROWS = tl.constexpr(layout.MOST_ROWS)
REQUESTS = tl.constexpr(layout.REQUESTS)
NO_REQUEST = tl.constexpr(layout.NO_REQUEST)


# A layer of 1 would become a constexpr, which has no type to shift by.
@triton.jit(do_not_specialize=["layer"])
def group(
    selection,
    owner,
    order,
    counts,
    M,
    W,
    layer,
    stride_word,
    stride_owner,
    stride_count,
    BLOCK: tl.constexpr,
    RESIDENT: tl.constexpr,
):
    """One program: rows in int8 from the front of `order`, rows in bf16 from its back, and the counts."""
    # What has no bit is not selected: a layer beyond the words, a row beyond the groups, an owner that is none.
    known = (layer >= 0) & (layer // BITS < W - STEP_WORDS)
    word = tl.load(selection + tl.where(known, layer // BITS, 0).to(tl.int64) * stride_word)
    whole = (word >> (layer % BITS).to(tl.int64)) & tl.where(known, 1, 0)
    last = selection + (W - STEP_WORDS).to(tl.int64) * stride_word
    groups = tl.load(last)
    requests = tl.load(last + stride_word)
    selected = tl.full((), 0, tl.int32)
    for start in range(0, M, BLOCK):
        rows = start + tl.arange(0, BLOCK)
        there = rows < M
        slot = tl.load(owner + rows.to(tl.int64) * stride_owner, mask=there, other=NO_REQUEST)
        owned = (slot >= 0) & (slot < REQUESTS)
        bit = (requests >> tl.where(owned, slot, 0).to(tl.int64)) & tl.where(owned, 1, 0)
        grouped = (groups >> (rows // GROUP_ROWS % BITS).to(tl.int64)) & tl.where(
            rows < MOST_ROWS, 1, 0
        )
        bit = bit | grouped | whole
        bit = tl.where(there, bit, 0).to(tl.int32)
        before = selected + tl.cumsum(bit, axis=0) - bit
        place = tl.where(bit == 1, M - 1 - before, rows - before) if RESIDENT else rows
        tl.store(order + HEADER + place, rows, mask=there)
        selected += tl.sum(bit, axis=0)
    in_bf16 = selected if RESIDENT else selected * 0
    tl.store(order, in_bf16)
    tl.store(order + 1, M - in_bf16)
    tl.store(counts, in_bf16)
    tl.store(counts + stride_count, M - in_bf16)
    tl.store(counts + tl.full((), 2, tl.int64) * stride_count, selected - in_bf16)


@triton.jit
def product(
    a,
    b,
    rows,
    row_ok,
    cols,
    col_ok,
    K,
    stride_am,
    stride_ak,
    stride_bn,
    stride_bk,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    ACCUMULATE: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Sums over K of rows of a [M,K] with rows of b [N,K], those that `rows` and `cols` number."""
    ks64 = tl.arange(0, TILE_K).to(tl.int64)
    a_tile = a + rows.to(tl.int64)[:, None] * stride_am + ks64[None, :] * stride_ak
    b_tile = b + ks64[:, None] * stride_bk + cols.to(tl.int64)[None, :] * stride_bn
    return sum_products(
        a_tile, b_tile, row_ok, col_ok, 0, K, stride_ak, stride_bk,
        TILE_M, TILE_N, TILE_K, ACCUMULATE, WIDEN,
    )  # fmt: skip


@triton.jit
def write(result, bias, c, rows, row_ok, cols, col_ok, stride_bias, stride_cm, stride_cn):
    """Rows of c from fp32 results [rows, cols], plus the bias where there is one."""
    cols64 = cols.to(tl.int64)
    if bias is not None:
        # One binary serves both cases: a null bias masks its own load.
        given = bias.to(tl.int64) != 0
        addend = tl.load(bias + cols64 * stride_bias, mask=col_ok & given, other=0)
        result = result + addend[None, :]
    c_tile = c + rows.to(tl.int64)[:, None] * stride_cm + cols64[None, :] * stride_cn
    tl.store(c_tile, result.to(c.dtype.element_ty), mask=row_ok[:, None] & col_ok[None, :])


@triton.jit
def kernel(
    order,
    a8,
    row_scale,
    b8,
    col_scale,
    a,
    b16,
    bias,
    c,
    M,
    N,
    K,
    stride_a8m,
    stride_a8k,
    stride_row_scale,
    stride_b8n,
    stride_b8k,
    stride_col_scale,
    stride_am,
    stride_ak,
    stride_b16n,
    stride_b16k,
    stride_bias,
    stride_cm,
    stride_cn,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    RESIDENT: tl.constexpr,
    WIDEN: tl.constexpr,  # cast operands to fp32 after the load, see tilewright.interpret
):
    """One tile of one path: the tiles of bf16 rows come first, the last one may have no rows."""
    tiles_n = tl.cdiv(N, TILE_N)
    tiles_m = tl.cdiv(M, TILE_M) + (1 if RESIDENT else 0)
    program = tl.program_id(0)
    tile_row, tile_col = tl.swizzle2d(
        program // tiles_n, program % tiles_n, tiles_m, tiles_n, GROUP_M
    )
    cols = tile_col * TILE_N + tl.arange(0, TILE_N)
    col_ok = cols < N
    ranks = tile_row * TILE_M + tl.arange(0, TILE_M)
    in_int8 = tl.load(order + 1)
    if RESIDENT:
        in_bf16 = tl.load(order)
        first = tl.cdiv(in_bf16, TILE_M)  # tile of int8 rows
    else:
        in_bf16 = in_int8 * 0
        first = in_bf16
    if tile_row < first:
        if RESIDENT:
            row_ok = ranks < in_bf16
            rows = tl.load(order + HEADER + M - 1 - ranks, mask=row_ok, other=0)
            sums = product(
                a, b16, rows, row_ok, cols, col_ok, K,
                stride_am, stride_ak, stride_b16n, stride_b16k,
                TILE_M, TILE_N, TILE_K, tl.float32, WIDEN,
            )  # fmt: skip
            write(sums, bias, c, rows, row_ok, cols, col_ok, stride_bias, stride_cm, stride_cn)
    else:
        ranks -= first * TILE_M
        row_ok = ranks < in_int8
        rows = tl.load(order + HEADER + ranks, mask=row_ok, other=0)
        if (tile_row - first) * TILE_M < in_int8:
            total = product(
                a8, b8, rows, row_ok, cols, col_ok, K,
                stride_a8m, stride_a8k, stride_b8n, stride_b8k,
                TILE_M, TILE_N, TILE_K, tl.int32, False,
            )  # fmt: skip
            rows64 = rows.to(tl.int64)
            by_row = tl.load(row_scale + rows64 * stride_row_scale, mask=row_ok, other=0)
            by_col = tl.load(col_scale + cols.to(tl.int64) * stride_col_scale, mask=col_ok, other=0)
            result = total.to(tl.float32) * by_row[:, None] * by_col[None, :]
            write(result, bias, c, rows, row_ok, cols, col_ok, stride_bias, stride_cm, stride_cn)
