"""What the tests of bundles share: which bundle, how its verdict is read, how one is forged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tilewright.ship import layout
from tilewright.ship.receive import Verdict
from tilewright.ship.request import Request, make_request

CHEAP = ("manifest", "platform", "torch", "cpu", "abi")
COSTLY = ("load", "opcheck", "golden", "gpu")

Receive = Callable[..., Verdict]


def request(folder: Path) -> Request:
    """A bundle with something of every kind, its GPU part narrow: one target, one precision."""
    return make_request(
        folder, ["gemm"], ["cpu", "cuda:sm_80", "ascend:910b1"], gpu_precisions=["fp16"]
    )


def details(verdict: Verdict) -> dict[str, str]:
    """What each stage said."""
    return {row["stage"]: row["detail"] for row in verdict.rows}


def states(verdict: Verdict) -> dict[str, str]:
    """How each stage ended."""
    return {row["stage"]: row["state"] for row in verdict.rows}


def library_of(folder: Path) -> Path:
    """The op library of a bundle."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return folder / str(manifest["library"]["path"])


def sign_again(folder: Path) -> None:
    """Make the manifest agree with files that were changed, as whoever forges a bundle would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = layout.file_table(folder)
    layout.write_json(path, manifest)
