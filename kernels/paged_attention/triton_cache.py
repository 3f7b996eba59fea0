"""Blocks of a paged KV cache as values, in Triton: any format, nd or nz, residuals and float vectors fused.

A block is some tokens of one kv head: `page` and `token` [N] say where they lie, `ok` [N] which of them are
there; nothing of the others is read. Scales, masks, ranks and pools are dense.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Values of the constexprs KV and RESIDUAL.
FLOAT = tl.constexpr(0)
C8S = tl.constexpr(1)
C8D = tl.constexpr(2)
KV4 = tl.constexpr(3)
NESTED = tl.constexpr(1)
E3M0 = tl.constexpr(2)


@triton.jit
def codes(
    cache,
    page,
    token,
    head,
    ok,
    stride_page,
    stride_token,
    stride_head,
    stride_block,
    FIRST: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    PACKED: tl.constexpr,  # four channels to a lane
    C0: tl.constexpr,  # lanes of a block of an nz page, 0 for nd
):
    """Channels FIRST to FIRST + COUNT, of WIDTH, as they are stored: `[N, COUNT]`, 0 where there is none."""
    c = FIRST + tl.arange(0, COUNT)
    lane = c
    if PACKED:
        lane = c % (WIDTH // 4)
    place = lane // C0 * stride_block + lane % C0 if C0 > 0 else lane
    row = page * stride_page + token * stride_token + head * stride_head
    mask = ok[:, None] & (c < WIDTH)[None, :]
    x = tl.load(cache + row[:, None] + place[None, :], mask=mask, other=0)
    if PACKED:
        x = (x.to(tl.int32) >> (4 * (c // (WIDTH // 4)))[None, :]) & 15
    return x


@triton.jit
def pool_row(mask, rank, page, token, head, ok, HKV):
    """Whether each token's bit is set in its page-head's mask, and the row of the pool that is then its."""
    at = page * HKV + head
    bits = tl.load(mask + at, mask=ok, other=0).to(tl.int32)
    chosen = ((bits >> token) & 1) != 0
    # Ones below the token's bit: pairs, fours, bytes.
    below = bits & ((1 << token) - 1)
    below -= (below >> 1) & 0x5555
    below = (below & 0x3333) + ((below >> 2) & 0x3333)
    below = (below + (below >> 4)) & 0x0F0F
    first = tl.load(rank + at, mask=ok & chosen, other=0).to(tl.int64)
    return chosen & ok, first + ((below + (below >> 8)) & 31)


@triton.jit
def values(
    x,
    scale,
    zero,
    page,
    token,
    head,
    ok,
    HKV,
    mask,
    rank,
    pool,
    pool_scale,
    fmask,
    frank,
    fpool,
    FIRST: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    KV: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BY_PAGE: tl.constexpr,  # kv4: scale and zero per page and channel, else per token
):
    """What codes `x` of `codes` stand for, in fp32; the meaning of each format: `kernels/_kv/formats.py`."""
    c = FIRST + tl.arange(0, COUNT)
    there = c < WIDTH
    if KV == C8S:
        s = tl.load(scale + head * WIDTH + c, mask=there, other=0)[None, :]
    elif KV == KV4 and BY_PAGE:
        at = (page * HKV + head)[:, None] * WIDTH + c[None, :]
        s = tl.load(scale + at, mask=ok[:, None] & there[None, :], other=0).to(tl.float32)
        z = tl.load(zero + at, mask=ok[:, None] & there[None, :], other=0).to(tl.float32)
    else:
        at = (page * 16 + token) * HKV + head
        s = tl.load(scale + at, mask=ok, other=0).to(tl.float32)[:, None]
        if KV == KV4:
            z = tl.load(zero + at, mask=ok, other=0).to(tl.float32)[:, None]
    y = x.to(tl.float32)
    if RESIDUAL != 0:
        chosen, row = pool_row(mask, rank, page, token, head, ok, HKV)
        place = row[:, None] * (WIDTH // 4) + (c % (WIDTH // 4))[None, :]
        four = tl.load(pool + place, mask=chosen[:, None] & there[None, :], other=0).to(tl.int32)
        four = (four >> (4 * (c // (WIDTH // 4)))[None, :]) & 15
    if RESIDUAL == NESTED:
        # A token without a residual reads 0, which adds nothing.
        y += ((four ^ 8) - 8).to(tl.float32) * 0.0625
    y = y * s
    if KV == KV4:
        y += z
    if RESIDUAL == E3M0:
        own = tl.load(pool_scale + row, mask=chosen, other=0)[:, None]
        error = tl.exp2((four & 7).to(tl.float32) - 7.0) * own
        y += tl.where(four >= 8, -error, error)
    if RESIDUAL != 0:
        chosen, row = pool_row(fmask, frank, page, token, head, ok, HKV)
        place = row[:, None] * WIDTH + c[None, :]
        whole = tl.load(fpool + place, mask=chosen[:, None] & there[None, :], other=0)
        y = tl.where(chosen[:, None], whole.to(tl.float32), y)
    return y
