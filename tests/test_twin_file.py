"""Kernel files of anybody's: compiled, run, checked from the command line and from Python."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ROOT, CommandLine, Ran
from tilewright.ascendc import twin
from tilewright.errors import UsageError

SOURCE = ROOT / "tests" / "native" / "twin_file.cpp"
COPY = "x:fp16[1024]=normal, y:fp16[1024]=out, n=1024"
TILING = struct.pack("@if4q", 64, 2.0, 0, 0, 0, 5)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("TILEWRIGHT_CACHE", str(folder))
        yield folder


@pytest.fixture
def run(tilewright: CommandLine) -> object:
    return lambda *words, file=SOURCE: tilewright("twin", "run", str(file), *words)


def row(ran: Ran) -> dict[str, object]:
    (found,) = ran.document["rows"]
    return dict(found)


def line_of(text: str, file: Path = SOURCE) -> int:
    lines = file.read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if text in line)


def test_arrays_numbers_and_blocks_from_python() -> None:
    program = twin.compile(SOURCE)
    assert [f.base for f in program.kernels] == ["copy", "shift", "tiled", "crash"]
    x = np.random.default_rng(3).standard_normal(1024).astype(np.float16)
    y = np.full_like(x, np.nan)
    result = program.run("copy", x, y, 1024, blocks=4)
    assert result.ok and result.blocks == 4 and (x == y).all()
    given, out = torch.randn(256).half(), torch.zeros(256).half()
    assert program.run("copy", given, out, np.int64(256)).ok and torch.equal(given, out)


def test_templates_structs_and_floats_of_every_size() -> None:
    x = np.arange(64, dtype=np.float16)
    y = np.full_like(x, np.nan)
    program = twin.compile(SOURCE)
    result = program.run("shift<half, 3>", x, y, TILING, 1.0, 0.5, 0.25, True)
    assert result.ok and (y == x * 6 + 6.75).all()
    assert program.run("strange::shift<half>", x, y, TILING, -1, 0, 0, False).ok
    assert (y == x * 2 - 1).all()
    numbers = np.zeros(2, np.int64)
    assert program.run("tiled", numbers, TILING).ok and numbers.tolist() == [64, 5]


def test_findings_name_the_users_line() -> None:
    x, y = np.zeros(1000, np.float16), np.zeros(1024, np.float16)
    result = twin.compile(SOURCE).run("copy", x, y, 1024)
    (finding,) = result.findings
    assert (finding.kind, finding.file) == ("out-of-bounds", str(SOURCE))
    assert finding.line == line_of("DataCopy(in, from[i]") and "'x'" in finding.message
    result = twin.compile(SOURCE).run("crash", y, 0)
    assert [f.kind for f in result.findings] == ["fault"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("copy", np.zeros(8), np.zeros(8)), "takes 3 arguments, 2 were given"),
        (("copy", 5, np.zeros(8), 8), "'x' is a pointer; it takes an array"),
        (("copy", np.zeros((8, 8)).T, np.zeros(8), 8), None),
        (("copy", np.zeros(8), np.zeros(8), -1), "'n' is a uint32; -1 does not fit"),
        (("copy", np.zeros(8), np.zeros(8), 1.5), "'n' is a uint32; 1.5 is no integer"),
        (("copy", np.zeros(8), np.zeros(8), "8"), "'n' is a uint32"),
        (("shift", None), "is a template; name its arguments"),
        (("shift<half>", None, None, b"12", 1, 1, 1, 1), "a struct of 40 bytes; 2 were given"),
        (("tiles", None), "accepted: copy(GM_ADDR x, GM_ADDR y, uint32_t n), "),
        ((None,), "has several kernels; choose one with --entry:\n  copy(GM_ADDR x, "),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: tuple[object], sentence: str | None) -> None:
    error = UsageError if sentence else twin.TwinError
    with pytest.raises(error) as caught:
        twin.compile(SOURCE).run(*arguments)
    assert (sentence or "gaps between its elements") in str(caught.value)


def test_host_functions_launch_with_bounds_known() -> None:
    program = twin.compile(SOURCE, entries=["copy_impl", "shift_impl", "nothing", "wild"])
    x = np.random.default_rng(4).standard_normal(1024).astype(np.float16)
    y = np.full_like(x, np.nan)
    result, code = program.run_host("copy_impl", None, x, y, 1024)
    assert result.ok and code == 0 and result.blocks == 4 and (x == y).all()
    result, _ = program.run_host("copy_impl", None, x[:512], y, 1024)
    assert [(f.kind, f.line) for f in result.findings] == [
        ("out-of-bounds", line_of("DataCopy(in, from[i]"))
    ]
    result, _ = program.run_host("shift_impl", None, np.arange(64, dtype=np.float16), y)
    assert result.ok and (y[:64] == np.arange(64) * 6 + 6.75).all()
    assert program.run_host("nothing")[0].blocks == 0
    with pytest.raises(twin.TwinError, match="the host code crashed: an access to memory"):
        program.run_host("wild", x)


def test_whole_programs_run_with_their_own_main(tmp_path: Path) -> None:
    result, code = twin.compile(SOURCE).run_host("main")
    assert result.ok and result.blocks == 2 and code == 0
    result, code = twin.compile(SOURCE, define=["EXTRA=+128"]).run_host("main")
    assert {f.kind for f in result.findings} == {"out-of-bounds"} and code == 0
    assert all("'device memory'" in f.message for f in result.findings)


def test_a_file_is_compiled_once(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "k.cpp"
    file.write_text('#include "mine.h"\n' + SOURCE.read_text())
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc/mine.h").write_text("")
    first = twin.compile(file, include=[tmp_path / "inc"]).library
    stamp = first.stat().st_mtime_ns
    assert twin.compile(file, include=[tmp_path / "inc"]).library.stat().st_mtime_ns == stamp
    (tmp_path / "inc/mine.h").write_text("struct Mine {};\n")
    assert twin.compile(file, include=[tmp_path / "inc"]).library != first


def test_the_command_runs_checks_and_saves(run: object, tmp_path: Path) -> None:
    options = ("--entry", "copy", "--args", COPY, "--blocks", "4", "--expect", "y=x")
    ran = run(*options, "--save", str(tmp_path / "out"), "--json", "-")
    assert ran.code == 0, ran.err
    found = row(ran)
    assert found["ok"] and found["rel_err"] == 0 and found["findings"] == 0
    assert found["peak"]["ub"] == 512 and found["blocks"] == 4 and "cycles" in found
    assert "ok copy: 4 blocks, no findings, seed 0" in ran.err
    saved = np.load(tmp_path / "out/y.npy")
    assert saved.dtype == np.float16 and saved.shape == (1024,) and saved.std() > 0.9
    assert not (tmp_path / "out/x.npy").exists()
    assert ran.document["findings"] == []


def test_findings_are_printed_as_a_compiler_does(run: object) -> None:
    ran = run("--entry", "copy", "--args", COPY.replace("1024]=out", "1000]=out"))
    line = line_of("DataCopy(to[i], out, 128)")
    assert ran.code == 1
    text = ran.out.splitlines()
    at = next(i for i, t in enumerate(text) if "error:" in t)
    assert text[at].startswith(f"{SOURCE}:{line}: error: out-of-bounds: Copy: GM bytes 1792..2048")
    assert text[at + 1] == f"{line:5d} |     DataCopy(to[i], out, 128);"
    assert text[at + 2] == "      |     ^~~~~~~~"
    assert "FAILED copy: 1 finding" in ran.out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--entry", "copy", "--args", COPY, "--expect", "y=x+1"), 1, "NOT as expected"),
        (("--entry", "copy", "--args", COPY, "--expect", "z=x"), 2, "unknown array to --expect"),
        (("--entry", "copy"), 2, '--args "x:fp16[1024]=normal, y:fp16[1024]=out, n=1024"'),
        (("--entry", "copy", "--args", COPY.replace("n=", "n:int32=")), 0, "ok copy"),
        (("--entry", "copy", "--args", COPY.replace("n=", "n:int64=")), 2, "a uint32 in copy("),
        (("--entry", "copy", "--args", COPY.replace("x", "y").replace("y:fp16[1024]=out", "x:fp16[1]")), 2, "follows the kernel's order"),
        (("--entry", "copy", "--args", COPY.replace("n=1024", "n=0")), 1, "wrote nothing to y"),
        (("--entry", "copy", "--args", COPY, "--blocks", "0"), 2, "at least one block"),
        (("--entry", "copy", "--args", COPY, "--soc", "910b9"), 2, "accepted: ascend:910b1"),
        (("--entry", "copy", "--args", COPY, "--soc", "910b4"), 0, "ok copy"),
        (("--entry", "copy", "--shape", "M=1"), 2, "is a file; --shape belongs to a family"),
        (("--host-entry", "copy_impl", "--args", "s=null, " + COPY, "--expect", "y=x"), 0, "y=x: as expected"),
        (("--host-entry", "nothing"), 1, "nothing launched no kernel"),
        (("--host-entry", "main"), 0, "ok main: 2 blocks"),
        (("--entry", "tiled", "--args", "y:int64[2]=out, t:struct<int32,fp32,int64*4>=(7,1,0,0,0,9)"), 0, "y:int64[2] = 7, 9"),
    ],
)  # fmt: skip
def test_what_the_command_says(run: object, words: tuple[str], code: int, sentence: str) -> None:
    ran = run(*words)
    assert ran.code == code, ran.out + ran.err
    assert sentence in ran.out + ran.err and "Traceback" not in ran.err


def test_a_source_that_does_not_compile_shows_the_compilers_words(
    run: object, tmp_path: Path
) -> None:
    file = tmp_path / "broken.cpp"
    file.write_text(SOURCE.read_text().replace("queue.EnQue(in)", "queue.EnQueue(in)"))
    ran = run("--entry", "copy", "--args", COPY, file=file)
    assert ran.code == 1
    line = line_of("queue.EnQueue(in)", file)
    assert f"{file}:{line}:11: error: " in ran.err and f"{line} |     queue.EnQueue(in);" in ran.err
    assert f"tilewright: {file} does not compile: {file}:{line}:11: error: " in ran.err
    file.write_text('#include "nowhere.h"\n')
    assert "nowhere.h: No such file or directory" in run("--entry", "a", file=file).err
    assert run(file=tmp_path / "none.cpp").code == 2
    file.write_text(
        '#include "kernel_operator.h"\nvoid Elsewhere();\n__global__ void k() { Elsewhere(); }\n'
    )
    assert "undefined reference to `Elsewhere()'" in run("--entry", "k", file=file).err
