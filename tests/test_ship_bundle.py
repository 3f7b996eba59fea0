"""A bundle of gemm as a receiver meets it: an environment with torch, no tilewright, no compiler."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT, CommandLine
from fakes import gpu
from tilewright import registry
from tilewright.errors import UsageError, VerificationFailed
from tilewright.ship import clean_venv, golden, layout
from tilewright.ship import receive as receive_module
from tilewright.ship.bundle import Bundle, build
from tilewright.ship.clean_venv import CleanVenv
from tilewright.ship.launcher.entries import read_entries
from tilewright.ship.receive import Verdict, verify
from tilewright.ship.request import Request, make_request

CHEAP = ("manifest", "platform", "torch", "cpu", "abi")
COSTLY = ("load", "opcheck", "golden", "gpu")


def request(folder: Path) -> Request:
    return make_request(
        folder, ["gemm"], ["cpu", "cuda:sm_80", "ascend:910b1"], gpu_precisions=["fp16"]
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(request(tmp_path_factory.mktemp("ship") / "bundle"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> CleanVenv:
    return clean_venv.make(tmp_path_factory.mktemp("receiver") / "env", ["kernels"])


@pytest.fixture
def copy(made: Bundle, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


Receive = Callable[..., Verdict]


@pytest.fixture
def receive(clean: CleanVenv) -> Receive:
    """Verify in the clean environment."""

    def run(folder: Path, *options: str, **variables: str) -> Verdict:
        return verify(folder, options, lambda arguments: clean.run(arguments, extra=variables))

    return run


def details(verdict: Verdict) -> dict[str, str]:
    return {row["stage"]: row["detail"] for row in verdict.rows}


def states(verdict: Verdict) -> dict[str, str]:
    return {row["stage"]: row["state"] for row in verdict.rows}


def library_of(folder: Path) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text())
    return folder / str(manifest["library"]["path"])


def sign_again(folder: Path) -> None:
    """Make the manifest agree with files that were changed, as whoever forges a bundle would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = layout.file_table(folder)
    layout.write_json(path, manifest)


def test_every_stage_passes_where_there_is_no_tilewright(made: Bundle, receive: Receive) -> None:
    verdict = receive(made.folder)
    assert verdict.exit_code == 0, verdict.rows
    assert [r["stage"] for r in verdict.rows] == [*CHEAP, *COSTLY, "overall"]
    assert all(r["ok"] is True and r["state"] == "passed" for r in verdict.rows)
    said = details(verdict)
    assert f"All {len(made.manifest['files'])} files" in said["manifest"]
    assert made.manifest_sha256 in said["manifest"]
    assert f"{made.manifest['golden_calls']} stored calls" in said["golden"]
    assert "no device" in said["gpu"] and "built-in table is the same" in said["gpu"]
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


def test_planted_bytecode_is_not_run(copy: Path, clean: CleanVenv, receive: Receive) -> None:
    # Bytecode that claims to be newer than its source would win an ordinary import.
    source = copy / "verify_parts" / "host.py"
    planted = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
    evil = copy.parent / "evil.py"
    evil.write_text("raise SystemExit('bytecode ran')")
    cache = source.parent / "__pycache__"
    cache.mkdir()
    tag = clean.run(["-c", "import sys; print(sys.implementation.cache_tag)"]).stdout.strip()
    done = clean.run(["-c", planted, str(evil), str(cache / f"host.{tag}.pyc")])
    assert done.returncode == 0, done.stderr
    assert states(receive(copy, "--assume-torch", "2.9"))["platform"] == "passed"


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


