"""The gate's decisions on simulated passes: how often equal code is called slower, and slower code is missed.

Seeds are fixed: rates are those of these very draws, on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import UsageError
from tilewright.perf.machine_state import Disturbance
from tilewright.perf.regression.decide import (
    FASTER,
    INCONCLUSIVE,
    SAME,
    SLOWER,
    Contest,
    Look,
    Policy,
    overall,
    run,
)

QUIET = Disturbance(0.0, 0.0, 0.0)


def look(log_ratio: float) -> Look:
    return Look(log_ratio, 1e5, 1e5, 0.1, QUIET)


def decide(
    draw: Callable[[int, int], float | None], count: int = 1, policy: Policy | None = None
) -> list[Contest]:
    """Contests whose benchmark i gives log ratio draw(i, k) in pass k, and fails where that is None."""

    def measure(i: int, k: int) -> Look | None:
        value = draw(i, k)
        return None if value is None else look(value)

    return run(count, policy or Policy(), measure)


def verdict_of(values: list[float], policy: Policy | None = None) -> Contest:
    return decide(lambda _, k: values[k], policy=policy)[0]


def test_what_is_clearly_the_same_ends_after_the_fewest_passes() -> None:
    found = verdict_of([0.001, -0.001, 0.002, 0.0, 0.001] + [9.0] * 27)
    assert (found.verdict, len(found.looks)) == (SAME, 5)


def test_a_slowdown_needs_passes_that_confirm_it() -> None:
    values = [-0.05, -0.051, -0.049, -0.05, -0.0505, -0.0495, -0.05, -0.0502]
    found = verdict_of(values + [9.0] * 24)
    assert (found.verdict, len(found.looks), found.suspected_at) == (SLOWER, 8, 5)


def test_a_suspicion_that_fresh_builds_do_not_repeat_is_no_verdict() -> None:
    """Five passes in a disturbed minute say 5 % slower, all later ones say equal."""
    found = verdict_of([-0.05, -0.051, -0.049, -0.05, -0.0505] + [0.0] * 27)
    assert found.suspicion == SLOWER
    assert found.verdict in (SAME, INCONCLUSIVE)


def test_faster_is_confirmed_alike() -> None:
    values = [0.08, 0.081, 0.079, 0.08, 0.0805, 0.0795, 0.08, 0.0802]
    assert verdict_of(values + [9.0] * 24).verdict == FASTER


def test_what_never_becomes_clear_is_inconclusive_at_the_end() -> None:
    found = verdict_of([0.1, -0.1] * 16)
    assert (found.verdict, len(found.looks), found.closed) == (INCONCLUSIVE, 32, True)


def test_a_benchmark_that_fails_ends_and_the_others_go_on() -> None:
    one, other = decide(lambda i, k: None if i == 0 and k == 1 else 0.0, count=2)
    assert (len(one.looks), one.closed) == (1, True)
    assert other.verdict == SAME


def test_every_pass_is_announced_before_it_is_measured() -> None:
    seen: list[tuple[str, int]] = []

    def measure(i: int, k: int) -> Look:
        seen.append(("look", k))
        return look(0.0)

    run(2, Policy(), measure, new_pass=lambda k: seen.append(("load", k)))
    assert seen == [step for k in range(5) for step in [("load", k), ("look", k), ("look", k)]]


@given(st.lists(st.floats(-0.3, 0.3), min_size=32, max_size=32))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_verdict_always_agrees_with_its_interval(values: list[float]) -> None:
    found = verdict_of(values)
    estimate = found.estimate()
    if found.verdict == SLOWER:
        assert estimate.high < 1 / 1.02
    elif found.verdict == FASTER:
        assert estimate.low > 1.02
    elif found.verdict == SAME:
        assert 1 / 1.02 <= estimate.low <= estimate.high <= 1.02


def scatter(rng: np.random.Generator, spread: float, bursts: float, bimodal: float) -> float:
    """One pass: placement of that load, now and then a burst that hits one side, two states of a machine."""
    value = rng.normal(0.0, spread)
    if rng.random() < bursts:
        value += rng.normal(0.0, 10 * spread)
    return float(value + bimodal * rng.choice([-1.0, 1.0]))


MACHINES = {
    "quiet": (0.003, 0.0, 0.0),
    "busy": (0.02, 0.0, 0.0),
    "bursts": (0.01, 0.1, 0.0),
    "two states": (0.005, 0.0, 0.015),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_at_most_one_false_alarm_in_300_gates(machine: str) -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(300):
        found = decide(lambda i, k: scatter(rng, *MACHINES[machine]), count=6)
        alarms += overall([c.verdict for c in found]) == SLOWER
    assert alarms <= 1


@pytest.mark.parametrize("machine", MACHINES)
def test_a_slowdown_of_5_percent_is_found(machine: str) -> None:
    rng = np.random.default_rng(2)
    found = decide(lambda i, k: -math.log(1.05) + scatter(rng, *MACHINES[machine]), count=100)
    said = [c.verdict for c in found]
    assert said.count(SAME) + said.count(FASTER) == 0
    # Bursts of ten times the scatter leave some open: they are told as such, and cost time rather than truth.
    assert said.count(SLOWER) / len(said) >= (0.95 if machine != "bursts" else 0.6)


def test_a_drift_that_all_passes_share_is_the_only_thing_taken_for_a_difference() -> None:
    """Passes that follow each other drift by 2 % one way and back: neither slower nor faster."""
    wave = [0.02 * math.sin(k / 4) for k in range(32)]
    assert verdict_of(wave).verdict in (SAME, INCONCLUSIVE)


def test_many_benchmarks_make_the_confirmation_stricter() -> None:
    policy = Policy(alarms=0.01)
    assert policy.strict(1) == pytest.approx(0.99)
    assert policy.strict(40) == pytest.approx(0.99975)
    assert policy.strict(0) == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ([SAME, SAME], SAME),
        ([SAME, FASTER], FASTER),
        ([FASTER, INCONCLUSIVE], INCONCLUSIVE),
        ([INCONCLUSIVE, SLOWER, FASTER], SLOWER),
        ([], INCONCLUSIVE),
    ],
)
def test_the_verdict_of_a_gate(verdicts: list[str], said: str) -> None:
    assert overall(verdicts) == said


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 0.0}, {"threshold": 1.5}, {"pass_s": 0.0}, {"fewest": 2}, {"most": 4}, {"confirming": 1}],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Policy(**wrong)  # type: ignore[arg-type]
