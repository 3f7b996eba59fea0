"""Measurements go out to other tools' formats and come back the same; what others wrote is understood."""

from __future__ import annotations

import contextlib
import gzip
import json
import multiprocessing
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from store_doubles import key, record, studies
from tilewright import toolchains
from tilewright.autotune.store import aiter, formats, kernel_tuner, measurements, t4
from tilewright.autotune.store.record import Record, read
from tilewright.autotune.trials import Stage, State
from tilewright.errors import UsageError
from tilewright.evidence import Evidence

DATA = ROOT / "tests" / "data"
SCHEMA = json.loads((DATA / "t4" / "results-schema.json").read_text())
several = settings(derandomize=True, deadline=None, max_examples=60)


def bare(records: Sequence[Record]) -> list[Record]:
    """Without where they were read."""
    return [replace(r, origin="") for r in records]


@several
@given(st.lists(studies(), min_size=1, max_size=3))
def test_t4_comes_back_the_same_and_is_valid(found: list[list[Record]]) -> None:
    records = [r for one in found for r in one]
    document = json.loads(json.dumps(t4.export(records), allow_nan=False))
    jsonschema.validate(document, SCHEMA)
    assert bare(t4.parse(document, "f")) == bare(records)


@several
@given(studies())
def test_a_kernel_tuner_cache_comes_back_the_same(records: list[Record]) -> None:
    text = kernel_tuner.text(kernel_tuner.export(records))
    # What Kernel Tuner takes for a properly closed file.
    assert text.endswith(("}\n}", "}}}"))
    assert bare(kernel_tuner.parse(json.loads(text), "f")) == bare(records)


@several
@given(st.lists(studies(), min_size=1, max_size=3))
def test_lines_come_back_the_same(found: list[list[Record]]) -> None:
    records = [r for one in found for r in one]
    assert [measurements.parse_line(measurements.line(r)) for r in records] == records


@several
@given(studies(), st.data())
def test_a_record_with_a_part_missing_or_of_another_type_is_refused(
    records: list[Record], data: st.DataObject
) -> None:
    content = records[0].as_dict()
    place = data.draw(st.sampled_from(sorted(content)))
    broken = {k: v for k, v in content.items() if k != place}
    wrong = data.draw(st.sampled_from([None, [], {}, "x", -1.5, float("nan")]))
    with contextlib.suppress(UsageError):
        read({**content, place: wrong})
    if place != "bucket":
        with pytest.raises(UsageError):
            read(broken)


def test_t4_says_what_became_of_a_config() -> None:
    cases = {
        "correct": record(2.0),
        "constraints": record(None, stage=Stage.GATE),
        "runtime": record(None, stage=Stage.TIME),
        "correctness": record(None, stage=Stage.CHECK, details={"failure": "f.pt"}),
    }
    document = t4.export(list(cases.values()))
    assert [r["invalidity"] for r in document["results"]] == list(cases)
    assert [r["correctness"] for r in document["results"]] == [1, 1, 1, 0]
    good = document["results"][0]
    assert good["measurements"][0] == {"name": "time", "value": 2.0, "unit": "us"}
    assert document["metadata"]["timeunit"] == "milliseconds"
    assert "correct" in SCHEMA["properties"]["results"]["items"]["properties"]["invalidity"]["enum"]
    timed = t4.export([record(2.0, samples=(2.0, 3.0))])["results"][0]
    assert timed["times"]["runtimes"] == [0.002, 0.003]


