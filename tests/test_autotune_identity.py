"""What a study is bound to: another source of the kernel, shared or its own, is another study."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autotune_doubles import CostModel, gemm_case, small_family
from tilewright.autotune.study import tune
from tilewright.backends.host import Host
from tilewright.perf.sources import source_hash
from tilewright.registry import family, package_folder

GEMM = family("gemm")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


def test_another_source_is_another_study(tmp_path: Path) -> None:
    found = small_family(tmp_path)
    (tmp_path / "host.cpp").write_text("int one;")
    model = CostModel()
    first = tune(found, gemm_case(), "cpu", 3, objective=model, backend=Host())
    (tmp_path / "host.cpp").write_text("int two;")
    second = tune(found, gemm_case(), "cpu", 3, objective=model, backend=Host())
    assert first.study != second.study
    assert second.measured == 3


@pytest.fixture
def own_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the C++ that kernels share, in place of the package's own."""
    copied = tmp_path / "kernels"
    shutil.copytree(package_folder("tilewright.kernels") / "_host", copied / "_host")

    def folder(package: str) -> Path:
        return copied if package == "tilewright.kernels" else package_folder(package)

    monkeypatch.setattr("tilewright.perf.sources.package_folder", folder)
    return copied


@pytest.mark.parametrize("header", ["simd/avx512.hpp", "thread_pool.cpp", "families.cmake"])
@pytest.mark.parametrize("external", [False, True])
def test_a_touched_shared_source_is_another_study(
    header: str, external: bool, own_kernels: Path, tmp_path: Path
) -> None:
    """Families elsewhere are compiled against the same shared sources as those of the package."""
    elsewhere = tmp_path / "elsewhere" / "gemm"
    if external:
        elsewhere.mkdir(parents=True)
        (elsewhere / "host.cpp").write_text("int one;")
    found = replace(GEMM, folder=elsewhere, origin=str(elsewhere)) if external else GEMM
    before = source_hash(found, "host")
    touched = own_kernels / "_host" / header
    text = touched.read_text()
    touched.write_text(text + "// touched\n")
    assert source_hash(found, "host") != before
    touched.write_text(text)
    assert source_hash(found, "host") == before


def test_a_source_of_the_family_itself_counts_wherever_it_lies(tmp_path: Path) -> None:
    found = replace(GEMM, folder=tmp_path)
    (tmp_path / "deep").mkdir()
    hashes = set()
    for text in ("int one;", "int two;"):
        (tmp_path / "deep" / "part.hpp").write_text(text)
        hashes.add(source_hash(found, "host"))
    assert len(hashes) == 2
    assert len({source_hash(GEMM, b) for b in ("host", "triton", "ascendc", "reference")}) == 4
