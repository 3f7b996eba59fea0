"""The JSON documents that others rely on: the fields of DESIGN, with values, from real runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, CommandLine

NUMBER = (int, float)


def require(row: Mapping[str, Any], **types: type | tuple[type, ...]) -> None:
    """Every field is there and of its type; null only where the type says so."""
    for name, kind in types.items():
        assert name in row, f"{name} is missing in {row}"
        assert isinstance(row[name], kind), f"{name} is {row[name]!r}"


def test_check_all_is_green_and_lists_what_only_compiles(tilewright: CommandLine) -> None:
    ran = tilewright("check", "gemm", "--all", "--json", "-")
    document = ran.document
    assert ran.code == 0, ran.err
    assert document["schema"] == "tilewright/check/1" and document["interrupted"] is False
    for row in document["rows"]:
        require(row, family=str, backend=str, target=str, case=str, dtype=str, config=dict)
        require(row, rel_err=NUMBER, max_abs_err=NUMBER, tolerance=NUMBER, seed=int)
        assert row["ok"] is True and row["rel_err"] <= row["tolerance"]
        assert row["evidence"] == ("measured" if row["state"] == "run" else "modelled")
    assert {r["backend"] for r in document["rows"]} == {"reference", "host", "triton", "ascendc"}
    assert {"row_col", "col"} <= {
        r["case"].rpartition("scale=")[2].split(",")[0].split(" ")[0] for r in document["rows"]
    }
    listed = {(c["backend"], c["target"], c["state"]) for c in document["not_computed"]}
    assert ("triton", "hip:gfx942", "compile") in listed


def test_compile_reads_binaries(tilewright: CommandLine) -> None:
    ran = tilewright(
        *("compile", "gemm", "--target", "cuda:sm_80,hip:gfx942", "--dtype", "fp16", "--json", "-")
    )
    assert ran.code == 0, ran.err
    assert [r["target"] for r in ran.document["rows"]] == ["cuda:sm_80", "hip:gfx942"]
    for row in ran.document["rows"]:
        require(row, config=dict, binary_sha256=str, regs=int, spill_bytes=int, shared_bytes=int)
        require(row, matrix_instructions=dict, async_copies=dict, dtype=str, error=str)
        assert row["ok"] is True and row["evidence"] == "compiled"
        assert row["regs"] > 0 and len(row["binary_sha256"]) == 64
        assert sum(row["matrix_instructions"].values()) > 0
        assert [row[name] for name in ("l0c_bytes", "l1_bytes", "ub_bytes")] == [None] * 3


def test_a_binary_that_is_not_there_has_no_figures(tilewright: CommandLine) -> None:
    ran = tilewright(
        *("compile", "gemm", "--target", "cuda:sm_80", "--dtype", "int8->int32"),
        *("--config", '{"tile_k":16}', "--json", "-"),
    )
    (row,) = ran.document["rows"]
    assert ran.code == 1 and row["ok"] is False and row["error"]
    assert (row["regs"], row["shared_bytes"], row["evidence"]) == (None, None, None)


def test_twin_run_finds_nothing_in_a_sound_kernel(tilewright: CommandLine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    ran = tilewright(
        *("twin", "run", "gemm", "--dtype", "fp16", "--shape", "M=64,N=48,K=80"),
        *("--trace", str(trace), "--json", "-"),
    )
    assert ran.code == 0, ran.err
    (row,) = ran.document["rows"]
    require(row, rel_err=NUMBER, findings=int, peak=dict, cycles=NUMBER, tolerance=NUMBER)
    assert row["ok"] is True and row["evidence"] == "modelled"
    assert ran.document["findings"] == []
    assert {"l1", "l0a", "l0b", "l0c"} <= set(row["peak"]) and row["cycles"] > 0
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert {"MTE2", "MTE1", "M", "FIX"} <= {str(line["pipe"]).upper() for line in lines}


def test_a_crash_in_one_case_is_a_row_of_twin_run(tilewright: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    shutil.copytree(ROOT / "tests" / "fakes" / "twice", folder)
    reference = folder / "reference.py"
    lines = reference.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if line.lstrip().startswith("return"))
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    lines.insert(place, f"{indent}assert x.numel() < 100, 'boom'")
    reference.write_text("\n".join(lines) + "\n")
    ran = tilewright(
        *("twin", "run", "twice", "--json", "-"), env={"TILEWRIGHT_FAMILIES": str(folder)}
    )
    rows = ran.document["rows"]
    assert ran.code == 1 and "Traceback" not in ran.err
    assert {r["ok"] for r in rows} == {True, False}
    assert {r["reason"] for r in rows if not r["ok"]} == {"AssertionError: boom"}


def test_model_says_that_it_models(tilewright: CommandLine) -> None:
    ran = tilewright(
        *("model", "gemm", "--shape", "M=256,N=256,K=256", "--dtype", "fp16,int8->bf16"),
        *("--json", "-"),
    )
    assert ran.code == 0, ran.err
    row, scaled = ran.document["rows"]
    assert scaled["dtype"] == "int8->bf16" and scaled["predicted_us"] > 0
    require(row, predicted_us=NUMBER, cycles=NUMBER, pipes=dict, bound_by=str, validated_by=str)
    assert set(row["pipes"]) == {"mte1", "mte2", "mte3", "fix", "m", "v", "s"}
    assert row["evidence"] == "modelled" and row["predicted_us"] > 0
    assert not ran.document["refused"]


def test_doctor_and_report(tilewright: CommandLine, tmp_path: Path) -> None:
    found = tmp_path / "doctor.json"
    ran = tilewright("doctor", "--json", str(found))
    rows = json.loads(found.read_text())["rows"]
    assert ran.code == 0
    for row in rows:
        require(row, name=str, value=(str, *NUMBER), unit=str, ok=(bool, type(None)), hint=str)
    peaks = {r["name"]: r["value"] for r in rows if "peak" in r["name"]}
    assert peaks["fp32 peak, 1 thread"] > 0.5
    page = tmp_path / "page.html"
    assert tilewright("report", str(page), str(found)).code == 0
    assert "fp32 peak" in page.read_text()
    assert tilewright("report", str(tmp_path)).code == 2


def test_a_family_that_cannot_be_imported_is_one_sentence(
    tilewright: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ("def", "import nowhere_to_be_found", "x = undefined_name", "{}['key']", "1 / 0")
    for place, text in enumerate(broken):
        folder = tmp_path / str(place) / "broken"
        folder.mkdir(parents=True)
        (folder / "spec.py").write_text(text, encoding="utf-8")
        monkeypatch.setenv("TILEWRIGHT_FAMILIES", str(folder))
        ran = tilewright("list")
        assert ran.code == 2
        assert f"{folder / 'spec.py'} cannot be imported" in ran.err
        assert "Traceback" not in ran.err
