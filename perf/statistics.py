"""Intervals and verdicts from samples of time.

Samples of one run are not independent: clocks and neighbours drift. Intervals therefore widen to
what contiguous blocks of the run disagree about, and ratios are taken inside short ABBA blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

# Differences below this fraction are not worth an engineer's time, and host clocks drift by more
# between runs; a verdict needs the whole interval on one side of it.
PRACTICAL = 0.02
CONFIDENCE = 0.95
_Z = 1.959964
_BLOCKS = 12
_FEWEST_FOR_BLOCKS = 5 * _BLOCKS
FEWEST_QUADS = 6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A central value with its 95 % interval, in the unit of the samples."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Full width of the interval relative to the value; infinite when unknown."""
        if not math.isfinite(self.low) or not math.isfinite(self.high) or self.value <= 0:
            return math.inf
        return (self.high - self.low) / self.value


def _order_interval(ordered: Samples) -> tuple[float, float]:
    """Distribution-free interval of the median: the order statistics at n/2 -+ z sqrt(n)/2."""
    n = len(ordered)
    reach = _Z * math.sqrt(n) / 2
    low = max(0, math.floor(n / 2 - reach))
    high = min(n - 1, math.ceil(n / 2 + reach) - 1)
    return float(ordered[low]), float(ordered[max(high, low)])


def median_estimate(samples: Sequence[float] | Samples) -> Estimate:
    """Median with a 95 % interval from order statistics, widened to that of 12 block medians.

    The second part makes drift visible: blocks that disagree more than their samples do mean that
    the samples are not independent. Under 3 samples the interval is infinite. Raises ValueError for none.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no samples to take a median of")
    median = float(np.median(values))
    if values.size < 3:
        return Estimate(median, -math.inf, math.inf)
    low, high = _order_interval(np.sort(values))
    if values.size >= _FEWEST_FOR_BLOCKS:
        medians = np.sort([float(np.median(block)) for block in np.array_split(values, _BLOCKS)])
        block_low, block_high = _order_interval(medians)
        low, high = min(low, block_low), max(high, block_high)
    return Estimate(median, min(low, median), max(high, median))


def quad_log_ratios(ours: Sequence[Samples], theirs: Sequence[Samples]) -> Samples:
    """log(their time / our time) of each ABBA quad, from the medians of its two blocks of each side."""
    return np.array(
        [
            math.log(float(np.median(t)) / float(np.median(o)))
            for o, t in zip(ours, theirs, strict=True)
        ],
        dtype=np.float64,
    )


def ratio_estimate(
    log_ratios: Sequence[float] | Samples, seed: int = 0, resamples: int = 2000
) -> Estimate:
    """Median ratio with a 95 % bootstrap interval over quads.

    The bootstrap of a median is coarse for few quads, so it is widened to the order statistics'
    interval; under FEWEST_QUADS quads the interval is infinite.
    """
    logs = np.asarray(log_ratios, dtype=np.float64)
    if logs.size == 0:
        raise ValueError("no pairs to take a ratio of")
    center = float(np.median(logs))
    if logs.size < FEWEST_QUADS:
        return Estimate(math.exp(center), 0.0, math.inf)
    draws = np.random.default_rng(seed).integers(0, logs.size, size=(resamples, logs.size))
    medians = np.median(logs[draws], axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = (float(v) for v in np.percentile(medians, [tail, 100 - tail]))
    order_low, order_high = _order_interval(np.sort(logs))
    return Estimate(
        math.exp(center), math.exp(min(low, order_low)), math.exp(max(high, order_high))
    )


def verdict(ratio: Estimate, practical: float = PRACTICAL) -> str:
    """same / faster / slower / inconclusive, for ratio = peer time / our time.

    Faster: the whole interval above 1 + practical. Slower: all below 1 / (1 + practical). Same: all
    between the two. Anything else cannot be said from these samples.
    """
    upper, lower = 1.0 + practical, 1.0 / (1.0 + practical)
    if ratio.low > upper:
        return "faster"
    if ratio.high < lower:
        return "slower"
    if ratio.low >= lower and ratio.high <= upper:
        return "same"
    return "inconclusive"


def geometric_mean(values: Sequence[float], seed: int = 0, resamples: int = 2000) -> Estimate:
    """Geometric mean with a 95 % bootstrap interval over the values (here: over shapes)."""
    logs = np.log(np.asarray(values, dtype=np.float64))
    if logs.size == 0:
        raise ValueError("no values to take a mean of")
    draws = np.random.default_rng(seed).integers(0, logs.size, size=(resamples, logs.size))
    low, high = np.percentile(logs[draws].mean(axis=1), [2.5, 97.5])
    return Estimate(math.exp(float(logs.mean())), math.exp(float(low)), math.exp(float(high)))
