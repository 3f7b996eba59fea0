"""Checking one config: the stages that come before any value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.autotune.trials import Outcome, Stage
from tilewright.check import Job
from tilewright.inputs import Inputs, draw
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
    """One draw of inputs with its reference, and the launches that are compared with it."""

    family: Family
    case: Case
    target: Target
    backend: Backend
    seed: int
    threads: int = 0

    @cached_property
    def inputs(self) -> Inputs:
        return draw(self.family, self.case, self.seed)

    @cached_property
    def expected(self) -> Expected:
        return Expected.of(self.family, self.case, self.inputs, self.backend)

    def refusal(self, config: Config) -> str | None:
        """Why the backend does not do this config."""
        return self.backend.refuses(self.family, self.case, config, self.target)

    def prepare(self, config: Config) -> Launch:
        return self.backend.prepare(
            self.family, self.case, self.inputs, config, self.target, self.threads
        )

    def wrong(self, config: Config, launch: Launch, after_timing: bool = False) -> Outcome | None:
        """A failed outcome if what the launch left is wrong; leaves the file that replays the failure."""
        verdict = self.expected.judge(launch.outputs)
        findings = launch.details.get("findings") or []
        reason = verdict.reason or (
            f"{len(findings)} findings, the first: {findings[0]}" if findings else ""
        )
        if not reason:
            return None
        from tilewright.replay import command

        when = "right before timing and wrong after it: " if after_timing else ""
        path = self._save(config, launch, verdict)
        return Outcome.failed(
            Stage.CHECK,
            when + reason,
            failure=str(path),
            replay=command(path),
            seed=self.seed,
        )

    def run(self, config: Config) -> tuple[Launch, Outcome | None]:
        """Prepare, run once on poisoned outputs, compare."""
        launch = self.prepare(config)
        poison(launch.outputs)
        launch.run()
        return launch, self.wrong(config, launch)

    def again(self, config: Config, launch: Launch) -> Outcome | None:
        """Run once more on poisoned outputs after timing: a kernel that stopped working is caught."""
        poison(launch.outputs)
        launch.run()
        return self.wrong(config, launch, after_timing=True)

    def _save(self, config: Config, launch: Launch, verdict: Comparison) -> Path:
        from tilewright.replay import save

        job = Job(
            self.family, self.backend, self.target, self.case, config, self.seed, self.threads
        )
        outputs: dict[str, Any] = {k: v.detach().cpu() for k, v in launch.outputs.items()}
        return save(job, self.inputs, outputs, verdict, None, keep_inputs=False)
