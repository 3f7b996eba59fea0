"""The ascendc backend: AscendC kernels on the host twin of the 910B.

A family's AscendC folder has an `adapter.py` with `refuses(case, config, target)`, `launch(tensors,
case, config, target, lib_path, ...)`, `count(case, config, target, lib_path, ...)` (the same without
data), `floor(case, config, target, result, cores)` and, where the hardware's arithmetic adds an error of its own,
`added_error(case)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from tilewright.backends.base import Backend, Cell, Launch, State
from tilewright.errors import Refused
from tilewright.evidence import Evidence
from tilewright.inputs import Inputs, empty_outputs
from tilewright.targets import ALL

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.spec import Precision
    from tilewright.targets import Target


class TwinRun(Protocol):
    """What a run of the twin leaves behind."""

    @property
    def ok(self) -> bool: ...
    @property
    def findings(self) -> Sequence[object]: ...
    @property
    def peak(self) -> Mapping[str, int]: ...
    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]: ...
    @property
    def blocks(self) -> int: ...


class Floor(Protocol):
    """A lower bound on time, in cycles: per pipe and of the busiest one."""

    @property
    def cycles(self) -> float: ...
    @property
    def pipes(self) -> Mapping[str, float]: ...
    @property
    def bound_by(self) -> str: ...
    def microseconds(self, mhz: int) -> float: ...


class AscendC(Backend):
    """Outputs are computed by the twin; nothing about time is measured."""

    name = "ascendc"
    evidence = Evidence.MODELLED
    check_flops = 1.0e9

    def targets(self) -> tuple[str, ...]:
        return tuple(name for name, target in ALL.items() if target.kind == "ascend")

    @staticmethod
    def adapter(family: Family) -> ModuleType:
        """The family's own module (see above)."""
        return importlib.import_module(f"{family.ascendc_package}.adapter")

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        from tilewright import native

        if not (family.ascendc_folder / "adapter.py").is_file():
            reason = "the family has no AscendC kernel"
            return self._cell(family, target, precision, State.ABSENT, reason)
        if "twin" not in native.library_paths():
            reason = "libtilewright_twin.so is not built; run `make setup`"
            return self._cell(family, target, precision, State.ABSENT, reason)
        reason = ""
        for flags in family.spec.flag_combinations(precision, self.name):
            reason = self._cell_reason(family, target, precision, flags) or ""
            if not reason:
                break
        if reason:
            return self._cell(family, target, precision, State.ABSENT, reason)
        return self._cell(
            family, target, precision, State.TWIN, "runs on the host twin; no time is measured"
        )

    def _cell_reason(
        self, family: Family, target: Target, precision: Precision, flags: dict[str, str]
    ) -> str | None:
        sizes = dict.fromkeys(family.spec.dim_names(), 1)
        case = family.spec.case(sizes, precision.name, flags)
        return self.refuses(family, case, family.spec.default_config(target), target)

    def refuses(self, family: Family, case: Case, config: Config, target: Target) -> str | None:
        reason = super().refuses(family, case, config, target)
        if reason:
            return reason
        found: str | None = self.adapter(family).refuses(case, config, target)
        return found

    def added_error(self, family: Family, case: Case) -> float:
        function = getattr(self.adapter(family), "added_error", None)
        return float(function(case)) if function else 0.0

    def bound(
        self,
        family: Family,
        case: Case,
        config: Config,
        target: Target,
        result: TwinRun,
        cores: int | None = None,
    ) -> Floor:
        """The floor on the launch's time that follows from its instructions."""
        found: Floor = self.adapter(family).floor(
            case, config, target, result, cores or target.limit("aic_cores")
        )
        return found

    def model(
        self,
        family: Family,
        case: Case,
        config: Config,
        target: Target,
        threads: int = 0,
        trace: Path | None = None,
    ) -> tuple[TwinRun, Floor]:
        """Issue the instructions without data; what they are, and the floor they imply."""
        from tilewright import native

        reason = self.refuses(family, case, config, target)
        if reason:
            raise Refused(f"ascendc refuses {family.name} {case}: {reason}")
        result = self.adapter(family).count(
            case, config, target, native.library("twin"), threads=threads, trace=trace
        )
        return result, self.bound(family, case, config, target, result)

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
        trace: Path | None = None,
    ) -> Launch:
        from tilewright import native

        reason = self.refuses(family, case, config, target)
        if reason:
            raise Refused(f"ascendc refuses {family.name} {case}: {reason}")
        outputs = empty_outputs(family, case)
        tensors = {**inputs.physical, **outputs}
        library = native.library("twin")
        adapter = self.adapter(family)
        details: dict[str, Any] = {}

        def run() -> None:
            result = adapter.launch(
                tensors, case, config, target, library, threads=threads, trace=trace
            )
            floor = self.bound(family, case, config, target, result)
            details.update(
                findings=[str(f) for f in result.findings],
                peak=dict(result.peak),
                result=result,
                cycles=floor.cycles,
                floor=floor,
            )

        return Launch(run, outputs, details)
