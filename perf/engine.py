"""The timing engine of bench, gate and tune: warm-up, samples until a rule says enough, interleaved rounds.

It times whatever it is given; `perf.gate` sees to it that only right outputs get here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.perf.machine_state import Disturbance, Watch
from tilewright.perf.statistics import (
    FEWEST_QUADS,
    Estimate,
    Samples,
    median_estimate,
    ratio_estimate,
)
from tilewright.perf.stopping import Effort, Width, rule_of
from tilewright.perf.timers import Timer, flushing, settle, undisturbed

__all__ = ["Effort", "Measurement", "Pair", "Rounds", "Turns", "batch_for", "measure", "measure_pair", "measure_rounds"]  # fmt: skip

# A sample shorter than this is a batch of calls, so that reading the clock does not count.
_SHORTEST_SAMPLE_NS = {
    "native": 2_000.0,
    "python": 20_000.0,
    "run": 100_000.0,
    "events": 100_000.0,
    "queued": 100_000.0,
}
_CHUNK_NS = 40e6
BLOCK_NS = 8e6
_MOST_IN_BLOCK = 40
# First guesses of times that differ by less than this factor may well be of equal calls.
_NEAR = 4.0
# Calls before a guess, however short the warm-up: the first ones are slow, and the thread may not even have run.
_FEWEST_WARM = 6
# A longer call fills the caches in its first part: it needs no call of its own to warm them.
_LONG_CALL_NS = 2e6
# Slow peers may take this many times the budget until there are enough rounds for an interval.
_OVERTIME = 4.0
# Whether rounds are enough is asked again when there are this many times as many.
_GROWTH = 1.15

Now = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Samples of one call in ns, in the order taken, with their median and how the machine behaved.

    `converged` says whether the rule was met before the budget was spent.
    """

    samples: Samples
    median: Estimate
    batch: int
    cache: str
    clock: str
    converged: bool
    disturbance: Disturbance
    rule: str = "width"


@dataclass(frozen=True, slots=True)
class Rounds:
    """Several calls timed in turns. `logs[r, i]` is the log of call i's time in ns in round r: the mean of the
    logs of its two blocks' medians, which cancels drift that is linear within the round.
    `samples[i]` are all its samples in ns, in the order taken."""

    logs: Samples
    samples: tuple[Samples, ...]
    batches: tuple[int, ...]
    converged: bool
    disturbance: Disturbance

    @property
    def times(self) -> Samples:
        """ns per call, [rounds, calls]."""
        found: Samples = np.exp(self.logs)
        return found


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


def _warm_up(timer: Timer, effort: Effort, now: Now) -> float:
    """Call until warm; returns ns per call as first guess."""
    end = now() + min(effort.warmup_s, effort.seconds / 4)
    fastest = float(timer.sample(1, 1, 0)[0])
    for done in range(1, 1000):
        if now() >= end and (done >= _FEWEST_WARM or fastest > _LONG_CALL_NS):
            break
        fastest = min(fastest, float(timer.sample(1, 1, 0)[0]))
    return max(fastest, 1.0)


def batch_for(call_ns: float, clock: str, cold: bool) -> int:
    """Calls per sample: 1 when cold, else enough that a sample is longer than the clock's own cost."""
    if cold:
        return 1
    return int(np.clip(np.ceil(_SHORTEST_SAMPLE_NS.get(clock, 20_000.0) / call_ns), 1, 10_000))


def _alike(guesses: list[float]) -> list[float]:
    """The fastest guess for all where they are near each other: calls that may turn out equal are to be timed equally,
    and the first call of a batch costs more than the others."""
    fastest = min(guesses)
    return [fastest if guess < _NEAR * fastest else guess for guess in guesses]


def measure(
    timer: Timer, effort: Effort | None = None, cold: bool = False, now: Now = time.monotonic
) -> Measurement:
    """Time one call until the effort's rule says enough, its budget is spent, or it has its most samples.

    Warm: the call repeats on the same memory. Cold: every cache is evicted before each sample.
    """
    effort = effort or Effort()
    rule = rule_of(effort)
    watch = Watch()
    flush, flush_ns = flushing(timer) if cold else (0, 0.0)
    with undisturbed():
        end = now() + effort.seconds
        call_ns = _warm_up(timer, effort, now)
        batch = batch_for(call_ns, timer.clock, cold)
        each = call_ns * batch + flush_ns
        chunks: list[Samples] = []
        taken = 0
        while True:
            left = max(0.0, end - now()) * 1e9
            count = int(np.clip(min(_CHUNK_NS, left) / each, 1, 2000))
            chunks.append(timer.sample(min(count, effort.most - taken), batch, flush))
            taken += len(chunks[-1])
            rule.add(chunks[-1])
            watch.tick()
            converged = taken >= effort.fewest and rule.done()
            if converged or now() >= end or taken >= effort.most:
                break
    samples = np.concatenate(chunks)
    # The interval of the last look, where that saw every sample.
    fresh = rule.estimate if isinstance(rule, Width) and rule.seen == taken else None
    return Measurement(
        samples,
        fresh or median_estimate(samples),
        batch,
        "cold" if cold else "warm",
        timer.clock,
        converged,
        watch.read(),
        effort.rule,
    )


