"""What the ascendc backend asks of a family, answered for nz_kv."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.cases import Case
from tilewright.dtypes import dtype
from tilewright.errors import Refused
from tilewright.targets import Target

from ...soc import find
from ...twin import runner
from ...twin.runner import TwinResult
from .._kv.planning import PAGE, Move, most_columns
from .._vector import floor, on_cores

__all__ = ["count", "floor", "launch", "on_cores", "refuses", "validated_by"]


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    most = most_columns(find(target.arch).ub)
    if not 1 <= config["tile_blocks"] <= most:
        return f"tile_blocks={config['tile_blocks']}; accepted: 1..{most}, two tiles must fit UB"
    return None


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case on the twin; `pages` or `y` is written."""
    from . import host

    try:
        return host.launch(
            tensors,
            write=_writes(case),
            config=config,
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses nz_kv {case}: {error}") from None


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data, as a batch of long prompts has them: whole pages."""
    import numpy as np

    from . import host

    tokens, heads, dim, pages = (case.sizes[name] for name in ("T", "HKV", "D", "P"))
    if 0 in (tokens, heads, dim, pages):
        return runner.empty_result(target.arch)
    head = dim * dtype(case.precision).bytes
    within = -(-head // 32) * 32 * PAGE
    move = Move(tokens, heads, head, heads * head, head, heads * within, within, True)
    slots = np.arange(tokens, dtype=np.int32)
    slots[pages * PAGE :] = -1
    return host.count(
        move,
        pages,
        slots,
        write=_writes(case),
        config=config,
        soc=target.arch,
        lib_path=lib_path,
        **options,
    )


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    return "rows to fractals by way of UB (N1 in docs/model.md); no timing of a paged KV cache on a 910B is published"


def _writes(case: Case) -> bool:
    return case.flags["direction"] == "write"
