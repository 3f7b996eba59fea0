"""The pool and what samplers may propose from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_doubles import cost, gemm_case
from tilewright.autotune import trials
from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sampling.portfolio import Portfolio
from tilewright.autotune.sampling.proposers import Exhaustive, History, Random
from tilewright.autotune.sampling.samplers import sampler
from tilewright.errors import Unavailable, UsageError
from tilewright.registry import family
from tilewright.space import Config, Rule, Space
from tilewright.targets import CPU, target

GEMM = family("gemm")
POOL = Pool.of(GEMM.spec, gemm_case(), CPU)


def odd_sum(spec: object, case: object, config: Config, where: object) -> str | None:
    return "odd" if sum(config.values()) % 2 else None


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Spaces of two to four fields with a random legal part."""
    values = draw(
        st.lists(
            st.lists(st.integers(0, 40), min_size=1, max_size=5, unique=True),
            min_size=2,
            max_size=4,
        )
    )
    space = Space(**{f"f{i}": tuple(sorted(v)) for i, v in enumerate(values)})
    points = list(space.points())
    legal = draw(st.lists(st.sampled_from(points), min_size=1, max_size=30, unique=True))
    return Pool.from_configs(space, set(legal), legal[0])


def test_the_pool_is_the_spaces_own_in_its_own_order() -> None:
    expected = GEMM.spec.space["cpu"].pool(GEMM.spec, gemm_case(), CPU)
    assert [POOL.config(i) for i in range(len(POOL))] == expected
    assert POOL.config(POOL.default) == GEMM.spec.default_config(CPU)


def test_a_target_with_rules_gives_only_legal_configs() -> None:
    where = target("cuda:sm_80")
    case = GEMM.spec.case({"M": 64, "N": 64, "K": 64}, "bf16")
    pool = Pool.of(GEMM.spec, case, where)
    space = GEMM.spec.space["cuda"]
    assert 0 < len(pool) < space.size
    assert all(
        space.illegal(GEMM.spec, case, pool.config(i), where) is None
        for i in range(0, len(pool), 97)
    )


@given(pools())
@settings(max_examples=60, deadline=None)
def test_numbers_and_configs_are_one_to_one(pool: Pool) -> None:
    for i in range(len(pool)):
        assert pool.index(pool.config(i)) == i
        for n in pool.neighbours(i):
            one, other = pool.config(i), pool.config(int(n))
            assert sum(one[f] != other[f] for f in one) == 1
    assert pool.index({**pool.config(0), "f0": 99}) is None


@given(pools(), st.integers(0, 2**31), st.data())
@settings(max_examples=120, deadline=None)
def test_own_proposals_are_legal_and_new(pool: Pool, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(pool)))
    rng = np.random.default_rng(seed)
    places = rng.permutation(len(pool))[:count]
    values = np.where(rng.random(count) < 0.2, np.inf, rng.random(count) * 100 + 1)
    running = data.draw(st.integers(0, count))
    arms = tuple(rng.choice(["local", "model", "cross", "restart", "default"], count - running))
    history = History(places[running:], values[running:], arms, places[:running])
    free = history.free(pool)
    if not free.any():
        return
    for proposer in (Portfolio(), Random(), Exhaustive()):
        found = proposer.propose(pool, history, free, np.random.default_rng(seed))
        assert free[found.index]
        assert found.index not in places
        again = type(proposer)().propose(pool, history, free, np.random.default_rng(seed))
        assert again == found


def test_many_workers_ask_before_most_results_are_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three results and five running trials are enough for every arm, the surrogate's included."""
    even = dict.fromkeys(("model", "local", "cross", "restart"), 0.25)
    monkeypatch.setattr("tilewright.autotune.sampling.portfolio.credit", lambda history: even)
    space = Space(a=tuple(range(10)), b=tuple(range(10)))
    pool = Pool.from_configs(space, set(space.points()), next(iter(space.points())))
    history = History(
        np.array([1, 20, 37]), np.array([3.0, 1.0, 2.0]), ("spread",) * 3, np.arange(50, 55)
    )
    arms = {
        Portfolio().propose(pool, history, history.free(pool), np.random.default_rng(seed)).arm
        for seed in range(40)
    }
    assert arms == {"local", "model", "cross", "restart"}