def test_t4_of_another_tool_is_read() -> None:
    result = {
        "timestamp": "2023-12-22 09:54:05.5+00:00",
        "configuration": {"block_size_x": 16},
        "times": {"compilation": 3.0, "runtimes": [1.0, 1.2]},
        "invalidity": "correct",
        "correctness": 1,
        "measurements": [
            {"name": "time", "value": 1.1, "unit": "ms"},
            {"name": "GFLOP/s", "value": 9.0, "unit": ""},
        ],
        "objectives": ["time"],
    }
    failed = {**result, "invalidity": "compile", "measurements": []}
    timeless = {**result, "measurements": []}
    document = {"schema_version": "1.0.0", "results": [result, failed, timeless]}
    jsonschema.validate(document, SCHEMA)
    good, bad, none = t4.parse(document, "f.json")
    assert (good.value, good.key.unit, good.samples) == (1.1, "ms", (1.0, 1.2))
    assert good.evidence is Evidence.PUBLISHED and good.details == {"GFLOP/s": 9.0}
    assert good.when == "2023-12-22T09:54:05+00:00"
    assert (bad.state, bad.stage, bad.reason) == (State.FAILED, Stage.GATE, "compile")
    assert (none.state, none.reason) == (State.FAILED, "no value of time")


def test_recorded_caches_are_imported_whole() -> None:
    found = formats.load(DATA / "spaces" / "convolution-A100.json.gz")
    raw = json.loads(gzip.decompress((DATA / "spaces/convolution-A100.json.gz").read_bytes()))
    assert len(found) == len(raw["cache"]) == 4362
    best = min((r for r in found if r.value), key=lambda r: r.value or 0.0)
    assert best.value == min(
        r["time"] for r in raw["cache"].values() if isinstance(r["time"], float)
    )
    assert (best.key.family, best.key.shape) == ("convolution_kernel", "x=4096,y=4096")
    assert best.key.device == "NVIDIA A100-PCIE-40GB" and len(best.samples) == 32 and best.when
    failed = [r for r in found if r.state is State.FAILED]
    assert {r.reason: r.stage for r in failed} == {
        "RuntimeFailedConfig": Stage.TIME,
        "CompilationFailedConfig": Stage.GATE,
    }
    assert len(failed) == 161


def test_ktt_results_keep_the_facts_of_the_binaries() -> None:
    found = formats.load(DATA / "spaces" / "ktt-convolution-RTX3090.json.gz")
    good = next(r for r in found if r.value)
    assert good.key.backend == "ktt" and good.details["regs"] == 28 and good.key.unit == "ms"
    assert good.versions["KttVersion"] == "2.1.0"


@pytest.mark.parametrize(
    ("file", "rows"),
    [("a8w8_tuned_gemm", 579), ("bf16_tuned_gemm", 232), ("qwen32B_bf16_tuned_gemm", 175)],
)
def test_aiter_tables_are_imported_as_winners(file: str, rows: int) -> None:
    found = formats.load(DATA / "aiter" / f"{file}.csv")
    assert len(found) == rows
    for one in found:
        assert one.evidence is Evidence.PUBLISHED and one.value and one.value > 0
        assert set(one.sizes) == {"M", "N", "K"} and one.key.target.startswith("hip:gfx")
        assert one.origin == f"{file}.csv" and len(one.bucket) == 3
    assert {r.key.precision for r in found} <= {"int8", "fp8_e4m3fn", "bf16", "bf16->fp32"}


def test_an_aiter_row_that_is_no_measurement_is_named() -> None:
    header = "gfx,cu_num,M,N,K,q_dtype_w,kernelId,splitK,us,kernelName"
    for us in ("0", "-1", "nan", "inf", "x", ""):
        text = f"{header}\ngfx942,80,1,2,3,torch.int8,1,0,{us},k\n"
        with pytest.raises(UsageError, match="line 2 of f"):
            aiter.parse(text, "f")


def test_imports_are_kept_once_and_half_a_line_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "imported.jsonl"
    records = [record(float(i + 1), {"x": i}) for i in range(5)]
    assert measurements.append(records[:3], path) == 3
    assert measurements.append([*records[:4], records[3]], path) == 1
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 20)
    assert measurements.append(records[3:], path) == 2
    kept = measurements.load(path)
    assert kept.damaged == 1 and list(kept.records) == records
    # Read from elsewhere, it is the same measurement.
    assert measurements.append([replace(records[0], origin="other.json")], path) == 0


