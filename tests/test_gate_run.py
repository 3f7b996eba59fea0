"""A whole gate on real kernels: rows, checks of both sides, exit codes, recordings. No assertion on how long things take."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.perf import fake_ceilings
from tilewright import native
from tilewright.cli.main import main
from tilewright.errors import UsageError
from tilewright.machine import host
from tilewright.perf import ceilings, samples
from tilewright.perf.bench import Plan
from tilewright.perf.machine_state import Disturbance
from tilewright.perf.regression import builds, gate, recorded, session
from tilewright.perf.regression.builds import Side
from tilewright.perf.regression.decide import Policy
from tilewright.perf.regression.gate import Gate, GateRow, Selection, counts, verdict
from tilewright.registry import family

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(native.why_missing() is not None, reason="the host kernels are not built"),
]
QUICK = Policy(pass_s=0.01, fewest=4, most=4)
SIZES = {"M": 4, "N": 32, "K": 32}
VERDICTS = {"same", "slower", "faster", "inconclusive"}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    # Those of a machine so fast that no time is impossible, and none need be measured.
    ceilings.write_text(ceilings.cache_path(), json.dumps(fake_ceilings(1e6).as_dict()))


def installed(name: str = "installed") -> Side:
    return Side(name, "0" * 40, Path("unused"), native.library("host"))


def benchmark(threads: int = 1, precision: str = "fp32") -> session.Benchmark:
    found = family("gemm")
    return session.Benchmark(found, found.spec.case(SIZES, precision, {}), threads, 0)


def rows_of(*chosen: session.Benchmark) -> list[GateRow]:
    return Gate(installed("one"), installed("two"), chosen, QUICK, own=(True, True)).rows()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_tells_what_was_compared_and_how(threads: int) -> None:
    if threads > host().cores:
        pytest.skip("one processor")
    (row,) = rows_of(benchmark(threads))
    assert row.verdict in VERDICTS and not row.reason
    assert row.base_us is not None and row.base_us > 0 and row.new_us is not None and row.new_us > 0
    assert row.ratio is not None and row.ci is not None and row.ci[0] <= row.ratio <= row.ci[1]
    assert row.passes == len(row.log_ratios) == 4
    assert row.quads >= 4
    assert row.ratio == pytest.approx(math.exp(float(np.mean(row.log_ratios))), rel=1e-3)
    assert row.clock in ("run", "native") if threads == 1 else row.clock == "native"
    assert row.rel_err is not None and row.tolerance is not None and row.rel_err <= row.tolerance
    assert row.samples_id is not None
    arrays, about = samples.load(row.samples_id)
    assert {"log_ratio", "base_0", "new_3", "machine_0"} <= set(arrays)
    assert arrays["machine_0"].shape[1] == len(about["machine_columns"])


def test_both_builds_are_loaded_as_files_of_their_own_and_again_in_every_pass() -> None:
    loaded = session.Libraries((installed(), installed()))
    seen = set()
    for attempt in range(3):
        loaded.refresh(attempt)
        seen |= {loaded.function(side, "gemm") for side in (session.BASE, session.NEW)}
    loaded.close()
    assert len(seen) == 6


def test_a_side_whose_output_is_wrong_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new side reads B in the other layout: of the same shape, hence of the same cost, and wrong."""
    real = session.calls_of

    def calls(side: Side, chosen: Any, own: bool = False) -> list[Any]:
        found = [dict(call) for call in real(side, chosen, own)]
        if side.name == "two":
            found[0]["attributes"] = {**found[0]["attributes"], "b_layout": 0}
        return found

    monkeypatch.setattr(gate, "calls_of", calls)
    wrong, right = rows_of(benchmark(), benchmark(precision="bf16"))
    assert (wrong.verdict, wrong.base_us) == ("wrong", None)
    assert "of new is wrong" in wrong.reason
    assert right.verdict in VERDICTS
    assert verdict([wrong, right]) == "wrong"


def test_a_time_below_the_floor_is_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(ceilings.Ceilings):
        """A machine of a few operations a second."""

    slow = Slow("m", (), {1: ((4096, 1e-9),)}, {1: ((4096, 1e-9),)}, {"fp32": {1: 1e-9}}, 0.0)
    monkeypatch.setattr(ceilings, "load", lambda path=None: slow)
    monkeypatch.setattr(ceilings, "get", lambda refresh=False, report=None: slow)
    (row,) = rows_of(benchmark())
    assert row.verdict == "impossible" and "floor" in row.reason
    assert verdict([row]) == "impossible"


def row(said: str) -> GateRow:
    return GateRow("gemm", "host", "cpu", "M=1", "fp32", 1, said)


@pytest.mark.parametrize(
    ("said", "whole", "code"),
    [
        (["same", "faster"], "faster", 0),
        (["same", "unavailable"], "same", 0),
        (["same", "inconclusive"], "inconclusive", 3),
        (["slower", "inconclusive"], "slower", 1),
        (["impossible", "slower"], "impossible", 1),
        (["same", "wrong"], "wrong", 1),
        (["unavailable"], "inconclusive", 3),
    ],
)
def test_verdict_and_exit_code_of_a_gate(said: list[str], whole: str, code: int) -> None:
    rows = [row(v) for v in said]
    assert verdict(rows) == whole
    assert gate.EXIT_CODES[whole] == code
    assert counts(rows) == {v: said.count(v) for v in dict.fromkeys(said)} | counts(rows)


