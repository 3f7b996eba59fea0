"""The steps of online-softmax attention that the prefill and the paged kernel share.

Scores are kept in units of log2, so that the exponential is the hardware's exp2. A row of scores that is
wholly masked leaves every sum bit for bit as it was, so what a row gets does not depend on which blocks of
keys its tile walks beyond the row's own. Blocks of values are `[keys, channels]`, of keys `[channels, keys]`.
A head of any width is the largest power of two in it, the `head`, and the rest, the `tail` (width 0: none).
"""

from __future__ import annotations

from collections.abc import Mapping

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


def split(width: int) -> tuple[int, int]:
    """A head's width as two tile widths: powers of two of 16 or more, the second 0 where one is enough."""
    head = max(16, 1 << (width.bit_length() - 1))
    rest = max(0, width - head)
    return head, max(16, 1 << (rest - 1).bit_length()) if rest else 0


def settled(
    config: Mapping[str, int], flags: Mapping[str, str], fixed: Mapping[str, int]
) -> Mapping[str, int]:
    """The config of a launch: with batch_invariant its fields that reach a row's bits are the `fixed` ones,
    so that no table of tuned configs can change them with the shape."""
    if flags.get("batch_invariant") != "yes":
        return config
    return {**config, **{name: value for name, value in fixed.items() if name in config}}


@triton.jit
def find_sequence(starts, unit, count, tile, TILE: tl.constexpr):
    """The sequence whose rows tile number `tile` holds, where sequence s has `unit` rows for each of
    its tokens and its first tile is `starts[s] * unit // TILE + s`: no two sequences share a tile."""
    low = tl.full((), 0, tl.int32)
    high = count
    while high - low > 1:
        middle = (low + high) // 2
        first = tl.load(starts + middle).to(tl.int64) * unit // TILE + middle
        if first <= tile:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def tanh(y):
    """tanh in fp32; 1 - 2 / (e^2y + 1) loses what is small beside 1, so below 0.625 a minimax polynomial stands in."""
    square = y * y
    near = -0.005716991610825062
    near = near * square + 0.02065054140985012
    near = near * square - 0.05374348536133766
    near = near * square + 0.13331490755081177
    near = near * square - 0.3333328366279602
    return tl.where(
        square < 0.390625, near * square * y + y, 1 - 2 / (tl.exp2(y * (2 * LOG2E)) + 1)
    )


@triton.jit
def scores(dots, positions, keys, slopes, scale, softcap, EXTRAS: tl.constexpr):
    """Dots as scores in log2 units: scaled; with EXTRAS also capped and biased by distance.

    `softcap` 0 caps nothing; `slopes` are ALiBi's of each row, 0 for none.
    """
    if EXTRAS:
        s = dots * scale
        cap = tl.where(softcap > 0, softcap, 1.0)  # 1 stands in where there is none
        s = tl.where(softcap > 0, cap * tanh(s / cap), s)
        distance = tl.abs(positions[:, None] - keys[None, :]).to(tl.float32)
        return (s - slopes[:, None] * distance) * LOG2E
    return dots * (scale * LOG2E)


@triton.jit
def online(s, top, total):
    """One step of the online softmax over a block of scores.

    Returns the weights, the factor for what was summed before, the new maximum and the new sum.
    """
    new = tl.maximum(top, tl.max(s, axis=1))
    # While a row has seen no key its maximum is -inf, and -inf - -inf is no number.
    reference = tl.where(new == float("-inf"), 0.0, new)
    weights = tl.exp2(s - reference[:, None])
    factor = tl.exp2(top - reference)
    return weights, factor, new, total * factor + tl.sum(weights, axis=1)


@triton.jit
def is_bad(v):
    """Where values are infinite or no number."""
    return (tl.abs(v) < float("inf")) == 0


@triton.jit
def inverse(total):
    """1 / total; 1 for a row that saw no key, whose output is then 0."""
    return 1.0 / tl.where(total == 0, 1.0, total)


@triton.jit
def log_sum_exp(top, total):
    """The natural logarithm of the sum of exponentials; -inf for a row that saw no key."""
    return tl.where(total == 0, float("-inf"), (top + tl.log2(total)) * LN2)