def _append(arguments: tuple[Path, int]) -> int:
    path, start = arguments
    return measurements.append(
        [record(float(i + 1), {"x": i}) for i in range(start, start + 20)], path
    )


def test_several_processes_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m" / "imported.jsonl"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        added = pool.map(_append, [(path, start) for start in (0, 10, 20, 30)])
    kept = measurements.load(path)
    assert sum(added) == len(kept.records) == 50 and kept.damaged == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x1f\x8b\x08garbage",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b'{"schema_version": "2.0.0", "results": []}',
        b'{"schema_version": "1.0.0", "results": [{}]}',
        b'{"cache": {"1": {"x": 1}}}',
        b'{"cache": {"1": {"x": 1}}, "tilewright": {}, "tune_params_keys": ["x"]}',
        b'{"Results": [], "Metadata": {"TimeUnit": "Fortnights"}}',
        b"a,b,c\n1,2,3\n",
        b'{"schema": "tilewright/measurement/1"}\n{"half',
    ],
)
def test_what_is_no_measurement_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        formats.load(path)
    assert "file" in str(caught.value) and "\n" not in str(caught.value)


def test_a_cache_of_several_studies_is_refused() -> None:
    two = [record(1.0), record(1.0, key=key(shape="M=1,N=1,K=1"))]
    with pytest.raises(UsageError, match="one study, not 2"):
        kernel_tuner.export(two)
    with pytest.raises(UsageError, match="no finished configs"):
        formats.write(Path("unused"), "t4", [])
    with pytest.raises(UsageError, match="unknown export format 'xml'"):
        formats.write(Path("unused"), "xml", two)


def test_what_a_file_does_not_tell_can_be_said(tmp_path: Path) -> None:
    document: dict[str, Any] = {"schema_version": "1.0.0", "results": []}
    document["results"].append(
        {"configuration": {"x": 1}, "times": {}, "invalidity": "timeout", "correctness": 1}
    )
    path = tmp_path / "t4.json"
    path.write_text(json.dumps(document))
    (one,) = formats.load(path, family="gemm", device="RTX 3090", shape="M=1,N=2,K=3")
    assert (one.key.family, one.key.device) == ("gemm", "RTX 3090")
    assert one.bucket == (1, 2, 3) and one.stage is Stage.TIME


@pytest.mark.peers
@pytest.mark.parametrize("unit", ["us", "score"])
def test_kernel_tuner_simulates_from_a_cache_of_ours(unit: str, tmp_path: Path) -> None:
    """The tool itself reads what was exported, failures included; its schema is the one we validate with."""
    one = toolchains.toolchain("kernel-tuner")
    found = toolchains.installed(one)
    if found is None:
        pytest.skip(toolchains.why_missing(one))
    study = key(unit=unit)
    records = [
        record(
            None if n == m == 64 else 10.0 * m + n,
            {"tile_m": m, "tile_n": n},
            key=study,
            stage=stage,
            samples=() if n == m == 64 else (1.5, 2.5),
        )
        for m in (16, 32, 64)
        for n, stage in ((16, Stage.TIME), (64, Stage.CHECK if m == 64 else Stage.TIME))
    ]
    path = tmp_path / "cache.json"
    formats.write(path, "kernel-tuner", records)
    before = path.read_bytes()
    script = Path(__file__).with_name("kernel_tuner_reads.py")
    ran = subprocess.run(
        [found.python, "-I", str(script), str(found.site), str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout.splitlines()[-1])
    per = 1e-3 if unit == "us" else 1.0
    wanted = {
        tuple(r.config.values()): None if r.value is None else pytest.approx(r.value * per)
        for r in records
    }
    assert {tuple(r["config"].values()): r["value"] for r in answer["rows"]} == wanted
    assert answer["device"] == study.device and answer["schema"] == SCHEMA
    assert path.read_bytes() == before
    jsonschema.validate(answer["t4"], SCHEMA)
    back = {tuple(r.config.values()): r.value for r in t4.parse(answer["t4"], "t4.json")}
    assert back == wanted
