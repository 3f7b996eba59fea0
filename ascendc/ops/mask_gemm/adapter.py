"""What the ascendc backend asks of a family, answered for mask_gemm: what it refuses, and how it is launched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.cases import Case
from tilewright.errors import Refused
from tilewright.targets import Target

from ...soc import find
from ...twin import runner
from ...twin.bounds import Bound, mixed
from ...twin.runner import TwinResult
from . import planning
from .planning import Launch


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    if case.flags["b_layout"] != "NK":
        return (
            f"b_layout '{case.flags['b_layout']}' is a host format; the ascendc mask_gemm takes NK"
        )
    return next(iter(planning.illegal(planning.config_of(config), target.arch)), None)


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case on the twin; `c` and `counts` are written."""
    from . import host

    try:
        return host.launch(
            tensors,
            layer=int(case.number("layer")),
            keep=case.flags["missing"] == "keep_int8",
            config=planning.config_of(config),
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses mask_gemm {case}: {error}") from None


def launch_of(case: Case) -> Launch:
    """The case in numbers, dense."""
    m, n, k, words = (case.sizes[name] for name in ("M", "N", "K", "W"))
    resident, bias = case.flags["resident"] == "yes", case.flags["bias"] == "yes"
    return Launch(m, n, k, int(case.number("layer")), words, resident, bias)


def selected(case: Case) -> int:
    """Rows in bf16 of a modelled case, about as many as the family draws: an eighth, all, or none."""
    if case.flags["resident"] != "yes":
        return 0
    rows = case.sizes["M"]
    return {0: rows // 8, 1: rows, 2: 0, 3: rows // 2}[int(case.number("layer")) % 4]


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data."""
    from . import host

    found = launch_of(case)
    if 0 in (found.m, found.n, found.k):
        return runner.empty_result(target.arch)
    try:
        return host.count(
            found,
            selected=selected(case),
            config=planning.config_of(config),
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses mask_gemm {case}: {error}") from None


def floor(
    case: Case, config: Mapping[str, int], target: Target, result: TwinResult, cores: int
) -> Bound:
    """The lower bound on the launch's time that its instructions imply, every product as fast as in int8."""
    return mixed(result, 1, cores)


def on_cores(
    case: Case, config: Mapping[str, int], target: Target, cores: int
) -> Mapping[str, int]:
    """The config on at most `cores` cube cores."""
    return {**config, "cores": min(cores, find(target.arch).cube_cores)}


def representatives(case: Case, config: Mapping[str, int], target: Target) -> dict[int, int]:
    """Blocks that stand for all in a model of time; none where rows differ, as then all cores meet."""
    found, chosen = launch_of(case), planning.config_of(config)
    if 0 in (found.m, found.n, found.k) or selected(case) not in (0, found.m):
        return {}
    return planning.representatives(found, chosen, planning.blocks(found, chosen, target.arch))


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    return "nothing: no timing of a gemm that selects rows on a 910B is published"
