"""The views on tunings: what they draw, and that a stored study gives the same as its JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import report_documents as documents
from autotune_doubles import CostModel, gemm_case
from tilewright.autotune import study_document
from tilewright.autotune.study import tune
from tilewright.autotune.trials import OBJECTIVES
from tilewright.backends.host import Host
from tilewright.cli.main import main
from tilewright.document import document, plain
from tilewright.perf import importance, plots, report
from tilewright.registry import family

quick = settings(derandomize=True, deadline=None, max_examples=20)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


def page(*given: dict[str, Any]) -> str:
    return report.render([report.parse(f"{i}.json", d) for i, d in enumerate(given)], date="a day")


def columns(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[float | None]]:
    return [r["config"] for r in rows], [r["value"] for r in rows]


def test_importance_finds_the_field_that_decides() -> None:
    found = importance.shares(*columns(documents.trials(120, 3)))
    assert sum(found.values()) == pytest.approx(1.0)
    assert max(found, key=lambda n: found[n]) == "tile_m"
    assert found["stages"] < found["tile_m"] / 2


def test_importance_counts_failures_and_is_silent_where_nothing_can_be_said() -> None:
    configs = [{"a": i % 2, "b": i % 3, "same": 1} for i in range(60)]
    values: list[float | None] = [None if c["a"] else 10.0 + i / 100 for i, c in enumerate(configs)]
    found = importance.shares(configs, values)
    assert found["a"] > 0.8 and "same" not in found
    assert importance.shares(configs[:5], values[:5]) == {}
    assert importance.shares(configs, [1.0] * 60) == {}
    assert importance.shares([], []) == {}


def test_history_marks_failures_and_colours_arms() -> None:
    rows = documents.trials(30)
    failed = sum(r["value"] is None for r in rows)
    text = page(documents.document("tune", rows, unit="us", evidence="measured"))
    svg = re.search(r"<svg[^>]*class=\"plot\".*?</svg>", text, re.S)
    assert svg is not None and failed > 2
    assert svg[0].count('class="cross"') == failed
    assert svg[0].count("<circle") == 30 - failed
    assert {f"by {arm}" for arm in ("neighbour", "surrogate", "restart")} <= set(
        re.findall(r"by \w+", text)
    )
    assert f"failed ({failed})" in text
    # The tip of a failure says why.
    assert "failed: element (0, 3) is 1.5 instead of 2.25" in svg[0]


def test_modelled_values_are_hollow_and_called_so() -> None:
    rows = documents.trials(20, evidence="modelled")
    text = page(documents.document("tune", rows, unit="cycles", evidence="modelled"))
    assert 'class="hollow' in text and "<circle cx" not in text
    assert "(modelled)" in text


def test_parallel_coordinates_leave_out_what_does_not_vary() -> None:
    configs = [{"tile": 2 << (i % 4), "same": 1, "word": "ab"[i % 2]} for i in range(40)]
    svg = plots.parallel("p", configs, [float(i + 1) for i in range(39)] + [None], "us")
    assert ">tile<" in svg and ">word<" in svg and ">same<" not in svg
    assert svg.count('class="way top"') == 4 + 1  # and the legend's line
    assert svg.count('class="way failed"') == 1 + 1
    assert plots.parallel("p", configs[:1], [1.0], "us") == ""


def fronts(rows: list[dict[str, Any]], **top: Any) -> set[int]:
    """Numbers of the trials in the page's table of the front."""
    text = page(documents.document("tune", rows, unit="us", evidence="measured", **top))
    table = re.search(r"trials on the Pareto front of.*?</table>", text, re.S)
    assert table is not None
    return set(map(int, re.findall(r'<th scope="row">(\d+)</th>', table[0])))


@quick
@given(st.lists(st.tuples(st.integers(1, 6), *[st.integers(0, 6)] * 2), min_size=1, max_size=15))
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int, int]]) -> None:
    names = ("time_us", "memory_bytes", "size_bytes")
    rows = [
        {"number": i, "config": {"a": i}, "value": p[0], "values": dict(zip(names, p, strict=True))}
        for i, p in enumerate(points)
    ]

    def dominated(p: tuple[int, ...]) -> bool:
        return any(q != p and all(x <= y for x, y in zip(q, p, strict=True)) for q in points)

    assert fronts(rows) == {i for i, p in enumerate(points) if not dominated(p)}


def test_the_front_that_the_document_names_is_the_one_shown() -> None:
    rows = documents.trials(20, objectives=True)
    assert fronts(rows, pareto=[0, 3]) == {0, 3}
    assert fronts(rows, pareto=[]) == fronts(rows)
    text = page(documents.tune(objectives=True))
    assert text.count("Pareto front: gemm") == 3
    assert "time, us against memory, bytes" in text


def test_a_sweep_shows_its_table_and_what_it_loses() -> None:
    text = page(documents.swept())
    for expected in (
        "Dispatch table: gemm cpu bf16 N=1536 K=576", "4 buckets of at most 8 (measured)", "65 .. 512", "tile_m=256",
        "whole table: mean regret 1.10 %, worst 3.00 % at M=256", "one config on every size: mean regret 6.00 %",
        "default on every size: mean regret 90.00 %", "at least 16 interleaved rounds", "M=4096",
    ):  # fmt: skip
        assert expected in text, expected
    empty = documents.swept()
    empty["sweep"]["buckets"] = []
    empty["doubt"] = "interrupted"
    assert "no table: interrupted" in page(empty)


