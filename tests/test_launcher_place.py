"""The ops of a bundle launch where torch is: on its stream, and through the driver of its own vendor."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton compiles the binaries these tests launch")

from fakes import gpu
from tilewright.ship.launcher.entries import read_entries

pytest_plugins = ("fakes.gpu_fixtures",)


@pytest.fixture(scope="module")
def library(built: gpu.Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher of the toys with the torch side of the ops, which needs no torch to compile."""
    folder = tmp_path_factory.mktemp("place")
    objects = [*built.objects]
    for source in (gpu.ROOT / "ship" / "device" / "place.cpp", gpu.FAKES / "start_gpu.cpp"):
        objects.append(str(folder / f"{source.stem}.o"))
        include = ["-I", str(gpu.ROOT / "bindings")]
        gpu.compiled(["g++", *gpu.FLAGS, *include, "-c", str(source), "-o", objects[-1]])
    return gpu.build_library(folder, objects, read_entries(built.rows))


def torch_library(folder: Path, name: str) -> str:
    """A library that calls itself `name`, as torch's own has been loaded by then."""
    path = folder / f"fake-{name}"
    source = str(gpu.FAKES / "fake_torch_gpu.cpp")
    gpu.compiled(["g++", "-shared", "-fPIC", f"-Wl,-soname,{name}", source, "-o", str(path)])
    return str(path)


@pytest.mark.parametrize(
    ("name", "target", "function"),
    [
        ("libtorch_cuda.so", "cuda:sm_90", "cuLaunchKernel"),
        ("libtorch_hip.so", "hip:gfx942", "hipModuleLaunchKernel"),
    ],
)
def test_a_machine_with_both_drivers_uses_the_one_of_its_torch(
    built: gpu.Built, library: Path, tmp_path: Path, name: str, target: str, function: str
) -> None:
    entry = built.entries[f"toy.fp32.{target.replace(':', '-')}.mode=1"]
    call = gpu.call_for(entry, {"M": 5, "N": 8}, device=1)
    ran = gpu.drive(
        library,
        [call],
        tmp_path,
        built.environment(entry.arch, TILEWRIGHT_FAKE_DEVICES="2"),
        directory=built.folder,
        preload=[torch_library(tmp_path, name)],
        function="tw_test_start",
    )
    assert (ran.answers[0]["status"], ran.answers[0]["error"]) == (0, "")
    (launch,) = ran.calls("cuLaunchKernel") + ran.calls("hipModuleLaunchKernel")
    assert (launch["call"], launch["stream"], launch["device"]) == (function, 0x9001, 1)


def test_the_driver_of_another_vendor_is_never_asked(
    built: gpu.Built, library: Path, tmp_path: Path
) -> None:
    """A ROCm torch beside an NVIDIA GPU that a binary would fit: its pointers mean nothing there."""
    entry = built.entries["toy.fp32.cuda-sm_90.mode=1"]
    ran = gpu.drive(
        library,
        [gpu.call_for(entry, {"M": 5, "N": 8})],
        tmp_path,
        built.environment("sm_90", TILEWRIGHT_LIBHIP="/nowhere/libamdhip64.so"),
        directory=built.folder,
        preload=[torch_library(tmp_path, "libtorch_hip.so")],
        function="tw_test_start",
    )
    assert ran.answers[0]["status"] == 1
    assert "/nowhere/libamdhip64.so" in ran.answers[0]["error"]
    assert not ran.calls("cuLaunchKernel")


def test_a_torch_without_gpu_libraries_is_told(
    built: gpu.Built, library: Path, tmp_path: Path
) -> None:
    call = gpu.call_for(built.entries["toy.fp32.cuda-sm_90.mode=1"], {"M": 5, "N": 8})
    ran = gpu.drive(library, [call], tmp_path, built.environment("sm_90"), function="tw_test_start")
    assert ran.answers[0]["status"] == -1
    assert "no CUDA or ROCm library" in ran.answers[0]["error"]
