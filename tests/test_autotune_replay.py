"""The sampler against recorded spaces, its surrogate against the textbook, and `tilewright replay`."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.autotune import simulation, trials
from tilewright.autotune.sampling import portfolio, surrogate
from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sampling.portfolio import Portfolio
from tilewright.autotune.sampling.proposers import History
from tilewright.autotune.sampling.samplers import sampler
from tilewright.autotune.sampling.surrogate import Surrogate, targets
from tilewright.autotune.sampling.transfer import EVERY, WINDOW, Warm
from tilewright.autotune.simulation import donor, load, simulate
from tilewright.autotune.store.donors import Donor
from tilewright.cli.main import main
from tilewright.errors import UsageError
from tilewright.perf.recorded import parse, read

pytestmark = pytest.mark.alone

SPACES = Path(__file__).parent / "data" / "spaces"
NOTHING = np.zeros(0, dtype=np.int64)


def recorded(name: str) -> simulation.Recorded:
    return load(SPACES / f"{name}.json.gz")


@st.composite
def histories(draw: st.DrawFn) -> tuple[Pool, np.ndarray, np.ndarray]:
    """A pool with numbers, switches and names, and values for some of its configs; a few of them failed."""
    fields = {"a": (16, 32, 48, 64, 128), "b": (0, 1), "c": (1, 2, 3, 4), "d": (0, 1, 2)}
    every = np.array(
        [[a, b, c, d] for a in range(5) for b in range(2) for c in range(4) for d in range(3)]
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = Pool(fields, every[rng.random(len(every)) < 0.8], None, {"d"})
    count = draw(st.integers(1, min(60, len(pool))))
    tried = rng.permutation(len(pool))[:count]
    values = np.exp(rng.normal(size=count))
    return pool, tried, np.where(rng.random(count) < 0.1, np.inf, values)


@given(histories())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_posterior_is_the_textbooks(found: tuple[Pool, np.ndarray, np.ndarray]) -> None:
    pool, tried, values = found
    model = Surrogate(pool)
    model.learn(tried, values, NOTHING)
    posterior = model._fitted.posterior
    everything = np.arange(len(pool))
    prior = np.stack([posterior._covariance.between(i, None) for i in everything]).astype(float)
    assert np.allclose(prior, prior.T, atol=1e-6)
    assert np.linalg.eigvalsh(prior).min() > -1e-4
    own = prior[np.ix_(tried, tried)] + (posterior._diagonal - 1) * np.eye(len(tried))
    cross = prior[tried]
    mean = cross.T @ np.linalg.solve(own, targets(values))
    variance = 1 - np.einsum("ij,ij->j", cross, np.linalg.solve(own, cross))
    got, deviation = model.predict(everything)
    assert np.allclose(got, mean, atol=5e-3)
    assert np.allclose(
        deviation / model._fitted.scale, np.sqrt(np.maximum(variance, 1e-7)), atol=2e-2
    )
    assert np.allclose(posterior.means(model._fitted._whitened), mean, atol=2e-2)


@given(histories(), st.data())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_resumed_surrogate_knows_what_one_that_went_on_knows(
    found: tuple[Pool, np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    pool, tried, values = found
    went_on = Surrogate(pool)
    for count in range(1, len(tried) + 1):
        pending = tried[count : count + data.draw(st.integers(0, 2))]
        went_on.learn(tried[:count], values[:count], pending)
    went_on.learn(tried, values, NOTHING)
    resumed = Surrogate(pool)
    resumed.learn(tried, values, NOTHING)
    assert (went_on.improvement() == resumed.improvement()).all()


def test_a_config_in_work_makes_its_surroundings_certain_and_changes_no_mean() -> None:
    space = recorded("convolution-A4000")
    rng = np.random.default_rng(3)
    tried = rng.choice(np.flatnonzero(np.isfinite(space.times_ms)), 20, replace=False)
    model = Surrogate(space.pool)
    model.learn(tried, space.times_ms[tried], NOTHING)
    at = np.array([int(model.view[np.argmax(model.improvement())])])
    mean, deviation = model.predict(at)
    model.learn(tried, space.times_ms[tried], at)
    same, less = model.predict(at)
    assert abs(same[0] - mean[0]) < 1e-3
    assert less[0] < 0.2 * deviation[0]


def test_simulation_and_study_propose_the_same_sequence() -> None:
    """Replays are about what `tune` uses, to the last proposal."""
    space = recorded("convolution-A4000")
    study = optuna.create_study(sampler=sampler("portfolio", space.pool, 5))
    values = []
    for _ in range(45):
        trial = study.ask(space.pool.distributions())
        index = space.pool.index(trial.params)
        assert index is not None
        value = float(space.times_ms[index])
        values.append(value)
        good = np.isfinite(value)
        told = trials.Outcome.ok(value) if good else trials.Outcome.failed(trials.Stage.TIME, "")
        trial.set_user_attr(trials.CLAIM, trials.Claim.mine(study.sampler.last_arm).content())
        trial.set_user_attr(trials.RECORD, told.record())
        study.tell(trial, value if good else 1e6)
    best = space.recording.optimum_ms / np.minimum.accumulate(values)
    assert list(simulate(space, "portfolio", 5, 45).best) == list(best)


@pytest.mark.parametrize("name", ["convolution-A100", "gemm-RTX3090", "convolution-W6600"])
def test_fractions_of_the_optimum_on_recorded_spaces(name: str) -> None:
    """A few seeds with room for their scatter; the figures of 50 seeds are in docs/replay.md."""
    found = np.array([simulate(recorded(name), "portfolio", s, 100).best for s in range(6)])
    at = {m: float(found[:, m - 1].mean()) for m in (25, 50, 100)}
    floor = {
        "convolution-A100": (0.58, 0.70, 0.84),
        "gemm-RTX3090": (0.78, 0.88, 0.95),
        "convolution-W6600": (0.74, 0.81, 0.83),
    }[name]
    assert all(low < got for low, got in zip(floor, at.values(), strict=True)), at


def test_the_time_of_the_sampler_on_18k_configs() -> None:
    """Processor time, so that a busy machine does not count; a neighbour in the caches does, for a while."""
    assert (
        min(simulate(recorded("gemm-RTX3090"), "portfolio", 0, 200).cpu_ms for _ in range(3)) < 15
    )


def test_a_pool_beyond_the_view_is_searched_through_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrogate, "VIEW", 1500)
    space = recorded("gemm-RTX3060L")
    found = [simulate(space, "portfolio", s, 80).best[-1] for s in range(3)]
    chance = [simulate(space, "random", s, 80).best[-1] for s in range(3)]
    assert np.mean(found) > max(0.9, np.mean(chance) + 0.03)


def test_doubt_grows_while_nothing_is_found() -> None:
    values = np.concatenate([[5.0, 3.0, 1.0], np.full(60, 2.0)])
    arms = ("spread",) * 3 + ("model",) * 60
    history = History(np.arange(63), values, arms, NOTHING)
    fresh = portfolio.credit(History(np.arange(3), values[:3], arms[:3], NOTHING))
    stalled = portfolio.credit(history)
    assert stalled["model"] < fresh["model"] - 0.1
    assert sum(stalled.values()) == pytest.approx(1)
    lucky = History(
        np.arange(63),
        np.concatenate([values[:43], np.full(20, 1.0)]),
        arms[:43] + ("local",) * 20,
        NOTHING,
    )
    shares = portfolio.credit(lucky)
    assert shares["local"] > 3 * max(shares["cross"], shares["restart"])


def test_at_most_a_quarter_of_the_first_trials_is_borrowed_and_none_after() -> None:
    target = recorded("gemm-RTX3090")
    given = donor(target, recorded("gemm-RTX3060L").recording)
    assert given is not None
    curve = simulate(target, "portfolio", 0, 60, [given])
    borrowed = [i for i, arm in enumerate(curve.arms) if arm.startswith("donor ")]
    assert 0 < len(borrowed) <= WINDOW // EVERY
    assert max(borrowed) < WINDOW


@pytest.mark.parametrize(
    ("name", "sibling"),
    [("gemm-RTX3090", "gemm-RTX3060L"), ("gemm-RTX3060L", "gemm-RTX3090")],
)
def test_siblings_help_from_the_start(name: str, sibling: str) -> None:
    target = recorded(name)
    given = donor(target, recorded(sibling).recording)
    assert given is not None
    warm = np.mean([simulate(target, "portfolio", s, 25, [given]).best[-1] for s in range(6)])
    assert warm >= 0.92


def test_a_hostile_donor_is_dropped() -> None:
    """It recommends the worst configs there are; two of them are enough."""
    target = recorded("convolution-A4000")
    good = np.isfinite(target.times_ms)
    worst = [int(i) for i in np.argsort(-np.where(good, target.times_ms, -1.0), kind="stable")[:64]]
    hostile = Donor("hostile", tuple(worst), tuple(float(i) for i in range(64)))
    curve = simulate(target, "portfolio", 1, 60, [hostile])
    assert sum(arm == "donor hostile" for arm in curve.arms) == 2
    kind = Donor("kind", tuple(int(i) for i in np.argsort(target.times_ms)[:64]), hostile.values)
    both = simulate(target, "portfolio", 1, 60, [hostile, kind])
    assert both.best[-1] == 1.0
    assert sum(arm == "donor kind" for arm in both.arms) >= 3


def test_a_warm_start_resumes_like_a_cold_one() -> None:
    target = recorded("convolution-A4000")
    given = donor(target, recorded("convolution-A100").recording)
    assert given is not None
    tried: list[int] = []
    arms: list[str] = []
    for restart in (True, False):
        tried, arms, before = [], [], tried
        proposer = Warm(Portfolio(), [given])
        for place in range(36):
            proposer = Warm(Portfolio(), [given]) if restart else proposer
            at = np.array(tried, dtype=np.int64)
            history = History(at, target.times_ms[at], tuple(arms), NOTHING)
            rng = np.random.default_rng([1, place])
            found = proposer.propose(target.pool, history, history.free(target.pool), rng)
            tried.append(found.index)
            arms.append(found.arm)
    assert tried == before


CACHE = {
    "device_name": "d", "kernel_name": "k", "problem_size": [1], "tune_params_keys": ["x", "y", "f"],
    "tune_params": {"x": [1, 2], "y": ["a", "b"], "f": [0.5, 1.5]},
    "cache": {
        "1,a,0.5": {"x": 1, "y": "a", "f": 0.5, "time": 2.0, "times": [2.0, 2.1]},
        "2,b,1.5": {"x": 2, "y": "b", "f": 1.5, "time": "RuntimeFailedConfig"},
        "2,a,1.5": {"x": 2, "y": "a", "f": 1.5, "time": 1.0, "times": [1.0]},
    },
}  # fmt: skip


def test_names_and_fractions_are_values_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(CACHE))
    space = load(path)
    assert space.pool.categories == {"y"}
    assert [space.recording.config(r) for r in range(3)][1] == {"x": 2, "y": "b", "f": 1.5}
    assert sorted(space.times_ms) == [1.0, 2.0, np.inf]
    curve = simulate(space, "portfolio", 0, 10)
    assert len(curve.best) == 10
    assert curve.best[-1] == 1.0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"a": 1}, "no recorded space"),
        ({**CACHE, "tune_params_keys": ["z"]}, "lacks one of them"),
        ({**CACHE, "cache": {"1": CACHE["cache"]["2,b,1.5"]}}, "no config that worked"),
        ({"Results": [], "Metadata": {"TimeUnit": "Weeks"}}, "unknown TimeUnit"),
    ],
)
def test_what_is_no_recording_is_refused(content: object, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse("file", content)


def test_replay_writes_rows_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    space = str(SPACES / "convolution-A4000.json.gz")
    assert main(["replay", space, "--seeds", "2", "--budget", "30", "--sampler", "portfolio,random",
                 "--workers", "1", "--json", str(out)]) == 0  # fmt: skip
    found = json.loads(out.read_text())
    assert {(r["sampler"], r["seed"], r["at"]) for r in found["rows"]} == {
        (s, seed, at) for s in ("portfolio", "random") for seed in (0, 1) for at in (25, 30)
    }
    summary = {(s["sampler"], s["at"]): s for s in found["summary"]}
    row = summary["portfolio", 25]
    assert row["space"] == "convolution-A4000.json.gz"
    own = [
        r["fraction_of_optimum"]
        for r in found["rows"]
        if (r["sampler"], r["at"]) == ("portfolio", 25)
    ]
    assert row["mean"] == pytest.approx(np.mean(own))
    assert row["seeds"] == 2
    assert "mean fraction of the optimum" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "0"], "both must be at least 1"),
        (["--sampler", "anneal"], "unknown sampler 'anneal'"),
        (["--warm", str(SPACES / "gemm-RTX3090.json.gz")], "shares no config with"),
        (["--warm", str(SPACES / "convolution-A100.json.gz"), "--race"], "--warm goes with"),
        (["--gate"], "keeps no facts of binaries"),
    ],
)
def test_replay_refuses_in_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(SPACES / "convolution-A4000.json.gz"), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "torn.json.gz"
    path.write_bytes(gzip.compress(b"{}")[:10])
    with pytest.raises(UsageError, match="is no JSON"):
        read(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "absent.json")


def test_reading_a_large_recording_takes_seconds() -> None:
    began = time.process_time()
    assert len(read(SPACES / "gemm-RTX3090.json.gz")) == 17956
    assert time.process_time() - began < 20


def test_the_gate_drops_what_it_should_of_a_recording(tmp_path: Path) -> None:
    out = tmp_path / "gate.json"
    assert (
        main(
            [
                "replay",
                str(SPACES / "ktt-convolution-RTX3090.json.gz"),
                "--gate",
                "--json",
                str(out),
            ]
        )
        == 0
    )
    (row,) = json.loads(out.read_text())["rows"]
    assert row["configs"] == 5240
    assert row["dropped"] >= 0.15
    assert row["top_kept"] == 1.0
    assert row["optimum_kept"]
