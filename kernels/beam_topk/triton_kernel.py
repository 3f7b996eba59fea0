# A @triton.jit function is source for another compiler; its parameters have no Python types.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""The Triton kernels of beam_topk: the best of a row, and the best of a group of beams.

What is chosen by is one 64-bit number a logit: its bits in an order that integers have, above 2**31 - 1 - id, so
that no two are equal and of equal logits the lower id is larger.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LARGEST = tl.constexpr(3.4028234663852886e38)
# Below the key of every logit.
NOTHING = tl.constexpr(-(2**63) + 1)
LOW = tl.constexpr(0x7FFFFFFF)
ROUNDER = tl.constexpr(12582912.0)  # 1.5 * 2**23


@triton.jit
def key_of(high, ids):
    """A 64-bit key: an int32 that decides, then lower ids first."""
    return (high.to(tl.int64) << 32) | ((-1 - ids) & LOW).to(tl.int64)


@triton.jit
def ordered(x):
    """Bits of fp32 as an int32 in the same order; both zeros are one."""
    word = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    return tl.where(word >= 0, word, word ^ LOW)


@triton.jit
def value_of(keys):
    """The fp32 of a key."""
    word = (keys >> 32).to(tl.int32)
    return tl.where(word >= 0, word, word ^ LOW).to(tl.float32, bitcast=True)


@triton.jit
def id_of(keys):
    """The id of a key."""
    return ((-1 - keys) & LOW).to(tl.int32)


@triton.jit
def kept(best, keys):
    """The largest of `best`, in any order, and of a block of keys: one exchange for each that is larger."""
    least = tl.min(best, axis=0)
    most = tl.max(keys, axis=0)
    while most > least:
        best = tl.where(best == least, most, best)
        keys = tl.where(keys == most, NOTHING, keys)
        least = tl.min(best, axis=0)
        most = tl.max(keys, axis=0)
    return best


@triton.jit
def code_of(x, largest):
    """127 of the largest, -128 of what lies 16 or more below, -129 of -inf."""
    scaled = tl.maximum((x - largest) * 15.9375, -255.0)
    code = ((scaled + ROUNDER) - ROUNDER).to(tl.int32) + 127
    return tl.where(x == float("-inf"), -129, code)


@triton.jit
def read(logits, columns, V, stride, alive, ending, eos):
    """Logits in fp32: -inf for NaN, beyond V and where none counts, the largest fp32 for +inf.

    With `ending` the end alone counts, as 0.
    """
    inside = (columns < V) & (alive != 0)
    x = tl.load(logits + columns.to(tl.int64) * stride, mask=inside, other=0).to(tl.float32)
    x = tl.where(inside & (x == x), tl.minimum(x, LARGEST), float("-inf"))
    return tl.where((ending != 0) & (columns == eos), 0.0, x)


