"""Rules that end a timing: the entropy of samples against its definition, widths, budgets, fixed repeats."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.clocks import Machine
from tilewright.errors import UsageError
from tilewright.perf.engine import Effort, measure
from tilewright.perf.stopping import Entropy, Width, line


def entropy(values: list[int]) -> float:
    """Shannon's, in bits, by its definition."""
    counts = Counter(values).values()
    return -sum(c / len(values) * math.log2(c / len(values)) for c in counts)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=120))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_entropy_is_that_of_all_samples_so_far(values: list[int]) -> None:
    rule = Entropy(tick=1.0)
    rule.add(np.array(values, dtype=np.float64))
    expected = [entropy(values[:n]) for n in range(1, len(values) + 1)]
    assert list(rule.entropies) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=80))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_line_is_least_squares(values: list[float]) -> None:
    slope, r2 = line(values)
    wanted = np.polyfit(np.arange(len(values)), values, 1)[0]
    assert slope == pytest.approx(wanted, abs=1e-6)
    assert r2 <= 1.0 + 1e-9


def test_equal_samples_are_enough_at_once_but_not_before_the_fewest() -> None:
    rule = Entropy(tick=1.0, fewest=10)
    rule.add(np.full(9, 5.0))
    assert not rule.done()
    rule.add(np.full(1, 5.0))
    assert rule.done()


def test_a_distribution_that_keeps_widening_is_never_enough() -> None:
    rule = Entropy(tick=1.0)
    rule.add(np.arange(1.0, 600.0))
    assert not rule.done()


def test_a_known_distribution_is_enough() -> None:
    rule = Entropy(tick=1.0)
    rng = np.random.default_rng(0)
    taken = 0
    while not rule.done() and taken < 20_000:
        rule.add(rng.integers(100, 116, 50).astype(np.float64))
        taken += 50
    assert 100 <= taken <= 5_000


def test_the_tick_follows_the_samples() -> None:
    rule = Entropy()
    rule.add(np.array([1000.0, 1000.5, 1010.0]))
    assert rule.tick == pytest.approx(2.0, rel=0.01)
    assert rule.entropies[1] == 0.0 and rule.entropies[2] > 0.0


def test_width_looks_again_only_after_the_run_has_grown() -> None:
    rule = Width(0.5)
    rule.add(np.full(100, 7.0))
    assert rule.done() and rule.seen == 100
    rule.add(np.full(10, 7.0))
    assert rule.done() and rule.seen == 100
    rule.add(np.full(20, 7.0))
    assert rule.done() and rule.seen == 130


@pytest.mark.parametrize("rule", ["width", "entropy"])
def test_both_rules_end_a_steady_timing_early(rule: str) -> None:
    machine = Machine(0, noise=0.004)
    found = measure(machine.timer(20_000), Effort(seconds=30, rule=rule), now=machine.now)
    assert found.converged and found.rule == rule
    assert machine.now() < 10
    assert found.median.value == pytest.approx(20_000, rel=0.02)


def test_entropy_takes_more_samples_while_the_distribution_changes() -> None:
    """A machine that slows down all the time keeps showing values that were not seen before."""
    taken = {}
    for trend in (0.0, 2.0):
        machine = Machine(0, noise=0.002, trend=trend)
        effort = Effort(seconds=5, rule="entropy")
        taken[trend] = len(measure(machine.timer(200_000), effort, now=machine.now).samples)
    assert taken[2.0] > 2 * taken[0.0]


def test_budget_spends_it_all() -> None:
    machine = Machine(0, noise=0.0)
    found = measure(machine.timer(100_000), Effort(seconds=0.5, rule="budget"), now=machine.now)
    assert not found.converged
    assert machine.now() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_repeats_are_exactly_as_many(count: int) -> None:
    machine = Machine(0)
    timer = machine.timer(3e6)
    found = measure(timer, Effort.repeats(count), now=machine.now)
    assert len(found.samples) == count
    assert found.median.value == pytest.approx(3e6, rel=0.1)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"rule": "luck"}, "width, entropy, budget"),
        ({"fewest": 0}, "fewest"),
        ({"fewest": 5, "most": 4}, "fewest"),
        ({"seconds": 0.0}, "positive"),
    ],
)
def test_an_effort_that_makes_no_sense_is_refused(given_: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Effort(**given_)  # type: ignore[arg-type]
