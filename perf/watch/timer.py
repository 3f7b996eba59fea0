"""A timer that watches what it times: between samples it changes inputs, poisons, takes outputs, reads clocks."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.perf.statistics import Samples
from tilewright.perf.timers import Timer, settle
from tilewright.perf.watch import secret
from tilewright.perf.watch.caught import Cheated
from tilewright.perf.watch.outputs import POISONS, copies, poison
from tilewright.perf.watch.scene import TIMED, Scene
from tilewright.perf.watch.system_clock import cpu_ns, wall_ns

# Inputs change as often as this, at least: shorter calls are made in runs of samples. What happens between two runs
# costs the first sample of the next some 20 us of cache misses, so where that would show the first is left out.
_SEGMENT_NS = 10e6
# A sample this long hides what surrounds it, so that two clocks can be compared.
_CLOCK_SAMPLE_NS = 2e6
_CLOCK_SAMPLES = 6
_CLOCKS_NS = 40e6
# The system's clock may say this much more than the samples: a call from Python and back.
_CLOCK_SLACK = 1.25
# Calls made close upon each other, on inputs that change before each or stay.
_BURST_CALLS, _FEWEST_CALLS = 24, 6
_BURST_NS = 60e6
# Calls on inputs seen before may be this much faster than on new ones, and 2 us more: a changed line of memory
# comes from another core's cache.
_REMEMBERS, _REMEMBERS_NS = 1.6, 2_000.0
# What the load of the machine could feign has to show this many times.
_CONFIRMED = 4
# Work put off is given this long to show in the output.
_REST_S = 0.01
# Processor time beyond the threads a row names.
_MORE_THREADS = 0.5
# Rounds of a timing that lasts its whole budget, besides those after it.
_ROUNDS = 6

Burst = Callable[[Scene, int, bool], Sequence[int]]


@dataclass(slots=True)
class Clocks:
    """Long samples by three clocks, ns: what the timer said, what the system says, processor time."""

    said: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def agree(self) -> bool:
        """Whether the timer told the system's time in two samples at least.

        On a busy machine a sample may be interrupted between the readings of one clock and the other.
        """
        ratios = np.array(self.wall) / np.maximum(np.array(self.said), 1e-3)
        return int(np.sum((ratios <= _CLOCK_SLACK) & (ratios >= 1 / _CLOCK_SLACK))) >= 2


class WatchedTimer:
    """Times what `inner` times. Which sample is followed by what is drawn when it is over."""

    def __init__(
        self, inner: Timer, scene: Scene, burst: Burst, who: str, threads: int, seconds: float
    ) -> None:
        self.inner, self.scene, self.who = inner, scene, who
        self.clock = inner.clock
        self.clocks = Clocks()
        self._burst = burst
        self._threads = threads
        self._every_ns = seconds * 1e9 / _ROUNDS
        self._call_ns = math.inf
        self._flush = 0
        self._untaken = False
        self._next_ns = wall_ns() + self._gap()

    def __getattr__(self, name: str) -> Any:
        # What the engine may ask of the timer besides samples is that timer's own.
        return getattr(self.inner, name)

    def once(self) -> None:
        self.inner.once()

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        parts = []
        self._flush = flush_bytes
        while count > 0:
            here = min(count, self._segment(batch))
            # Cold samples begin alike, and what is long does not feel it.
            left_out = int(not flush_bytes and self._call_ns * batch < _SEGMENT_NS)
            self.scene.change()
            start = wall_ns()
            part = self.inner.sample(here + left_out, batch, flush_bytes)[left_out:]
            end = wall_ns()
            self._untaken = True
            if end >= self._next_ns:
                self._take_timed()
                self._round(secret.below(len(_ROUND_KINDS)))
                self._next_ns = wall_ns() + self._gap()
            if not flush_bytes:
                self._call_ns = min(
                    self._call_ns, max(1.0, (end - start) / ((here + left_out) * batch))
                )
            parts.append(part)
            count -= here
        return np.concatenate(parts)

    def finish(self) -> None:
        """Every kind of round once more, in any order: a timing may have been too short for some."""
        if self._untaken:
            self._take_timed()
        order = list(range(len(_ROUND_KINDS)))
        while order:
            self._round(order.pop(secret.below(len(order))))
        self._compare_clocks()

    def _take_timed(self) -> None:
        """The output of the sample that has just ended: of a time that counts."""
        self._untaken = False
        self.scene.take(TIMED)

    def _gap(self) -> float:
        return -math.log(1.0 - secret.fraction()) * self._every_ns

    def _segment(self, batch: int) -> int:
        each = self._call_ns * batch
        return 1 if not math.isfinite(each) else int(np.clip(_SEGMENT_NS / each, 1, 2000))

    def _round(self, kind: int) -> None:
        getattr(self, _ROUND_KINDS[kind])()
        settle()
        if not self._flush:
            self.inner.once()

    def _rest(self) -> None:
        """See whether the outputs are still the same some time after a call has returned."""
        before = copies(self.scene.outputs)
        # What was left for the collector since timing began is young: the old generation takes long.
        gc.collect(1)
        time.sleep(_REST_S)
        self._unchanged(before)

    def _poisoned(self) -> None:
        """A call on changed inputs whose outputs hold something else before."""
        kind = POISONS[secret.below(len(POISONS))]
        self.scene.change()
        self._checked("a call on inputs changed in place", kind)

    def _repeated(self) -> None:
        """A call on the inputs of the call before, whose outputs are gone."""
        self._checked("a call on the same inputs as the one before", "nan")

    def _redrawn(self) -> None:
        """Calls on whole other inputs of another secret seed, then on the former ones."""
        usual = self.scene.live.base is self.scene.usual
        self.scene.redraw(self.scene.other if usual else self.scene.usual)
        self._checked("a call on newly drawn inputs", "stale")
        self.scene.redraw(self.scene.usual)

    def _checked(self, how: str, kind: str) -> None:
        poison(self.scene.outputs, kind, self.scene.live.live)
        self.inner.sample(1, 1, self._flush)
        taken = self.scene.take(how, kind)
        time.sleep(0.001)
        self._unchanged(taken.outputs)

    def _unchanged(self, before: Any) -> None:
        from tilewright.perf.watch.memory import bits

        for name, value in self.scene.outputs.items():
            if not np.array_equal(bits(value), bits(before[name])):
                raise Cheated(
                    self.who, f"went on writing its output '{name}' after the call had returned"
                )

    def _bursts(self) -> None:
        """Calls close upon each other, in turns on changing inputs and on the same: who remembers is faster on these."""
        found = self._remembers()
        for _ in range(_CONFIRMED - 1):
            if found is not None:
                found = self._remembers()
        if found is None:
            return
        new, old = found
        raise Cheated(
            self.who,
            f"takes {new / 1e3:.3g} us on inputs it has not seen and {old / 1e3:.3g} us on the same again: "
            "it remembers answers",
        )

    def _remembers(self) -> tuple[float, float] | None:
        """Median ns of calls on new inputs and on the same, if the first are slower all through."""
        how = "a call close upon another, on inputs changed between them"
        fresh: list[int] = []
        same: list[int] = []
        if self._call_ns >= _SEGMENT_NS:
            # So long a call is made on new inputs each time it is timed: remembering does not pay.
            self._burst(self.scene, 2, True)
            self.scene.take(how)
            return None
        calls = int(np.clip(_BURST_NS / self._call_ns, _FEWEST_CALLS, _BURST_CALLS))
        for _ in range(2):
            fresh += self._burst(self.scene, calls, True)
            self.scene.take(how)
            same += self._burst(self.scene, calls, False)
        pairs = [(float(np.quantile(fresh, q)), float(np.quantile(same, q))) for q in (0.1, 0.5)]
        slower = all(new > _REMEMBERS * old + _REMEMBERS_NS for new, old in pairs)
        return pairs[1] if slower else None

    def _read_clocks(self) -> None:
        """Samples so long that their own length, by the system's clock, is what they must say."""
        settle()
        batch = int(np.clip(_CLOCK_SAMPLE_NS / self._call_ns, 1, 1_000_000))
        for _ in range(int(np.clip(_CLOCKS_NS / (self._call_ns * batch), 2, _CLOCK_SAMPLES))):
            cpu, wall, waited = cpu_ns(), wall_ns(), self._waited_ns()
            said = float(self.inner.sample(1, batch, 0)[0]) * batch
            # A timer may leave out what a thread waited for a processor; it tells how much.
            said += self._waited_ns() - waited
            self.clocks.wall.append(wall_ns() - wall)
            self.clocks.cpu.append(cpu_ns() - cpu)
            self.clocks.said.append(said)

    def _waited_ns(self) -> float:
        return float(getattr(self.inner, "waited_ns", 0.0))

    def _compare_clocks(self) -> None:
        for _ in range(_CONFIRMED):
            if self.clocks.agree():
                break
            self._read_clocks()
        else:
            said, wall = np.median(self.clocks.said), np.median(self.clocks.wall)
            raise Cheated(
                self.who,
                f"is said by the timer to take {said / 1e3:.4g} us where the system's clock says "
                f"{wall / 1e3:.4g} us: the timer was tampered with",
            )
        used = float(np.min(np.array(self.clocks.cpu) / np.array(self.clocks.wall)))
        if self._threads > 0 and used > self._threads + _MORE_THREADS:
            raise Cheated(
                self.who,
                f"keeps {used:.1f} processors busy where its row says {self._threads} threads",
            )


_ROUND_KINDS = ("_rest", "_poisoned", "_repeated", "_redrawn", "_bursts", "_read_clocks")
