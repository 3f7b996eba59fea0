"""The binaries on disk: one folder per key, written whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tilewright import machine
from tilewright.aot.metrics import Metrics

SCHEMA = "aot/1"


@dataclass(frozen=True, slots=True)
class Stored:
    """A compiled binary and what was read of it.

    `scratch` is (bytes, alignment) of the global, then of the profile scratch.
    """

    binary: bytes
    symbol: str
    metrics: Metrics
    dynamic_shared: int
    num_warps: int
    scratch: tuple[int, int, int, int]


def root(folder: Path | None = None) -> Path:
    """Where binaries are kept: `folder`, else `aot` in the user's cache folder."""
    return folder if folder is not None else machine.cache_folder("aot")


def load(folder: Path) -> Stored | None:
    """What is stored there; None if nothing is, or if it is damaged."""
    try:
        record = json.loads((folder / "kernel.json").read_text())
        binary = (folder / "kernel.bin").read_bytes()
    except (OSError, ValueError):
        return None
    if record.get("schema") != SCHEMA or record.get("sha256") != hashlib.sha256(binary).hexdigest():
        return None
    return Stored(
        binary,
        record["symbol"],
        Metrics(**record["metrics"]),
        record["dynamic_shared"],
        record["num_warps"],
        tuple(record["scratch"]),
    )


def store(folder: Path, kernel: Stored) -> None:
    """Write it beside its place, then move it there; an unwritable cache is passed over."""
    record = {
        "schema": SCHEMA,
        "sha256": hashlib.sha256(kernel.binary).hexdigest(),
        "symbol": kernel.symbol,
        "metrics": dataclasses.asdict(kernel.metrics),
        "dynamic_shared": kernel.dynamic_shared,
        "num_warps": kernel.num_warps,
        "scratch": list(kernel.scratch),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    except OSError:
        return
    try:
        (fresh / "kernel.bin").write_bytes(kernel.binary)
        (fresh / "kernel.json").write_text(json.dumps(record, sort_keys=True))
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
