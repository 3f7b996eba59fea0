"""Interleaved rounds of any number of calls, and the clock that leaves out waiting for a processor."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from fakes.clocks import FakeTimer, Machine
from tilewright import native
from tilewright.backends import all_backends
from tilewright.inputs import draw
from tilewright.perf.engine import Effort, Turns, log_ratios, measure_pair, measure_rounds
from tilewright.perf.statistics import (
    block_medians,
    mean_ratio,
    ratio_estimate,
    student_quantile,
    verdict,
)
from tilewright.perf.timers import NativeTimer, RunTimer
from tilewright.registry import family
from tilewright.targets import CPU

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.perf.engine.settle", lambda: None)


def test_rounds_rank_calls_through_drift() -> None:
    machine = Machine(0, noise=0.02, drift=0.3, hiccups=0.02)
    true = [100_000, 104_000, 120_000, 98_000]
    found = measure_rounds([machine.timer(t) for t in true], Effort(seconds=3), now=machine.now)
    assert found.logs.shape[1] == 4 and found.times.shape == found.logs.shape
    middle = np.median(found.logs - found.logs.mean(axis=1, keepdims=True), axis=0)
    assert np.argsort(middle).tolist() == np.argsort(true).tolist()
    for i in (1, 2, 3):
        ratio = ratio_estimate(log_ratios(found, over=i, under=0)).value
        assert ratio == pytest.approx(true[i] / true[0], rel=0.02)


def test_two_calls_in_rounds_are_a_pair() -> None:
    one, other = Machine(5), Machine(5)
    pair = measure_pair(
        one.timer(1e5), one.timer(2e5), Effort(seconds=0.4, width=1e-9), now=one.now
    )
    rounds = measure_rounds(
        (other.timer(1e5), other.timer(2e5)), Effort(seconds=0.4), now=other.now
    )
    assert pair.log_ratios.tolist() == log_ratios(rounds).tolist()


@pytest.mark.parametrize(("fewest", "most"), [(1, 1), (3, 3), (2, 50)])
def test_rounds_keep_their_number(fewest: int, most: int) -> None:
    machine = Machine(0)
    timers = [machine.timer(50_000), machine.timer(50_000)]
    effort = Effort(seconds=0.05, warmup_s=0.0)
    found = measure_rounds(timers, effort, now=machine.now, fewest=fewest, most=most)
    assert fewest <= len(found.logs) <= most
    assert all(len(s) == len(found.samples[0]) for s in found.samples)


def test_calls_may_drop_out_between_rounds() -> None:
    machine = Machine(0, noise=0.0)
    timers = [machine.timer(t) for t in (1e5, 2e5, 4e5)]
    turns = Turns(timers, Effort(seconds=1, warmup_s=0.0), now=machine.now)
    first, second = turns.round(), turns.round([2, 0])
    assert np.exp(first) == pytest.approx([1e5, 2e5, 4e5])
    assert np.isnan(second[1]) and np.exp(second[[0, 2]]) == pytest.approx([1e5, 4e5])
    assert all(len(s) > 0 for s in turns.samples())


class Order:
    """Calls by name, in the order they are sampled."""

    clock = "native"

    def __init__(self, name: str, seen: list[str], machine: Machine) -> None:
        self.name, self.seen, self.machine = name, seen, machine

    def once(self) -> None:
        """Not noted."""

    def sample(self, count: int, batch: int, flush_bytes: int) -> np.ndarray:
        self.seen.append(self.name)
        self.machine.ns += 1e6 * count
        return np.full(count, 1e6)


def test_every_round_goes_there_and_back_and_every_second_one_the_other_way() -> None:
    machine, seen = Machine(0), list[str]()
    timers = [Order(name, seen, machine) for name in "ABC"]
    effort = Effort(seconds=0.3, warmup_s=0.0)
    found = measure_rounds(timers, effort, now=machine.now, block_ns=0.0, most=20)
    sampled = seen[-6 * len(found.logs) :]
    rounds = ["".join(sampled[i : i + 6]) for i in range(0, len(sampled), 6)]
    assert all(r == r[::-1] for r in rounds)
    for there, other in zip(rounds[::2], rounds[1::2], strict=False):
        assert there[:3] == other[:3][::-1]
    assert len({r[:3] for r in rounds}) > 2


def test_equal_calls_are_timed_in_equal_batches_however_slow_the_first_call_was() -> None:
    """The first guess of one side may be of a cold call; were its batches smaller, its samples would cost more."""

    class Cold(FakeTimer):
        def sample(self, count: int, batch: int, flush_bytes: int) -> np.ndarray:
            return super().sample(count, batch, flush_bytes) * (3.0 if not self.batches else 1.0)

    machine = Machine(1)
    timers = [Cold(machine, 700.0), machine.timer(700.0), machine.timer(1500.0)]
    found = measure_rounds(timers, Effort(seconds=0.1, warmup_s=0.0), now=machine.now)
    assert len(set(found.batches)) == 1


NOISY = {"noise": 0.03, "drift": 0.2, "hiccups": 0.02, "shared": 0.4, "steal": 0.02}


def test_neighbours_and_stolen_time_do_not_make_equal_code_differ() -> None:
    said = []
    for seed in range(40):
        machine = Machine(seed, **NOISY)
        timers = machine.timer(150_000), machine.timer(150_000)
        found = measure_pair(*timers, Effort(seconds=0.4), now=machine.now, seed=seed)
        said.append(verdict(found.ratio))
    # 95 % intervals outside a dead band of 2 %: at most a few of forty.
    assert said.count("faster") + said.count("slower") <= 2


def test_intervals_of_a_pair_cover_the_truth_through_neighbours_and_drift() -> None:
    covered = 0
    for seed in range(60):
        machine = Machine(seed, **NOISY)
        timers = machine.timer(150_000), machine.timer(157_500)
        effort = Effort(seconds=0.3, width=1e-9)
        found = measure_pair(*timers, effort, now=machine.now, seed=seed)
        covered += found.ratio.low <= 1.05 <= found.ratio.high
    assert covered >= 53


def test_blocks_keep_neighbours_together() -> None:
    """Of values that come in pairs of equals, a block of two drawn at an even place keeps both."""
    values = np.repeat(np.random.default_rng(0).normal(0, 1, 100), 10)
    single = block_medians(values, 1, 0, 500).std()
    assert block_medians(values, 30, 0, 500).std() > 2 * single


@pytest.mark.parametrize(
    ("freedom", "probability", "value"),
    [(1, 0.975, 12.7062), (2, 0.975, 4.30265), (5, 0.995, 4.03214), (30, 0.9995, 3.64596), (7, 0.5, 0.0)],
)  # fmt: skip
def test_students_quantiles(freedom: int, probability: float, value: float) -> None:
    assert student_quantile(freedom, probability) == pytest.approx(value, abs=1e-4)


def test_the_mean_of_ratios_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(600):
        found = mean_ratio(rng.normal(math.log(1.1), 0.03, 5))
        hits += found.low <= 1.1 <= found.high
    assert 0.93 <= hits / 600 <= 0.97
    assert mean_ratio([0.0, 0.1]).width == math.inf


class Waiting:
    """A prepared call on a machine that keeps a record of waiting, or does not."""

    def __init__(self, record: bool) -> None:
        self.record = record

    def time(self, count: int, flush_bytes: int = 0, batch: int = 1) -> list[int]:
        return [3000 * batch] * count

    def time_and_waits(
        self, count: int, flush_bytes: int = 0, batch: int = 1
    ) -> tuple[list[int], list[int]]:
        return self.time(count, batch=batch), [2000 * batch] * count if self.record else []


def test_waiting_is_left_out_where_it_is_told() -> None:
    timer = RunTimer(Waiting(record=True))
    assert timer.clock == "run"
    assert timer.sample(2, 5, 0).tolist() == [1000.0, 1000.0]
    assert timer.waited_ns == 20_000
    plain = RunTimer(Waiting(record=False))
    assert plain.clock == "native"
    assert plain.sample(2, 5, 0).tolist() == [3000.0, 3000.0]


def test_the_run_clock_of_a_real_call_is_no_more_than_the_plain_one() -> None:
    """Threads that spin make this one wait; whatever they do, waiting lies between nothing and the whole sample."""
    if native.why_missing():
        pytest.skip(str(native.why_missing()))
    found = family("gemm")
    case = found.spec.case({"M": 16, "N": 64, "K": 64}, "fp32")
    launch = all_backends()["host"].prepare(
        found, case, draw(found, case, 0), found.spec.default_config(CPU), CPU, 1
    )
    timer = RunTimer(launch.native)
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=spin) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        took, waited = launch.native.time_and_waits(40, batch=200)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(took) == 40 and all(t > 0 for t in took)
    if timer.tells:
        assert len(waited) == 40
        # A sample is longer than two readings of the clock of waits, in which a wait counts and the call does not.
        assert all(0 <= w <= t for w, t in zip(waited, took, strict=True))
        assert (timer.sample(5, 200, 0) > 0).all()
    assert (NativeTimer(launch.native).sample(5, 20, 0) > 0).all()
