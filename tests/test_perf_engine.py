"""The timing engine: intervals, verdicts, and what it must not be fooled by. Clocks are synthetic."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.clocks import Machine
from tilewright import native
from tilewright.backends import all_backends
from tilewright.errors import UsageError
from tilewright.inputs import draw
from tilewright.perf.engine import Effort, batch_for, measure, measure_pair
from tilewright.perf.statistics import (
    FEWEST_QUADS,
    PRACTICAL,
    Estimate,
    geometric_mean,
    median_estimate,
    ratio_estimate,
    verdict,
)
from tilewright.perf.timers import (
    CallTimer,
    flush_caches,
    flush_in_python,
    flush_size,
    settle,
    timer_of,
    usable_cpus,
)
from tilewright.registry import family
from tilewright.targets import CPU

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.perf.engine.settle", lambda: None)


@given(st.lists(st.floats(1.0, 1e9), min_size=3, max_size=300))
@settings(max_examples=60, deadline=None)
def test_interval_holds_the_median(values: list[float]) -> None:
    found = median_estimate(values)
    assert found.low <= found.value <= found.high
    assert min(values) <= found.low and found.high <= max(values)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_interval_is_scale_free(seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(10, 0.2, 100)
    one, other = median_estimate(values), median_estimate(values * 3.0)
    assert other.value == pytest.approx(3 * one.value)
    assert other.width == pytest.approx(one.width)


def test_interval_covers_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = median_estimate(rng.lognormal(0.0, 0.3, 40))
        hits += found.low <= 1.0 <= found.high
    assert hits / 400 >= 0.93


def test_drift_widens_the_interval() -> None:
    rng = np.random.default_rng(1)
    steady = rng.normal(100, 1, 600)
    drifting = steady + np.linspace(0, 20, 600)
    shuffled = rng.permutation(drifting)
    assert median_estimate(drifting).width > 3 * median_estimate(shuffled).width


def test_too_few_samples_give_no_interval() -> None:
    assert median_estimate([5.0]).width == math.inf
    assert ratio_estimate([0.0] * (FEWEST_QUADS - 1)).width == math.inf
    with pytest.raises(ValueError, match="no samples"):
        median_estimate([])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.03, 1.10, "faster"),
        (0.80, 0.95, "slower"),
        (0.99, 1.01, "same"),
        (0.99, 1.10, "inconclusive"),
        (1.005, 1.015, "same"),
        (1.01, 1.05, "inconclusive"),
        (0.0, math.inf, "inconclusive"),
    ],
)
def test_verdicts(low: float, high: float, said: str) -> None:
    assert verdict(Estimate(1.0, low, high)) == said


def test_geometric_mean_of_ratios() -> None:
    found = geometric_mean([0.5, 2.0, 1.0])
    assert found.value == pytest.approx(1.0)
    assert found.low < 1.0 < found.high


def test_measure_stops_when_the_interval_is_narrow() -> None:
    machine = Machine(0, noise=0.005)
    found = measure(machine.timer(50_000), Effort(seconds=30), now=machine.now)
    assert found.converged
    assert found.median.width <= 0.02
    assert machine.now() < 5
    assert found.median.value == pytest.approx(50_000, rel=0.02)


def test_measure_stops_at_the_budget() -> None:
    machine = Machine(0, noise=2.0)
    found = measure(machine.timer(30e6), Effort(seconds=1.0), now=machine.now)
    assert not found.converged
    assert machine.now() < 2.0
    assert len(found.samples) >= 3


def test_short_calls_are_timed_in_batches_unless_cold() -> None:
    assert batch_for(100.0, "native", cold=False) == 20
    assert batch_for(100.0, "native", cold=True) == 1
    assert batch_for(1e6, "python", cold=False) == 1
    machine = Machine(0)
    timer = machine.timer(50_000)
    measure(timer, Effort(seconds=0.2), cold=True, now=machine.now)
    assert timer.flushes[-1] == flush_size() > 0


MIB = 1 << 20


@pytest.mark.parametrize(
    ("caches", "cores", "mib"),
    [
        ([("L1", 48 << 10), ("L2", 2 * MIB), ("L3", 32 * MIB)], 8, 64),
        ([("L1", 48 << 10), ("L2", 2 * MIB), ("L3", 480 * MIB)], 2, 256),
        ([("L1", 48 << 10), ("L2", 2 * MIB), ("L3", 480 * MIB)], 96, 384),
        ([("L1", MIB)], 4, 2),
    ],
)
def test_a_flush_covers_private_caches_and_the_last_level_up_to_a_limit(
    caches: list[tuple[str, int]], cores: int, mib: int
) -> None:
    assert flush_size(caches, cores) == mib * MIB


class Watched:
    """Looks at this process's threads from outside while something runs: the processors threads were bound to."""

    def __init__(self) -> None:
        self.bound: set[int] = set()
        self.done = threading.Event()

    def look(self) -> None:
        while not self.done.is_set():
            for status in Path("/proc/self/task").glob("*/status"):
                with suppress(OSError):
                    allowed = status.read_text().split("Cpus_allowed_list:\t")[1].split()[0]
                    self.bound |= {int(allowed)} if allowed.isdigit() else set()

    def during(self, work: Callable[[], object]) -> set[int]:
        self.done.clear()
        watcher = threading.Thread(target=self.look)
        watcher.start()
        try:
            work()
        finally:
            self.done.set()
            watcher.join()
        return self.bound


