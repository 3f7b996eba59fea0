"""The GPU half of a shipped bundle: the launcher in its library, and the stage that checks it on a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton compiles the binaries these tests launch")

from fakes import gpu
from fakes.bundles import library_of
from fakes.gemm_gpu import every_launch
from tilewright.ship.bundle import Bundle, build
from tilewright.ship.clean_venv import CleanVenv
from tilewright.ship.request import make_request

pytest_plugins = ("fakes.bundle_fixtures", "fakes.gpu_fixtures")


def test_the_shipped_library_starts_the_shipped_binaries(
    made: Bundle, built: gpu.Built, tmp_path: Path
) -> None:
    """Through the C entry of the very .so, against a driver that records: no GPU is needed."""
    library = library_of(made.folder)
    rows = json.loads((library.parent / "dispatch.json").read_text())["entries"]
    environment = {
        **built.environment("sm_80"),
        "LD_LIBRARY_PATH": str(Path(torch.__file__).parent / "lib"),
    }
    expected = list(every_launch("cuda:sm_80", ("fp16",)))
    ran = gpu.drive(library, [one.call for one in expected], tmp_path, environment)
    assert [(a["status"], a["error"]) for a in ran.answers] == [(0, "")] * len(expected)
    assert {a["id"] for a in ran.answers} == {row["id"] for row in rows}
    for one, launch in zip(expected, ran.calls("cuLaunchKernel"), strict=True):
        assert launch["symbol"] == one.kernel.kernel_symbol
        assert launch["parameters"] == one.parameters
        assert (launch["grid"], launch["block"]) == (one.grid, one.block)
        assert (launch["shared"], launch["stream"]) == (one.kernel.dynamic_shared_bytes, 0x7000)
    loaded = [load["sha256"] for load in ran.calls("cuModuleLoadData")]
    assert sorted(loaded) == sorted(row["sha256"] for row in rows), "those beside it, each once"
    other = gpu.drive(
        library, [expected[0].call], tmp_path, {**environment, "TILEWRIGHT_FAKE_ARCH": "sm_90"}
    )
    assert other.answers[0]["status"] == 1 and "sm_90" in other.answers[0]["error"]


# The stage as it is in the bundle, told that torch has a GPU. Its launcher meets a recording driver; since no GPU
# computes, the op runs on the CPU in its place.
STAGE = """
import json, sys
from pathlib import Path

import torch

root, told = Path(sys.argv[1]), json.loads(sys.argv[2])
sys.path.insert(0, str(root))
from verify_parts import gpu, loaded

torch.cuda.is_available = lambda: True
torch.cuda.current_device = lambda: 0
torch.cuda.get_device_name = lambda index: "Fake X1"
torch.version.hip = told.get("hip")
gpu.to_device = lambda value: value
bundle = loaded.Loaded(root, json.loads((root / "manifest.json").read_text()))
op, asked = bundle.call, []

def spoiled(call):
    asked.append(call.name)
    if told.get("raise"):
        raise RuntimeError(told["raise"])
    return tuple(out + told.get("add", 0) for out in op(call))

bundle.call = spoiled
print(json.dumps([*gpu.gpu_stage(bundle), asked]))
"""


def stage(
    clean: CleanVenv, bundle: Path, environment: dict[str, str], **told: Any
) -> tuple[str, str, list[str]]:
    """State, sentence and the calls that were run."""
    done = clean.run(["-B", "-c", STAGE, str(bundle), json.dumps(told)], extra=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    state, sentence, asked = json.loads(done.stdout.splitlines()[-1])
    return state, sentence, asked


def stored(bundle: Path) -> tuple[list[str], int]:
    """Names of the stored calls that this bundle has a binary for (fp16, not packed), and how many have none."""
    (rows,) = json.loads((bundle / "golden" / "cases.json").read_text())["families"]
    served = [
        c["name"]
        for c in rows["cases"]
        if c["precision"] == "fp16" and c["flags"]["b_layout"] in ("KN", "NK")
    ]
    return served, len(rows["cases"]) - len(served)


@pytest.fixture(scope="session")
def numbers_and_places(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Ops with a numeric flag that binaries fix, with memory changed in place, with a first input that may be absent."""
    folder = tmp_path_factory.mktemp("ship") / "bundle"
    return build(
        make_request(
            folder,
            ["rmsnorm", "nz_kv"],
            ["cpu", "cuda:sm_80"],
            gpu_precisions=["fp16"],
            golden_precisions=["fp16"],
        )
    )


