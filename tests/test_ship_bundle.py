"""What `ship` writes: its contents, the same bytes every time, and nothing where a check is red."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, CommandLine
from fakes.bundles import library_of, request
from tilewright import registry
from tilewright.errors import UsageError, VerificationFailed
from tilewright.ship import golden, provenance
from tilewright.ship import receive as receive_module
from tilewright.ship.bundle import Bundle, build
from tilewright.ship.receive import Verdict
from tilewright.ship.request import make_request

pytest_plugins = ("fakes.bundle_fixtures",)


def test_making_it_again_gives_the_same_bytes(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The check has been seen to pass on these very bytes, if they are the same.
    monkeypatch.setattr(receive_module, "verify", lambda folder: made.verdict)
    # What git says of the tree may change between two builds.
    monkeypatch.setattr(provenance, "git_state", lambda folder: made.manifest["source"])
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