@triton.jit
def kernel(
    logits,
    row_max,
    scores,
    finished,
    ids,
    probs,
    partial,
    V,
    K,
    W,
    eos,
    temperature,
    stride_row,
    stride_col,
    stride_max,
    stride_score_g,
    stride_score_w,
    stride_end_g,
    stride_end_w,
    stride_id_row,
    stride_id_col,
    stride_prob_row,
    stride_prob_col,
    UNIT: tl.constexpr,
    WHOLE_ROW: tl.constexpr,
    COARSE: tl.constexpr,
    CODES: tl.constexpr,
    STEP: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """ids and probs [B,K] of a row; with STEP its best KEEP totals and ids into `partial` [B,2,KEEP] (fp32)."""
    row = tl.program_id(0).to(tl.int64)
    inverse = 1.0 / temperature * UNIT
    scale = inverse * LOG2E
    # As integers: the interpreter broadcasts no truth of a scalar comparison of floats.
    alive = tl.full((), 1, tl.int32)
    ending = tl.full((), 0, tl.int32)
    before = 0.0
    if CODES:
        alive = tl.where(tl.load(row_max + row * stride_max) > float("-inf"), 1, 0)
    if STEP:
        group = row // W
        beam = row % W
        before = tl.load(scores + group * stride_score_g + beam * stride_score_w)
        before = tl.minimum(before, LARGEST)
        there = tl.where(before > float("-inf"), 1, 0)
        end = tl.load(finished + group * stride_end_g + beam * stride_end_w)
        end = tl.where(end != 0, 1, 0)
        alive = alive * there * (1 - end)
        ending = there * end
    here = logits + row * stride_row
    lane = tl.arange(0, BLOCK)
    rank = tl.arange(0, KEEP)
    # No two alike, and all below the key of any logit.
    best = rank.to(tl.int64) + NOTHING
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    if WHOLE_ROW or COARSE:
        for start in range(0, V, BLOCK):
            columns = start + lane
            x = read(here, columns, V, stride_col, alive, ending, eos)
            new = tl.maximum(largest, tl.max(x, axis=0))
            # While a row has no logit its maximum is -inf, and -inf - -inf is no number.
            reference = tl.where(new == float("-inf"), 0.0, new)
            if WHOLE_ROW:
                some = tl.sum(tl.exp2((x - reference) * scale), axis=0)
                total = total * tl.exp2((largest - reference) * scale) + some
            largest = new
            if not COARSE:
                keys = tl.where(columns < V, key_of(ordered(x), columns), NOTHING)
                best = kept(best, keys)
    if COARSE or not WHOLE_ROW:
        for start in range(0, V, BLOCK):
            columns = start + lane
            x = read(here, columns, V, stride_col, alive, ending, eos)
            high = ordered(x)
            if COARSE:
                high = code_of(x, largest)
            keys = tl.where(columns < V, key_of(high, columns), NOTHING)
            best = kept(best, keys)
    best = tl.sort(best, descending=True)
    if COARSE:
        survives = (rank < 2 * K) & (rank < V)
        id = tl.where(survives, id_of(best), 0)
        x = read(here, id, V, stride_col, alive, ending, eos)
        best = tl.sort(tl.where(survives, key_of(ordered(x), id), NOTHING), descending=True)
    found = (rank < K) & (rank < V)
    value = tl.where(found, value_of(best), float("-inf"))
    counts = value > float("-inf")
    largest = tl.max(value, axis=0)
    below = tl.where(counts, value - tl.where(largest == float("-inf"), 0.0, largest), 0.0)
    weight = tl.where(counts, tl.exp2(below * scale), 0.0)
    if not WHOLE_ROW:
        total = tl.sum(weight, axis=0)
    total = tl.where(total == 0, 1.0, total)
    id = tl.where(found, id_of(best), 0)
    if STEP:
        gone = before + below * inverse - tl.log(total)
        gone = tl.where(counts, gone, float("-inf"))
        at = partial + row * (2 * KEEP) + rank
        tl.store(at, gone)
        tl.store(at + KEEP, id.to(tl.float32, bitcast=True))
    else:
        tl.store(ids + row * stride_id_row + rank * stride_id_col, id, mask=rank < K)
        tl.store(
            probs + row * stride_prob_row + rank * stride_prob_col, weight / total, mask=rank < K
        )


@triton.jit
def merge(
    partial,
    next_beam,
    next_id,
    next_score,
    V,
    K,
    W,
    stride_beam_g,
    stride_beam_k,
    stride_id_g,
    stride_id_k,
    stride_score_g,
    stride_score_k,
    KEEP: tl.constexpr,
):
    """The next K of a group from the best of its W beams, which are sorted."""
    group = tl.program_id(0).to(tl.int64)
    rank = tl.arange(0, KEEP)
    best = tl.full((KEEP,), NOTHING, tl.int64)
    for beam in range(W):
        at = partial + (group * W + beam) * (2 * KEEP) + rank
        keys = key_of(ordered(tl.load(at)), beam * KEEP + rank)
        keys = tl.where((rank < K) & (rank < V), keys, NOTHING)
        best = tl.sort(tl.maximum(best, tl.flip(keys, 0)), descending=True)
    inside = rank < K
    place = tl.where(inside, id_of(best), 0)
    beam = place // KEEP
    at = partial + (group * W + beam) * (2 * KEEP) + KEEP + place % KEEP
    id = tl.load(at, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    tl.store(next_beam + group * stride_beam_g + rank * stride_beam_k, beam, mask=inside)
    tl.store(next_id + group * stride_id_g + rank * stride_id_k, id, mask=inside)
    tl.store(
        next_score + group * stride_score_g + rank * stride_score_k, value_of(best), mask=inside
    )
