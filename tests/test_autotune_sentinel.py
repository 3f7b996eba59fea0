"""The drift sentinel: a machine that changes discards the window it changed in, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_doubles import Misbehaving, gemm_case, small_family
from tilewright.autotune.valuing.measured import MeasuredTime
from tilewright.autotune.valuing.sentinel import Sentinel
from tilewright.space import Config
from tilewright.targets import CPU


class Machine:
    """A simulated clock, and a reference whose time follows the speed of the machine at that moment."""

    def __init__(self, slowdown: Callable[[float], float], noise: float = 0.01) -> None:
        self.time = 0.0
        self.slowdown, self.noise = slowdown, noise
        self._rng = np.random.default_rng(1)

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def run(self, cost: float) -> float:
        self.time += 0.01
        return cost * self.slowdown(self.time) * float(self._rng.lognormal(0, self.noise))

    def sentinel(self, interval_s: float = 1.0) -> Sentinel:
        return Sentinel(lambda: self.run(100.0), interval_s, self.now, self.sleep)


def study(
    machine: Machine, configs: int, each_s: float = 0.3
) -> tuple[dict[int, float], list[int]]:
    """Measure configs of equal cost; the values that stand, and which were discarded on the way."""
    sentinel = machine.sentinel()
    sentinel.begin()
    todo, values, stand = list(range(configs)), dict[int, float](), dict[int, float]()
    discarded: list[int] = []
    while todo or values:
        if todo:
            which = todo.pop(0)
            machine.sleep(each_s)
            values[which] = machine.run(50.0)
            sentinel.measured(which)
        if sentinel.due or not todo:
            look = sentinel.look()
            for one in look.released:
                assert one not in stand
                stand[int(str(one))] = values[int(str(one))]
            if not look.steady:
                discarded += [int(str(w)) for w in look.disturbed]
                sentinel.settle()
                todo = [int(str(w)) for w in look.disturbed] + todo
            values = {}
    return stand, discarded


def test_a_steady_machine_discards_nothing_and_reads_at_intervals() -> None:
    stand, discarded = study(Machine(lambda t: 1.0), 40)
    assert sorted(stand) == list(range(40)) and not discarded


def test_a_slow_spell_is_measured_again_and_only_it() -> None:
    machine = Machine(lambda t: 1.5 if 5.0 < t < 7.0 else 1.0)
    stand, discarded = study(machine, 40)
    assert sorted(stand) == list(range(40))
    assert max(stand.values()) < 55
    assert 1 <= len(set(discarded)) <= 8
    assert set(discarded) <= set(range(8, 24))


def test_a_machine_that_changed_for_good_gets_a_new_level() -> None:
    machine = Machine(lambda t: 1.3 if t > 5 else 1.0)
    sentinel = machine.sentinel()
    sentinel.begin()
    machine.sleep(10)
    sentinel.measured("a")
    assert sentinel.look().disturbed == ("a",)
    assert sentinel.settle() == pytest.approx(1.3, rel=0.03)
    sentinel.measured("a")
    assert sentinel.look().released == ("a",)
    assert sentinel.shift == pytest.approx(1.3, rel=0.03)


def test_one_bad_reading_condemns_nobody() -> None:
    readings = iter([1.0, 1.0, 1.0, 1.9, 1.0])
    sentinel = Sentinel(lambda: next(readings), now=lambda: 0.0)
    sentinel.begin()
    sentinel.measured("a")
    look = sentinel.look()
    assert look.steady and look.released == ("a",) and look.disturbed == ()


def test_a_noisy_reference_is_not_taken_for_drift() -> None:
    """10 % of noise of its own: fewer than 3 % of looks cry wolf, and a doubling is still seen."""
    machine = Machine(lambda t: 1.0, noise=0.10)
    sentinel = machine.sentinel()
    sentinel.begin()
    for _ in range(20):
        sentinel.look()
    assert sum(not sentinel.look().steady for _ in range(200)) <= 6
    machine.slowdown = lambda t: 2.0
    assert not sentinel.look().steady


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(1.1, 3.0), st.floats(1, 8), st.floats(0.5, 4))
def test_every_config_has_exactly_one_value_that_stands(
    seed: int, factor: float, start: float, lasts: float
) -> None:
    machine = Machine(lambda t: factor if start < t < start + lasts else 1.0)
    machine._rng = np.random.default_rng(seed)
    stand, _ = study(machine, 25)
    assert sorted(stand) == list(range(25))


def test_a_measured_trial_keeps_what_was_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is slow when the second config is measured: its first value is kept, with the word, and not used."""
    objective = MeasuredTime(small_family(tmp_path), gemm_case(), CPU, Misbehaving())
    one, two = (Config(tile_m=32, tile_n=32, tile_k=32, stages=s) for s in (1, 3))
    assert objective.sentinel
    level = 100.0
    # The real machine may be disturbed too: here it is steady.
    monkeypatch.setattr(objective.sentinel, "_take", lambda: level)
    assert "disturbed" not in objective.evaluate(one, lambda stage: nullcontext()).details
    readings = iter([2.0, 2.0, *[1.0] * 50])
    monkeypatch.setattr(objective.sentinel, "_take", lambda: level * next(readings))
    found = objective.evaluate(two, lambda stage: nullcontext())
    assert found.value
    (spell,) = found.details["disturbed"]
    assert spell["reference"] == pytest.approx(2.0)
    assert len(spell["repeats_us"]) >= 1
    assert not found.details.get("unsteady")
