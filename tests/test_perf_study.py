"""The study behind docs/results.md: rows go on where it stopped, and only where they would come out the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.perf import bench_row
from tilewright.perf import study, study_rows, study_table
from tilewright.registry import family
from tilewright.tables import Choice, choose

GEMM = family("gemm")


class Bench:
    """In place of the benchmark: notes what it was asked for; every call counts up the time it reports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.asked: list[str] = []
        self.changes = changes
        self.interrupt_at = 0
        monkeypatch.setattr("tilewright.perf.bench.rows", self)

    def __call__(self, plan: Any, ceiling: Any) -> Iterator[dict[str, Any]]:
        (case,), (threads,) = plan.cases, plan.threads
        self.asked.append(f"{case.precision} {case} {threads}")
        if len(self.asked) == self.interrupt_at:
            raise KeyboardInterrupt
        yield bench_row(
            dtype=case.precision,
            case=str(case),
            threads=threads,
            peer_median_us=1.0,
            **self.changes,
        )


def quick_study(**changes: Any) -> study.Study:
    made = study.make(GEMM, ["fp32", "bf16"], [1], "torch", 0.1, quick=True)
    return replace(made, **changes)


def run(made: study.Study, store: Path) -> list[study.Row]:
    return [row for _, row in study.rows(made, store)]


def test_a_study_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, made, store = Bench(monkeypatch), quick_study(), tmp_path / "s.jsonl"
    going = study.rows(made, store)
    for _ in range(3):
        next(going)
    going.close()
    with store.open("a") as file:
        file.write('{"key": "cut sh')
    found = run(made, store)
    assert len(found) == made.total == len(set(bench.asked)) == len(bench.asked)
    assert run(made, store) == found
    assert len(bench.asked) == made.total, (
        "a third run measures nothing, the torn line notwithstanding"
    )
    text = study.markdown(made, found, "the command")
    assert "measured" in text and "the command" in text
    assert f"| fp32 | 1 | {made.total // 2} | **1.21**" in text
    assert f"{made.total} of {made.total} rows" in text and "Incomplete" not in text


def another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = tmp_path / "libother.so"
    built.write_bytes(b"another build")
    monkeypatch.setattr("tilewright.native.library", lambda kind: built)


def another_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.__version__", "9.9.9")


