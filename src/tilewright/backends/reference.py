"""The reference backend: the family's fp64 torch function, rounded to the output type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.backends.base import Backend, Cell, Launch, State
from tilewright.inputs import Inputs, make_outputs, reference_outputs

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.spec import Precision
    from tilewright.targets import Target


class Reference(Backend):
    """Slow, obvious, high precision; every other backend is compared with it."""

    name = "reference"

    def targets(self) -> tuple[str, ...]:
        return ("cpu",)

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        return self._cell(family, target, precision, State.RUN)

    def refuses(self, family: Family, case: Case, config: Config, target: Target) -> str | None:
        return None

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        outputs = make_outputs(family, case, inputs)

        def run() -> None:
            for name, value in reference_outputs(family, case, inputs).items():
                outputs[name].copy_(value)

        return Launch(run, outputs)
