"""`tilewright bench` and `pytest perf/` as a user runs them: documents, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from fakes.perf import fake_ceilings
from tilewright import tables
from tilewright.cli.main import main
from tilewright.perf import ceilings
from tilewright.registry import family
from tilewright.targets import CPU

pytestmark = pytest.mark.alone

SHAPE = ["--shape", "M=4,N=8,K=16"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    # A slow machine's ceilings, so that no time is called impossible and none need be measured.
    ceilings.write_text(ceilings.cache_path(), json.dumps(fake_ceilings(1e6).as_dict()))


# Every field of a timed row beside a peer: its type, and that it is there.
TEXTS = (
    "family", "backend", "target", "case", "dtype", "config_source", "evidence", "cache", "clock", "state",
    "bound_by", "peer", "peer_is", "peer_note", "verdict", "samples_id",
)  # fmt: skip
NUMBERS = (
    "rel_err", "max_abs_err", "tolerance", "median_us", "ci_low_us", "ci_high_us", "gflops", "gbps", "ceiling_frac",
    "ceiling_us", "flops", "bytes", "peer_median_us", "peer_ci_low_us", "peer_ci_high_us", "peer_ceiling_frac",
    "ratio", "ratio_ci_low", "ratio_ci_high",
)  # fmt: skip
COUNTS = ("seed", "threads", "samples")


def test_the_command_writes_the_fields_others_rely_on(tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    command = ["bench", "gemm", "--backend", "reference", *SHAPE, "--seconds", "2", "--seed", "3"]
    assert main([*command, "--against", "torch", "--threads", "1", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    assert (document["schema"], document["interrupted"]) == ("tilewright/bench/1", False)
    (row,) = document["rows"]
    assert all(isinstance(row[name], str) and row[name] for name in TEXTS)
    assert all(isinstance(row[name], float) for name in NUMBERS)
    assert all(isinstance(row[name], int) for name in COUNTS)
    case = family("gemm").spec.case({"M": 4, "N": 8, "K": 16}, row["dtype"])
    assert row["config"] == dict(tables.choose(family("gemm"), case, CPU).config)
    assert (row["ok"], row["evidence"], row["state"]) == (True, "measured", "timed")
    assert (row["target"], row["seed"], row["threads"], row["reason"]) == ("cpu", 3, 1, "")
    assert 0 < row["ci_low_us"] <= row["median_us"] <= row["ci_high_us"]
    assert row["ratio_ci_low"] <= row["ratio"] <= row["ratio_ci_high"]
    assert row["flops"] == 2 * 4 * 8 * 16
    assert row["gflops"] == pytest.approx(row["flops"] / row["median_us"] / 1e3)
    assert row["rel_err"] <= row["tolerance"]
    assert (tmp_path / "data" / "samples" / f"{row['samples_id']}.npz").is_file()


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--against", "torhc"], 2, "unknown peer"),
        (["--threads", "two"], 2, "whole numbers"),
        (["--dtype", "fp64"], 2, "unknown precision of gemm 'fp64'"),
        (["--flags", "b_layout=ZZ"], 2, "ZZ"),
        (["--target", "cuda:sm_9"], 2, "unknown target 'cuda:sm_9'"),
        (["--backend", "host", "--target", "cuda:sm_90"], 2, "host does not address cuda:sm_90"),
        (["--backend", "triton", "--target", "cuda:sm_100"], 3, "triton on cuda:sm_100 is"),
        (["--target", "cuda:sm_100"], 3, "triton on cuda:sm_100 is"),
        (["--target", "ascend:910b1"], 3, "ascendc on ascend:910b1 is"),
    ],
)
def test_exit_codes(
    options: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "gemm", *SHAPE, "--seconds", "0.05", *options]) == code
    said = capsys.readouterr()
    assert sentence in said.out + said.err


def test_what_is_not_available_is_a_row_that_says_why(tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    assert main(["bench", "gemm", *SHAPE, "--target", "cuda:sm_100", "--json", str(out)]) == 3
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["state"], row["backend"], row["target"]) == ("unavailable", "triton", "cuda:sm_100")
    assert row["reason"] and row["evidence"] is None and row["median_us"] is None


def test_ctrl_c_keeps_the_rows_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    arguments = ["bench", "gemm", "--backend", "reference", *SHAPE, "--dtype", "all"]
    arguments += ["--seconds", "2", "--width", "1e-9", "--threads", "1", "--json", str(out)]
    # A shell that has no jobs of its own starts what runs behind it with SIGINT ignored.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from tilewright.cli.main import main; raise SystemExit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TILEWRIGHT_DATA": str(tmp_path / "data")},
    )
    end = time.monotonic() + 120
    # The second row's samples: the first row is there.
    while len(list((tmp_path / "data").glob("samples/*.npz"))) < 2:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 3, said
    document = json.loads(out.read_text())
    assert document["interrupted"] is True
    assert 1 <= len(document["rows"]) < 7 and document["rows"][0]["state"] == "timed"
    assert f"interrupted: {len(document['rows'])} of 7 rows" in said


def test_pytest_benchmark_runs_over_the_families(tmp_path: Path) -> None:
    """One case of the generated suite, as `pytest perf/ --benchmark-only` runs it."""
    out = tmp_path / "benchmark.json"
    name = "test_family[gemm-host-fp32-M=1,N=576,K=576-1t]"
    options = ["--benchmark-only", f"--benchmark-json={out}", "--benchmark-max-time=0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"perf/test_bench.py::{name}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    found: list[dict[str, Any]] = json.loads(out.read_text())["benchmarks"]
    assert [b["name"] for b in found] == [name]
    assert found[0]["stats"]["median"] > 0 and found[0]["stats"]["rounds"] >= 5
    extra = found[0]["extra_info"]
    assert (extra["evidence"], extra["threads"], extra["seed"]) == ("measured", 1, 0)
    assert extra["gflop"] == pytest.approx(2 * 576 * 576 / 1e9)


def test_the_generated_suite_goes_from_the_smallest_to_the_largest_case() -> None:
    from tilewright.perf.test_bench import _smallest_middle_largest

    spec = family("gemm").spec
    work = [spec.flops_of(c) for c in spec.benchmark_cases(spec.precision("bf16"))]
    chosen = [spec.flops_of(c) for c in _smallest_middle_largest("gemm", "bf16")]
    assert (chosen[0], chosen[-1]) == (min(work), max(work))
    assert len(chosen) == 3 and chosen == sorted(chosen)
