"""Configs valued by the cycles of the AscendC twin: a model, labelled so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tilewright.autotune.checked import Checker
from tilewright.autotune.objective import Enter, NoObjective
from tilewright.autotune.trials import FLOOR, Outcome, Stage, State
from tilewright.errors import CRASHES
from tilewright.evidence import Evidence

if TYPE_CHECKING:
    from tilewright.backends.base import Backend
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target


class TwinTime:
    """Cycles of a twin run over the clock of the target, in us. Deterministic, modelled.

    Where the twin gives a floor instead of a schedule the values are marked so, and decide nothing.
    """

    evidence = Evidence.MODELLED
    unit = "us"
    mode = "twin cycles"

    def __init__(
        self, family: Family, case: Case, target: Target, backend: Backend, seed: int = 0
    ) -> None:
        self.checker = Checker(family, case, target, backend, seed)
        self.mhz = target.limit("mhz")
        self.target = target

    def evaluate(self, config: Config, enter: Enter) -> Outcome:
        stage = Stage.GATE
        try:
            with enter(stage):
                reason = self.checker.refusal(config)
            if reason:
                return Outcome.failed(stage, reason)
            stage = Stage.CHECK
            with enter(stage):
                launch, failure = self.checker.run(config)
        except NoObjective:
            raise
        except CRASHES as error:
            return Outcome.failed(stage, f"{type(error).__name__}: {error}")
        if failure:
            return failure
        cycles = launch.details.get("cycles")
        if not cycles:
            raise NoObjective(
                f"{self.target.name} cannot be tuned here: the twin's run reports no cycles, and there is no device"
            )
        details = {"cycles": cycles, FLOOR: "floor" in launch.details}
        return Outcome(State.OK, Stage.TIME, float(cycles) / self.mhz, details=details)

    def versions(self) -> Mapping[str, Any]:
        return {"mhz": self.mhz}
