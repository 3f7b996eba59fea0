"""GPU binaries of a bundle: every precision and flag of a family compiled for a target, as launch entries."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tilewright.aot import CompiledKernel, TritonModule, compile_config
from tilewright.registry import Family
from tilewright.ship.launcher import compiled
from tilewright.spec import Precision
from tilewright.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from tilewright.space import Config

FOLDER = "binaries"
_SUFFIX = {"cuda": "cubin", "hip": "hsaco"}


@dataclass(slots=True)
class GpuPart:
    """`entries` are rows of dispatch.json; `binaries` maps their relative paths to bytes.

    `refused` says which combinations have no binary and why.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    binaries: dict[str, bytes] = field(default_factory=dict)
    refused: list[dict[str, Any]] = field(default_factory=list)
    toolchain: str = ""


def compile_family(
    family: Family,
    target: Target,
    config: Config,
    part: GpuPart,
    precisions: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> None:
    """Add every launchable combination of a family on a target; aligned binaries come first.

    The launcher takes the first entry that fits a call, so a binary specialised to 16-byte rows
    stands before the one that takes any.
    """
    if not family.has("triton.py"):
        part.refused.append(_refusal(family, target, None, {}, "the family has no triton.py"))
        return
    module = cast(TritonModule, family.module("triton"))
    seen = {_identity(row) for row in part.entries}
    for precision, flags in _combinations(family, precisions):
        for aligned in (True, False):
            kernel = compile_config(
                module, precision.name, flags, config, target.name, aligned=aligned
            )
            part.toolchain = part.toolchain or kernel.toolchain
            if progress is not None:
                progress(f"{family.name} {precision.name} {target.name}")
            if not kernel.ok:
                if aligned:
                    part.refused.append(_refusal(family, target, precision, flags, kernel.error))
                continue
            row = compiled.dispatch_row(family.spec, kernel, binary_path(family, kernel, target))
            if _identity(row) in seen:
                continue
            seen.add(_identity(row))
            part.entries.append(row)
            part.binaries[row["binary"]] = kernel.binary


def binary_path(family: Family, kernel: CompiledKernel, target: Target) -> str:
    """Where the bundle keeps a binary; named by content, since flags may share one."""
    precision = kernel.precision.replace("->", "-to-")
    name = f"{family.name}-{precision}-{target.arch}-{kernel.binary_sha256[:12]}"
    return f"{FOLDER}/{name}.{_SUFFIX[target.kind]}"


def write_binaries(variant: Path, part: GpuPart) -> None:
    """Write the binaries below the variant's folder."""
    for path, data in sorted(part.binaries.items()):
        (variant / path).parent.mkdir(parents=True, exist_ok=True)
        (variant / path).write_bytes(data)


def _combinations(
    family: Family, precisions: Sequence[str]
) -> Iterator[tuple[Precision, dict[str, str]]]:
    spec = family.spec
    for precision in spec.precisions:
        if precisions and precision.name not in precisions:
            continue
        values = [spec.flag_values(flag, precision, "triton") for flag in spec.flags]
        for combination in itertools.product(*values):
            yield precision, dict(zip((f.name for f in spec.flags), combination, strict=True))


def _identity(row: dict[str, Any]) -> str:
    # Flags that the binary does not look at give rows that differ in nothing but the id.
    return json.dumps({k: v for k, v in row.items() if k != "id"}, sort_keys=True)


def _refusal(
    family: Family, target: Target, precision: Precision | None, flags: dict[str, str], reason: str
) -> dict[str, Any]:
    return {
        "family": family.name,
        "target": target.name,
        "precision": precision.name if precision else None,
        "flags": flags,
        "reason": reason,
    }
