"""The modelled time of a family's AscendC kernel, through its adapter.

An adapter needs nothing for it but `count`. It may have `representatives(case, config, target)` (the
blocks that stand for all, and for how many), `on_cores(case, config, target, cores)` (the config on
fewer cores) and `validated_by(case, config)` (what published timings stand behind it).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright import native
from tilewright.backends.ascendc import AscendC, kernel_library
from tilewright.errors import Refused

from . import model
from .runner import TwinResult

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target


def predict(
    family: Family,
    case: Case,
    config: Config,
    target: Target,
    *,
    cores: int | None = None,
    trace: Path | None = None,
    trace_events: int = 0,
    threads: int = 0,
) -> model.Prediction:
    """The time of the kernel on at most ``cores`` cores.

    ``trace`` receives a Chrome trace of at most ``trace_events`` instructions of each core (0: as
    many as the model keeps). Raises Refused for a case that the kernel does not do.
    """
    backend = AscendC()
    reason = backend.refuses(family, case, config, target)
    if reason:
        raise Refused(f"ascendc refuses {family.name} {case}: {reason}")
    adapter = backend.adapter(family)
    chosen: Mapping[str, int] = config
    if cores is not None:
        limit = getattr(adapter, "on_cores", None)
        if limit is None:
            raise Refused(f"{family.name}'s adapter has no on_cores, it takes no --cores")
        chosen = limit(case, config, target, cores)
    stand = getattr(adapter, "representatives", None)
    twin, kernels = native.library("twin"), kernel_library(family)

    def run() -> TwinResult:
        result: TwinResult = adapter.count(
            case, chosen, target, twin, kernel_library=kernels, threads=threads, trace=None
        )
        return result

    return model.predict(
        twin,
        run,
        blocks=stand(case, chosen, target) if stand else None,
        trace=trace,
        trace_events=trace_events or model.TRACE_EVENTS,
    )


def validated_by(family: Family, case: Case, config: Config) -> str:
    """What published timings stand behind ``predict`` for this case."""
    says = getattr(AscendC.adapter(family), "validated_by", None)
    return str(says(case, config)) if says else "nothing published"
