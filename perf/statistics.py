"""Intervals and verdicts from samples of time.

Samples of one run are not independent: clocks and neighbours drift. Intervals therefore come from a
bootstrap over contiguous blocks of the run (Künsch 1989; circular blocks after Politis and Romano
1992), so that what blocks disagree about widens them, and ratios are taken inside short rounds.
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
FEWEST_QUADS = 6
_Z = 1.959964
_BLOCKS = 12
_FEWEST_FOR_BLOCKS = 5 * _BLOCKS
_RESAMPLES = 400
# A median of more samples than this is bootstrapped from every second, third, ... of them.
_MOST_RESAMPLED = 3000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A central value with its interval (95 % unless said otherwise), in the unit of the samples."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Full width of the interval relative to the value; infinite when unknown."""
        if not math.isfinite(self.low) or not math.isfinite(self.high) or self.value <= 0:
            return math.inf
        return (self.high - self.low) / self.value


def _normal_quantile(confidence: float) -> float:
    from statistics import NormalDist

    return _Z if confidence == CONFIDENCE else NormalDist().inv_cdf(0.5 + confidence / 2)


def _order_interval(ordered: Samples, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Distribution-free interval of the median: the order statistics at n/2 -+ z sqrt(n)/2."""
    n = len(ordered)
    reach = _normal_quantile(confidence) * math.sqrt(n) / 2
    low = max(0, math.floor(n / 2 - reach))
    high = min(n - 1, math.ceil(n / 2 + reach) - 1)
    return float(ordered[low]), float(ordered[max(high, low)])


def block_medians(values: Samples, length: int, seed: int, resamples: int) -> Samples:
    """Medians of `resamples` runs put together from circular blocks of `length` consecutive values."""
    n = len(values)
    blocks = math.ceil(n / length)
    starts = np.random.default_rng(seed).integers(0, n, size=(resamples, blocks, 1))
    picked = (starts + np.arange(length)) % n
    found: Samples = np.median(values[picked.reshape(resamples, -1)[:, :n]], axis=1)
    return found


def median_estimate(samples: Sequence[float] | Samples) -> Estimate:
    """Median with a 95 % interval: of the order statistics, widened to that of a block bootstrap.

    Blocks are a twelfth of the run, so drift shows: blocks that disagree more than their samples do mean
    that the samples are not independent. Under 3 samples the interval is infinite. Raises ValueError for none.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no samples to take a median of")
    median = float(np.median(values))
    if values.size < 3:
        return Estimate(median, -math.inf, math.inf)
    low, high = _order_interval(np.sort(values))
    if values.size >= _FEWEST_FOR_BLOCKS:
        kept = values[:: math.ceil(values.size / _MOST_RESAMPLED)]
        drawn = block_medians(kept, math.ceil(len(kept) / _BLOCKS), 0, _RESAMPLES)
        block_low, block_high = _percentiles(drawn, CONFIDENCE)
        low, high = min(low, block_low), max(high, block_high)
    return Estimate(median, min(low, median), max(high, median))


def _percentiles(values: Samples, confidence: float) -> tuple[float, float]:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def ratio_estimate(
    log_ratios: Sequence[float] | Samples,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Median ratio with a bootstrap interval over blocks of consecutive rounds.

    Blocks hold the cube root of the number of rounds. The bootstrap of a median is coarse for few rounds,
    so it is widened to the order statistics' interval; under FEWEST_QUADS rounds the interval is infinite.
    """
    logs = np.asarray(log_ratios, dtype=np.float64)
    if logs.size == 0:
        raise ValueError("no pairs to take a ratio of")
    center = float(np.median(logs))
    if logs.size < FEWEST_QUADS:
        return Estimate(math.exp(center), 0.0, math.inf)
    drawn = block_medians(logs, max(1, round(logs.size ** (1 / 3))), seed, resamples)
    low, high = _percentiles(drawn, confidence)
    order_low, order_high = _order_interval(np.sort(logs), confidence)
    low, high = min(low, order_low, center), max(high, order_high, center)
    return Estimate(math.exp(center), math.exp(low), math.exp(high))


def student_quantile(freedom: int, probability: float) -> float:
    """The quantile of Student's t for whole degrees of freedom, by bisection on its closed form
    (Abramowitz and Stegun 26.7.3 and 26.7.4); within 1e-9."""
    low, high = 0.0, 1.0
    while _student_below(high, freedom) < probability:
        high *= 2.0
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _student_below(middle, freedom) < probability else (low, middle)
        )
    return (low + high) / 2


def _student_below(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2 == 1
    term = total = cosine if odd else 1.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    if not odd:
        return 0.5 + 0.5 * math.sin(angle) * total
    return 0.5 + (angle + (math.sin(angle) * total if freedom > 1 else 0.0)) / math.pi


def mean_ratio(log_ratios: Sequence[float] | Samples, confidence: float = CONFIDENCE) -> Estimate:
    """Geometric mean of ratios that are independent of each other, with Student's interval; infinite for fewer than 3."""
    logs = np.asarray(log_ratios, dtype=np.float64)
    if logs.size == 0:
        raise ValueError("no ratios to take a mean of")
    center = float(logs.mean())
    if logs.size < 3:
        return Estimate(math.exp(center), 0.0, math.inf)
    spread = float(logs.std(ddof=1)) / math.sqrt(logs.size)
    reach = student_quantile(logs.size - 1, 0.5 + confidence / 2) * spread
    return Estimate(math.exp(center), math.exp(center - reach), math.exp(center + reach))


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
