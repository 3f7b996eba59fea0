"""When enough samples were taken: a narrow interval, a settled entropy, or a spent budget.

The entropy rule is nvbench's documented criterion (docs/cli_help_axis.md, `--stopping-criterion entropy`):
the Shannon entropy of all samples so far grows with every value not seen before and settles once the
distribution is known. A line is fitted through the last entropies; its slope, as an angle, and its
R^2 are held against limits.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tilewright.errors import UsageError, unknown
from tilewright.perf.statistics import Estimate, Samples, median_estimate

RULES = ("width", "entropy", "budget")
# nvbench's defaults.
MAX_ANGLE_DEG = 0.048
MIN_R2 = 0.36
WINDOW = 299
_EVERY = 2
# Intervals are computed again only after the run has grown by this factor: they cost milliseconds.
_GROWTH = 1.25
# A clock of nanoseconds gives nearly every sample a value of its own, and the entropy of values that are all
# different says nothing of their distribution. A tick of this share of the first samples' median stands in for the
# half microsecond of a GPU's events.
_TICK_SHARE = 0.002


@dataclass(frozen=True, slots=True)
class Effort:
    """When to stop timing.

    `rule` is `width` (95 % interval of the median narrower than `width`, relative and full), `entropy`, or `budget`
    (nothing but the budget). Whichever it is: not before `fewest` samples, at `most` samples, and when
    `seconds` are spent. For a screening of 1 to 3 repeats: `Effort.repeats(3)`.
    """

    width: float = 0.02
    seconds: float = 2.0
    fewest: int = 10
    warmup_s: float = 0.05
    rule: str = "width"
    most: int = 20_000

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.width <= 0:
            raise UsageError(f"seconds {self.seconds} and width {self.width} must be positive")
        if self.rule not in RULES:
            raise unknown("rule to stop", self.rule, RULES)
        if not 1 <= self.fewest <= self.most:
            raise UsageError(f"fewest {self.fewest} must be 1 to most, which is {self.most}")

    @staticmethod
    def repeats(count: int, seconds: float = 60.0, warmup_s: float = 0.0) -> Effort:
        """Exactly `count` samples, unless the seconds are spent before."""
        return Effort(seconds=seconds, fewest=count, most=count, warmup_s=warmup_s, rule="budget")


class Rule(Protocol):
    """Is told every sample, in order; says whether there are enough."""

    def add(self, samples: Samples) -> None: ...

    def done(self) -> bool: ...


class BudgetOnly:
    """Never enough: only the budget ends it."""

    def add(self, samples: Samples) -> None:
        """Nothing to remember."""

    def done(self) -> bool:
        return False


@dataclass(slots=True)
class Width:
    """Enough when the 95 % interval of the median is narrower than `width`."""

    width: float
    _chunks: list[Samples] = field(default_factory=list)
    _count: int = 0
    seen: int = 0
    estimate: Estimate | None = None

    def add(self, samples: Samples) -> None:
        self._chunks.append(samples)
        self._count += len(samples)

    def done(self) -> bool:
        if self._count >= max(1, self.seen * _GROWTH):
            self.seen = self._count
            self.estimate = median_estimate(np.concatenate(self._chunks))
        return self.estimate is not None and self.estimate.width <= self.width


@dataclass(slots=True)
class Entropy:
    """Enough when the entropy of all samples so far no longer rises and a line describes its last values.

    `tick` is the width of a bin in ns; 0 takes 0.2 % of the median of the first samples given.
    """

    tick: float = 0.0
    max_angle_deg: float = MAX_ANGLE_DEG
    min_r2: float = MIN_R2
    fewest: int = 10
    entropies: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _seen: Counter[int] = field(default_factory=Counter)
    _count: int = 0
    _sum: float = 0.0
    _settled: bool = False

    def add(self, samples: Samples) -> None:
        if not self.tick and len(samples):
            self.tick = max(1e-9, _TICK_SHARE * float(np.median(samples)))
        for value in samples:
            self._one(round(float(value) / self.tick))
            if self._settled or self._count < self.fewest:
                continue
            if self._count % _EVERY == 0:
                self._settled = self._flat()

    def _one(self, value: int) -> None:
        """Counts a value; the sum of c log2 c over the counts c gives the entropy without a pass over them all."""
        before = self._seen[value]
        self._seen[value] = before + 1
        self._count += 1
        self._sum += (before + 1) * math.log2(before + 1) - (
            before * math.log2(before) if before else 0.0
        )
        self.entropies.append(math.log2(self._count) - self._sum / self._count)

    def _flat(self) -> bool:
        if len(self.entropies) < 2:
            return False
        slope, r2 = line(self.entropies)
        return math.degrees(math.atan(slope)) <= self.max_angle_deg and r2 >= self.min_r2

    def done(self) -> bool:
        return self._settled


def line(values: Sequence[float] | deque[float]) -> tuple[float, float]:
    """Slope of the least-squares line through equally spaced values, and its R^2 (1 for values all equal)."""
    y = np.asarray(values, dtype=np.float64)
    x = np.arange(len(y)) - (len(y) - 1) / 2
    centred = y - y.mean()
    slope = float(x @ centred / (x @ x))
    total = float(centred @ centred)
    # Rounding leaves a trace of variance where all values are equal.
    if total <= len(y) * (1e-12 * (1.0 + abs(float(y.mean())))) ** 2:
        return 0.0, 1.0
    left = centred - slope * x
    return slope, 1.0 - float(left @ left) / total


def rule_of(effort: Effort) -> Rule:
    """The rule an effort names, at its start."""
    if effort.rule == "entropy":
        return Entropy(fewest=effort.fewest)
    return Width(effort.width) if effort.rule == "width" else BudgetOnly()
