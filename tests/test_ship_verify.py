"""A bundle of gemm as a receiver checks it: an environment with torch, no tilewright, no compiler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conftest import CommandLine
from fakes.bundles import CHEAP, COSTLY, Receive, details, library_of, sign_again, states
from tilewright.ship import layout
from tilewright.ship.bundle import Bundle
from tilewright.ship.clean_venv import CleanVenv
from tilewright.ship.receive import verify

pytest_plugins = ("fakes.bundle_fixtures",)


def test_every_stage_passes_where_there_is_no_tilewright(made: Bundle, receive: Receive) -> None:
    verdict = receive(made.folder)
    assert verdict.exit_code == 0, verdict.rows
    assert [r["stage"] for r in verdict.rows] == [*CHEAP, *COSTLY, "overall"]
    assert all(r["ok"] is True and r["state"] == "passed" for r in verdict.rows)
    said = details(verdict)
    assert f"All {len(made.manifest['files'])} files" in said["manifest"]
    assert made.manifest_sha256 in said["manifest"]
    assert f"{made.manifest['golden_calls']} stored calls" in said["golden"]
    assert "built-in table is the same" in said["gpu"]
    assert torch.cuda.is_available() or "no device" in said["gpu"]
    assert all(text.endswith(".") for text in said.values())


def test_the_command_runs_the_bundles_own_file(made: Bundle, tilewright: CommandLine) -> None:
    ran = tilewright("verify", str(made.folder), "--quick", "--json", "-")
    assert ran.code == 0, ran.err
    assert [r["stage"] for r in ran.document["rows"]][:2] == ["manifest", "platform"]
    assert ran.document["schema"] == "tilewright/verify/1"
    failed = tilewright("verify", str(made.folder), "--assume-torch", "2.9")
    assert failed.code == 1
    assert "torch 2.9 (assumed) is too old" in failed.out
    assert tilewright("verify", str(made.folder.parent)).code == 2


@pytest.mark.parametrize(
    "place", ["library", "golden/gemm.safetensors", "verify_parts/host.py", "binary"]
)
def test_a_changed_byte_is_found_before_anything_is_loaded(
    copy: Path, receive: Receive, place: str
) -> None:
    path = library_of(copy) if place == "library" else copy / place
    if place == "binary":
        path = next((library_of(copy).parent / "binaries").glob("*.cubin"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    verdict = receive(copy)
    assert verdict.exit_code == 1
    assert f"1 changed: {path.relative_to(copy)} (sha256 " in details(verdict)["manifest"]
    assert set(states(verdict).values()) == {"failed", "not run"}


def test_missing_and_extra_files_are_named(copy: Path, receive: Receive) -> None:
    (copy / "LICENSE").unlink()
    (library_of(copy).parent / "sitecustomize.py").write_text("print('not ours')")
    said = details(receive(copy))["manifest"]
    assert "1 missing: LICENSE" in said
    assert "1 extra: build/" in said and "sitecustomize.py" in said


PLANTED = "import pathlib\npathlib.Path({mark!r}).touch()\nraise SystemExit('planted code ran')\n"


@pytest.mark.parametrize(
    "name",
    ["hashlib.py", "os.py", "__future__.py", "argparse.pyc", "torch.pyc", "verify_parts/host.pyc"],
)
def test_planted_modules_are_extra_files_and_never_run(
    copy: Path, clean: CleanVenv, name: str
) -> None:
    """As a receiver runs it, from inside the folder and from outside, an empty PYTHONPATH entry included."""
    mark = copy.parent / "ran"
    plant(clean, copy / name, mark)
    for place, script in ((copy, "verify.py"), (copy.parent, "copy/verify.py")):
        done = clean.run([script], cwd=place, extra={"PYTHONPATH": f":{place}"})
        assert not mark.exists(), done.stderr
        assert done.returncode == 1
        assert f"1 extra: {name}." in done.stdout, done.stdout + done.stderr


def plant(clean: CleanVenv, path: Path, mark: Path) -> None:
    """Code under a module's name, compiled without its source where the name says so; it leaves a mark."""
    text = PLANTED.format(mark=str(mark))
    if path.suffix == ".py":
        path.write_text(text)
        return
    source = mark.with_name("planted.py")
    source.write_text(text)
    code = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], doraise=True)"
    done = clean.run(["-c", code, str(source), str(path)])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["torch.pyc", "hashlib.py", "verify_parts.py"])
def test_the_process_that_loads_does_not_look_in_the_bundle(
    copy: Path, clean: CleanVenv, name: str
) -> None:
    """The second wall: were the files not compared, `import torch` would still be the installed one."""
    mark = copy.parent / "ran"
    plant(clean, copy / name, mark)
    done = clean.run([str(copy / "verify.py"), "--child", "1", "--quick"], cwd=copy)
    assert not mark.exists(), done.stderr
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [line[0] for line in lines] == list(COSTLY)
    assert {line[1] for line in lines} == {"passed"}


