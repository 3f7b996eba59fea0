"""What the ascendc backend asks of a family, answered for twice."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.ascendc.twin.bounds import Bound, bound
from tilewright.ascendc.twin.runner import Buffer, TwinResult, empty_result, run
from tilewright.cases import Case
from tilewright.targets import Target

_BLOCKS = 4


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case, or None."""
    return "the kernel only doubles" if case.flags["shift"] == "yes" else None


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case; `tensors` holds x, and y, which is written."""
    buffers = [Buffer.of(name, tensors[name]) for name in ("x", "y")]
    return _run(buffers, case, config, target, lib_path, options)


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """The same instructions without data."""
    buffers = [Buffer.unbacked(name, 4 * case.sizes["N"]) for name in ("x", "y")]
    return _run(buffers, case, config, target, lib_path, {**options, "skip_data": True})


def floor(
    case: Case, config: Mapping[str, int], target: Target, result: TwinResult, cores: int
) -> Bound:
    """The bound on two vector cores for each cube core."""
    return bound(result, 4, 2 * cores)


def _run(
    buffers: list[Buffer],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    options: Mapping[str, Any],
) -> TwinResult:
    n = case.sizes["N"]
    if n == 0:
        return empty_result(target.arch)
    tiling = struct.pack("<2i", n, config["tile"])
    return run(lib_path, "twice_fp32", _BLOCKS, buffers, tiling, target.arch, **options)