def another_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tables choose otherwise for the layout that a prepacked peer brings us to, and for no other."""

    def tuned(found: Any, case: Any, where: Any, table: Any = None) -> Choice:
        choice = choose(found, case, where, table)
        stages = 3 - choice.config["stages"]
        config = type(choice.config)({**choice.config, "stages": stages})
        return replace(choice, config=config) if case.flags["b_layout"] == "panel16" else choice

    monkeypatch.setattr("tilewright.tables.choose", tuned)


@pytest.mark.parametrize("change", [another_library, another_torch, another_config])
@pytest.mark.parametrize("flags", [{}, {"b_layout": "panel16"}])
def test_what_would_measure_otherwise_is_measured_again(
    change: Any, flags: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, store = Bench(monkeypatch), tmp_path / "s.jsonl"
    made = study.make(GEMM, ["fp32"], [1], "torch", 0.1, quick=True, flags=flags)
    run(made, store)
    run(replace(made), store)
    assert len(bench.asked) == made.total
    change(monkeypatch, tmp_path)
    run(replace(made), store)
    assert len(bench.asked) == 2 * made.total


@pytest.mark.parametrize(
    "changes", [{"seconds": 0.2}, {"seed": 1}, {"against": "torch-best"}, {"threads": (2,)}]
)
def test_another_effort_seed_peer_or_thread_count_is_measured_again(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, made, store = Bench(monkeypatch), quick_study(), tmp_path / "s.jsonl"
    run(made, store)
    run(quick_study(**changes), store)
    assert len(bench.asked) == 2 * made.total


@pytest.mark.parametrize("state", ["wrong", "unavailable", "impossible"])
def test_a_row_without_a_time_is_tried_again(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, store = quick_study(), tmp_path / "s.jsonl"
    failing = Bench(monkeypatch, state=state, ratio=None, reason="for this test")
    run(made, store)
    text = study.markdown(made, run(made, store), "the command")
    assert len(failing.asked) == 2 * made.total
    assert "- fp32: for this test" in text and f"{made.total} rows, 0 of them timed" in text
    working = Bench(monkeypatch)
    assert {r["state"] for r in run(made, store)} == {"timed"}
    assert len(working.asked) == made.total


def test_rows_keep_their_day_and_the_page_tells_the_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bench(monkeypatch)
    made, store = quick_study(), tmp_path / "s.jsonl"
    found = run(made, store)
    today = found[0]["date"]
    assert {r["date"] for r in found} == {today} and today in study.markdown(made, found, "c")
    lines = store.read_text().splitlines()
    old = json.loads(lines[0])
    old["row"]["date"] = "2024-02-29"
    store.write_text("\n".join([json.dumps(old), *lines[1:]]) + "\n")
    text = study.markdown(made, run(made, store), "the command")
    assert f"2024-02-29 .. {today}" in text


def test_an_interrupted_study_says_how_much_there_is_and_exits_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    bench = Bench(monkeypatch)
    out, rows = tmp_path / "results.md", tmp_path / "rows.json"
    command = "gemm --quick --dtype fp32,bf16 --threads 1,2 --against torch --seconds 0.1"
    arguments = ["study", *command.split(), "--out", str(out), "--json", str(rows)]
    monkeypatch.setattr(sys, "argv", arguments)
    bench.interrupt_at = 4
    with pytest.raises(SystemExit) as ended:
        study.main()
    assert ended.value.code == 3
    total = study.make(GEMM, ["fp32", "bf16"], [1, 2], "torch", 0.1, quick=True).total
    assert f"**Incomplete**: 3 of {total} rows, 3 of them timed." in out.read_text()
    assert f"Incomplete: 3 of {total} rows" in capsys.readouterr().err
    document = json.loads(rows.read_text())
    assert (document["interrupted"], len(document["rows"])) == (True, 3)
    with pytest.raises(SystemExit) as ended:
        study.main()
    assert not ended.value.code
    assert len(bench.asked) == total + 1 and "Incomplete" not in out.read_text()
    said = capsys.readouterr().err
    for line in (
        "fp32, 1 thr",
        "fp32, 2 thr",
        "fp32, all thread counts",
        "bf16, all thread counts",
    ):
        assert f"{line}: ratio 1.21 (1.21 .. 1.21 over " in said


def test_means_are_geometric_by_precision_and_threads() -> None:
    made = quick_study(threads=(1, 2))
    ratios = {("fp32", 1): 2.0, ("fp32", 2): 0.5, ("bf16", 1): 3.0}
    found = [bench_row(dtype=p, threads=t, ratio=r) for (p, t), r in ratios.items()]
    means = {(p, t): m and m.value for p, t, _, m in study_table.means(made, found)}
    assert means["fp32", None] == pytest.approx(1.0)
    assert means["fp32", 1] == pytest.approx(2.0) and means["bf16", None] == pytest.approx(3.0)
    assert means["bf16", 2] is None


def test_int8_names_its_precisions_as_in_other_commands() -> None:
    made = study.make(GEMM, ["int8"], [1], "torch", 1.0, quick=True)
    assert {c.precision for c in made.cases} == {
        p.name for p in GEMM.spec.select_precisions(["int8"])
    }


def test_a_study_covers_the_sizes_of_the_goal() -> None:
    made = study.make(GEMM, ["fp32"], [1, 2], "torch-best", 1.0)
    sizes = {(c.sizes["M"], c.sizes["N"], c.sizes["K"]) for c in made.cases}
    assert {m for m, _, _ in sizes} == {1, 16, 64, 256, 1024}
    assert {(n, k) for _, n, k in sizes} >= {(s, s) for s in (576, 1536, 2048, 4096)} | {
        (576, 1536),
        (1536, 576),
    }
    full = study.make(GEMM, ["fp32"], [1], "torch-best", 1.0, full=True)
    assert len(full.cases) == 5 * 16


def test_the_key_of_a_row_is_about_what_is_called(tmp_path: Path) -> None:
    made = quick_study()
    content = json.loads(study_rows.key(made, made.cases[0], 1))
    assert content["kernel"] == made.kernel and len(made.kernel) == 16
    assert content["configs"] and all("tile_m" in c for c in content["configs"])