def test_bytecode_that_python_left_is_named_and_not_used(
    copy: Path, clean: CleanVenv, receive: Receive
) -> None:
    """`__pycache__` comes of using the bundle, so it fails nothing; what is in it is not run either."""
    mark = copy.parent / "ran"
    variant = library_of(copy).parent
    tag = clean.run(["-c", "import sys; print(sys.implementation.cache_tag)"]).stdout.strip()
    for folder, module in ((copy / "verify_parts", "run"), (variant, "__init__")):
        (folder / "__pycache__").mkdir()
        plant(clean, folder / "__pycache__" / f"{module}.{tag}.pyc", mark)
        trusted = folder / "__pycache__" / f"{module}.{tag}.pyc"
        data = bytearray(trusted.read_bytes())
        data[4:16] = (1).to_bytes(4, "little") + bytes(
            8
        )  # "unchecked hash": Python takes it as it is
        trusted.write_bytes(data)
    verdict = receive(copy, "--quick")
    assert verdict.exit_code == 0, verdict.rows
    assert not mark.exists()
    place = variant.relative_to(copy).as_posix()
    assert (
        f"Not looked at, nor used here: {place}/__pycache__, verify_parts/__pycache__."
        in details(verdict)["manifest"]
    )


def test_a_torch_that_is_too_old(made: Bundle, receive: Receive) -> None:
    verdict = receive(made.folder, "--assume-torch", "2.10.1+cu128")
    assert verdict.exit_code == 1
    assert states(verdict)["cpu"] == states(verdict)["abi"] == "passed"
    assert details(verdict)["torch"].startswith("torch 2.10.1+cu128 (assumed) is too old")
    assert "2.11 or later is needed" in details(verdict)["torch"]
    assert details(verdict)["load"] == "Not run: stage torch did not pass."


@pytest.mark.parametrize(
    ("options", "variables", "sentence"),
    [
        (("--assume-cpu-level", "none"), {}, "lacks the level the bundle needs: 'scalar'"),
        (
            (),
            {"TILEWRIGHT_ISA": "avx1024"},
            "TILEWRIGHT_ISA=avx1024 asks for a level that cannot run",
        ),
        (("--assume-cpu-level", "scalar"), {"TILEWRIGHT_ISA": "avx2"}, "TILEWRIGHT_ISA=avx2 asks"),
        (("--assume-cpu-level", "sse9"), {}, "'sse9' is no CPU level; accepted: none, scalar"),
    ],
)
def test_a_cpu_without_the_level(
    made: Bundle,
    receive: Receive,
    options: tuple[str, ...],
    variables: dict[str, str],
    sentence: str,
) -> None:
    verdict = receive(made.folder, *options, **variables)
    assert verdict.exit_code == 1
    assert sentence in details(verdict)["cpu"]
    assert states(verdict)["load"] == "not run"


def test_without_torch_it_is_undecided(made: Bundle, clean: CleanVenv) -> None:
    verdict = verify(made.folder, (), lambda arguments: clean.run(["-S", *arguments]))
    assert verdict.exit_code == 3
    assert states(verdict)["torch"] == states(verdict)["overall"] == "undecided"
    assert "torch is not installed for" in details(verdict)["torch"]


def test_a_bundle_may_need_more_of_the_cpu(copy: Path, receive: Receive) -> None:
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["needs"]["cpu_level"] = "avx512"
    layout.write_json(path, manifest)
    said = details(receive(copy, "--assume-cpu-level", "avx2"))["cpu"]
    assert "'avx512'" in said and "levels it has: scalar, avx2." in said


def test_another_manifest_than_the_pinned_one(made: Bundle, receive: Receive) -> None:
    assert receive(made.folder, "--manifest-sha256", "0" * 64).exit_code == 1
    pinned = receive(
        made.folder, "--manifest-sha256", made.manifest_sha256, "--assume-torch", "2.9"
    )
    assert states(pinned)["manifest"] == "passed"


def test_a_forged_library_fails_in_words(copy: Path, receive: Receive) -> None:
    library = library_of(copy)
    library.write_bytes(library.read_bytes()[:5000])
    sign_again(copy)
    verdict = receive(copy)
    assert verdict.exit_code == 1
    assert states(verdict)["manifest"] == "passed"
    assert "ELF" in details(verdict)["abi"]


def test_a_library_that_kills_the_process_fails_in_words(copy: Path, receive: Receive) -> None:
    ops = library_of(copy).parent / "_ops.py"
    ops.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    sign_again(copy)
    verdict = receive(copy)
    assert states(verdict)["load"] == "failed"
    assert "signal 4 (SIGILL)" in details(verdict)["load"]


def test_a_wrong_result_fails_with_its_case(copy: Path, receive: Receive) -> None:
    init = library_of(copy).parent / "__init__.py"
    text = init.read_text().replace(
        "    return ops.gemm(", "    return 1 + 0 * a.sum() + ops.gemm("
    )
    init.write_text(text)
    sign_again(copy)
    verdict = receive(copy, "--quick")
    assert states(verdict)["golden"] == "failed"
    assert details(verdict)["golden"].startswith("gemm ")
    assert verdict.exit_code == 1
