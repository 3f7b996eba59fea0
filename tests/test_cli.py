"""The command line's contract: exit codes, one sentence for bad input, JSON and nothing else on standard output."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import CommandLine

pytestmark = pytest.mark.alone

COMMANDS = (
    "list",
    "doctor",
    "check",
    "bench",
    "tune",
    "compile",
    "toolchain",
    "twin",
    "model",
    "ship",
    "verify",
    "report",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(tilewright: CommandLine, command: str) -> None:
    ran = tilewright(command, "--help")
    assert ran.code == 0
    assert "Usage: tilewright " + command in ran.out
    assert len(ran.out) > 300
    if command not in ("twin", "toolchain"):
        assert "--json" in ran.out


def test_the_overview_names_every_command_and_exit_code(tilewright: CommandLine) -> None:
    ran = tilewright("--help")
    assert all(f"  {command} " in ran.out for command in COMMANDS)
    assert "Exit codes: 0 good" in ran.out
    assert tilewright("--version").out.strip().count(".") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("twin", "run", "kernel.cpp"), 2, "there is no file kernel.cpp"),
        (
            ("twin", "run", "gemm", "--entry", "add"),
            2,
            "gemm is a family; --entry belongs to a file",
        ),
        (("nonsense",), 2, "unknown command 'nonsense'; accepted: list, doctor"),
        (("check", "gemmm"), 2, "unknown family 'gemmm'; accepted: attention, beam_topk, "),
        (("check", "gemm", "--shape", "M=2"), 2, "gemm needs a size for N, K"),
        (("check", "gemm", "--shape", "M=a"), 2, "'M=a' in --shape is not NAME=INTEGER"),
        (("check", "gemm", "--shape", "M=2,N=2,K=-1"), 2, "K=-1 is negative"),
        (
            ("check", "gemm", "--backend", "cpp"),
            2,
            "unknown backend 'cpp'; accepted: reference, host",
        ),
        (("check", "gemm", "--dtype", "fp4"), 2, "fp4"),
        (("check", "gemm", "--target", "cuda:sm_70"), 2, "unknown target 'cuda:sm_70'"),
        (("check", "gemm", "--config", "{"), 2, "--config is not JSON"),
        (
            ("check", "gemm", "--backend", "host", "--config", '{"tile_q":1}'),
            2,
            "unknown config field 'tile_q'",
        ),
        (("check", "--replay", "/nonexistent"), 2, "is not a failure file"),
        (("check", "gemm", "--flags", "b_layout"), 2, "'b_layout' in --flags is not NAME=VALUE"),
        (("list", "--target", "gpu"), 2, "unknown target 'gpu'"),
        (("check", "gemm", "--backend", "host", "--target", "cuda:sm_90"), 2, "does not address"),
        (
            ("check", "gemm", "--flags", "foo=1"),
            2,
            "unknown flag of gemm 'foo'; accepted: b_layout",
        ),
        (("check", "gemm", "--flags", "bias=maybe"), 2, "unknown value of bias 'maybe'"),
        (
            ("check", "gemm", "--dtype", "fp32", "--flags", "scale=row_col"),
            2,
            "--flags scale=row_col do not go with fp32",
        ),
        (
            ("check", "gemm", "--backend", "host", "--config", '{"tile_m":17}'),
            2,
            "unknown value of tile_m '17'; accepted: 8, 16",
        ),
        (("list", "--json", "/"), 2, "/ is a folder; a file is wanted"),
        (("compile", "gemm", "--limit", "0"), 2, "--limit"),
        (
            ("compile", "gemm", "--dtype", "fp32", "--flags", "scale=col"),
            2,
            "--flags scale=col do not go with fp32",
        ),
        (("toolchain", "install", "cann"), 2, "unknown toolchain 'cann'; accepted: ascend-ir"),
        (("twin", "run", "gemm", "--trace", "/"), 2, "/ is a folder; a file is wanted"),
        (("compile", "gemm", "--flags", "bias=maybe"), 2, "unknown value of bias 'maybe'"),
        (("compile", "gemm", "--shape", "M=1,N=1,K=1"), 2, "--shape decides which configs --pool"),
        (("twin", "run", "gemm", "--trace", "x.jsonl"), 2, "--trace holds one run and"),
        (("model", "gemm", "--trace", "x.json"), 2, "--trace holds one run"),
        (("model", "gemm", "--trace", "x.txt"), 2, "ends in none of .json, .png, .svg"),
        (("model", "gemm", "--docs", "x.md"), 2, "--docs goes with --validate"),
        (("model", "softmax", "--validate"), 2, "cannot read 'softmax'"),
    ],
)
def test_bad_input_is_one_sentence(
    tilewright: CommandLine, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    ran = tilewright(*arguments)
    assert ran.code == code, ran.err
    assert sentence in ran.err.replace("\n", " ")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("check", "gemm", "--target", "cuda:sm_90"),
            "triton on cuda:sm_90 is 'compile' (no such GPU",
        ),
        (
            ("check", "gemm", "--backend", "ascendc", "--dtype", "fp16")
            + ("--config", '{"tile_m":256,"tile_n":256}'),
            "l0c: C tile 256x256 take 262144 bytes, 131072 are there",
        ),
        (
            ("check", "gemm", "--backend", "ascendc", "--dtype", "int8->fp16")
            + ("--flags", "scale=row_col", "--config", '{"tile_k":256,"tile_n":256}'),
            "l0b: 2 x B tile 256x256 take 131072 bytes, 65536 are there",
        ),
        (
            ("check", "gemm", "--backend", "triton", "--dtype", "fp32", "--shape", "M=3,N=4,K=5")
            + ("--flags", "b_layout=panel16"),
            "b_layout=panel16 is for host only",
        ),
        (("model", "attention", "--flags", "compute=int8"), "on ascend:910b1: "),
        (("compile", "gemm", "--target", "cpu"), "cpu has no ahead-of-time compiler"),
        (("compile", "gemm", "--flags", "b_layout=panel16"), "b_layout=panel16 is not for triton"),
    ],
)
@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="a GPU runs what is refused without one")
def test_what_is_not_available_here_is_three_with_the_reason(
    tilewright: CommandLine, arguments: tuple[str, ...], sentence: str
) -> None:
    ran = tilewright(*arguments)
    assert ran.code == 3, ran.err
    assert sentence in ran.err + ran.out
    assert "Traceback" not in ran.err


def test_list_shows_the_matrix(tilewright: CommandLine) -> None:
    ran = tilewright("list", "--json", "-")
    document = ran.document
    assert ran.code == 0
    assert document["schema"] == "tilewright/list/1"
    assert {"version", "host", "rows"} <= set(document)
    assert all(
        set(r) >= {"family", "backend", "target", "dtype", "state", "reason"}
        for r in document["rows"]
    )
    states = {
        (r["backend"], r["target"], r["dtype"]): r["state"]
        for r in document["rows"]
        if r["family"] == "gemm"
    }
    assert states["host", "cpu", "bf16"] == "run"
    assert states["reference", "cpu", "fp32"] == "run"
    assert states["triton", "cuda:sm_80", "fp16"] in ("interpret", "run")
    assert states["ascendc", "ascend:910b1", "fp16"] == "twin"
    assert all(r["reason"] for r in document["rows"] if r["state"] in ("absent", "compile"))


def test_a_document_can_go_to_a_file(tilewright: CommandLine, tmp_path: Path) -> None:
    where = tmp_path / "deep" / "list.json"
    ran = tilewright("list", "--json", str(where))
    assert ran.code == 0
    assert json.loads(where.read_text())["rows"]
    assert "gemm" in ran.out


def _processor_time(environment: dict[str, str], code: str, *arguments: str) -> float:
    """Seconds of processor time that an interpreter takes for this."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code, *arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_it_starts_at_once(arguments: list[str], tmp_path: Path) -> None:
    """Under 300 ms on a quiet machine, with the bytecode that the first run leaves.

    On a slower or busier one: under three times what importing its command-line library takes, best
    of several runs in turn.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    code = "from tilewright.cli.main import main; raise SystemExit(main())"
    best = library = float("inf")
    for _ in range(6):
        best = min(best, _processor_time(environment, code, *arguments))
        library = min(library, _processor_time(environment, "import typer"))
        time.sleep(0.05)
    assert best < max(0.3, 3 * library), f"{best:.3f} s of processor time, typer {library:.3f} s"


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom tilewright.cli.main import main\n"
        f"main({arguments!r})\n"
        "print([m for m in ('torch', 'triton', 'optuna', 'numpy', 'matplotlib') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