class Turns:
    """Any number of calls timed in turns, a round at a time, for whoever decides between rounds what goes on.

    A round goes there and back again, in an order drawn by lot. Drift hits all calls of a round alike, so they are
    compared inside rounds; no rhythm of the machine can keep in step with an order that is drawn; and
    every second round has the reverse of the order before. A block waits until threads of the others are at rest,
    makes one untimed call when warm, then takes the samples that fit into `block_ns`, at least one.
    `alone`: the calls use the calling thread and no other, so there is nothing to wait for before a block.
    Use it inside `undisturbed()`.
    """

    def __init__(
        self,
        timers: Sequence[Timer],
        effort: Effort,
        cold: bool = False,
        now: Now = time.monotonic,
        block_ns: float = BLOCK_NS,
        alone: bool = False,
        seed: int = 0,
    ) -> None:
        self._timers, self._cold, self._alone = timers, cold, alone
        self._flush, flush_ns = max(flushing(timer) for timer in timers) if cold else (0, 0.0)
        self._guesses = _alike([_warm_up(timer, effort, now) for timer in timers])
        self.batches = tuple(
            batch_for(g, t.clock, cold) for g, t in zip(self._guesses, timers, strict=True)
        )
        self._counts = [
            int(np.clip(block_ns / (g * b + flush_ns), 1, _MOST_IN_BLOCK))
            for g, b in zip(self._guesses, self.batches, strict=True)
        ]
        self._lot = np.random.default_rng(seed)
        self._last: list[int] = []
        self._kept: list[list[Samples]] = [[] for _ in timers]

    def round(self, which: Sequence[int] | None = None) -> Samples:
        """One round of the calls named (all of them for None): the log of each one's time in ns, NaN for the others."""
        chosen = list(range(len(self._timers)) if which is None else which)
        again = sorted(self._last) == sorted(chosen)
        order = (
            self._last[::-1] if again else [chosen[i] for i in self._lot.permutation(len(chosen))]
        )
        self._last = [] if again else order
        row = np.full(len(self._timers), np.nan)
        row[order] = 0.0
        for i in (*order, *reversed(order)):
            row[i] += 0.5 * math.log(max(1e-3, self._block(i)))
        return row

    def _block(self, i: int) -> float:
        """The median of one call's block, ns."""
        timer = self._timers[i]
        if not self._alone:
            settle()
        if not self._cold and self._guesses[i] < _LONG_CALL_NS:
            timer.once()
        block = timer.sample(self._counts[i], self.batches[i], self._flush)
        self._kept[i].append(block)
        return float(block[0] if len(block) == 1 else np.median(block))

    def samples(self) -> tuple[Samples, ...]:
        """All samples of each call in ns, in the order taken."""
        return tuple(np.concatenate(blocks) if blocks else np.empty(0) for blocks in self._kept)


def measure_rounds(
    timers: Sequence[Timer],
    effort: Effort | None = None,
    cold: bool = False,
    now: Now = time.monotonic,
    done: Callable[[Samples], bool] | None = None,
    fewest: int = FEWEST_QUADS,
    most: int = 20_000,
    block_ns: float = BLOCK_NS,
    alone: bool = False,
    seed: int = 0,
    processes: Sequence[int] = (),
) -> Rounds:
    """Time any number of calls in `Turns`, all of them in every round; `processes` are those that calls run in.

    Ends when `done(logs)` says so (asked after `fewest` rounds, and then more and more rarely), after `most` rounds,
    when the budget is spent and there are `fewest` rounds, or after 5 budgets in any case. Without `done`: at the
    budget.
    """
    effort = effort or Effort()
    watch = Watch(processes=processes)
    logs: list[Samples] = []
    with undisturbed():
        end = now() + effort.seconds
        turns = Turns(timers, effort, cold, now, block_ns, alone, seed)
        next_look, converged = fewest, False
        while True:
            logs.append(turns.round())
            watch.tick()
            if done is not None and len(logs) >= next_look:
                next_look = max(len(logs) + 1, math.ceil(_GROWTH * len(logs)))
                converged = done(np.array(logs))
            spent = now() >= end and len(logs) >= fewest
            if converged or spent or len(logs) >= most or now() >= end + _OVERTIME * effort.seconds:
                break
    return Rounds(np.array(logs), turns.samples(), turns.batches, converged, watch.read())


def log_ratios(rounds: Rounds, over: int = 1, under: int = 0) -> Samples:
    """log(time of `over` / time of `under`), a value each round."""
    found: Samples = rounds.logs[:, over] - rounds.logs[:, under]
    return found


def measure_pair(
    ours: Timer,
    theirs: Timer,
    effort: Effort | None = None,
    cold: bool = False,
    now: Now = time.monotonic,
    seed: int = 0,
) -> Pair:
    """Time two calls side by side in quads ours-theirs-theirs-ours (or the reverse, by lot) until the 95 %
    interval of their ratio is narrower than the effort's width."""
    effort = effort or Effort()

    def narrow(logs: Samples) -> bool:
        return ratio_estimate(logs[:, 1] - logs[:, 0], seed).width <= effort.width

    rounds = measure_rounds((ours, theirs), effort, cold, now, narrow, seed=seed)
    logs = log_ratios(rounds)
    measured = [
        Measurement(
            samples,
            median_estimate(samples),
            batch,
            "cold" if cold else "warm",
            side.clock,
            rounds.converged,
            rounds.disturbance,
        )
        for samples, batch, side in zip(rounds.samples, rounds.batches, (ours, theirs), strict=True)
    ]
    return Pair(measured[0], measured[1], logs, ratio_estimate(logs, seed))
