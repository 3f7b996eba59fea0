"""What the two kinds of core have, and what reaches a trace: every call, launch after launch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import CommandLine

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
from twin_build import runner

# From a pipe to pipes: tables 2 (AIC) and 3 (AIV) of the documentation's overview of synchronisation
# within a core of 2201, with the pairs "that exist and have no use so far".
CUBE = {
    "M": {"MTE1", "MTE2", "FIX"},
    "MTE1": {"M", "MTE2", "MTE3", "FIX"},
    "MTE2": {"M", "MTE1", "MTE3", "FIX"},
    "MTE3": {"MTE1", "MTE2"},
    "FIX": {"M", "MTE1", "MTE2", "MTE3"},
}
VECTOR = {
    "S": {"V", "MTE2", "MTE3"},
    "V": {"S", "MTE2", "MTE3"},
    "MTE2": {"S", "V", "MTE3"},
    "MTE3": {"S", "V", "MTE2"},
}
EVENTS = 35


def run(kernel: str, *args: np.ndarray | int, **options: Any) -> runner.TwinResult:
    given = [
        runner.Buffer.of(f"arg{i}", a)
        if isinstance(a, np.ndarray)
        else runner.Scalar(f"arg{i}", int(a))
        for i, a in enumerate(args)
    ]
    library = twin_build.kernels("twin_cores.cpp")
    return runner.run(twin_build.twin(), kernel, 1, given, kernel_library=library, **options)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("core", ["undecided", "cube", "vector"])
def test_each_flag_exists_on_the_cores_that_the_documentation_says(
    tmp_path: Path, core: str
) -> None:
    seen = set()
    for event in range(EVENTS):
        trace = tmp_path / f"{event}.jsonl"
        x = np.ones(16, np.float16)
        number = ["undecided", "cube", "vector"].index(core)
        result = run("one_event", x, number, event, trace=trace)
        flag = next(row["params"] for row in rows_of(trace) if row["op"] == "SetFlag")
        source, target = flag["from"], flag["to"]
        seen.add((source, target))
        on_cube, on_vector = (target in table.get(source, ()) for table in (CUBE, VECTOR))
        exists = {"cube": on_cube, "vector": on_vector, "undecided": on_cube or on_vector}[core]
        assert result.ok == exists, (source, target, [str(f) for f in result.findings])
        assert {f.kind for f in result.findings} <= {"illegal-event"}
        if not exists and core != "undecided" and (on_cube or on_vector):
            other = "cube" if on_cube else "vector"
            (finding,) = result.findings  # the pair stands on one line
            assert finding.count == 2
            assert f"on a {other} core only, and this core works as a {core} core since tests/" in (
                finding.message
            )
    assert len(seen) == EVENTS


def test_calls_that_move_nothing_are_counted_and_traced(tmp_path: Path) -> None:
    x, y = np.ones(512, np.float16), np.full(512, 7, np.float16)
    result = run("nothing_moves", x, y, trace=tmp_path / "t.jsonl")
    rows = rows_of(tmp_path / "t.jsonl")
    assert result.ok and (y == 7).all() and result.bytes_written == {}
    assert [row["op"] for row in rows] == [
        "Copy",
        "Copy",
        "CopyPad",
        "Nd2Nz",
        "Load2d",
        "LoadTranspose",
        "Load3d",
        "Mmad",
        "Fixpipe",
        "Copy",
    ]
    assert all(row["nop"] for row in rows)
    assert len(rows) == sum(sum(ops.values()) for ops in result.counts.values())


def test_a_trace_is_of_one_launch_unless_it_is_appended_to(tmp_path: Path) -> None:
    x, trace = np.ones(16, np.float16), tmp_path / "t.jsonl"
    run("copy_in", x, trace=trace)
    run("copy_in", x, trace=trace)
    assert [(row["op"], row["nop"]) for row in rows_of(trace)] == [("Copy", False)]
    run("one_event", x, 0, 0, trace=trace, append_trace=True)
    assert [row["op"] for row in rows_of(trace)] == ["Copy", "SetFlag", "WaitFlag"]


def test_bytes_are_counted_by_pipe_and_memory() -> None:
    assert run("copy_in", np.ones(16, np.float16)).bytes_written == {"MTE2": {"ub": 32}}


def test_what_the_twin_refuses_is_one_sentence(tilewright: CommandLine) -> None:
    ran = tilewright(
        "twin", "run", "gemm", "--dtype", "fp16", "--shape", "M=4,N=4,K=4", "--trace", "/no/x"
    )
    assert ran.code == 3
    said = [line for line in ran.err.splitlines() if not line.startswith("twin: ")]
    assert said == ["tilewright: cannot write the trace to '/no/x'"]
