"""Races: few repeats, the best is kept, and looking often costs no confidence."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.autotune.choosing.racing import BUDGET, DECIDED, NOBODY, Rules, race, race_recorded
from tilewright.cli.main import main
from tilewright.errors import UsageError
from tilewright.perf.recorded import read

SPACES = Path(__file__).parent / "data" / "spaces"


@pytest.fixture(scope="module")
def laptop() -> tuple[np.ndarray, np.ndarray]:
    """Repeats of the 50 truly best gemm configs of the RTX 3060 laptop, and their true slowdowns."""
    space = read(SPACES / "gemm-RTX3060L.json.gz")
    best = np.argsort(space.times_ms)[:50]
    true = space.times_ms[best]
    return space.repeats_ms[best], true / true.min()


def test_a_noisy_laptop_is_raced_with_few_of_its_repeats(
    laptop: tuple[np.ndarray, np.ndarray],
) -> None:
    times, true = laptop
    regrets, shares = [], []
    for seed in range(200):
        who = np.random.default_rng(1000 + seed).permutation(len(times))
        chosen, used, ties = race_recorded(times[who], seed)
        regrets.append(true[who[chosen]] - 1)
        shares.append(used / times.size)
        assert chosen == ties[0]
    assert np.mean(regrets) <= 0.003
    assert np.percentile(regrets, 95) <= 0.005
    assert np.mean(shares) <= 0.18 and max(shares) <= 0.40


def test_its_warm_up_is_found_and_a_steady_device_has_none(
    laptop: tuple[np.ndarray, np.ndarray],
) -> None:
    """The first two repeats are fast there: the clock had not come down yet."""
    times, _ = laptop
    assert race_recorded(times, 1, share=1.0, rules=Rules(regret=0.0)).race.warm == 2
    steady = times[:, 2:]
    assert race_recorded(steady, 1, share=1.0, rules=Rules(regret=0.0)).race.warm == 0


def test_without_knowing_which_repeats_are_biased_the_race_takes_longer_and_still_finds_it(
    laptop: tuple[np.ndarray, np.ndarray],
) -> None:
    times, true = laptop
    regrets, shares = [], []
    for seed in range(25):
        mixed = np.random.default_rng(seed).permuted(times, axis=1)
        chosen, used, _ = race_recorded(mixed, seed)
        regrets.append(true[chosen] - 1)
        shares.append(used / times.size)
    assert np.mean(regrets) <= 0.01 and max(shares) <= 0.40


def _source(rng: np.random.Generator, levels: np.ndarray, noise: float, drift: float, tail: float):  # type: ignore[no-untyped-def]
    def take(alive: Sequence[int]) -> np.ndarray:
        row = np.full(len(levels), np.nan)
        common = math.exp(rng.normal(0, drift))
        spikes = np.where(rng.random(len(levels)) < tail, 1.3, 1.0)
        row[list(alive)] = (levels * common * rng.lognormal(0, noise, len(levels)) * spikes)[
            list(alive)
        ]
        return row

    return take


@pytest.mark.parametrize(("drift", "tail"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.05)])
def test_the_best_is_not_sent_away_however_often_one_looks(drift: float, tail: float) -> None:
    """Ten configs 0.2 % apart under 2 % of noise, 40 rounds each: fewer than 5 % lose their best."""
    lost = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        levels = 100 * (1 + 0.002 * np.arange(10))
        found = race(
            _source(rng, levels, 0.02, drift, tail),
            10,
            Rules(regret=0.0),
            affords=lambda used, more: used + more <= 400,
        )
        lost += 0 in found.left
    assert lost <= 2


def test_drift_that_all_share_costs_nothing() -> None:
    """Rounds are paired: clocks that swing by a fifth leave 3 % apart as clear as 1 % noise does."""
    levels = 100 * np.array([1.0, 1.03, 1.06, 1.1])
    swung = race(_source(np.random.default_rng(1), levels, 0.01, 0.2, 0.0), 4)
    calm = race(_source(np.random.default_rng(1), levels, 0.01, 0.0, 0.0), 4)
    assert swung.leader == calm.leader == 0
    assert swung.why == calm.why == DECIDED
    assert swung.used <= 2 * calm.used


def test_equals_are_a_tie_with_a_probability_each() -> None:
    levels = np.array([100.0, 100.0, 100.0, 130.0])
    found = race(
        _source(np.random.default_rng(3), levels, 0.02, 0.0, 0.0),
        4,
        Rules(regret=0.0),
        affords=lambda used, more: used + more <= 60,
    )
    assert found.alive == (0, 1, 2) and 3 in found.left
    assert len(found.tied) >= 2
    assert found.why == BUDGET
    assert 0.95 <= sum(t.p_best for t in found.tied) <= 1
    assert found.tied[0].which == found.leader and found.tied[0].ratio == 1.0


def test_what_is_kept_is_measured_to_the_end_and_a_failure_leaves() -> None:
    levels = np.array([100.0, 150.0, 101.0, 102.0])
    inner = _source(np.random.default_rng(5), levels, 0.01, 0.0, 0.0)
    rounds = 0

    def take(alive: Sequence[int]) -> np.ndarray:
        nonlocal rounds
        rounds += 1
        row = inner(alive)
        if rounds >= 2:
            row[3] = math.nan
        return row

    found = race(
        take, 4, Rules(regret=0.0), keep=(1,), affords=lambda used, more: used + more <= 60
    )
    assert 1 in found.alive and np.isfinite(found.times[:, 1]).all()
    assert found.left[3] == 2
    failed = race(lambda alive: np.full(2, math.nan), 2)
    assert (failed.why, failed.leader, failed.tied) == (NOBODY, -1, ())


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.integers(1, 8),
    st.integers(1, 12),
    st.floats(0.05, 1.0),
    st.integers(0, 2**31),
    st.data(),
)
def test_any_recording_gives_a_choice_within_its_budget(
    configs: int, repeats: int, share: float, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    times = rng.lognormal(0, data.draw(st.floats(0, 0.5)), (configs, repeats))
    holes = rng.random(times.shape) < data.draw(st.floats(0, 0.5))
    holes[:, 0] = False
    times[holes] = np.nan
    found = race_recorded(times, seed, share)
    again = race_recorded(times, seed, share)
    assert tuple(found) == tuple(again)
    assert found.used <= share * np.isfinite(times).sum()
    assert found.used == np.isfinite(found.race.times).sum()
    if found.race.why != NOBODY:
        assert 0 <= found.chosen < configs
        assert set(found.tie_set) <= set(found.race.alive)


@pytest.mark.parametrize(
    "times", [np.zeros((2, 3)), np.full((2, 3), np.nan), np.ones(4), -np.ones((1, 2))]
)
def test_what_is_no_recording_is_refused(times: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"accepted: \[config, repeat\]"):
        race_recorded(times)


def test_rules_are_checked() -> None:
    for wrong in ({"confidence": 1.0}, {"first": 1}, {"regret": -0.1}):
        with pytest.raises(UsageError, match="accepted"):
            Rules(**wrong)  # type: ignore[arg-type]


def test_replay_races_the_best_and_the_finalists_of_a_tuning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(SPACES / "gemm-RTX3060L.json.gz")
    command = ["replay", path, "--race", "--seeds", "2", "--budget", "40", "--sampler", "random"]
    assert main([*command, "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(r["candidates"], r["seed"]) for r in rows] == [
        ("best 50", 0),
        ("tuning", 0),
        ("best 50", 1),
        ("tuning", 1),
    ]
    for row in rows:
        assert 0 <= row["regret"] <= 0.05 and 0 < row["share"] <= 0.4
        assert (row["screened"] is None) == (row["candidates"] == "best 50")


def test_a_recording_without_repeats_cannot_be_raced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(SPACES / "ktt-convolution-RTX3090.json.gz"), "--race"]) == 2
    assert "kept no single repeats" in capsys.readouterr().err
