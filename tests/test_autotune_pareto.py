"""Several objectives: the front, the scalarisation that searches for it, and whole tunings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autotune_doubles import CostModel, gemm_case, small_family
from tilewright.autotune.study import tune
from tilewright.autotune.trials import Outcome
from tilewright.autotune.valuing import pareto
from tilewright.autotune.valuing.objective import Enter
from tilewright.autotune.valuing.several import growth_of, names, several
from tilewright.backends.host import Host
from tilewright.cli.main import main
from tilewright.errors import UsageError
from tilewright.evidence import Evidence
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import CPU

pytestmark = pytest.mark.alone

GEMM = family("gemm")
DEFAULT = GEMM.spec.default_config(CPU)
_POINTS = arrays(
    np.float64,
    st.tuples(st.integers(1, 30), st.integers(1, 4)),
    elements=st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0, math.inf]),
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


@settings(derandomize=True, deadline=None)
@given(_POINTS)
def test_the_front_is_what_nobody_dominates_and_everything_else_is_dominated(
    points: np.ndarray,
) -> None:
    on = pareto.front(points)
    good = np.isfinite(points).all(axis=1)
    assert not (on & ~good).any()
    assert on.any() == good.any()
    for place in np.flatnonzero(good):
        beaten = any(pareto.dominates(points[o], points[place]) for o in np.flatnonzero(good))
        assert on[place] != beaten
        if not on[place]:
            assert any(pareto.dominates(points[o], points[place]) for o in np.flatnonzero(on))


@settings(derandomize=True, deadline=None)
@given(_POINTS, st.randoms(use_true_random=False))
def test_the_front_depends_neither_on_order_nor_on_units(points: np.ndarray, random: Any) -> None:
    order = list(range(len(points)))
    random.shuffle(order)
    assert (pareto.front(points[order]) == pareto.front(points)[order]).all()
    assert (pareto.front(points * 1e-6) == pareto.front(points)).all()


@settings(derandomize=True, deadline=None)
@given(_POINTS, st.integers(0, 10_000))
def test_the_best_scalar_is_on_the_front_and_failures_are_last(
    points: np.ndarray, place: int
) -> None:
    found = pareto.weighted(points, place)
    good = np.isfinite(points).all(axis=1)
    assert (np.isfinite(found) == good).all()
    assert (found[good] >= 1).all()
    if good.any():
        # Ties of the scalar that rounding leaves are told apart by nothing.
        best = np.flatnonzero(found == found[good].min())
        assert pareto.front(points)[best].any()
    for one in np.flatnonzero(good):
        for other in np.flatnonzero(good):
            if pareto.dominates(points[one], points[other]):
                assert found[one] <= found[other]


def test_every_point_of_a_concave_front_is_found_by_some_weights() -> None:
    """A weighted sum finds only its two ends."""
    angle = np.linspace(0, math.pi / 2, 9)
    points = 1.0 + np.column_stack([np.cos(angle), np.sin(angle)])
    sums = {int(np.argmin(points @ pareto.weights(place, 2))) for place in range(400)}
    assert sums == {0, 8}
    found = {int(np.argmin(pareto.weighted(points, place))) for place in range(400)}
    assert len(found) >= 7


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 1_000_000), st.integers(1, 5))
def test_weights_are_a_point_of_the_simplex_that_the_place_decides(place: int, count: int) -> None:
    drawn = pareto.weights(place, count)
    assert (drawn >= 0).all() and drawn.sum() == pytest.approx(1)
    assert (drawn == pareto.weights(place, count)).all()


class Sized(CostModel):
    """The cost model, whose large tiles take memory and whose deep ones take code."""

    def evaluate(self, config: Config, enter: Enter) -> Outcome:
        found = super().evaluate(config, enter)
        memory = 8 * config["tile_m"] * config["tile_n"]
        sizes = {"memory_bytes": memory, "size_bytes": 100 + config["tile_k"]}
        return replace(found, details={**found.details, **sizes})

    def sizes(self, wanted: Sequence[str]) -> Mapping[str, Evidence | str]:
        return {"memory": Evidence.COMPILED, "size": Evidence.COMPILED}


@pytest.mark.parametrize("storage", ["journal:{}/s.journal", "sqlite:///{}/s.db"])
def test_a_tuning_for_three_objectives_keeps_the_front_and_resumes(
    tmp_path: Path, storage: str
) -> None:
    def run(trials: int, url: str, model: CostModel) -> Any:
        return tune(
            GEMM,
            gemm_case(),
            "cpu",
            trials,
            objective=model,
            backend=Host(),
            storage=url,
            objectives=("time", "memory", "size"),
        )

    url = storage.format(tmp_path)
    model = Sized(wrong=(Config({**DEFAULT, "tile_k": 64}),))
    run(8, url, model)
    result = run(16, url, model)
    whole = run(16, f"journal:{tmp_path}/whole.journal", Sized(wrong=model.wrong))
    assert len(model.calls) == len(set(model.calls)) == 16
    assert [r.config for r in result.rows] == [r.config for r in whole.rows]
    shown = [r.values for r in result.pareto]
    assert len(shown) >= 3 and list(shown[0]) == ["time_us", "memory_bytes", "size_bytes"]
    for one in shown:
        assert not any(
            pareto.dominates(list(r.values.values()), list(one.values()))
            for r in result.rows
            if r.value is not None
        )
    assert result.best and result.best.value == min(r.value for r in result.rows if r.value)
    top = result.top()
    assert top["objectives"] == ["time", "memory", "size"]
    assert top["pareto"] == [r.number for r in result.pareto]


def test_searching_for_two_finds_more_of_the_front_than_searching_for_time(
    tmp_path: Path,
) -> None:
    def points_of_the_front(objectives: Sequence[str]) -> float:
        result = tune(
            GEMM,
            gemm_case(),
            "cpu",
            60,
            objective=Sized(),
            backend=Host(),
            objectives=objectives,
            storage=f"journal:{tmp_path}/{len(objectives)}.journal",
        )
        sizes = np.array(
            [[r.value, r.details["memory_bytes"]] for r in result.rows if r.value is not None]
        )
        # Configs that differ in what the model does not look at are one point.
        return float(pareto.front(np.unique(sizes, axis=0)).sum())

    assert points_of_the_front(("time", "memory")) > points_of_the_front(("time",))


def test_without_time_nothing_is_chosen_for_the_tables(tmp_path: Path) -> None:
    result = tune(
        small_family(tmp_path),
        gemm_case(),
        "cpu",
        6,
        objective=Sized(),
        backend=Host(),
        objectives=("memory",),
    )
    assert result.unit == "bytes" and result.evidence == "compiled"
    assert result.best and result.best.value_us is None
    assert result.stored is None and "no time was asked for" in result.top()["doubt"]
    assert result.pareto == ()


def test_one_objective_is_as_before() -> None:
    model = CostModel()
    assert several(model, ("time",)) is model
    result = tune(GEMM, gemm_case(), "cpu", 4, objective=model, backend=Host())
    assert result.pareto == () and result.top()["objectives"] == ["time"]


def test_what_is_not_known_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="size cannot be an objective here: this objective"):
        several(CostModel(), ("time", "size"))
    with pytest.raises(UsageError, match="unknown objective 'speed'; accepted: time, memory, size"):
        names("time,speed")
    with pytest.raises(UsageError, match="no objective was named"):
        names(",")
    assert names("size, time") == ("time", "size")
    assert main(["tune", "gemm", "--objective", "time,size"]) == 2
    assert "one library on a processor" in capsys.readouterr().err
    with pytest.raises(UsageError, match="cmaes takes one objective"):
        tune(
            GEMM,
            gemm_case(),
            "cpu",
            4,
            objective=Sized(),
            sampler="cmaes",
            objectives=("time", "size"),
        )


def test_the_growth_of_the_peak_is_that_of_the_call() -> None:
    def call() -> None:
        np.ones(64 << 20, dtype=np.uint8)

    assert growth_of(call) == pytest.approx(64 << 20, rel=0.1)
    assert growth_of(lambda: None) < 8 << 20


def test_a_real_tuning_for_time_and_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "tune.json"
    command = ["tune", "gemm", "--shape", "M=16,N=64,K=48", "--trials", "4"]
    assert main([*command, "--objective", "time,memory", "--json", str(found)]) == 0
    assert "front: time_us" in capsys.readouterr().out
    document = json.loads(found.read_text())
    page = tmp_path / "page.html"
    assert main(["report", str(page), str(found)]) == 0
    assert "tune" in page.read_text().lower()
    assert document["pareto"]
    rows = {r["number"]: r["values"] for r in document["rows"]}
    for number in document["pareto"]:
        assert rows[number]["time_us"] > 0 and rows[number]["memory_bytes"] >= 0
    assert document["key"]["mode"].endswith("time x memory")
