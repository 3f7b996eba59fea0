"""Every binary that is shipped of gemm, on every GPU target, is started as its kernel asks to be."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton compiles the binaries these tests launch")

from fakes import gpu
from fakes.gemm_gpu import every_launch
from tilewright.registry import family
from tilewright.ship.gpu import GpuPart, compile_gpu, write_binaries
from tilewright.ship.launcher.entries import read_entries
from tilewright.targets import target as target_named

pytest_plugins = ("fakes.gpu_fixtures",)


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> GpuPart:
    """Every target, precision, flag and alignment, as `ship` compiles them where nothing was tuned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEWRIGHT_DATA", str(tmp_path_factory.mktemp("data")))
        return compile_gpu([family("gemm")], [target_named(name) for name in gpu.TARGETS])


@pytest.fixture(scope="module")
def library(part: GpuPart, built: gpu.Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("every")
    write_binaries(folder, part)
    return gpu.build_library(folder, built.objects, read_entries(part.entries))


@pytest.mark.parametrize("target", gpu.TARGETS)
def test_every_shipped_entry_is_started_as_its_kernel_asks(
    part: GpuPart, library: Path, built: gpu.Built, tmp_path: Path, target: str
) -> None:
    expected = list(every_launch(target))
    where = target_named(target)
    calls = [one.call for one in expected]
    ran = gpu.drive(library, calls, tmp_path, built.environment(where.arch))
    assert [(a["status"], a["error"]) for a in ran.answers] == [(0, "")] * len(expected)

    rows = {row["id"]: row for row in part.entries if row["target"] == target}
    assert {a["id"] for a in ran.answers} == set(rows), "no entry is out of every call's reach"
    digests = [rows[a["id"]]["sha256"] for a in ran.answers]
    assert digests == [one.kernel.binary_sha256 for one in expected], "the binary of that very case"
    prefix = "cu" if where.kind == "cuda" else "hip"
    loaded = [line["sha256"] for line in ran.calls(f"{prefix}ModuleLoadData")]
    assert loaded == [rows[i]["sha256"] for i in dict.fromkeys(a["id"] for a in ran.answers)]

    launches = ran.calls("cuLaunchKernel" if prefix == "cu" else "hipModuleLaunchKernel")
    for one, launch in zip(expected, launches, strict=True):
        assert launch["symbol"] == one.kernel.kernel_symbol
        assert launch["parameters"] == one.parameters, one.call["attrs"]
        assert (launch["grid"], launch["block"]) == (one.grid, one.block)
        assert launch["shared"] == one.kernel.dynamic_shared_bytes
        assert launch["stream"] == one.call["stream"]


def test_the_shipped_entries_are_as_many_as_the_cases_need(part: GpuPart) -> None:
    """Four precisions without scales, three with two kinds; two layouts of B; aligned and not."""
    assert part.refused == []
    assert len(part.entries) == len(gpu.TARGETS) * (4 + 3 * 2) * 2 * 2