CLIENT = """
import importlib.util, json, sys
import torch
from kernels import get_local_kernel
from kernels._rust import Digest, DigestAlgorithm, Metadata
from pathlib import Path

root = Path(sys.argv[1])
ops = get_local_kernel(root)
a, w = torch.randn(33, 70), torch.randn(577, 70)
bias = torch.randn(577)
want = torch.nn.functional.linear(a.double(), w.double(), bias.double())
close = lambda x: float((x.double() - want).norm() / want.norm())
packed = ops.pack_b(w.t().contiguous())
errors = {
    "NK": close(ops.gemm(a, w, bias=bias)),
    "KN": close(ops.gemm(a, w.t(), bias=bias, b_layout="KN")),
    "panel16": close(ops.gemm(a, packed, bias=bias, b_layout="panel16", N=577)),
}
compiled = torch.compile(lambda x, y: ops.gemm(x, y) * 2, fullgraph=True, backend="aot_eager")
errors["compiled"] = float((compiled(a, w) / 2 - ops.gemm(a, w)).abs().max())
variant = next((root / "build").iterdir())
metadata = json.loads((variant / "metadata.json").read_text())
digest = Digest.hash_variant(DigestAlgorithm.SHA256, variant)
print(json.dumps({
    "errors": errors, "all": sorted(ops.__all__), "levels": ops.levels(), "name": ops.__name__,
    "digest": digest.files == metadata["digest"]["files"],
    "id": Metadata.read_from_file(variant / "metadata.json").id,
    "tilewright": importlib.util.find_spec("tilewright") is not None,
    "cuda": torch._C._dispatch_has_kernel_for_dispatch_key(f"{metadata['id']}::gemm", "CUDA"),
}))
"""


def test_the_kernels_client_loads_and_runs_it(made: Bundle, clean: CleanVenv, copy: Path) -> None:
    script = copy.parent / "client.py"
    script.write_text(CLIENT)
    done = clean.run([str(script), str(copy)])
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert max(answer["errors"].values()) < 1e-5, answer
    assert set(answer["errors"]) == {"NK", "KN", "panel16", "compiled"}
    assert answer["all"] == ["gemm", "levels", "pack_b"]
    assert answer["id"] == answer["name"] == made.manifest["id"]
    assert answer["levels"]["current"] in answer["levels"]["available"]
    assert answer["digest"] is True
    assert answer["tilewright"] is False
    assert answer["cuda"] is True, "tensors on a GPU would reach the launcher"


def test_the_shipped_library_starts_the_shipped_binaries(made: Bundle, tmp_path: Path) -> None:
    """Through the C entry of the very .so, against a driver that records: no GPU is needed."""
    library = library_of(made.folder)
    rows = json.loads((library.parent / "dispatch.json").read_text())["entries"]
    entries = read_entries(rows)
    environment = {
        "TILEWRIGHT_LIBCUDA": str(gpu.build_fake(tmp_path, "libcuda")),
        "TILEWRIGHT_FAKE_ARCH": "sm_80",
        "LD_LIBRARY_PATH": str(Path(torch.__file__).parent / "lib"),
    }
    # K = 320 and N = 160 suit the specialised binary, 321 and 161 only the other.
    sizes = [
        {"M": 33, "N": 160, "K": 320} if any(a.divisible > 1 for a in e.args) else
        {"M": 33, "N": 161, "K": 321}
        for e in entries
    ]  # fmt: skip
    calls = [
        gpu.call_for(e, s, entry="auto", stream=0x7000) for e, s in zip(entries, sizes, strict=True)
    ]
    ran = gpu.drive(library, calls, tmp_path, environment)
    assert [(a["status"], a["id"], a["error"]) for a in ran.answers] == [
        (0, e.id, "") for e in entries
    ]
    launches = ran.calls("cuLaunchKernel")
    for entry, call, size, launch in zip(entries, calls, sizes, launches, strict=True):
        assert launch["symbol"] == entry.symbol
        assert launch["parameters"] == gpu.expected_parameters(entry, call)
        assert launch["grid"] == list(entry.grid_size(size))
        assert (launch["shared"], launch["stream"]) == (entry.shared_bytes, 0x7000)
    assert [load["sha256"] for load in ran.calls("cuModuleLoadData")] == [
        e.sha256 for e in entries
    ], "the bytes beside the library, each loaded once"
    other = gpu.drive(
        library, calls[:1], tmp_path, {**environment, "TILEWRIGHT_FAKE_ARCH": "sm_90"}
    )
    assert other.answers[0]["status"] == 1 and "sm_90" in other.answers[0]["error"]


