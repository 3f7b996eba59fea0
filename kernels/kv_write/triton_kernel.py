# A @triton.jit function is source for another compiler; its parameters have no Python types.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""The kernel of kv_write: a program writes one head of `TILE_T` tokens, its key and its value.

Every format is written where its row is read: a range is searched in one pass over the channels, codes are
made in a second. Keys of 4 bits go by pages, so a token's program either keeps its key in the open page, or,
where it brings the page's last token, quantises all sixteen.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tilewright.kernels._triton.kv import (
    lane_offsets,
    quantise4,
    range4,
    reciprocal,
    rint,
    scale8,
    token_range,
)


@triton.jit
def put_floats(
    row, place, held, D, stride_block, stride_lane, C0: tl.constexpr, BLOCK: tl.constexpr
):
    """Rows as they are; `row` and `place` are where a token's head begins."""
    for start in range(0, D, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        move = held[:, None] & (channel < D)[None, :]
        lane = lane_offsets(channel, stride_block, stride_lane, C0)
        value = tl.load(row[:, None] + channel[None, :], mask=move, other=0)
        tl.store(place[:, None] + lane[None, :], value, mask=move)


@triton.jit
def put_int8(
    row, place, held, scale, D, stride_block, stride_lane, C0: tl.constexpr, BLOCK: tl.constexpr,
    BY_CHANNEL: tl.constexpr,
):  # fmt: skip
    """int8 codes under the head's scales by channel (an address), or each token's (values)."""
    for start in range(0, D, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        inside = channel < D
        move = held[:, None] & inside[None, :]
        lane = lane_offsets(channel, stride_block, stride_lane, C0)
        x = tl.load(row[:, None] + channel[None, :], mask=move, other=0).to(tl.float32)
        if BY_CHANNEL:
            r = reciprocal(tl.load(scale + channel, mask=inside, other=1.0))[None, :]
        else:
            r = reciprocal(scale)[:, None]
        code = rint(x * r, -127.0, 127.0).to(tl.int8)
        tl.store(place[:, None] + lane[None, :], code, mask=move)


@triton.jit
def put_dynamic(
    row, place, held, scale_place, D, stride_block, stride_lane, C0: tl.constexpr,
    TILE_T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """int8 codes and the scale of each token."""
    low, high = token_range(row, held, D, TILE_T, BLOCK)
    largest = tl.maximum(tl.maximum(high, -low), 0.0)
    scale = scale8(largest)
    tl.store(scale_place, scale, mask=held)
    put_int8(row, place, held, scale, D, stride_block, stride_lane, C0, BLOCK, False)


@triton.jit
def put_four(
    row, place, held, scale_place, zero_place, D, stride_block, stride_lane, C0: tl.constexpr,
    TILE_T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """4-bit codes, scale and zero of each token."""
    low, high = token_range(row, held, D, TILE_T, BLOCK)
    some = held & (D > 0)
    scale, zero = range4(tl.where(some, low, 0.0), tl.where(some, high, 0.0))
    tl.store(scale_place, scale.to(tl.float16), mask=some)
    tl.store(zero_place, zero.to(tl.float16), mask=some)
    lanes = D // 4
    for start in range(0, lanes, BLOCK):
        at = start + tl.arange(0, BLOCK)
        move = held[:, None] & (at < lanes)[None, :]
        packed = tl.zeros((TILE_T, BLOCK), tl.int32)
        for j in tl.static_range(4):
            x = tl.load(row[:, None] + (j * lanes + at)[None, :], mask=move, other=0)
            code = quantise4(x.to(tl.float32), scale[:, None], zero[:, None])
            packed = packed | (code << (4 * j))
        lane = lane_offsets(at, stride_block, stride_lane, C0)
        tl.store(place[:, None] + lane[None, :], packed.to(tl.int16), mask=move)


@triton.jit
def close_page(
    k, slots, T, token, slot, open_head, stride_open, place, stride_token, stride_block, stride_lane,
    scale_head, zero_head, stride_kt, D, C0: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The sixteen keys of a page whose last one is `token`: those of the call from `k`, the others from the open page.

    `k` is the head of token 0, `open_head` of the open page's token 0, `place` of the page's.
    """
    each = tl.arange(0, PAGE)
    back = token - (PAGE - 1) + each
    before = tl.load(slots + back, mask=back >= 0, other=-1)
    new = (back >= 0) & (before == slot - (PAGE - 1) + each)
    new_row = k + back.to(tl.int64) * stride_kt
    old_row = open_head + each.to(tl.int64) * stride_open
    lanes = D // 4
    for start in range(0, lanes, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < lanes
        packed = tl.zeros((PAGE, BLOCK), tl.int32)
        for j in tl.static_range(4):
            channel = j * lanes + at
            x = tl.load(
                new_row[:, None] + channel[None, :], mask=new[:, None] & inside[None, :], other=0
            ).to(tl.float32)
            y = tl.load(
                old_row[:, None] + channel[None, :],
                mask=(new == 0)[:, None] & inside[None, :],
                other=0,
            ).to(tl.float32)
            x = tl.where(new[:, None], x, y)
            scale, zero = range4(tl.min(x, axis=0), tl.max(x, axis=0))
            tl.store(scale_head + channel, scale.to(tl.float16), mask=inside)
            tl.store(zero_head + channel, zero.to(tl.float16), mask=inside)
            packed = packed | (quantise4(x, scale[None, :], zero[None, :]) << (4 * j))
        lane = lane_offsets(at, stride_block, stride_lane, C0)
        tl.store(
            (place + each.to(tl.int64) * stride_token)[:, None] + lane[None, :],
            packed.to(tl.int16),
            mask=(each >= 0)[:, None] & inside[None, :],
        )


@triton.jit
def keep_key(row, place, keep, D, BLOCK: tl.constexpr):
    """One key to the open page, if `keep` says so."""
    for start in range(0, D, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        move = (channel < D) & keep
        tl.store(place + channel, tl.load(row + channel, mask=move, other=0), mask=move)


@triton.jit
def kernel(
    k, v, slots, k_channel_scale, v_channel_scale, open_row, k_cache, v_cache, k_token_scale,
    v_token_scale, v_token_zero, k_page_scale, k_page_zero, k_open, T, HKV, DK, DV, P, NS,
    stride_kt, stride_kh, stride_vt, stride_vh, stride_k_channel, stride_v_channel,
    k_page, k_token, k_head, k_block, k_lane, v_page, v_token, v_head, v_block, v_lane,
    stride_ks0, stride_ks1, stride_ks2, stride_vs0, stride_vs1, stride_vs2,
    stride_vz0, stride_vz1, stride_vz2, stride_ps0, stride_ps1, stride_pz0, stride_pz1,
    stride_open0, stride_open1, stride_open2,
    KV: tl.constexpr, C0: tl.constexpr, PAGE: tl.constexpr, TILE_T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """k[T,HKV,DK] and v[T,HKV,DV] into pages by slots; KV 0 float, 1 c8s, 2 c8d, 3 kv4. See `spec.py`."""
    program = tl.program_id(0)
    head = (program % HKV).to(tl.int64)
    first = (program // HKV) * TILE_T
    token = first + tl.arange(0, TILE_T)
    slot = tl.load(slots + token, mask=token < T, other=-1)
    held = (slot >= 0) & (slot < P * PAGE)
    page = (slot // PAGE).to(tl.int64)
    at = (slot % PAGE).to(tl.int64)
    k_row = k + token.to(tl.int64) * stride_kt + head * stride_kh
    v_row = v + token.to(tl.int64) * stride_vt + head * stride_vh
    k_place = k_cache + page * k_page + at * k_token + head * k_head
    v_place = v_cache + page * v_page + at * v_token + head * v_head
    if KV == 0:
        put_floats(k_row, k_place, held, DK, k_block, k_lane, C0, BLOCK)
        put_floats(v_row, v_place, held, DV, v_block, v_lane, C0, BLOCK)
    elif KV == 1:
        k_scale = k_channel_scale + head * stride_k_channel
        v_scale = v_channel_scale + head * stride_v_channel
        put_int8(k_row, k_place, held, k_scale, DK, k_block, k_lane, C0, BLOCK, True)
        put_int8(v_row, v_place, held, v_scale, DV, v_block, v_lane, C0, BLOCK, True)
    elif KV == 2:
        k_scale = k_token_scale + page * stride_ks0 + at * stride_ks1 + head * stride_ks2
        v_scale = v_token_scale + page * stride_vs0 + at * stride_vs1 + head * stride_vs2
        put_dynamic(k_row, k_place, held, k_scale, DK, k_block, k_lane, C0, TILE_T, BLOCK)
        put_dynamic(v_row, v_place, held, v_scale, DV, v_block, v_lane, C0, TILE_T, BLOCK)
    else:
        v_scale = v_token_scale + page * stride_vs0 + at * stride_vs1 + head * stride_vs2
        v_zero = v_token_zero + page * stride_vz0 + at * stride_vz1 + head * stride_vz2
        put_four(v_row, v_place, held, v_scale, v_zero, DV, v_block, v_lane, C0, TILE_T, BLOCK)
        for step in range(TILE_T):
            one = first + step
            its = tl.load(slots + one, mask=one < T, other=-1)
            there = (its >= 0) & (its < P * PAGE)
            place = its % PAGE
            last = one + (PAGE - 1) - place
            ends = tl.load(slots + last, mask=there & (last < T), other=-1)
            closes = there & (last < T) & (ends == its + (PAGE - 1) - place)
            line = tl.load(open_row + one, mask=there, other=0)
            known = there & (line >= 0) & (line < NS)
            open_head = k_open + line.to(tl.int64) * stride_open0 + head * stride_open2
            key = k + one.to(tl.int64) * stride_kt + head * stride_kh
            keep = known & (closes == 0)
            keep_key(key, open_head + place.to(tl.int64) * stride_open1, keep, DK, BLOCK)
            if closes & known & (place == PAGE - 1):
                where = (its // PAGE).to(tl.int64)
                close_page(
                    k + head * stride_kh, slots, T, one, its, open_head, stride_open1,
                    k_cache + where * k_page + head * k_head, k_token, k_block, k_lane,
                    k_page_scale + where * stride_ps0 + head * stride_ps1,
                    k_page_zero + where * stride_pz0 + head * stride_pz1,
                    stride_kt, DK, C0, PAGE, BLOCK,
                )  # fmt: skip