@pytest.mark.skipif(len(usable_cpus()) < 2, reason="one processor: threads cannot be told apart")
@pytest.mark.parametrize("clock", ["native", "python"])
def test_a_cold_sample_evicts_the_caches_of_every_processor(clock: str) -> None:
    """Both clocks: threads bound to each processor are there while cold samples are taken, and never for warm ones."""
    if native.why_missing():
        pytest.skip(str(native.why_missing()))
    found = family("gemm")
    case = found.spec.case({"M": 4, "N": 16, "K": 16}, "fp32")
    launch = all_backends()["host"].prepare(
        found, case, draw(found, case, 0), found.spec.default_config(CPU), CPU, 1
    )
    timer = timer_of(launch, through_python=clock == "python")
    assert timer.clock == clock
    assert Watched().during(lambda: timer.sample(200, 1, 0)) == set()
    watched, seen = Watched(), set[int]()
    deadline = time.monotonic() + 60
    while (
        seen != set(usable_cpus()) and time.monotonic() < deadline
    ):  # a glance from outside can miss a short flush
        seen = watched.during(lambda: timer.sample(20, 1, 32 * MIB))
    assert seen == set(usable_cpus())


@pytest.mark.parametrize("flush", [flush_caches, flush_in_python])
def test_a_flush_visits_every_processor_and_leaves_the_caller_unbound(
    flush: Callable[[int], list[int]],
) -> None:
    before = usable_cpus()
    assert sorted(flush(MIB)) == before
    assert usable_cpus() == before


def test_hiccups_do_not_move_the_median() -> None:
    machine = Machine(3, noise=0.01, hiccups=0.05)
    found = measure(machine.timer(100_000), Effort(seconds=3), now=machine.now)
    assert found.median.value == pytest.approx(100_000, rel=0.03)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_code_is_never_called_faster_or_slower(seed: int) -> None:
    machine = Machine(seed, noise=0.03, drift=0.2, hiccups=0.02)
    found = measure_pair(
        machine.timer(200_000),
        machine.timer(200_000),
        Effort(seconds=2),
        now=machine.now,
        seed=seed,
    )
    assert verdict(found.ratio) in ("same", "inconclusive")


@pytest.mark.parametrize(("factor", "said"), [(1.10, "faster"), (1 / 1.10, "slower")])
@pytest.mark.parametrize("seed", range(4))
def test_an_injected_slowdown_is_seen_through_drift(factor: float, said: str, seed: int) -> None:
    machine = Machine(seed, noise=0.02, drift=0.2, hiccups=0.02)
    ours, theirs = machine.timer(200_000), machine.timer(200_000 * factor)
    found = measure_pair(ours, theirs, Effort(seconds=3), now=machine.now)
    assert verdict(found.ratio) == said
    assert found.ratio.value == pytest.approx(factor, rel=PRACTICAL)
    assert found.ratio.low <= found.ratio.value <= found.ratio.high


def test_both_sides_of_a_pair_have_the_same_number_of_blocks() -> None:
    machine = Machine(0)
    found = measure_pair(
        machine.timer(100_000), machine.timer(300_000), Effort(seconds=1), now=machine.now
    )
    assert len(found.log_ratios) >= FEWEST_QUADS
    assert found.ratio.value == pytest.approx(3.0, rel=0.03)


def test_a_call_timer_reads_the_clock_around_the_call_only() -> None:
    ticks = iter(range(0, 1000, 7))
    timer = CallTimer(lambda: "result", now=lambda: next(ticks))
    assert timer.sample(3, 1, 0).tolist() == [7.0, 7.0, 7.0]
    assert timer.sample(2, 7, 0).tolist() == [1.0, 1.0]
    assert timer.result == "result"


class Threads:
    """A clock of a process whose threads spin for so long; only sleeping lets time pass."""

    def __init__(self, spinning_s: float) -> None:
        self.seconds, self.spinning_s, self.sleeps = 0.0, spinning_s, 0

    def monotonic(self) -> float:
        return self.seconds

    def perf_counter_ns(self) -> int:
        return round(self.seconds * 1e9)

    def process_time_ns(self) -> int:
        return round(min(self.seconds, self.spinning_s) * 1e9)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.sleeps += 1


@pytest.mark.parametrize(("spinning_s", "sleeps"), [(0.0, 1), (0.004, 5), (60.0, 20)])
def test_settling_ends_when_threads_rest_or_patience_does(
    spinning_s: float, sleeps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Threads(spinning_s)
    monkeypatch.setattr("tilewright.perf.timers.time", clock)
    settle(0.02)
    assert clock.sleeps == pytest.approx(sleeps, abs=1)


@pytest.mark.parametrize("make", [lambda: Effort(seconds=0), lambda: Effort(width=-1)])
def test_a_budget_of_nothing_is_refused(make: Callable[[], Effort]) -> None:
    with pytest.raises(UsageError, match="positive"):
        make()
