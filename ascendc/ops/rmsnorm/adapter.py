"""What the ascendc backend asks of a family, answered for rmsnorm."""

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
    return planning.too_wide(_launch(case), find(target.arch).ub)


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case on the twin; `y` and `h` are written."""
    from . import host

    try:
        return host.launch(
            tensors,
            eps=case.number("eps"),
            precision=case.precision,
            config=config,
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses rmsnorm {case}: {error}") from None


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data."""
    from . import host

    if 0 in (case.sizes["T"], case.sizes["D"]):
        return runner.empty_result(target.arch)
    return host.count(
        _launch(case), case.precision, config=config, soc=target.arch, lib_path=lib_path, **options
    )


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    return "nothing: no timing of rmsnorm on a 910B is published"


def _launch(case: Case) -> planning.Launch:
    rows, cols = case.sizes["T"], case.sizes["D"]
    return planning.Launch(
        *(rows, cols, dtype(case.precision).bytes),
        *(case.flags["residual"] == "yes", case.number("eps")),
        *(cols, cols, cols, cols),
    )
