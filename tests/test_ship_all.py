"""One bundle of every family with a host kernel: made, and verified by its own verify.py before it is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import CommandLine
from tilewright.registry import families


@pytest.mark.timeout(1800)  # a cold compile of every family
def test_every_family_ships(tilewright: CommandLine, tmp_path: Path) -> None:
    command = ("ship", str(tmp_path / "bundle"), "--families", "all", "--json", "-")
    ran = tilewright(*command, timeout=1800)
    assert ran.code == 0, ran.err
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    names = {f.name for f in families().values() if f.has("host.cpp")}
    assert {"attention", "gemm", "kv_write", "paged_attention"} <= names
    assert set(manifest["ops"]) == names
    assert manifest["name"] == "tilewright-kernels"
    assert manifest["library"]["bytes"] < manifest["library"]["limit_bytes"]
    calls = json.loads((tmp_path / "bundle" / "golden" / "cases.json").read_text())
    told = {f["family"]: len(f["cases"]) for f in calls["families"]}
    assert set(told) == names and min(told.values()) > 0
    stages = {row["stage"]: row["state"] for row in ran.document["rows"]}
    assert stages["opcheck"] == stages["golden"] == "passed"
