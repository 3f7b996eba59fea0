"""The timing engine: warm-up, samples until the interval is narrow, interleaved pairs.

It times whatever it is given; `perf.gate` sees to it that only right outputs get here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tilewright.errors import UsageError
from tilewright.perf.machine_state import Disturbance, Watch
from tilewright.perf.statistics import (
    FEWEST_QUADS,
    Estimate,
    Samples,
    median_estimate,
    quad_log_ratios,
    ratio_estimate,
)
from tilewright.perf.timers import Timer, flush_size, settle, undisturbed

# A sample shorter than this is a batch of calls, so that reading the clock does not count.
_SHORTEST_SAMPLE_NS = {"native": 2_000.0, "python": 20_000.0}
_CHUNK_NS = 40e6
_BLOCK_NS = 8e6
# A longer call fills the caches in its first part: it needs no call of its own to warm them.
_LONG_CALL_NS = 5e6
# Slow peers may take this many times the budget until there are enough quads for an interval.
_OVERTIME = 4.0
_MOST_SAMPLES = 20_000


@dataclass(frozen=True, slots=True)
class Effort:
    """When to stop: interval of the median narrower than `width` (relative, full), or `seconds` spent."""

    width: float = 0.02
    seconds: float = 2.0
    fewest: int = 10
    warmup_s: float = 0.05

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.width <= 0:
            raise UsageError(f"seconds {self.seconds} and width {self.width} must be positive")


@dataclass(frozen=True, slots=True)
class Measurement:
    """Samples of one call in ns, in the order taken, with their median and how the machine behaved."""

    samples: Samples
    median: Estimate
    batch: int
    cache: str
    clock: str
    converged: bool
    disturbance: Disturbance


@dataclass(frozen=True, slots=True)
class Pair:
    """Two calls timed in interleaved ABBA quads; `ratio` is theirs / ours."""

    ours: Measurement
    theirs: Measurement
    log_ratios: Samples
    ratio: Estimate

    @property
    def converged(self) -> bool:
        """Whether the interval of the ratio became narrow enough within the budget."""
        return self.ours.converged


Now = Callable[[], float]


def _warm_up(timer: Timer, effort: Effort, now: Now) -> float:
    """Call until warm; returns ns per call as first guess."""
    end = now() + min(effort.warmup_s, effort.seconds / 4)
    fastest = float(timer.sample(1, 1, 0)[0])
    for _ in range(1000):
        fastest = min(fastest, float(timer.sample(1, 1, 0)[0]))
        if now() >= end:
            break
    return max(fastest, 1.0)


def batch_for(call_ns: float, clock: str, cold: bool) -> int:
    """Calls per sample: 1 when cold, else enough that a sample is longer than the clock's own cost."""
    if cold:
        return 1
    return int(np.clip(np.ceil(_SHORTEST_SAMPLE_NS.get(clock, 20_000.0) / call_ns), 1, 10_000))


def measure(
    timer: Timer, effort: Effort | None = None, cold: bool = False, now: Now = time.monotonic
) -> Measurement:
    """Time one call until the 95 % interval of its median is narrower than `effort.width`.

    Warm: the call repeats on the same memory. Cold: every cache is evicted before each sample.
    """
    effort = effort or Effort()
    watch = Watch()
    flush = flush_size() if cold else 0
    with undisturbed():
        end = now() + effort.seconds
        call_ns = _warm_up(timer, effort, now)
        batch = batch_for(call_ns, timer.clock, cold)
        chunks: list[Samples] = []
        taken = 0
        while True:
            each = call_ns * batch + flush / 8.0
            left = max(0.0, end - now()) * 1e9
            count = int(np.clip(min(_CHUNK_NS, left) / each, 1, 2000))
            chunks.append(timer.sample(count, batch, flush))
            taken += count
            estimate = median_estimate(np.concatenate(chunks))
            converged = taken >= effort.fewest and estimate.width <= effort.width
            if converged or now() >= end or taken >= _MOST_SAMPLES:
                break
    return Measurement(
        np.concatenate(chunks),
        estimate,
        batch,
        "cold" if cold else "warm",
        timer.clock,
        converged,
        watch.read(),
    )


def measure_pair(
    ours: Timer,
    theirs: Timer,
    effort: Effort | None = None,
    cold: bool = False,
    now: Now = time.monotonic,
    seed: int = 0,
) -> Pair:
    """Time two calls side by side in quads ours-theirs-theirs-ours (every other one reversed).

    Drift hits both sides of a quad alike, so the ratio is taken inside quads. A block waits until the
    other side's threads are at rest, makes one untimed call when warm, then takes a few samples.
    """
    effort = effort or Effort()
    watch = Watch()
    flush = flush_size() if cold else 0
    sides: tuple[Timer, Timer] = (ours, theirs)
    collected: tuple[list[Samples], list[Samples]] = ([], [])
    with undisturbed():
        end = now() + effort.seconds
        guesses = [_warm_up(side, effort, now) for side in sides]
        batches = [batch_for(g, side.clock, cold) for g, side in zip(guesses, sides, strict=True)]
        counts = [
            int(np.clip(_BLOCK_NS / (g * b + flush / 8.0), 1, 40))
            for g, b in zip(guesses, batches, strict=True)
        ]
        while True:
            order = (0, 1, 1, 0) if len(collected[0]) % 2 == 0 else (1, 0, 0, 1)
            quad: tuple[list[Samples], list[Samples]] = ([], [])
            for which in order:
                settle()
                if not cold and guesses[which] < _LONG_CALL_NS:
                    sides[which].once()
                quad[which].append(sides[which].sample(counts[which], batches[which], flush))
            for which in (0, 1):
                collected[which].append(np.concatenate(quad[which]))
            logs = quad_log_ratios(*collected)
            ratio = ratio_estimate(logs, seed)
            converged = len(logs) >= FEWEST_QUADS and ratio.width <= effort.width
            if (
                converged
                or (now() >= end and len(logs) >= FEWEST_QUADS)
                or now() >= end + _OVERTIME * effort.seconds
            ):
                break
    disturbance = watch.read()
    measured = [
        Measurement(
            np.concatenate(collected[i]),
            median_estimate(np.concatenate(collected[i])),
            batches[i],
            "cold" if cold else "warm",
            sides[i].clock,
            converged,
            disturbance,
        )
        for i in (0, 1)
    ]
    return Pair(measured[0], measured[1], logs, ratio)
