"""What a cheating kernel is given, and the backend that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from tilewright.backends import Backend, Cell, Launch, State
from tilewright.cases import Case
from tilewright.inputs import Inputs, empty_outputs
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.spec import Precision
from tilewright.targets import Target


@dataclass
class Stage:
    """What a kernel works on. `run` counts its calls in `calls`; `kept` outlives the launch."""

    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor
    outputs: dict[str, Any]
    kept: dict[Any, Any]
    calls: int = 0

    def work(self) -> None:
        torch.mm(self.a, self.b, out=self.c)

    def slow_work(self) -> None:
        """The same sum in 100 steps: a kernel whose answers are worth remembering."""
        for _ in range(100):
            torch.mm(self.a, self.b, out=self.c)


Run = Callable[[], None]
Install = Callable[[Stage], Run]


@dataclass
class Cheater(Backend):
    """A backend that runs what `install` makes; `undo` repairs the process after it."""

    install: Install
    name: str = "cheater"
    undo: Callable[[], None] = lambda: None
    kept: dict[Any, Any] = field(default_factory=dict)

    def targets(self) -> tuple[str, ...]:
        return ("cpu",)

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        return Cell(family.name, self.name, target.name, precision.name, State.RUN)

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
        outputs: dict[str, Any] = empty_outputs(family, case)
        a, b = inputs.logical["a"], inputs.logical["b"]
        assert a is not None and b is not None
        stage = Stage(a, b, outputs["c"], outputs, self.kept)
        inner = self.install(stage)

        def run() -> None:
            stage.calls += 1
            inner()

        return Launch(run, stage.outputs)
