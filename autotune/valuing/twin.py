"""Configs valued by the cycle model of the AscendC twin: a model, labelled so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tilewright.autotune.trials import Outcome, Stage, State
from tilewright.autotune.valuing.checked import Checker, SmallChecks, Staged
from tilewright.autotune.valuing.gate import Facts, Gate
from tilewright.autotune.valuing.objective import Enter, NoObjective
from tilewright.autotune.valuing.several import BYTES, MEMORY, SIZE
from tilewright.errors import CRASHES
from tilewright.evidence import Evidence

if TYPE_CHECKING:
    from tilewright.backends.base import Backend
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target

# A functional run of the twin of this many operations takes some hundredths of a second.
_CHECK_FLOPS = 3.0e6


class Modelled(Protocol):
    """What the cycle model says of a launch."""

    @property
    def predicted_us(self) -> float: ...
    @property
    def cycles(self) -> float: ...
    @property
    def bound_by(self) -> str: ...
    @property
    def findings(self) -> int: ...
    @property
    def peak(self) -> Mapping[str, int]: ...


class TwinTime(Staged):
    """The modelled time of the whole launch, in us. Deterministic, modelled.

    Instructions are issued without data for it, so that large cases take milliseconds; outputs are checked
    by functional runs of the twin on a small case with the same flags. `model` values a config.
    """

    evidence = Evidence.MODELLED
    unit = "us"
    mode = "cycle model of the twin"

    def __init__(
        self,
        family: Family,
        case: Case,
        target: Target,
        backend: Backend,
        seed: int = 0,
        model: Callable[[Config], Modelled] | None = None,
    ) -> None:
        self.family, self.case, self.target, self.backend = family, case, target, backend
        self.gate = Gate(
            target, family.spec.default_config(target), family.spec.config_for(case, target)
        )
        self.small = SmallChecks(
            family,
            case,
            _CHECK_FLOPS,
            lambda small: Checker(family, small, target, backend, seed),
            backend,
            target,
        )
        self.model = model or self._predict

    def _evaluate(self, config: Config, enter: Enter) -> Outcome:
        stage = Stage.GATE
        try:
            with enter(stage):
                reason = self.backend.refuses(self.family, self.case, config, self.target)
                found = None if reason else self.model(config)
            if found is None:
                return Outcome.failed(stage, reason or "")
            facts = Facts.of_twin(found.peak, self.target)
            if found.findings:
                reason = f"{found.findings} findings of the twin on the tuned case"
            if reason := reason or self.gate.judge(config, facts):
                return Outcome.failed(stage, reason, **facts.details())
            stage = Stage.CHECK
            with enter(stage):
                _, failure = self.small.run(config)
        except NoObjective:
            raise
        except CRASHES as error:
            return Outcome.failed(stage, f"{type(error).__name__}: {error}")
        if failure:
            return failure
        details = {
            "cycles": found.cycles,
            "bound_by": found.bound_by,
            **facts.details(),
            BYTES[MEMORY]: sum(facts.peaks.values()),
        }
        return Outcome(State.OK, Stage.TIME, found.predicted_us, details=details)

    def sizes(self, wanted: Sequence[str]) -> Mapping[str, Evidence | str]:
        return {
            MEMORY: Evidence.MODELLED,
            SIZE: "AscendC kernels have no binary here, since their compiler is part of CANN",
        }

    def versions(self) -> Mapping[str, Any]:
        return {"mhz": self.target.limit("mhz"), "checked_on": f"twin, {self.small.cases[0]}"}

    def _predict(self, config: Config) -> Modelled:
        from tilewright.ascendc.twin import model_family
        from tilewright.backends.ascendc import AscendC

        if not hasattr(AscendC.adapter(self.family), "count"):
            raise NoObjective(
                f"{self.family.name} cannot be tuned on {self.target.name} here: its AscendC adapter "
                "has no count, which the cycle model needs, and there is no device"
            )
        return model_family.predict(self.family, self.case, config, self.target)