def test_numbers_that_binaries_fix_and_memory_changed_in_place_are_chosen_by(
    numbers_and_places: Bundle, clean: CleanVenv, built: gpu.Built
) -> None:
    folder = numbers_and_places.folder
    state, sentence, asked = stage(clean, folder, built.environment("sm_80"))
    assert state == "passed", sentence
    rows = json.loads((folder / "golden" / "cases.json").read_text())["families"]
    stored = {row["family"]: row["cases"] for row in rows}
    # Binaries of rmsnorm are for eps=1e-06 and for rows that need not agree bit for bit.
    fixed = {"eps": "1e-06", "batch_invariant": "no"}.items()
    served = [c["name"] for c in stored["rmsnorm"] if fixed <= c["flags"].items()]
    assert served and [name for name in asked if name.startswith("rmsnorm")] == served
    assert any("direction=read" in name for name in asked), asked
    assert any("direction=write" in name for name in asked), asked


def test_on_a_gpu_calls_with_a_binary_are_run_and_the_others_counted(
    made: Bundle, clean: CleanVenv, built: gpu.Built
) -> None:
    served, without = stored(made.folder)
    state, sentence, asked = stage(clean, made.folder, built.environment("sm_80"))
    assert state == "passed", sentence
    assert asked == served and served and without
    assert f"{len(served)} stored calls agree on Fake X1 (cuda:sm_80)" in sentence
    assert sentence.endswith(f"{without} have no binary here.")


@pytest.mark.parametrize(
    ("told", "reason"),
    [({"add": 1}, "relative"), ({"raise": "cuLaunchKernel failed: 719"}, "719")],
    ids=["a wrong result", "a failed launch"],
)
def test_a_chosen_binary_that_misbehaves_fails_with_its_entry(
    made: Bundle, clean: CleanVenv, built: gpu.Built, told: dict[str, Any], reason: str
) -> None:
    served, _ = stored(made.folder)
    state, sentence, asked = stage(clean, made.folder, built.environment("sm_80"), **told)
    assert state == "failed"
    assert len(asked) == 1
    assert sentence.startswith(f"{served[0]} with gemm.fp16.cuda-sm_80.")
    assert "on Fake X1" in sentence and reason in sentence


@pytest.mark.parametrize(
    ("arch", "told", "seen"),
    [
        ("sm_75", {}, "cuda:sm_75"),
        ("sm_90", {}, "cuda:sm_90"),
        ("gfx942", {"hip": "7.1"}, "hip:gfx942"),
    ],
)
def test_a_gpu_that_no_binary_is_for_passes_and_says_so(
    made: Bundle, clean: CleanVenv, built: gpu.Built, arch: str, told: dict[str, Any], seen: str
) -> None:
    state, sentence, asked = stage(clean, made.folder, built.environment(arch), **told)
    assert (state, asked) == ("passed", [])
    assert f"launch not run: Fake X1 is {seen} and no stored call has a binary" in sentence
    assert sentence.endswith("binaries are for cuda:sm_80.")


def test_a_gpu_that_the_launcher_does_not_reach_is_undecided(
    made: Bundle, clean: CleanVenv, built: gpu.Built
) -> None:
    environment = built.environment("sm_80", TILEWRIGHT_LIBCUDA="/nowhere/libcuda.so.1")
    state, sentence, asked = stage(clean, made.folder, environment)
    assert (state, asked) == ("undecided", [])
    assert "no driver library: /nowhere/libcuda.so.1" in sentence