def test_replays_are_drawn_from_rows_and_from_summaries_alone() -> None:
    whole = documents.replay()
    bare = {**whole, "rows": [{"space": "none"}]}
    for given_ in (whole, bare):
        text = page(given_)
        assert text.count("Fraction of the optimum: ") == 2
        assert text.count('class="curve ') == 6
    assert "Replayed tuning" in page({**whole, "summary": []})


def test_names_cannot_break_the_page() -> None:
    rows = documents.trials(20)
    for row in rows:
        row["arm"] = "<script>alert(1)</script>&"
        row["config"] = {'"><i>': row["config"]["tile_m"], "ü": row["number"]}
    text = page(documents.document("tune", rows, unit="<us>", key={"family": "</svg>"}))
    assert "<script" not in text and '"><i>' not in text and "<us>" not in text


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_tuning_that_has_hardly_begun_gives_a_page(count: int) -> None:
    rows = documents.trials(count)
    assert "Tuning history" in page(documents.document("tune", rows))
    assert page(documents.document("tune", [{**rows[0], "value": None, "state": "failed"}]))


@quick
@given(st.floats(1e-6, 1e9), st.floats(1.0, 1e6))
def test_logarithmic_ticks_are_few_and_inside(low: float, factor: float) -> None:
    from tilewright.perf.charts.base import log_scale, tick_text

    scale = log_scale([low, low * factor], 0, 100)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 10
    assert all(0 <= scale(t) <= 100 for t in ticks)
    assert len({tick_text(t) for t in ticks}) == len(ticks)
    assert math.isclose(scale(scale.low), 0, abs_tol=1e-6)


def test_a_stored_study_gives_what_its_document_gives(tmp_path: Path) -> None:
    url = f"journal:{tmp_path}/s.journal"
    result = tune(
        family("gemm"), gemm_case(), "cpu", 16, objective=CostModel(), backend=Host(), storage=url
    )
    written = json.loads(json.dumps(plain(document("tune", result.rows, **result.top()))))
    ((name, stored),) = study_document.documents(url)
    assert name == result.study
    for ours, theirs in zip(stored["rows"], written["rows"], strict=True):
        assert {k: v for k, v in theirs.items() if k in ours} == ours
    assert all(
        stored[k] == written[k]
        for k in ("best", "default", "tie_set", "verdict", "unit", "evidence", "key")
    )
    assert stored["score_ratio"] == pytest.approx(written["score_ratio"])
    out = tmp_path / "report.html"
    assert main(["report", str(out), "--study", url, "--name", name]) == 0
    assert (
        "Tuning history: gemm cpu" in out.read_text() and "Importance of fields" in out.read_text()
    )


def test_a_stored_study_keeps_its_objectives(tmp_path: Path) -> None:
    url = f"journal:{tmp_path}/s.journal"

    class TwoFold(CostModel):
        objectives = ("time", "memory")

        def evaluate(self, config: Any, enter: Any) -> Any:
            found = CostModel.evaluate(self, config, enter)
            kept = {"time": found.value, "memory": float(config["tile_m"])}
            return replace(found, details={**found.details, OBJECTIVES: kept})

    tune(family("gemm"), gemm_case(), "cpu", 8, objective=TwoFold(), backend=Host(), storage=url)
    ((_, stored),) = study_document.documents(url)
    assert all(set(r["values"]) == {"time_us", "memory_bytes"} for r in stored["rows"])
    assert "time, us against memory, bytes" in page(stored)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_anybodys_studies_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/s.db"

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x, kind = (
            trial.suggest_float("x", 0.1, 2.0),
            trial.suggest_categorical("kind", ["one", "other"]),
        )
        if trial.number == 4:
            raise optuna.TrialPruned
        return x + (kind == "one"), 2.2 - x

    two = optuna.create_study(storage=url, study_name="two", directions=["minimize"] * 2)
    two.set_metric_names(["time", "space"])
    two.optimize(objective, n_trials=25)
    up = optuna.create_study(storage=url, study_name="up", direction="maximize")
    up.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=2)
    ((name, content),) = study_document.documents(url)
    assert name == "two" and len(content["rows"]) == 25
    assert set(content["rows"][0]["values"]) == {"time", "space"}
    assert content["rows"][4]["value"] is None
    text = page(content)
    assert "Pareto front: two" in text or "Pareto front: " in text
    assert ">kind<" in text and "other" in text
    out = str(tmp_path / "r.html")
    for arguments, sentence in (
        (["--study", url, "--name", "up"], "nothing to draw: no trial of a study that minimises"),
        (["--study", url, "--name", "three"], "no study 'three' in sqlite:"),
        (["--name", "two"], "--name two needs --study"),
        (["--study", "nonsense"], "is not a storage"),
    ):
        assert main(["report", out, *arguments]) == 2
        assert sentence in capsys.readouterr().err
