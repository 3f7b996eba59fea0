"""Which sizes share a config: the ranges of a dispatch table that lose least against a config per size.

Costs are logarithms of regret. The partition into contiguous ranges is exact (dynamic programming over
sizes and ranges); regret is told from rounds that had no part in the choice, so that a config that was
lucky once is not praised for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilewright.perf.statistics import Estimate, ratio_estimate, verdict

Floats = npt.NDArray[np.float64]

# A further range must win this much (logarithms of regret, summed over sizes), however quiet the machine, and this
# many standard errors: the luckiest of many configs and cuts wins about three where there is nothing to win.
WORTH = 0.005
_ERRORS = 4.0
# Half of a 95 % interval in standard errors.
_Z = 1.96
# Cost of a config that cannot run a size: more than any that can, so that few sizes fall back.
_CANNOT = 1e3


@dataclass(frozen=True, slots=True)
class Range:
    """Sizes `first` to `last` (places in the sweep, both included) get the config of a column."""

    first: int
    last: int
    column: int


def costs(times: Sequence[Floats], base: int, had: Sequence[int] = ()) -> Floats:
    """log(time / fastest) per size and config from rounds[round, config] of each size.

    Compared inside each round, so that what slows a whole round down is no cost. inf where a config failed,
    or is slower beyond noise than the config `base`, the default, or than what the size had untuned, where `had` says
    so: nobody gets a table that is worse than none.
    """
    rows = []
    for size, rounds in enumerate(times):
        logs = np.log(rounds)
        able = np.asarray(np.isfinite(logs).all(axis=0))
        row = np.full(rounds.shape[1], math.inf)
        if able.any():
            relative = logs[:, able] - logs[:, able].mean(axis=1, keepdims=True)
            medians = np.median(relative, axis=0)
            row[able] = medians - medians.min()
        for known in {base, *had[size : size + 1]}:
            for column in np.flatnonzero(able) if able[known] else ():
                if _slower(rounds[:, column], rounds[:, known]):
                    row[column] = math.inf
        rows.append(row)
    return np.array(rows)


def _slower(ours: Floats, theirs: Floats) -> bool:
    """Whether the rounds show that ours takes longer; a single exact value is no noise."""
    found = ratio_estimate(np.log(theirs) - np.log(ours))
    if len(ours) == 1:
        found = Estimate(found.value, found.value, found.value)
    return verdict(found) == "slower"


def worth(times: Sequence[Floats], base: int) -> float:
    """What a further range must win to be told from noise, from the mean standard error of a config's ratio."""
    widths = [spread(rounds, base) for rounds in times]
    return max(WORTH, _ERRORS * float(np.mean(np.log(widths))) / (2 * _Z))


def spread(rounds: Floats, base: int) -> float:
    """How uncertain the rounds leave a typical config: the width of the 95 % interval of its ratio to `base`, as
    a factor (1.1 is 10 %). 1 for exact values, or with nothing to compare.
    """
    others = [
        c
        for c in range(rounds.shape[1])
        if c != base and np.isfinite(rounds[:, [c, base]]).all() and len(rounds) > 1
    ]
    found = [ratio_estimate(np.log(rounds[:, base]) - np.log(rounds[:, c])) for c in others]
    return float(np.median([e.high / e.low if e.low > 0 else math.inf for e in found] or [1.0]))


def partition(cost: Floats, most: int, slack: float = WORTH) -> list[Range]:
    """The contiguous ranges, at most `most`, with the least total cost, where each costs `slack` itself.

    `cost[size, config]`; exact for each count of ranges. Raises ValueError for no sizes or no configs.
    """
    sizes, configs = cost.shape
    if not sizes or not configs or most < 1:
        raise ValueError(f"nothing to divide: {sizes} sizes, {configs} configs, {most} ranges")
    finite = np.where(np.isfinite(cost), cost, _CANNOT)
    sums = np.concatenate([np.zeros((1, configs)), np.cumsum(finite, axis=0)])
    most = min(most, sizes)
    # best[b, j]: least cost of the first j sizes in b ranges; cut[b, j]: where the last of these begins.
    best = np.full((most + 1, sizes + 1), math.inf)
    cut = np.zeros((most + 1, sizes + 1), dtype=np.int64)
    best[0, 0] = 0.0
    for b in range(1, most + 1):
        for j in range(b, sizes + 1):
            starts = np.arange(b - 1, j)
            totals = best[b - 1, starts] + (sums[j] - sums[starts]).min(axis=1)
            cut[b, j] = starts[int(np.argmin(totals))]
            best[b, j] = totals.min()
    count = 1 + int(np.argmin(best[1:, sizes] + slack * np.arange(1, most + 1)))
    return _trace(cut, sums, count, sizes)


def _trace(cut: npt.NDArray[np.int64], sums: Floats, count: int, sizes: int) -> list[Range]:
    found, end = [], sizes
    for b in range(count, 0, -1):
        start = int(cut[b, end])
        found.append(Range(start, end - 1, int(np.argmin(sums[end] - sums[start]))))
        end = start
    return found[::-1]


@dataclass(frozen=True, slots=True)
class Regret:
    """How much longer a size takes than with the config that was best for it alone: 0.02 is 2 %.

    `low` and `high` are the 95 % interval, None where too few rounds give one or a model was asked.
    Negative values are noise. None as value: the config cannot run this size, and the call falls back.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


def regret(told: Floats, column: int, best: int) -> Regret:
    """Regret of a config against another from rounds[round, config]."""
    if column == best:
        return Regret(0.0, 0.0, 0.0)
    logs = np.log(told[:, column]) - np.log(told[:, best])
    if not np.isfinite(logs).all() or not logs.size:
        return Regret(None)
    found: Estimate = ratio_estimate(logs)
    sure = math.isfinite(found.high)
    return Regret(
        found.value - 1, found.low - 1 if sure else None, found.high - 1 if sure else None
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """Regret over several sizes: of the geometric mean, and of the worst size, by its place."""

    mean: float | None
    worst: float | None
    worst_at: int | None
    cannot: int


def summary(regrets: Sequence[Regret], places: Sequence[int] | None = None) -> Summary:
    """Over the sizes that the configs can run; `cannot` counts the others."""
    at = list(places) if places is not None else list(range(len(regrets)))
    known = [(r.value, i) for r, i in zip(regrets, at, strict=True) if r.value is not None]
    cannot = len(regrets) - len(known)
    if not known:
        return Summary(None, None, None, cannot)
    worst, place = max(known)
    mean = math.exp(sum(math.log1p(v) for v, _ in known) / len(known)) - 1
    return Summary(mean, worst, place, cannot)
