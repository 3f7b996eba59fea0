"""The paged attention kernels in Triton: a tile of query rows over one split of its sequence's keys, and the
merge of the splits.

Rows of a tile are the queries of one sequence times the query heads of one kv head: row r is query
r // group, head r % group. Every block of keys takes the same instructions, and splits end at fixed page
numbers, so a row's bits depend on nothing but its own sequence.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tilewright.kernels._triton.flash import (
    find_sequence,
    inverse,
    is_bad,
    log_sum_exp,
    online,
    scores,
)
from tilewright.kernels.paged_attention.triton_cache import (
    C8D,
    C8S,
    FLOAT,
    KV4,
    codes,
    values,
)


@triton.jit
def keys_of(
    k_cache, k_channel_scale, k_token_scale, k_page_scale, k_page_zero, k_open,
    k_mask, k_rank, k_pool, k_pool_scale, k_fmask, k_frank, k_fpool,
    page, token, head, sequence, ok, is_open, HKV,
    stride_page, stride_token, stride_head, stride_block,
    FIRST: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr,
    KV: tl.constexpr, RESIDUAL: tl.constexpr, C0: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Channels of a block of keys `[N, COUNT]` as dots take them: c8s and c8d without their scales."""
    stored = ok
    if KV == KV4:
        stored = ok & (is_open == 0)
    x = codes(
        k_cache, page, token, head, stored, stride_page, stride_token, stride_head, stride_block,
        FIRST, COUNT, WIDTH, KV == KV4, C0,
    )  # fmt: skip
    if KV != FLOAT and (KV == KV4 or RESIDUAL != 0):
        scale = k_channel_scale
        if KV == C8D:
            scale = k_token_scale
        if KV == KV4:
            scale = k_page_scale
        x = values(
            x, scale, k_page_zero, page, token, head, stored, HKV,
            k_mask, k_rank, k_pool, k_pool_scale, k_fmask, k_frank, k_fpool,
            FIRST, COUNT, WIDTH, KV, RESIDUAL, True,
        )  # fmt: skip
    if KV == KV4:
        lanes = FIRST + tl.arange(0, COUNT)
        at = (((sequence * 16 + token) * HKV + head) * WIDTH)[:, None] + lanes[None, :]
        mask = (ok & is_open)[:, None] & (lanes < WIDTH)[None, :]
        own = tl.load(k_open + at, mask=mask, other=0).to(tl.float32)
        x = tl.where(is_open[:, None], own, x)
    return x.to(COMPUTE)


