"""What the ascendc backend asks of a family whose kernel runs on vector cores alone; adapters import these as they are."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.cases import Case
from tilewright.dtypes import dtype
from tilewright.targets import Target

from ..twin.bounds import Bound, bound
from ..twin.runner import TwinResult
from ._kv.planning import VECTOR_CORES


def compute(case: Case) -> str:
    """The type of the floats of a case: `bf16` of `bf16-c8s`."""
    return case.precision.split("-")[0]


def floor(
    case: Case, config: Mapping[str, int], target: Target, result: TwinResult, cores: int
) -> Bound:
    """The lower bound on the launch's time that its instructions imply; `cores` are cube cores."""
    return bound(result, dtype(compute(case)).bytes, VECTOR_CORES * cores)


def on_cores(
    case: Case, config: Mapping[str, int], target: Target, cores: int
) -> Mapping[str, int]:
    """The config on the vector cores of at most `cores` cube cores."""
    return {**config, "cores": VECTOR_CORES * cores}