def test_making_it_again_gives_the_same_bytes(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The check has been seen to pass on these very bytes, if they are the same.
    monkeypatch.setattr(receive_module, "verify", lambda folder: made.verdict)
    again = build(request(tmp_path / "elsewhere" / "bundle"))
    assert again.manifest["files"] == made.manifest["files"]
    assert again.manifest_sha256 == made.manifest_sha256


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A family that is not ours, in a folder of its own, found by this process."""
    folder = tmp_path / "deeply" / "nested" / "row_scale"
    shutil.copytree(ROOT / "examples" / "row_scale", folder)
    monkeypatch.setenv("TILEWRIGHT_FAMILIES", str(folder))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    registry.families.cache_clear()
    yield folder
    registry.families.cache_clear()


def test_anyones_family_compiles_to_the_same_bytes_anywhere(
    elsewhere: Path, tmp_path: Path, tilewright: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(elsewhere, tmp_path / "row_scale")
    ran = tilewright(
        "ship",
        str(tmp_path / "one"),
        "--families",
        "row_scale",
        "--json",
        "-",
        env={"TILEWRIGHT_FAMILIES": str(other), "TILEWRIGHT_CACHE": str(tmp_path / "other cache")},
    )
    assert ran.code == 0, ran.err
    document = ran.document
    assert all(row["ok"] for row in document["rows"])
    assert document["schema"] == "tilewright/ship/1" and document["id"].startswith(
        "_tilewright_row_scale_"
    )
    monkeypatch.setattr(receive_module, "verify", lambda folder: Verdict((), 0))
    again = build(make_request(tmp_path / "two", ["row_scale"]))
    assert again.manifest["files"] == document["files"], "compiled from nothing in another folder"
    assert again.manifest_sha256 == document["manifest_sha256"]
    init = (library_of(tmp_path / "two").parent / "__init__.py").read_text()
    assert "def row_scale(" in init and "def pack_" not in init


def test_what_is_in_it(made: Bundle) -> None:
    manifest = made.manifest
    assert manifest["library"]["bytes"] < 2_000_000
    assert manifest["variant"].startswith("torch-stable-abi211-cpu-")
    assert {"torch": "2.11", "cpu_level": "scalar"}.items() <= manifest["needs"].items()
    assert tuple(map(int, manifest["needs"]["glibc"].split("."))) <= (2, 28)
    assert set(manifest["targets"]) == {"cpu", "cuda:sm_80", "ascend:910b1"}
    assert any(path.startswith("ascendc/ops/gemm/") for path in manifest["files"])
    assert "ascendc/npu/CMakeLists.txt" in manifest["files"]
    table = json.loads((library_of(made.folder).parent / "dispatch.json").read_text())
    entries = {e["id"]: e for e in table["entries"]}
    assert set(table["targets"]["cuda:sm_80"]["gemm"]["entries"]) == set(entries)
    assert {e["precision"] for e in entries.values()} == {"fp16"}
    assert all(row["gemm"]["default"]["reason"] for row in table["targets"].values())
    text = (made.folder / "README.md").read_text()
    assert "python verify.py" in text and manifest["name"] in text
    home = str(Path.home()).encode()
    for path in manifest["files"]:
        data = (made.folder / path).read_bytes()
        assert str(made.folder.parent).encode() not in data, (
            f"{path} names the folder it was made in"
        )
        assert home == b"/" or home + b"/" not in data, f"{path} names a home folder"


def test_a_red_check_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = golden.reference_outputs

    def spoiled(*given: Any) -> dict[str, Any]:
        return {name: value + 1 for name, value in genuine(*given).items()}

    monkeypatch.setattr(golden, "reference_outputs", spoiled)
    asked = make_request(tmp_path / "red", ["gemm"], golden_precisions=["fp32"])
    with pytest.raises(
        VerificationFailed, match="not shipped, since its own check fails: golden: gemm fp32"
    ):
        build(asked)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="is not a bundle"):
        make_request(tmp_path, ["gemm"])
    assert subprocess.run(["cat", tmp_path / "thesis.tex"], capture_output=True).stdout == b"mine"
