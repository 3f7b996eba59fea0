"""What is asked of a bundle, validated before anything is compiled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.errors import UsageError, unknown
from tilewright.registry import Family, select
from tilewright.ship.receiver.verify_parts.host import LEVELS
from tilewright.targets import CPU, Target, target

MANIFEST_SCHEMA = "tilewright/bundle/1"


@dataclass(frozen=True, slots=True)
class Request:
    """A bundle to be made at `folder`.

    `cpu` is always among `targets`: the library carries the ops. `gpu_precisions` and
    `golden_precisions` narrow what is compiled for GPUs and stored as vectors; empty is all.
    `cpu_level` is the least level the receiver's CPU must have.
    """

    folder: Path
    families: tuple[Family, ...]
    targets: tuple[Target, ...]
    name: str
    version: int = 1
    cpu_level: str = "scalar"
    gpu_precisions: tuple[str, ...] = ()
    golden_precisions: tuple[str, ...] = ()
    bench: Path | None = None


def make_request(
    folder: Path,
    families: Sequence[str] = (),
    targets: Sequence[str] = (),
    *,
    name: str | None = None,
    version: int = 1,
    cpu_level: str = "scalar",
    gpu_precisions: Sequence[str] = (),
    golden_precisions: Sequence[str] = (),
    bench: Path | None = None,
) -> Request:
    """Look everything up; raises UsageError with the first value that cannot be."""
    chosen = [f for f in select(list(families)) if families or f.has("host.cpp")]
    for family in chosen:
        if not family.has("host.cpp"):
            raise UsageError(f"{family.name} has no host.cpp, so it has no op to ship")
    if not chosen:
        raise UsageError("no family has a host.cpp, so there is nothing to ship")
    where = {CPU.name: CPU, **{t: target(t) for t in targets}}
    if cpu_level not in LEVELS:
        raise unknown("CPU level", cpu_level, list(LEVELS))
    known = {p.name for f in chosen for p in f.spec.precisions}
    for precision in (*gpu_precisions, *golden_precisions):
        if precision not in known:
            raise unknown("precision", precision, sorted(known))
    if version < 0:
        raise UsageError(f"version {version} is negative; 0 or more is needed")
    parts = [f.name.replace("_", "-") for f in chosen] if families else ["kernels"]
    name = name or "-".join(["tilewright", *parts])
    plain = name.replace("-", "")
    if (
        not (plain.isascii() and plain.isalnum() and plain.islower() and name[0].isalpha())
        or name[-1] == "-"
    ):
        raise UsageError(
            f"'{name}' is no name for a bundle: a-z, 0-9 and inner dashes, a letter first"
        )
    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not _is_bundle(folder))
    ):
        raise UsageError(f"{folder} exists and is not a bundle; name a new or empty folder")
    if bench is not None:
        read_bench(bench)
    return Request(
        folder,
        tuple(chosen),
        tuple(where.values()),
        name,
        version,
        cpu_level,
        tuple(gpu_precisions),
        tuple(golden_precisions),
        bench,
    )


def read_bench(path: Path) -> dict[str, Any]:
    """The JSON document of `tilewright bench`; raises UsageError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read as the JSON of tilewright bench: {error}"
        ) from None
    if not isinstance(content, dict) or not str(content.get("schema", "")).startswith(
        "tilewright/bench/"
    ):
        raise UsageError(
            f"{path} is not the JSON of tilewright bench (schema tilewright/bench/...)"
        )
    return content


def _is_bundle(folder: Path) -> bool:
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return isinstance(content, dict) and content.get("schema") == MANIFEST_SCHEMA
