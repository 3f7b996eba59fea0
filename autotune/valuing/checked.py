"""Checking one config: the stages that come before any value."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright import adversarial
from tilewright.autotune.trials import SPENT, Outcome, Stage
from tilewright.autotune.valuing.objective import Enter
from tilewright.check import Job
from tilewright.inputs import Inputs, draw_typical
from tilewright.numerics import Comparison
from tilewright.perf.gate import Expected, poison

if TYPE_CHECKING:
    from tilewright.backends.base import Backend, Launch
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target


@dataclass(frozen=True)
class Checker:
    """One draw of inputs with its reference and some hard ones, and the launches that are compared with them."""

    family: Family
    case: Case
    target: Target
    backend: Backend
    seed: int
    threads: int = 0

    @cached_property
    def inputs(self) -> Inputs:
        return draw_typical(self.family, self.case, self.seed)

    @cached_property
    def expected(self) -> Expected:
        return Expected.of(self.family, self.case, self.inputs, self.backend)

    def refusal(self, config: Config) -> str | None:
        """Why the backend does not do this config."""
        return self.backend.refuses(self.family, self.case, config, self.target)

    @cached_property
    def hard(self) -> tuple[tuple[str, Inputs, Expected], ...]:
        """Draws made to catch wrong kernels, with their references: drawn once, used for every config."""
        found = []
        for name in adversarial.names(self.family, self.case):
            inputs = adversarial.draw_adversarial(self.family, self.case, name, self.seed)
            expected = Expected.of(self.family, self.case, inputs, self.backend)
            found.append((name, inputs, expected))
        return tuple(found)

    def prepare(self, config: Config, inputs: Inputs) -> Launch:
        return self.backend.prepare(
            self.family, self.case, inputs, config, self.target, self.threads
        )

    def wrong(
        self,
        config: Config,
        launch: Launch,
        when: str = "",
        inputs: Inputs | None = None,
        expected: Expected | None = None,
    ) -> Outcome | None:
        """A failed outcome if what the launch left is wrong; leaves the file that replays the failure."""
        verdict = (expected or self.expected).judge(launch.outputs)
        findings = launch.details.get("findings") or []
        reason = verdict.reason or (
            f"{len(findings)} findings, the first: {findings[0]}" if findings else ""
        )
        if not reason:
            return None
        from tilewright.replay import command

        path = self._save(config, launch, verdict, inputs or self.inputs)
        return Outcome.failed(
            Stage.CHECK,
            when + reason,
            failure=str(path),
            replay=command(path),
            seed=self.seed,
        )

    def run(self, config: Config, hard: bool = True) -> tuple[Launch, Outcome | None]:
        """Prepare, run once on poisoned outputs, compare; with `hard` on the adversarial draws too.

        The launch is that of the random draw.
        """
        launch = self._once(self.prepare(config, self.inputs), self.inputs)
        failure = self.wrong(config, launch)
        for name, inputs, expected in self.hard if hard and not failure else ():
            other = self._once(self.prepare(config, inputs), inputs)
            when = f"right on normal inputs and wrong on '{name}' ones: "
            failure = self.wrong(config, other, when, inputs, expected)
            if failure:
                break
        return launch, failure

    def again(self, config: Config, launch: Launch) -> Outcome | None:
        """Run once more on poisoned outputs after timing: a kernel that stopped working is caught."""
        when = "right before timing and wrong after it: "
        return self.wrong(config, self._once(launch, self.inputs), when)

    @staticmethod
    def _once(launch: Launch, inputs: Inputs) -> Launch:
        poison(launch.outputs, inputs)
        launch.run()
        return launch

    def _save(self, config: Config, launch: Launch, verdict: Comparison, inputs: Inputs) -> Path:
        from tilewright.replay import save

        job = Job(
            self.family, self.backend, self.target, self.case, config, self.seed, self.threads
        )
        outputs: dict[str, Any] = {k: v.detach().cpu() for k, v in launch.outputs.items()}
        return save(job, inputs, outputs, verdict, None, keep_inputs=not inputs.drawn)


@dataclass(frozen=True)
class SmallChecks:
    """Checks on cases of the spec that a slow way of computing outputs does quickly, for a case that it does not.

    They have the flags and precision of the case; the first that takes a config is used.
    """

    family: Family
    case: Case
    most_flops: float
    make: Callable[[Case], Checker]
    backend: Backend
    target: Target
    _checkers: dict[str, Checker] = field(default_factory=dict)

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """Those that are large in every size first, then by work; the case itself where there is no other."""
        spec, case = self.family.spec, self.case
        own = spec.check_cases(spec.precision(case.precision), self.backend.name)
        cases = [spec.case(c.sizes, case.precision, case.flags) for c in own]
        quick = {str(c): c for c in [*cases, case] if 0 < spec.flops_of(c) <= self.most_flops}
        thick = sorted(
            quick.values(), key=lambda c: (min(c.sizes.values()), spec.flops_of(c)), reverse=True
        )
        return tuple(thick) or (case,)

    def checker(self, config: Config) -> Checker:
        """That of the first case that takes the config, or of the tuned case itself."""
        taken = (
            c
            for c in self.cases
            if self.backend.refuses(self.family, c, config, self.target) is None
        )
        case = next(taken, self.case)
        if str(case) not in self._checkers:
            self._checkers[str(case)] = self.make(case)
        return self._checkers[str(case)]

    def run(self, config: Config) -> tuple[Launch, Outcome | None]:
        return self.checker(config).run(config)


class Staged:
    """An objective that notes in each outcome's details how long its stages took, compilation among them."""

    def evaluate(self, config: Config, enter: Enter) -> Outcome:
        spent: dict[str, float] = {}

        @contextmanager
        def timed(stage: Stage) -> Iterator[None]:
            with enter(stage):
                began = time.monotonic()
                try:
                    yield
                finally:
                    spent[str(stage)] = round(time.monotonic() - began, 4)

        found = self._evaluate(config, timed)
        return replace(found, details={**found.details, SPENT: spent})

    def _evaluate(self, config: Config, enter: Enter) -> Outcome:
        raise NotImplementedError