@triton.jit
def values_of(
    v_cache, v_channel_scale, v_token_scale, v_token_zero,
    v_mask, v_rank, v_pool, v_pool_scale, v_fmask, v_frank, v_fpool,
    page, token, head, ok, HKV,
    stride_page, stride_token, stride_head, stride_block,
    FIRST: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr,
    KV: tl.constexpr, RESIDUAL: tl.constexpr, FOLDED: tl.constexpr, C0: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Channels of a block of values `[N, COUNT]` as dots take them: FOLDED without their scales."""
    x = codes(
        v_cache, page, token, head, ok, stride_page, stride_token, stride_head, stride_block,
        FIRST, COUNT, WIDTH, KV == KV4, C0,
    )  # fmt: skip
    if KV != FLOAT and not FOLDED:
        scale = v_channel_scale
        if KV != C8S:
            scale = v_token_scale
        x = values(
            x, scale, v_token_zero, page, token, head, ok, HKV,
            v_mask, v_rank, v_pool, v_pool_scale, v_fmask, v_frank, v_fpool,
            FIRST, COUNT, WIDTH, KV, RESIDUAL, False,
        )  # fmt: skip
    return x.to(COMPUTE)


@triton.jit
def queries(
    q, places, row_ok, k_channel_scale, head,
    FIRST: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr, FOLD: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Rows of queries `[M, COUNT]`, with FOLD times the scales of the keys' channels."""
    lanes = FIRST + tl.arange(0, COUNT)
    mask = row_ok[:, None] & (lanes < WIDTH)[None, :]
    x = tl.load(q + places[:, None] + lanes[None, :], mask=mask, other=0)
    if FOLD:
        s = tl.load(k_channel_scale + head * WIDTH + lanes, mask=lanes < WIDTH, other=0)
        x = x.to(tl.float32) * s[None, :]
    return x.to(COMPUTE)


@triton.jit
def put(
    base, places, row_ok, acc, factor, v_channel_scale, head,
    FIRST: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr, FOLD: tl.constexpr,
):  # fmt: skip
    """Stores `acc * factor` as channels FIRST and on; with FOLD times the scales of the values' channels."""
    lanes = FIRST + tl.arange(0, COUNT)
    x = acc
    if FOLD:
        s = tl.load(v_channel_scale + head * WIDTH + lanes, mask=lanes < WIDTH, other=0)
        x = x * s[None, :]
    # Last, as in `merge`: one split or many, the same bits.
    x = x * factor[:, None]
    mask = row_ok[:, None] & (lanes < WIDTH)[None, :]
    tl.store(base + places[:, None] + lanes[None, :], x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def kernel(
    q, cu_q, seq_lens, block_table, k_cache, v_cache,
    k_channel_scale, k_token_scale, k_page_scale, k_page_zero, v_channel_scale, v_token_scale, v_token_zero,
    k_open, k_mask, k_rank, k_pool, k_pool_scale, k_fmask, k_frank, k_fpool,
    v_mask, v_rank, v_pool, v_pool_scale, v_fmask, v_frank, v_fpool,
    alibi, o, lse, partial,
    scale, softcap, window, TQ, HQ, HKV, NS,
    stride_qt, stride_qh, stride_bt,
    stride_kp, stride_kt, stride_kh, stride_kb, stride_vp, stride_vt, stride_vh, stride_vb,
    stride_ot, stride_oh, stride_lse_t, stride_lse_h,
    DK: tl.constexpr, DV: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr,
    K_HEAD: tl.constexpr, K_TAIL: tl.constexpr, V_HEAD: tl.constexpr, V_TAIL: tl.constexpr,
    SPLIT_PAGES: tl.constexpr,  # pages of a split; 0: one split, straight to `o` and `lse`
    KV: tl.constexpr, RESIDUAL: tl.constexpr, C0: tl.constexpr,
    LATENT: tl.constexpr,  # values are the keys' first channels
    FOLD: tl.constexpr,  # scales of int8 values multiply weights or outputs rather than values
    COMPUTE: tl.constexpr,  # type of a dot's operands
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of rows of one kv head over one split: `o` and `lse`, or the split's sums in `partial`.

    `partial` is fp32: sums `[splits, TQ, HQ, DV]`, then maximum and total `[splits, TQ, HQ, 2]`. Everything of
    `k_open`, scales, masks and pools is dense, channels of the others are. `alibi` and `lse` may be null.
    """
    group = HQ // HKV
    kv_head = tl.program_id(0) % HKV
    tile = tl.program_id(0) // HKV
    split = tl.program_id(1)
    sequence = find_sequence(cu_q, group, NS, tile, TILE_M)
    from_q = tl.load(cu_q + sequence)
    n = tl.load(cu_q + sequence + 1) - from_q
    length = tl.load(seq_lens + sequence)
    tile -= (from_q.to(tl.int64) * group // TILE_M).to(tl.int32) + sequence
    head = kv_head.to(tl.int64)

    # Rows, what they see, and which keys this program has.
    rows = tile * TILE_M + tl.arange(0, TILE_M)
    row_ok = rows < n * group
    query = rows // group
    heads = kv_head * group + rows % group
    positions = length - n + query
    reach = tl.where(window > 0, window, length + n)
    first_key = tl.maximum(positions - reach + 1, 0)
    last_key = tl.maximum(positions + 1, 0)
    first = length - n + tile * TILE_M // group
    last = length - n + tl.minimum((tile * TILE_M + TILE_M - 1) // group, n - 1)
    low = tl.maximum(first - reach + 1, 0)
    low_end = tl.maximum(last - reach + 1, 0)
    high = tl.maximum(first + 1, 0)
    high_end = tl.where(first <= last, tl.maximum(last + 1, 0), 0)
    start = low // TILE_N * TILE_N
    stop = high_end
    if SPLIT_PAGES > 0:
        start = tl.maximum(start, split * (SPLIT_PAGES * 16))
        stop = tl.minimum(stop, (split + 1) * (SPLIT_PAGES * 16))

    places = (from_q + query).to(tl.int64) * stride_qt + heads * stride_qh
    FOLD_K: tl.constexpr = KV == C8S and RESIDUAL == 0
    x = queries(q, places, row_ok, k_channel_scale, head, 0, K_HEAD, DK, FOLD_K, COMPUTE)
    x_tail = x
    if K_TAIL > 0:
        x_tail = queries(
            q, places, row_ok, k_channel_scale, head, K_HEAD, K_TAIL, DK, FOLD_K, COMPUTE
        )
    scale = tl.where(scale == 0, 1.0 / tl.sqrt(DK + 0.0), scale)
    slopes = tl.zeros((TILE_M,), tl.float32)
    if alibi is not None:
        slopes = tl.load(alibi + heads, mask=row_ok & (alibi.to(tl.int64) != 0), other=0)
    acc = tl.zeros((TILE_M, V_HEAD), tl.float32)
    acc_tail = tl.zeros((TILE_M, V_TAIL if V_TAIL > 0 else 1), tl.float32)
    top = tl.full((TILE_M,), float("-inf"), tl.float32)
    total = tl.zeros((TILE_M,), tl.float32)

    cols = tl.arange(0, TILE_N)
    full_end = length // 16 * 16
    for at in range(start, stop, TILE_N):
        keys = at + cols
        ok = (keys >= low) & (keys < stop)
        is_open = keys >= full_end
        token = keys % 16
        page = tl.load(block_table + sequence * stride_bt + keys // 16, mask=ok, other=0).to(
            tl.int64
        )
        y = keys_of(
            k_cache, k_channel_scale, k_token_scale, k_page_scale, k_page_zero, k_open,
            k_mask, k_rank, k_pool, k_pool_scale, k_fmask, k_frank, k_fpool,
            page, token, head, sequence, ok, is_open, HKV, stride_kp, stride_kt, stride_kh, stride_kb,
            0, K_HEAD, DK, KV, RESIDUAL, C0, COMPUTE,
        )  # fmt: skip
        dots = tl.dot(x, tl.trans(y), input_precision=PRECISION)
        y_tail = y
        if K_TAIL > 0:
            y_tail = keys_of(
                k_cache, k_channel_scale, k_token_scale, k_page_scale, k_page_zero, k_open,
                k_mask, k_rank, k_pool, k_pool_scale, k_fmask, k_frank, k_fpool,
                page, token, head, sequence, ok, is_open, HKV, stride_kp, stride_kt, stride_kh, stride_kb,
                K_HEAD, K_TAIL, DK, KV, RESIDUAL, C0, COMPUTE,
            )  # fmt: skip
            dots = tl.dot(x_tail, tl.trans(y_tail), dots, input_precision=PRECISION)
        by_token = (page * 16 + token) * HKV + head
        if KV == C8D and RESIDUAL == 0:
            dots = dots * tl.load(k_token_scale + by_token, mask=ok, other=0)[None, :]
        s = scores(dots, positions, keys, slopes, scale, softcap, True)
        visible = (keys[None, :] >= first_key[:, None]) & (keys[None, :] < last_key[:, None])
        s = tl.where(visible & ok[None, :], s, float("-inf"))
        weights, factor, top, total = online(s, top, total)

        if KV == C8D and FOLD:
            weights = weights * tl.load(v_token_scale + by_token, mask=ok, other=0)[None, :]
        weights = weights.to(COMPUTE)
        # Where rows differ in what they see, infinities and NaN wait for `spoil`.
        end = at + TILE_N
        differ = ((low < low_end) & (at < low_end) & (end > low)) | (
            (high < high_end) & (end > high)
        )
        if not (LATENT and V_HEAD == K_HEAD):
            y = values_of(
                v_cache, v_channel_scale, v_token_scale, v_token_zero,
                v_mask, v_rank, v_pool, v_pool_scale, v_fmask, v_frank, v_fpool,
                page, token, head, ok, HKV, stride_vp, stride_vt, stride_vh, stride_vb,
                0, V_HEAD, DV, KV, RESIDUAL, FOLD, C0, COMPUTE,
            )  # fmt: skip
        y = tl.where(is_bad(y) & differ, 0.0, y).to(COMPUTE)
        acc = tl.dot(weights, y, acc * factor[:, None], input_precision=PRECISION)
        if V_TAIL > 0:
            if not (LATENT and V_HEAD == K_HEAD and V_TAIL == K_TAIL):
                y_tail = values_of(
                    v_cache, v_channel_scale, v_token_scale, v_token_zero,
                    v_mask, v_rank, v_pool, v_pool_scale, v_fmask, v_frank, v_fpool,
                    page, token, head, ok, HKV, stride_vp, stride_vt, stride_vh, stride_vb,
                    V_HEAD, V_TAIL, DV, KV, RESIDUAL, FOLD, C0, COMPUTE,
                )  # fmt: skip
            y_tail = tl.where(is_bad(y_tail) & differ, 0.0, y_tail).to(COMPUTE)
            acc_tail = tl.dot(
                weights, y_tail, acc_tail * factor[:, None], input_precision=PRECISION
            )

    FOLD_V: tl.constexpr = KV == C8S and FOLD
    if SPLIT_PAGES > 0:
        row = (split.to(tl.int64) * TQ + from_q + query) * HQ + heads
        out = partial
        to = row * DV
        stats = partial + tl.num_programs(1).to(tl.int64) * TQ * HQ * DV + row * 2
        tl.store(stats, top, mask=row_ok)
        tl.store(stats + 1, total, mask=row_ok)
        factor = tl.full((TILE_M,), 1.0, tl.float32)
        row_ok = row_ok & (start < stop)
    else:
        out = o
        to = (from_q + query).to(tl.int64) * stride_ot + heads * stride_oh
        factor = inverse(total)
        if lse is not None:
            at = (from_q + query).to(tl.int64) * stride_lse_t + heads * stride_lse_h
            wanted = row_ok & (lse.to(tl.int64) != 0)
            tl.store(lse + at, log_sum_exp(top, total), mask=wanted)
    put(out, to, row_ok, acc, factor, v_channel_scale, head, 0, V_HEAD, DV, FOLD_V)
    if V_TAIL > 0:
        put(out, to, row_ok, acc_tail, factor, v_channel_scale, head, V_HEAD, V_TAIL, DV, FOLD_V)
    for side in tl.static_range(2):
        spoil_from = tl.maximum(low if side == 0 else high, start)
        spoil_to = tl.minimum(low_end if side == 0 else high_end, stop)
        if KV == FLOAT:
            spoil(
                out, to, row_ok, v_cache, block_table + sequence * stride_bt, head, spoil_from, spoil_to,
                first_key, last_key, stride_vp, stride_vt, stride_vh, stride_vb, DV, V_HEAD, V_TAIL, C0,
            )  # fmt: skip


@triton.jit
def spoil(
    out, to, row_ok, v_cache, table, head, start, stop, first_key, last_key,
    stride_page, stride_token, stride_head, stride_block,
    DV: tl.constexpr, V_HEAD: tl.constexpr, V_TAIL: tl.constexpr, C0: tl.constexpr,
):  # fmt: skip
    """Adds what is infinite or no number among the values of keys that not every row sees to what is stored.

    The dots leave it out, since a weight of 0 would not keep it from the others: 0 * NaN is NaN. There are
    such keys only for several queries of a sequence: those of its last tokens, and where a window begins.
    """
    for key in range(start, stop):
        page = tl.load(table + key // 16).to(tl.int64)
        sees = row_ok & (first_key <= key) & (key < last_key)
        for part in tl.static_range(2 if V_TAIL > 0 else 1):
            lanes = tl.arange(0, V_HEAD) if part == 0 else V_HEAD + tl.arange(0, V_TAIL)
            place = lanes // C0 * stride_block + lanes % C0 if C0 > 0 else lanes
            place += page * stride_page + (key % 16) * stride_token + head * stride_head
            value = tl.load(v_cache + place, mask=lanes < DV, other=0).to(tl.float32)
            bad = is_bad(value)
            if tl.max(bad.to(tl.int32), axis=0) > 0:
                tl.debug_barrier()
                hit = sees[:, None] & bad[None, :]
                at = out + to[:, None] + lanes[None, :]
                before = tl.load(at, mask=hit, other=0).to(tl.float32)
                tl.store(at, (before + value[None, :]).to(out.dtype.element_ty), mask=hit)


@triton.jit
def merge(
    partial, o, lse, HQ, MP, stride_ot, stride_oh, stride_lse_t, stride_lse_h,
    DV: tl.constexpr, WIDTH: tl.constexpr, SPLIT_PAGES: tl.constexpr,
):  # fmt: skip
    """One row of `o` and `lse` from the sums of its splits, in the order of the splits."""
    row = tl.program_id(0).to(tl.int64)
    rows = tl.num_programs(0).to(tl.int64)
    splits = tl.maximum(tl.cdiv(MP, SPLIT_PAGES), 1)
    stats = partial + splits * rows * DV + row * 2
    top = tl.full((), float("-inf"), tl.float32)
    for split in range(0, splits):
        top = tl.maximum(top, tl.load(stats + split * rows * 2))
    lanes = tl.arange(0, WIDTH)
    acc = tl.zeros((WIDTH,), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    reference = tl.where(top == float("-inf"), 0.0, top)
    for split in range(0, splits):
        own = tl.load(stats + split * rows * 2)
        # A split without keys has written nothing but its statistics.
        width = tl.where(own == float("-inf"), 0, DV)
        factor = tl.exp2(own - reference)
        sums = tl.load(partial + (split * rows + row) * DV + lanes, mask=lanes < width, other=0)
        acc += sums * factor
        total += tl.load(stats + split * rows * 2 + 1) * factor
    token = row // HQ
    head = row % HQ
    x = acc * inverse(total)
    tl.store(
        o + token * stride_ot + head * stride_oh + lanes, x.to(o.dtype.element_ty), mask=lanes < DV
    )
    if lse is not None:
        wanted = lse.to(tl.int64) != 0
        at = lse + token * stride_lse_t + head * stride_lse_h
        tl.store(at, log_sum_exp(top, total), mask=wanted)
