"""The attention kernel in Triton: one tile of queries of one head over the keys it can see."""

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


@triton.jit
def channels(
    base,
    tokens,
    stride_token,
    stride_channel,
    there,
    FIRST: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    MASKED: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Channels FIRST to FIRST + COUNT, of WIDTH, of some tokens: `[tokens, COUNT]`, 0 where there is none."""
    lanes = FIRST + tl.arange(0, COUNT)
    places = base + tokens[:, None] * stride_token + lanes[None, :] * stride_channel
    if FIRST + COUNT > WIDTH:
        x = tl.load(places, mask=there[:, None] & (lanes < WIDTH)[None, :], other=0)
    elif MASKED:
        x = tl.load(places, mask=there[:, None], other=0)
    else:
        x = tl.load(places)
    if WIDEN:
        x = x.to(tl.float32)
    return x


@triton.jit
def spoil(
    o,
    v,
    start,
    stop,
    tokens,
    there,
    first_key,
    last_key,
    stride_on,
    stride_od,
    stride_vn,
    stride_vd,
    FIRST: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_N: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Adds what is infinite or no number among the values of keys `start` to `stop` to the stored outputs.

    The dots leave it out of blocks that only some rows see, since a weight of 0 would not keep it from the
    others: 0 * NaN is NaN. Where there is none, this costs a look at those blocks.
    """
    cols = tl.arange(0, TILE_N)
    cols64 = cols.to(tl.int64)
    lanes = FIRST + tl.arange(0, COUNT)
    places = o + tokens[:, None] * stride_on + lanes[None, :] * stride_od
    mask = there[:, None] & (lanes < WIDTH)[None, :]
    for at in range(start, stop, TILE_N):
        block = v + tl.cast(at, tl.int64) * stride_vn
        x = channels(
            block, cols64, stride_vn, stride_vd, at + cols < stop, FIRST, COUNT, WIDTH, True, WIDEN
        )
        if tl.max(tl.max(is_bad(x).to(tl.int32), axis=1), axis=0) > 0:
            tl.debug_barrier()
            for key in range(at, tl.minimum(at + TILE_N, stop)):
                value = tl.load(block + lanes * stride_vd, mask=lanes < WIDTH, other=0)
                value = value.to(tl.float32)
                sees = (first_key <= key) & (key < last_key)
                hit = mask & sees[:, None] & is_bad(value)[None, :]
                before = tl.load(places, mask=hit, other=0).to(tl.float32)
                tl.store(places, (before + value[None, :]).to(o.dtype.element_ty), mask=hit)
                block += stride_vn


@triton.jit
def walk(
    acc,
    acc_tail,
    top,
    total,
    q,
    q_tail,
    k,
    v,
    start,
    stop,
    all_from,
    all_to,
    positions,
    first_key,
    last_key,
    slopes,
    scale,
    softcap,
    stride_kn,
    stride_kd,
    stride_vn,
    stride_vd,
    DK: tl.constexpr,
    DV: tl.constexpr,
    TILE_N: tl.constexpr,
    K_HEAD: tl.constexpr,
    K_TAIL: tl.constexpr,
    V_HEAD: tl.constexpr,
    V_TAIL: tl.constexpr,
    MASKED: tl.constexpr,
    EXTRAS: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """The keys from `start` (a multiple of TILE_N) to `stop`, added to a tile's running sums.

    Row r sees keys `first_key[r] <= j < last_key[r]`; without MASKED every row sees every key here.
    """
    cols = tl.arange(0, TILE_N)
    cols64 = cols.to(tl.int64)
    k += tl.cast(start, tl.int64) * stride_kn
    v += tl.cast(start, tl.int64) * stride_vn
    for at in range(start, stop, TILE_N):
        keys = at + cols
        ok = keys < stop
        x = channels(k, cols64, stride_kn, stride_kd, ok, 0, K_HEAD, DK, MASKED, WIDEN)
        dots = tl.dot(q, tl.trans(x), input_precision=PRECISION)
        if K_TAIL > 0:
            x = channels(k, cols64, stride_kn, stride_kd, ok, K_HEAD, K_TAIL, DK, MASKED, WIDEN)
            dots = tl.dot(q_tail, tl.trans(x), dots, input_precision=PRECISION)
        s = scores(dots, positions, keys, slopes, scale, softcap, EXTRAS)
        visible = (keys[None, :] >= first_key[:, None]) & (keys[None, :] < last_key[:, None])
        if MASKED:
            s = tl.where(visible, s, float("-inf"))
        weights, factor, top, total = online(s, top, total)
        whole = (at >= all_from) & (at + TILE_N <= all_to)
        y = channels(v, cols64, stride_vn, stride_vd, ok, 0, V_HEAD, DV, MASKED, WIDEN)
        if MASKED:
            y = tl.where(is_bad(y) & (whole == 0), 0.0, y).to(y.dtype)
        acc = tl.dot(weights.to(y.dtype), y, acc * factor[:, None], input_precision=PRECISION)
        if V_TAIL > 0:
            y = channels(v, cols64, stride_vn, stride_vd, ok, V_HEAD, V_TAIL, DV, MASKED, WIDEN)
            if MASKED:
                y = tl.where(is_bad(y) & (whole == 0), 0.0, y).to(y.dtype)
            acc_tail = tl.dot(
                weights.to(y.dtype), y, acc_tail * factor[:, None], input_precision=PRECISION
            )
        k += TILE_N * stride_kn
        v += TILE_N * stride_vn
    return acc, acc_tail, top, total


@triton.jit
def kernel(
    q,
    k,
    v,
    cu_q,
    cu_k,
    alibi,
    o,
    lse,
    scale,
    softcap,
    window,
    full,
    SQ,
    SK,
    HQ,
    HKV,
    NS1,
    stride_qb,
    stride_qs,
    stride_qh,
    stride_qd,
    stride_kb,
    stride_ks,
    stride_kh,
    stride_kd,
    stride_vb,
    stride_vs,
    stride_vh,
    stride_vd,
    stride_alibi,
    stride_ob,
    stride_os,
    stride_oh,
    stride_od,
    stride_lse_b,
    stride_lse_s,
    stride_lse_h,
    DK: tl.constexpr,
    DV: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    K_HEAD: tl.constexpr,
    K_TAIL: tl.constexpr,
    V_HEAD: tl.constexpr,
    V_TAIL: tl.constexpr,
    RAGGED: tl.constexpr,  # sequences lie one after the other, `cu_q` and `cu_k` say where
    EXTRAS: tl.constexpr,  # softcap or ALiBi
    INVARIANT: tl.constexpr,  # every block of keys takes the same instructions
    PRECISION: tl.constexpr,  # of a dot of fp32 operands
    WIDEN: tl.constexpr,  # cast operands to fp32 after the load, see tilewright.interpret
):
    """o = softmax(mask(cap(scale q k') + bias)) v, and the log-sum-exp of each row's scores.

    Query i of a sequence of nq queries and nk keys stands at position nk - nq + i. `full` 1 lets a query
    see later keys too, `window` > 0 only keys less than so many positions away. `scale` 0 is 1/sqrt(DK),
    `softcap` 0 none; `alibi` and `lse` may be null. Programs take the last tiles of a sequence first:
    with a causal mask they have the most to do.
    """
    # Where the tile is: sequence, head, and the sequence's first token and number of tokens.
    program = tl.program_id(0)
    head = program % HQ
    tile = program // HQ
    if RAGGED:
        tile = SQ // TILE_M + NS1 - 2 - tile
        sequence = find_sequence(cu_q, 1, NS1 - 1, tile, TILE_M)
        from_q = tl.load(cu_q + sequence).to(tl.int64)
        from_k = tl.load(cu_k + sequence).to(tl.int64)
        nq = (tl.load(cu_q + sequence + 1) - from_q).to(tl.int32)
        nk = (tl.load(cu_k + sequence + 1) - from_k).to(tl.int32)
        tile -= (from_q // TILE_M).to(tl.int32) + sequence
        batch = tl.full((), 0, tl.int64)
    else:
        tiles = tl.cdiv(SQ, TILE_M)
        batch = (tile // tiles).to(tl.int64)
        tile = tiles - 1 - tile % tiles
        from_q = tl.full((), 0, tl.int64)
        from_k = tl.full((), 0, tl.int64)
        nq = SQ
        nk = SK
    kv_head = (head // (HQ // HKV)).to(tl.int64)
    head64 = head.to(tl.int64)
    q += batch * stride_qb + from_q * stride_qs + head64 * stride_qh
    k += batch * stride_kb + from_k * stride_ks + kv_head * stride_kh
    v += batch * stride_vb + from_k * stride_vs + kv_head * stride_vh
    o += batch * stride_ob + from_q * stride_os + head64 * stride_oh

    # What the rows see.
    rows = tile * TILE_M + tl.arange(0, TILE_M)
    rows64 = rows.to(tl.int64)
    row_ok = rows < nq
    positions = nk - nq + rows
    first = nk - nq + tile * TILE_M
    last = nk - nq + tl.minimum(tile * TILE_M + TILE_M, nq) - 1
    reach = tl.where(window > 0, window, nk + nq)
    ahead = tl.where(full != 0, reach, 1)
    first_key = positions - reach + 1
    last_key = tl.minimum(positions + ahead, nk)
    # Keys that any row sees; those from `all_from` to `all_to` every row sees.
    any_from = tl.maximum(first - reach + 1, 0) // TILE_N * TILE_N
    any_to = tl.where(first <= last, tl.maximum(tl.minimum(last + ahead, nk), 0), 0)
    all_from = tl.cdiv(tl.maximum(last - reach + 1, 0), TILE_N) * TILE_N
    all_to = tl.maximum(tl.minimum(first + ahead, nk), 0) // TILE_N * TILE_N
    all_from = tl.minimum(tl.maximum(all_from, any_from), tl.maximum(any_to, any_from))
    all_to = tl.minimum(tl.maximum(all_to, all_from), tl.maximum(any_to, all_from))

    x = channels(q, rows64, stride_qs, stride_qd, row_ok, 0, K_HEAD, DK, True, WIDEN)
    x_tail = x
    if K_TAIL > 0:
        x_tail = channels(q, rows64, stride_qs, stride_qd, row_ok, K_HEAD, K_TAIL, DK, True, WIDEN)
    scale = tl.where(scale == 0, 1.0 / tl.sqrt(DK + 0.0), scale)
    slopes = tl.zeros((TILE_M,), tl.float32)
    if EXTRAS and alibi is not None:
        given = alibi.to(tl.int64) != 0
        slope = tl.load(alibi + head64 * stride_alibi, mask=given, other=0)
        slopes += slope
    acc = tl.zeros((TILE_M, V_HEAD), tl.float32)
    acc_tail = tl.zeros((TILE_M, V_TAIL if V_TAIL > 0 else 1), tl.float32)
    top = tl.full((TILE_M,), float("-inf"), tl.float32)
    total = tl.zeros((TILE_M,), tl.float32)

    start = any_from
    # Blocks that some rows see in part lie before and after those that all rows see whole.
    for phase in tl.static_range(1 if INVARIANT else 3):
        stop = any_to
        if not INVARIANT:
            if phase == 0:
                stop = all_from
            if phase == 1:
                stop = all_to
        acc, acc_tail, top, total = walk(
            acc, acc_tail, top, total, x, x_tail, k, v, start, stop,
            all_from, all_to, positions, first_key, last_key, slopes, scale, softcap,
            stride_ks, stride_kd, stride_vs, stride_vd,
            DK, DV, TILE_N, K_HEAD, K_TAIL, V_HEAD, V_TAIL,
            INVARIANT or phase != 1, EXTRAS, PRECISION, WIDEN,
        )  # fmt: skip
        start = stop

    share = inverse(total)
    put(o, acc * share[:, None], rows64, stride_os, stride_od, row_ok, 0, V_HEAD, DV)
    if V_TAIL > 0:
        put(o, acc_tail * share[:, None], rows64, stride_os, stride_od, row_ok, V_HEAD, V_TAIL, DV)
    if lse is not None:
        wanted = row_ok & (lse.to(tl.int64) != 0)
        at = batch * stride_lse_b + (from_q + rows64) * stride_lse_s + head64 * stride_lse_h
        tl.store(lse + at, log_sum_exp(top, total), mask=wanted)

    for side in tl.static_range(2):
        start = any_from if side == 0 else all_to
        stop = all_from if side == 0 else any_to
        spoil(
            o, v, start, stop, rows64, row_ok, first_key, last_key,
            stride_os, stride_od, stride_vs, stride_vd, 0, V_HEAD, DV, TILE_N, WIDEN,
        )  # fmt: skip
        if V_TAIL > 0:
            spoil(
                o, v, start, stop, rows64, row_ok, first_key, last_key,
                stride_os, stride_od, stride_vs, stride_vd, V_HEAD, V_TAIL, DV, TILE_N, WIDEN,
            )  # fmt: skip


@triton.jit
def put(
    base,
    values,
    tokens,
    stride_token,
    stride_channel,
    there,
    FIRST: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Store `[tokens, COUNT]` as channels FIRST and on of the tokens that are there."""
    lanes = FIRST + tl.arange(0, COUNT)
    places = base + tokens[:, None] * stride_token + lanes[None, :] * stride_channel
    mask = there[:, None] & (lanes < WIDTH)[None, :]
    tl.store(places, values.to(base.dtype.element_ty), mask=mask)