@pytest.mark.parametrize("name", ["portfolio", "tpe", "random", "gp", "cmaes", "exhaustive"])
def test_a_study_covers_a_small_pool_exactly_once_and_the_default_first(name: str) -> None:
    space = Space((Rule("odd", odd_sum),), a=(1, 2, 3, 5), b=(8, 16, 48, 64), c=(0, 1))
    configs = {c for c in space.points() if odd_sum(None, None, c, None) is None}
    default = sorted(configs, key=str)[3]
    pool = Pool.from_configs(space, configs, default)
    study = optuna.create_study(sampler=sampler(name, pool, 5))
    seen = []
    for _ in range(len(pool)):
        trial = study.ask(pool.distributions())
        config = Config(trial.params)
        assert pool.index(config) is not None
        trial.set_user_attr(trials.RECORD, trials.Outcome.ok(float(config["b"])).record())
        study.tell(trial, float(config["b"]))
        seen.append(config)
    assert seen[0] == default
    assert len(set(seen)) == len(pool) == len(configs)


@pytest.mark.parametrize("name", ["portfolio", "tpe"])
def test_search_beats_random(name: str) -> None:
    def best_of(chosen: str, seed: int) -> float:
        study = optuna.create_study(sampler=sampler(chosen, POOL, seed))
        for _ in range(36):
            trial = study.ask(POOL.distributions())
            value = cost(trial.params)
            trial.set_user_attr(trials.CLAIM, trials.Claim.mine(study.sampler.last_arm).content())
            trial.set_user_attr(trials.RECORD, trials.Outcome.ok(value).record())
            study.tell(trial, value)
        return study.best_value

    floor = min(cost(POOL.config(i)) for i in range(len(POOL)))
    found, chance = ([best_of(n, s) - floor for s in range(4)] for n in (name, "random"))
    assert np.mean(found) < 0.7 * np.mean(chance)


def test_unknown_and_missing_samplers_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown sampler 'anneal'; accepted: portfolio, tpe"):
        sampler("anneal", POOL, 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="sampler cmaes needs cmaes"):
        sampler("cmaes", POOL, 0)


def test_a_default_outside_the_space_is_refused() -> None:
    space = Space(a=(1, 2), b=(1, 2))
    with pytest.raises(UsageError, match="is not a point of the space"):
        Pool.from_configs(space, {Config(a=1, b=1)}, Config(a=3, b=1))


def test_an_illegal_default_stays_in_the_pool() -> None:
    space = Space((Rule("odd", odd_sum),), tile_m=(32, 33), tile_n=(32, 33))
    spec = type(
        "S",
        (),
        {
            "space_for": lambda s, t: space,
            "default_config": lambda s, t: Config(tile_m=33, tile_n=32),
            "config_for": lambda s, c, t: Config(tile_m=32, tile_n=32),
        },
    )
    pool = Pool.of(spec(), gemm_case(), CPU)  # type: ignore[arg-type]
    assert len(pool) == 3
    assert pool.config(pool.default) == Config(tile_m=33, tile_n=32)
    assert pool.suggested == Config(tile_m=32, tile_n=32)
    assert [pool.config(i) for i in pool.first] == [pool.config(pool.default), pool.suggested]


def test_a_large_space_is_enumerated_once_while_its_rules_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def rule(spec: object, case: object, config: Config, where: object) -> str | None:
        nonlocal asked
        asked += 1
        return "odd" if sum(config.values()) % 2 else None

    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr("tilewright.autotune.sampling.pool.LARGE", 100)
    space = Space((Rule("odd", rule),), a=tuple(range(10)), b=tuple(range(10)), c=(0, 1))
    spec = type(
        "S",
        (),
        {
            "name": "s",
            "space_for": lambda s, t: space,
            "default_config": lambda s, t: Config(a=1, b=0, c=0),
            "config_for": lambda s, c, t: Config(a=1, b=0, c=0),
        },
    )
    first = Pool.of(spec(), gemm_case(), CPU, "v1")  # type: ignore[arg-type]
    again = Pool.of(spec(), gemm_case(), CPU, "v1")  # type: ignore[arg-type]
    assert asked == space.size
    assert (len(first), first.hash) == (101, again.hash)
    next(tmp_path.rglob("*.npy")).write_bytes(b"torn")
    assert Pool.of(spec(), gemm_case(), CPU, "v1").hash == first.hash  # type: ignore[arg-type]
    Pool.of(spec(), gemm_case(), CPU, "v2")  # type: ignore[arg-type]
    assert asked == 3 * space.size
