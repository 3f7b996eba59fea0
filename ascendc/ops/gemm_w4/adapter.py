"""What the ascendc backend asks of a family, answered for gemm_w4."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.cases import Case
from tilewright.dtypes import dtype
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
    reason = planning.refusal(case.precision, case.flags["b_layout"], case.flags["activations"])
    if reason:
        return reason
    return next(iter(planning.illegal(_config(case, config), _kind(case), target.arch)), None)


def tiling(case: Case, target: Target) -> Config | None:
    """The config for a case that nothing is tuned for; None where the kernel has none."""
    if planning.refusal(case.precision, case.flags["b_layout"], case.flags["activations"]):
        return None
    found = None if _empty(case) else planning.tiling(_dims(case), _kind(case), target.arch)
    return None if found is None else Config(found.fields())


def added_error(case: Case) -> float:
    """Weights are rounded to the activations' type before the cube multiplies them."""
    return dtype(case.precision).unit_roundoff


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
            tensors,
            _kind(case),
            config=_config(case, config),
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses gemm_w4 {case}: {error}") from None


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data."""
    from . import host

    if _empty(case):
        return runner.empty_result(target.arch)
    return host.count(
        _dims(case),
        _kind(case),
        config=_config(case, config),
        soc=target.arch,
        lib_path=lib_path,
        **options,
    )


def floor(
    case: Case, config: Mapping[str, int], target: Target, result: TwinResult, cores: int
) -> Bound:
    """The lower bound on the launch's time that its instructions imply on `cores` cube cores."""
    return mixed(result, planning.BYTES, cores)


def on_cores(
    case: Case, config: Mapping[str, int], target: Target, cores: int
) -> Mapping[str, int]:
    """The config on at most `cores` cube cores."""
    return {**config, "blocks": min(cores, find(target.arch).cube_cores)}


def representatives(case: Case, config: Mapping[str, int], target: Target) -> dict[int, int]:
    """Blocks that stand for all in a model of time, and how many each stands for."""
    if _empty(case):
        return {}
    return planning.representatives(_dims(case), _config(case, config), target.arch)


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    return "nothing: no timing of a gemm of 4-bit weights on a 910B is published"


def _empty(case: Case) -> bool:
    return 0 in (case.sizes["M"], case.sizes["N"], case.sizes["K"])


def _kind(case: Case) -> planning.Kind:
    flags = case.flags
    return planning.Kind(case.precision, int(flags["group"]), flags["zero"], flags["bias"] == "yes")


def _config(case: Case, config: Mapping[str, int]) -> planning.Config:
    chosen = planning.Config.of(config)
    return planning.settled(chosen) if case.flags["batch_invariant"] == "yes" else chosen


def _dims(case: Case) -> planning.Dims:
    return planning.Dims(case.sizes["M"], case.sizes["N"], case.sizes["K"])
