# A @triton.jit function is source for another compiler; its parameters have no Python types.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""The kernels of kv_residual (KV 0 c8s, 1 c8d, 2 kv4_key, 3 kv4_value): a program writes, or reads, one head of one page.

Channels go in quarters: lane i of a 4-bit tensor holds channels i, L + i, 2L + i and 3L + i of L = D/4, so four
loads side by side make one store without a shuffle. Where a run of residuals begins follows from the
selection alone, so each program counts what the runs before its own take, and none waits for another.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tilewright.kernels._triton.kv import (
    TINY,
    lane_offsets,
    quantise4,
    range4,
    reciprocal,
    rint,
    scale8,
    token_range,
)


@triton.jit
def run_lengths(
    select, first, runs, HKV, stride_n, stride_t, stride_h, KIND: tl.constexpr, PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """How many tokens of runs first, first + 1, ... (those below `runs`) are selected as KIND."""
    run = first + tl.arange(0, BLOCK)
    token = tl.arange(0, PAGE)
    heads = tl.maximum(HKV, 1)
    place = (run // heads).to(tl.int64) * stride_n + (run % heads).to(tl.int64) * stride_h
    kind = tl.load(
        select + place[:, None] + token[None, :] * stride_t,
        mask=(run < runs)[:, None] & (token >= 0)[None, :],
        other=0,
    ).to(tl.int32)
    return tl.sum((kind == KIND).to(tl.int32), axis=1)


@triton.jit
def taken_before(
    select, program, used, HKV, stride_n, stride_t, stride_h, KIND: tl.constexpr,
    PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The row at which a run begins: `used` and the lengths of all runs before it."""
    total = used
    for first in range(0, program, BLOCK):
        total += tl.sum(
            run_lengths(
                select, first, program, HKV, stride_n, stride_t, stride_h, KIND, PAGE, BLOCK
            ),
            axis=0,
        )
    return total


@triton.jit
def taken_after(
    select, runs, used, rows, HKV, stride_n, stride_t, stride_h, KIND: tl.constexpr,
    PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The rows in use once every run that fits has its place: the end of the last one that does."""
    total = used
    last = used
    for first in range(0, runs, BLOCK):
        count = run_lengths(
            select, first, runs, HKV, stride_n, stride_t, stride_h, KIND, PAGE, BLOCK
        )
        end = total + tl.cumsum(count, axis=0)
        last = tl.maximum(last, tl.max(tl.where(end <= rows, end, used), axis=0))
        total += tl.sum(count, axis=0)
    return last


@triton.jit
def place_run(kind, start, rows, KIND: tl.constexpr, PAGE: tl.constexpr):
    """(mask, rank, bit and row of each token) of a run that begins at `start`; all 0 where it does not fit."""
    bit = (kind == KIND).to(tl.int32)
    count = tl.sum(bit, axis=0)
    fits = (count > 0) & (start + count <= rows)
    bit = tl.where(fits, bit, 0)
    row = start + tl.cumsum(bit, axis=0) - bit
    mask = tl.sum(bit << tl.arange(0, PAGE), axis=0)
    return mask, tl.where(fits, start, 0), bit == 1, row


@triton.jit
def plain8(x, scale):
    """int8 codes as fp32."""
    return rint(x * reciprocal(scale), -127.0, 127.0)


@triton.jit
def nested(x, scale, zero, FOUR: tl.constexpr):
    """(base code, n) as int32 of the code at 16 times the resolution."""
    fine = 16.0 * reciprocal(scale)
    if FOUR:
        c = rint((x - zero) * fine, 0.0, 247.0).to(tl.int32)
    else:
        c = rint(x * fine, -2040.0, 2039.0).to(tl.int32)
    base = (c + 8) >> 4
    return base, c - base * 16


@triton.jit
def plain_code(x, scale, zero, FOUR: tl.constexpr):
    """Base codes as int32."""
    return quantise4(x, scale, zero) if FOUR else plain8(x, scale).to(tl.int32)


@triton.jit
def plain_value(code, scale, zero, FOUR: tl.constexpr):
    """What base codes stand for, fp32."""
    value = scale * code.to(tl.float32)
    if FOUR:
        value = zero + value
    return value


@triton.jit
def e3m0(error, scale):
    """Nibbles of errors under each vector's scale."""
    safe = tl.where(scale < TINY, 1.0, scale)
    bits = (tl.abs(error) * reciprocal(safe)).to(tl.int32, bitcast=True)
    exponent = tl.minimum(tl.maximum(((bits + 0x400000) >> 23) - 120, 0), 7)
    sign = (error.to(tl.int32, bitcast=True) >> 31) & 1
    return exponent + sign * 8


@triton.jit
def e3m0_value(nibble, scale):
    """What nibbles stand for: sign and power of two, times the scale."""
    power = (((nibble & 7) + 120) << 23).to(tl.float32, bitcast=True)
    return tl.where(nibble >= 8, -power, power) * scale


@triton.jit
def scales_of_channels(head, channel, inside, x, KV: tl.constexpr):
    """(scale, zero) by channel of a tile: loaded for c8s, found over the page's tokens for 4-bit keys."""
    if KV == 0:
        scale = tl.load(head + channel, mask=inside, other=1.0)
        zero = scale
    else:
        scale, zero = range4(tl.min(x, axis=0), tl.max(x, axis=0))
    return scale, zero


@triton.jit
def write_kernel(
    x, page_ids, select, channel_scale, used_before, codes, token_scale, token_zero, page_scale,
    page_zero, mask, rank, pool, pool_scale, fmask, frank, fpool, used_after, N, HKV, D, P, R, F,
    stride_xn, stride_xt, stride_xh, stride_sn, stride_st, stride_sh, stride_channel,
    stride_page, stride_token, stride_head, stride_block, stride_lane,
    stride_ts0, stride_ts1, stride_ts2, stride_tz0, stride_tz1, stride_tz2,
    stride_ps0, stride_ps1, stride_pz0, stride_pz1, stride_m0, stride_m1, stride_r0, stride_r1,
    stride_fm0, stride_fm1, stride_fr0, stride_fr1, stride_pool, stride_scale, stride_fpool,
    KV: tl.constexpr, E3M0: tl.constexpr, C0: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
    RUNS: tl.constexpr,
):  # fmt: skip
    """Page n, head h of x[N,16,HKV,D] to codes with residuals; program n * HKV + h."""
    FOUR: tl.constexpr = KV >= 2
    BY_TOKEN: tl.constexpr = (KV == 1) or (KV == 3)
    program = tl.program_id(0)
    runs = N * HKV
    used = tl.load(used_before)
    fused = tl.load(used_before + 1)
    if program == 0:
        after = taken_after(
            select, runs, used, R, HKV, stride_sn, stride_st, stride_sh, 1, PAGE, RUNS
        )
        fafter = taken_after(
            select, runs, fused, F, HKV, stride_sn, stride_st, stride_sh, 2, PAGE, RUNS
        )
        tl.store(used_after, after)
        tl.store(used_after + 1, fafter)
    heads = tl.maximum(HKV, 1)
    n = (program // heads).to(tl.int64)
    h = (program % heads).to(tl.int64)
    there = program < runs
    page = tl.load(page_ids + n, mask=there, other=-1).to(tl.int64)
    there = there & (page >= 0) & (page < P)
    token = tl.arange(0, PAGE)
    held = (token >= 0) & there
    kind = tl.load(
        select + n * stride_sn + h * stride_sh + token * stride_st, mask=held, other=0
    ).to(tl.int32)
    start = taken_before(select, program, used, HKV, stride_sn, stride_st, stride_sh, 1, PAGE, RUNS)
    fstart = taken_before(
        select, program, fused, HKV, stride_sn, stride_st, stride_sh, 2, PAGE, RUNS
    )
    bits, first, chosen, row = place_run(kind, start, R, 1, PAGE)
    fbits, ffirst, fchosen, frow = place_run(kind, fstart, F, 2, PAGE)
    tl.store(mask + page * stride_m0 + h * stride_m1, bits.to(tl.int16), mask=there)
    tl.store(rank + page * stride_r0 + h * stride_r1, first, mask=there)
    tl.store(fmask + page * stride_fm0 + h * stride_fm1, fbits.to(tl.int16), mask=there)
    tl.store(frank + page * stride_fr0 + h * stride_fr1, ffirst, mask=there)

    x_row = x + n * stride_xn + h * stride_xh + token * stride_xt
    place = codes + page * stride_page + h * stride_head + token * stride_token
    t_scale = tl.full((PAGE,), 1.0, tl.float32)
    t_zero = tl.zeros((PAGE,), tl.float32)
    if BY_TOKEN:
        low, high = token_range(x_row, held, D, PAGE, BLOCK)
        scales = token_scale + page * stride_ts0 + h * stride_ts2 + token * stride_ts1
        if FOUR:
            some = held & (D > 0)
            t_scale, t_zero = range4(tl.where(some, low, 0.0), tl.where(some, high, 0.0))
            tl.store(scales, t_scale.to(tl.float16), mask=held)
            tl.store(
                token_zero + page * stride_tz0 + h * stride_tz2 + token * stride_tz1,
                t_zero.to(tl.float16),
                mask=held,
            )
        else:
            t_scale = scale8(tl.maximum(tl.maximum(high, -low), 0.0))
            tl.store(scales, t_scale, mask=held)
    lanes = D // 4
    channels = channel_scale + h * stride_channel if KV == 0 else x
    p_scale = page_scale + page * stride_ps0 + h * stride_ps1 if KV == 2 else x
    p_zero = page_zero + page * stride_pz0 + h * stride_pz1 if KV == 2 else x

    largest = tl.zeros((PAGE,), tl.float32)
    if E3M0:
        for begin in range(0, D, BLOCK):
            channel = begin + tl.arange(0, BLOCK)
            inside = channel < D
            move = held[:, None] & inside[None, :]
            v = tl.load(x_row[:, None] + channel[None, :], mask=move, other=0).to(tl.float32)
            if BY_TOKEN:
                scale = t_scale[:, None]
                zero = t_zero[:, None]
            else:
                c_scale, c_zero = scales_of_channels(channels, channel, inside & there, v, KV)
                scale = c_scale[None, :]
                zero = c_zero[None, :]
            error = v - plain_value(plain_code(v, scale, zero, FOUR), scale, zero, FOUR)
            largest = tl.maximum(largest, tl.max(tl.where(move, tl.abs(error), 0.0), axis=1))
        tl.store(pool_scale + row.to(tl.int64) * stride_scale, largest, mask=chosen)

    for begin in range(0, lanes, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        inside = at < lanes
        move = held[:, None] & inside[None, :]
        packed = tl.zeros((PAGE, BLOCK), tl.int32)
        extra = tl.zeros((PAGE, BLOCK), tl.int32)
        for j in tl.static_range(4):
            channel = j * lanes + at
            raw = tl.load(x_row[:, None] + channel[None, :], mask=move, other=0)
            v = raw.to(tl.float32)
            if BY_TOKEN:
                scale = t_scale[:, None]
                zero = t_zero[:, None]
            else:
                c_scale, c_zero = scales_of_channels(channels, channel, inside & there, v, KV)
                if KV == 2:
                    tl.store(p_scale + channel, c_scale.to(tl.float16), mask=inside & there)
                    tl.store(p_zero + channel, c_zero.to(tl.float16), mask=inside & there)
                scale = c_scale[None, :]
                zero = c_zero[None, :]
            code = plain_code(v, scale, zero, FOUR)
            if E3M0:
                error = v - plain_value(code, scale, zero, FOUR)
                small = e3m0(error, largest[:, None])
            else:
                fine, small = nested(v, scale, zero, FOUR)
                code = tl.where(chosen[:, None], fine, code)
            extra = extra | ((small & 15) << (4 * j))
            if FOUR:
                packed = packed | (code << (4 * j))
            else:
                lane = lane_offsets(channel, stride_block, stride_lane, C0)
                tl.store(place[:, None] + lane[None, :], code.to(tl.int8), mask=move)
            tl.store(
                fpool + frow.to(tl.int64)[:, None] * stride_fpool + channel[None, :],
                raw,
                mask=fchosen[:, None] & inside[None, :],
            )
        if FOUR:
            lane = lane_offsets(at, stride_block, stride_lane, C0)
            tl.store(place[:, None] + lane[None, :], packed.to(tl.int16), mask=move)
        tl.store(
            pool + row.to(tl.int64)[:, None] * stride_pool + at[None, :],
            extra.to(tl.int16),
            mask=chosen[:, None] & inside[None, :],
        )


@triton.jit
def rows_of(mask, rank, PAGE: tl.constexpr):
    """Whether each token of a page and head is in a mask, and its row in the pool."""
    bit = (mask.to(tl.int32) >> tl.arange(0, PAGE)) & 1
    return bit == 1, rank + tl.cumsum(bit, axis=0) - bit


@triton.jit
def read_kernel(
    page_ids, channel_scale, codes, token_scale, token_zero, page_scale, page_zero, mask, rank,
    pool, pool_scale, fmask, frank, fpool, y, N, HKV, D, P, R, F,
    stride_channel, stride_page, stride_token, stride_head, stride_block, stride_lane,
    stride_ts0, stride_ts1, stride_ts2, stride_tz0, stride_tz1, stride_tz2,
    stride_ps0, stride_ps1, stride_pz0, stride_pz1, stride_m0, stride_m1, stride_r0, stride_r1,
    stride_fm0, stride_fm1, stride_fr0, stride_fr1, stride_pool, stride_scale, stride_fpool,
    stride_yn, stride_yt, stride_yh,
    KV: tl.constexpr, E3M0: tl.constexpr, C0: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y[N,16,HKV,D] from codes with residuals; program n * HKV + h."""
    FOUR: tl.constexpr = KV >= 2
    BY_TOKEN: tl.constexpr = (KV == 1) or (KV == 3)
    program = tl.program_id(0)
    n = (program // HKV).to(tl.int64)
    h = (program % HKV).to(tl.int64)
    page = tl.load(page_ids + n).to(tl.int64)
    there = (page >= 0) & (page < P)
    token = tl.arange(0, PAGE)
    held = (token >= 0) & there
    bits = tl.load(mask + page * stride_m0 + h * stride_m1, mask=there, other=0)
    first = tl.load(rank + page * stride_r0 + h * stride_r1, mask=there, other=0)
    fbits = tl.load(fmask + page * stride_fm0 + h * stride_fm1, mask=there, other=0)
    ffirst = tl.load(frank + page * stride_fr0 + h * stride_fr1, mask=there, other=0)
    chosen, row = rows_of(bits, first, PAGE)
    fchosen, frow = rows_of(fbits, ffirst, PAGE)
    # Rows beyond the pool are no memory of ours.
    chosen = chosen & (row >= 0) & (row < R)
    fchosen = fchosen & (frow >= 0) & (frow < F)
    place = codes + page * stride_page + h * stride_head + token * stride_token
    y_row = y + n * stride_yn + h * stride_yh + token * stride_yt
    t_scale = tl.full((PAGE,), 1.0, tl.float32)
    t_zero = tl.zeros((PAGE,), tl.float32)
    own = tl.zeros((PAGE,), tl.float32)
    if BY_TOKEN:
        scales = token_scale + page * stride_ts0 + h * stride_ts2 + token * stride_ts1
        t_scale = tl.load(scales, mask=held, other=1.0).to(tl.float32)
        if FOUR:
            zeros = token_zero + page * stride_tz0 + h * stride_tz2 + token * stride_tz1
            t_zero = tl.load(zeros, mask=held, other=0.0).to(tl.float32)
    if E3M0:
        own = tl.load(pool_scale + row.to(tl.int64) * stride_scale, mask=chosen, other=0.0)
    lanes = D // 4
    for begin in range(0, lanes, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        inside = at < lanes
        move = held[:, None] & inside[None, :]
        extra = tl.load(
            pool + row.to(tl.int64)[:, None] * stride_pool + at[None, :],
            mask=chosen[:, None] & inside[None, :],
            other=0,
        ).to(tl.int32)
        packed = extra
        if FOUR:
            lane = lane_offsets(at, stride_block, stride_lane, C0)
            packed = tl.load(place[:, None] + lane[None, :], mask=move, other=0).to(tl.int32)
        for j in tl.static_range(4):
            channel = j * lanes + at
            if FOUR:
                code = (packed >> (4 * j)) & 15
            else:
                lane = lane_offsets(channel, stride_block, stride_lane, C0)
                code = tl.load(place[:, None] + lane[None, :], mask=move, other=0).to(tl.int32)
            if BY_TOKEN:
                scale = t_scale[:, None]
                zero = t_zero[:, None]
            elif FOUR:
                where = page * stride_ps0 + h * stride_ps1
                scale = tl.load(page_scale + where + channel, mask=inside & there, other=1.0)
                scale = scale.to(tl.float32)[None, :]
                where = page * stride_pz0 + h * stride_pz1
                zero = tl.load(page_zero + where + channel, mask=inside & there, other=0.0)
                zero = zero.to(tl.float32)[None, :]
            else:
                scale = tl.load(
                    channel_scale + h * stride_channel + channel, mask=inside, other=1.0
                )
                scale = scale[None, :]
                zero = scale
            small = (extra >> (4 * j)) & 15
            if E3M0:
                value = plain_value(code, scale, zero, FOUR)
                value = tl.where(chosen[:, None], value + e3m0_value(small, own[:, None]), value)
            else:
                signed = ((small ^ 8) - 8).to(tl.float32) * 0.0625
                fine = code.to(tl.float32) + tl.where(chosen[:, None], signed, 0.0)
                value = scale * fine
                if FOUR:
                    value = zero + value
            kept = tl.load(
                fpool + frow.to(tl.int64)[:, None] * stride_fpool + channel[None, :],
                mask=fchosen[:, None] & inside[None, :],
                other=0,
            )
            value = tl.where(fchosen[:, None], kept.to(tl.float32), value)
            tl.store(y_row[:, None] + channel[None, :], value.to(y.dtype.element_ty), mask=move)
