"""What the ascendc backend asks of a family, answered for kv_residual."""

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
from ...twin.runner import Buffer, TwinResult
from .._kv.planning import PAGE
from .._vector import compute, floor, on_cores
from . import planning

__all__ = ["count", "floor", "launch", "limits", "on_cores", "refuses", "validated_by"]


def _problem(case: Case, dim: int | None = None) -> planning.Problem:
    size, flags = case.sizes, case.flags
    return planning.Problem(
        size["N"],
        size["HKV"],
        size["D"] if dim is None else dim,
        flags["kv"],
        flags["residual"] == "e3m0",
        flags["kv_layout"] == "nz",
        flags["direction"] == "write",
        dtype(compute(case)).bytes,
    )


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    chosen = planning.tiles_of(_problem(case), config["tile_elements"], find(target.arch).ub, 1)
    return chosen if isinstance(chosen, str) else None


def limits(precision: str, target: Target) -> str:
    """In words, which sizes are refused."""
    element, kv = precision.split("-")
    ub, most = find(target.arch).ub, 0
    for dim in range(32, 2048, 32):
        problem = planning.Problem(
            1, 1, dim, "kv4_key" if kv == "kv4" else kv, True, True, True, dtype(element).bytes
        )
        if isinstance(planning.tiles_of(problem, 0, ub, 1), str):
            break
        most = dim
    return f"heads of up to {most} channels, 16 tokens of one must fit UB"


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case on the twin; pages and pools, or y, are written."""
    from . import host

    try:
        return host.launch(
            tensors,
            write=case.flags["direction"] == "write",
            kv=case.flags["kv"],
            e3m0=case.flags["residual"] == "e3m0",
            nz=case.flags["kv_layout"] == "nz",
            precision=compute(case),
            config=config,
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses kv_residual {case}: {error}") from None


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data, as if nothing were selected."""
    import numpy as np

    from . import host

    problem, size = _problem(case), case.sizes
    if 0 in (problem.pages, problem.heads, problem.dim):
        return runner.empty_result(target.arch)
    given = {
        "page_ids": np.arange(problem.pages, dtype=np.int32),
        "used_before": np.zeros(2, dtype=np.int32),
        "mask": np.zeros((size["P"], problem.heads), dtype=np.int16),
        "fmask": np.zeros((size["P"], problem.heads), dtype=np.int16),
    }
    most = 4 * max(size["P"] * PAGE, size["R"], size["F"]) * problem.heads * problem.dim

    def argument(name: str) -> Buffer:
        return Buffer.of(name, given[name]) if name in given else Buffer.unbacked(name, most)

    return host.count(
        problem,
        argument,
        (size["R"], size["F"]),
        compute(case),
        config=config,
        soc=target.arch,
        lib_path=lib_path,
        **options,
    )


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    return "nothing: no timing of a paged KV cache on a 910B is published; nothing selected is modelled"
