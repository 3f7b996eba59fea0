"""What the ascendc backend asks of a family, answered for rope."""

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
from .._vector import floor, on_cores
from . import planning

__all__ = ["count", "floor", "launch", "on_cores", "refuses", "validated_by"]


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    if case.flags["style"] == "gptj":
        return (
            "style=gptj: pairs of neighbours take a gather each way, which the kernel does not do"
        )
    return planning.too_wide(_launch(case), find(target.arch).ub)


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case on the twin; `y` is written."""
    from . import host

    try:
        return host.launch(
            tensors,
            precision=case.precision,
            config=config,
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses rope {case}: {error}") from None


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data."""
    from . import host

    if 0 in (case.sizes["T"], case.sizes["H"], case.sizes["D"]):
        return runner.empty_result(target.arch)
    return host.count(
        _launch(case),
        case.sizes["MAXPOS"],
        case.precision,
        config=config,
        soc=target.arch,
        lib_path=lib_path,
        **options,
    )


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    return "nothing: no timing of rope on a 910B is published"


def _launch(case: Case) -> planning.Launch:
    tokens, heads, channels, turned = (case.sizes[name] for name in ("T", "H", "D", "ROT"))
    dense = (heads * channels, channels)
    return planning.Launch(
        tokens, heads, channels, turned, dtype(case.precision).bytes, dense, dense, turned
    )
