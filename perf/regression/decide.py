"""When a benchmark counts as slower: passes on fresh builds, two stages, an error budget for the whole gate.

A pass loads both builds afresh, draws fresh memory, and gives one ratio for each benchmark that is still open.
Where code and data come to lie moves times by a percent or two and stays put within a load, so passes, and
not samples, are what an interval may be computed from: Student's, over the ratios of the passes.

`same` is taken as soon as the 95 % interval lies within the threshold. Whatever looks slower or
faster is a suspicion: it takes further passes that say so by themselves, and all passes together at a
confidence that shares the gate's error budget out among its benchmarks (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tilewright.errors import UsageError
from tilewright.perf.machine_state import Disturbance
from tilewright.perf.statistics import (
    CONFIDENCE,
    PRACTICAL,
    Estimate,
    Samples,
    mean_ratio,
    verdict,
)

SAME, SLOWER, FASTER, INCONCLUSIVE = "same", "slower", "faster", "inconclusive"


@dataclass(frozen=True, slots=True)
class Policy:
    """How sure a gate has to be, and how long it may take.

    `threshold`: differences below this fraction are `same`. `alarms`: the chance per gate run of calling anything slower
    that is not, if passes are independent; what it is on a real machine is measured (docs/gate.md). `pass_s` is the
    budget of one pass of one benchmark, `most` the passes after which an open benchmark is inconclusive.
    """

    threshold: float = PRACTICAL
    alarms: float = 0.01
    pass_s: float = 0.2
    fewest: int = 5
    confirming: int = 3
    most: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UsageError(f"threshold {self.threshold} must be a fraction between 0 and 1")
        if self.pass_s <= 0:
            raise UsageError(f"a pass of {self.pass_s} s must be longer than nothing")
        if not 3 <= self.fewest <= self.most or self.confirming < 3:
            raise UsageError(
                f"fewest {self.fewest} and confirming {self.confirming} passes must be at least 3, most {self.most} no fewer"
            )

    def strict(self, benchmarks: int) -> float:
        """Confidence of the interval over all passes that makes a suspicion a verdict, in a gate of so many benchmarks."""
        return 1.0 - self.alarms / max(1, benchmarks)


@dataclass(frozen=True, slots=True)
class Look:
    """One pass of a benchmark: log of the ratio base / new, times in ns, samples for the record."""

    log_ratio: float
    base_ns: float
    new_ns: float
    seconds: float
    disturbance: Disturbance
    quads: int = 1
    samples: tuple[Samples, ...] = ()


# One look at a benchmark in a pass; None when it cannot go on (its output is wrong): it is then left as it is.
Measure = Callable[[int, int], Look | None]


@dataclass(slots=True)
class Contest:
    """One benchmark between its two builds: the passes so far and what they say together."""

    policy: Policy
    strict: float
    looks: list[Look] = field(default_factory=list)
    verdict: str = INCONCLUSIVE
    closed: bool = False
    # What was suspected, and after how many passes.
    suspicion: str | None = None
    suspected_at: int = 0

    @property
    def spent_s(self) -> float:
        return sum(look.seconds for look in self.looks)

    def estimate(self, first: int = 0, confidence: float = CONFIDENCE) -> Estimate:
        """Ratio base / new over the passes from the `first` on."""
        return mean_ratio([look.log_ratio for look in self.looks[first:]], confidence)

    def _says(self, first: int = 0, confidence: float = CONFIDENCE) -> str:
        return verdict(self.estimate(first, confidence), self.policy.threshold)

    def add(self, look: Look) -> None:
        """Take a pass in and close the contest if it can be decided, or if there were enough of them."""
        self.looks.append(look)
        if len(self.looks) >= self.policy.fewest:
            self._decide()
        if not self.closed and len(self.looks) >= self.policy.most:
            self.closed = True

    def _decide(self) -> None:
        said = self._says()
        if said == SAME:
            self.verdict, self.closed = SAME, True
        elif said in (SLOWER, FASTER):
            if self.suspicion != said:
                self.suspicion, self.suspected_at = said, len(self.looks)
            elif self._confirmed(said):
                self.verdict, self.closed = said, True

    def _confirmed(self, said: str) -> bool:
        """Whether the passes since the suspicion say it by themselves, and all together say it at the strict confidence."""
        since = len(self.looks) - self.suspected_at
        return (
            since >= self.policy.confirming
            and self._says(self.suspected_at) == said
            and self._says(0, self.strict) == said
        )


def run(
    count: int,
    policy: Policy,
    measure: Measure,
    looked: Callable[[int, Contest], None] | None = None,
    new_pass: Callable[[int], None] | None = None,
) -> list[Contest]:
    """Decide `count` benchmarks in passes over those still open; `measure(benchmark, pass)` takes one look.

    `new_pass(k)` is called before pass k, for the measuring side to load everything afresh; `looked` after each look.
    """
    contests = [Contest(policy, policy.strict(count)) for _ in range(count)]
    for k in range(policy.most):
        open_ = [i for i, contest in enumerate(contests) if not contest.closed]
        if not open_:
            break
        if new_pass:
            new_pass(k)
        for i in open_:
            look = measure(i, k)
            if look is None:
                contests[i].closed = True
                continue
            contests[i].add(look)
            if looked:
                looked(i, contests[i])
    return contests


def typical(values: Sequence[float]) -> float:
    """The median of a few values."""
    return float(np.median(values))


def overall(verdicts: Sequence[str]) -> str:
    """The gate's verdict: slower if anything is, else inconclusive if anything is, else faster or same."""
    for said in (SLOWER, INCONCLUSIVE, FASTER):
        if said in verdicts:
            return said
    return SAME if verdicts else INCONCLUSIVE
