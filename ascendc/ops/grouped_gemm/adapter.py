"""What the ascendc backend asks of a family, answered for grouped_gemm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.cases import Case
from tilewright.errors import Refused
from tilewright.space import Config
from tilewright.targets import Target

from ...soc import find
from ...twin import runner
from ...twin.bounds import Bound, mixed
from ...twin.runner import TwinResult
from . import planning


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    reason = planning.refusal(case.precision, case.flags["b_layout"])
    if reason:
        return reason
    return next(iter(planning.illegal(config, _kind(case), target.arch)), None)


def tiling(case: Case, target: Target) -> Config | None:
    """The config for a case that nothing is tuned for; None where the kernel has none."""
    sizes = case.sizes
    if planning.refusal(case.precision, case.flags["b_layout"]) or 0 in sizes.values():
        return None
    rows = -(-sizes["T"] // sizes["E"])
    found = planning.tiling(rows, sizes["E"], sizes["N"], sizes["K"], _kind(case), target.arch)
    return None if found is None else Config(found)


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case on the twin; `c` is written."""
    from . import host

    try:
        return host.launch(
            tensors, _kind(case), config=config, soc=target.arch, lib_path=lib_path, **options
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses grouped_gemm {case}: {error}") from None


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data, rows dealt out evenly to the experts that the spec draws."""
    import numpy as np

    from tilewright.registry import family

    from . import host

    sizes = case.sizes
    rows, experts = sizes["T"], sizes["E"]
    if 0 in sizes.values():
        return runner.empty_result(target.arch)
    drawn = family("grouped_gemm").module("spec")
    used, taken = drawn.experts_used(rows, experts), drawn.rows_used(rows, experts)
    ends = np.array([taken * min(e + 1, used) // used for e in range(experts)], np.int32)
    dims = planning.Dims(rows, experts, sizes["N"], sizes["K"])
    return host.count(
        dims, _kind(case), ends, config=config, soc=target.arch, lib_path=lib_path, **options
    )


def floor(
    case: Case, config: Mapping[str, int], target: Target, result: TwinResult, cores: int
) -> Bound:
    """The lower bound on the launch's time that its instructions imply on `cores` cube cores."""
    return mixed(result, _kind(case).gemm.input_bytes, cores)


def on_cores(
    case: Case, config: Mapping[str, int], target: Target, cores: int
) -> Mapping[str, int]:
    """The config on at most `cores` cube cores."""
    return {**config, "blocks": min(cores, find(target.arch).cube_cores)}


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    return "nothing: no timing of a grouped gemm on a 910B is published; its tiles are gemm's"


def _kind(case: Case) -> planning.Kind:
    flags = case.flags
    return planning.Kind(
        case.precision,
        flags["bias"] == "yes",
        flags["scale"] == "row_col",
        flags["batch_invariant"] == "yes",
    )