def test_all_precisions_and_cases_are_meant_unless_options_say_otherwise() -> None:
    spec = family("gemm").spec
    everything = Selection(Plan([family("gemm")], dtypes=["all"]), (1, 2)).benchmarks()
    assert len(everything) == 2 * sum(len(list(spec.benchmark_cases(p))) for p in spec.precisions)
    with pytest.raises(UsageError, match="no benchmark"):
        Selection(Plan([])).benchmarks()


@pytest.fixture
def same_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any revision is what is installed: building is tested elsewhere."""
    monkeypatch.setattr(builds, "repository", lambda: Path("repository"))
    monkeypatch.setattr(builds, "tree_of", lambda root, revision: "1" * 40)
    monkeypatch.setattr(builds, "working_tree", lambda root: "1" * 40)
    monkeypatch.setattr(builds, "build", lambda root, tree, name: installed(name))


ONE = ["gate", "gemm", "--shape", "M=4,N=32,K=32", "--dtype", "fp32"]


@pytest.mark.usefixtures("same_trees")
def test_the_command_writes_its_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gate.json"
    quick = ["--passes", "5", "--pass-seconds", "0.01"]
    code = main([*ONE, "--base", "v1", *quick, "--json", str(out)])
    found = json.loads(out.read_text())
    assert found["schema"] == "tilewright/gate/1"
    assert code == gate.EXIT_CODES[found["verdict"]]
    assert found["base"]["name"] == "v1" and found["new"]["name"] == builds.WORKING_TREE
    assert found["interleaved"] is True and found["policy"]["threshold"] == 0.02
    assert [r["verdict"] for r in found["rows"]] == [found["verdict"]]
    said = capsys.readouterr().out
    assert "both builds are the same machine code" in said and found["verdict"] in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threshold", "lots"], "2%"),
        (["--threshold", "0%"], "2%"),
        (["--threads", "many"], "1,2"),
        (["--threads", "4096"], "4096 threads"),
        (["--passes", "2"], "passes"),
        (["--dtype", "fp7"], "fp7"),
        (["--shape", "M=4"], "N"),
    ],
)
@pytest.mark.usefixtures("same_trees")
def test_wrong_usage_is_one_sentence(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", "gemm", *options]) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_base_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        builds.repository()
    except Exception as error:
        pytest.skip(str(error))
    assert main([*ONE, "--base", "no-such-revision"]) == 2
    assert "neither a file nor a revision" in capsys.readouterr().err


def recording(tmp_path: Path, factor: float = 1.0, **host_fields: str) -> Path:
    """What bench measures here, with its times multiplied."""
    path = tmp_path / "bench.json"
    main(["bench", *ONE[1:], "--threads", "1", "--seconds", "0.5", "--json", str(path)])
    content = json.loads(path.read_text())
    for r in content["rows"]:
        for name in ("median_us", "ci_low_us", "ci_high_us"):
            r[name] = None if r[name] is None else r[name] * factor
    content["host"] |= host_fields
    path.write_text(json.dumps(content))
    return path


def test_a_recording_is_compared_with_wide_intervals(tmp_path: Path) -> None:
    path, out = recording(tmp_path), tmp_path / "gate.json"
    code = main([*ONE, "--base", str(path), "--json", str(out)])
    found = json.loads(out.read_text())
    (one,) = found["rows"]
    assert found["interleaved"] is False
    assert one["verdict"] in VERDICTS - {"same"}, "runs apart cannot tell 2 %"
    assert one["ci"][1] / one["ci"][0] > 1.25
    assert code == gate.EXIT_CODES[found["verdict"]]


@pytest.mark.parametrize(("factor", "said", "code"), [(1e-3, "slower", 1), (1e3, "faster", 0)])
def test_a_recording_tells_large_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, said: str, code: int
) -> None:
    path, out = recording(tmp_path, factor), tmp_path / "gate.json"
    assert main([*ONE, "--base", str(path), "--json", str(out)]) == code
    assert [r["verdict"] for r in json.loads(out.read_text())["rows"]] == [said]


def test_a_recording_of_another_machine_says_nothing(tmp_path: Path) -> None:
    path, out = recording(tmp_path, fingerprint="elsewhere"), tmp_path / "gate.json"
    assert main([*ONE, "--base", str(path), "--json", str(out)]) == 3
    (one,) = json.loads(out.read_text())["rows"]
    assert one["verdict"] == "unavailable" and "another machine" in one["reason"]


def test_a_benchmark_that_was_not_recorded_says_so(tmp_path: Path) -> None:
    path, out = recording(tmp_path), tmp_path / "gate.json"
    assert (
        main(
            [
                "gate",
                "gemm",
                "--shape",
                "M=5,N=32,K=32",
                "--dtype",
                "fp32",
                "--base",
                str(path),
                "--json",
                str(out),
            ]
        )
        == 3
    )
    (one,) = json.loads(out.read_text())["rows"]
    assert "no timed row" in one["reason"]


@pytest.mark.parametrize("text", ["not json", "{}", '{"schema": "tilewright/check/1", "rows": []}'])
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="tilewright bench"):
        recorded.read(path)


def test_a_pass_is_judged_by_its_undisturbed_samples() -> None:
    """Half of the new side's samples were disturbed: they say nothing about the code."""
    from tilewright.perf.engine import Rounds

    rng = np.random.default_rng(0)
    base = rng.normal(1000, 2, 100)
    new = np.where(rng.random(100) < 0.5, 3000.0, 1.05 * base)
    rounds = Rounds(np.zeros((50, 2)), (base, new), (1, 1), False, Disturbance(None, None, None))
    found = session.look_of(rounds, 1.0)
    assert found.log_ratio == pytest.approx(-math.log(1.05), abs=0.005)
    assert found.quads == 50
