"""Configs valued by the clock: the target is this machine's processor or a device that is present."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.autotune.checked import Checker
from tilewright.autotune.objective import Enter, Rounds
from tilewright.autotune.trials import Outcome, Stage
from tilewright.errors import CRASHES
from tilewright.evidence import Evidence
from tilewright.machine import usable_cores
from tilewright.perf import ceilings
from tilewright.perf.bench import Ceiling
from tilewright.perf.engine import Effort, batch_for, measure
from tilewright.perf.timers import Timer, settle, timer_of, undisturbed

if TYPE_CHECKING:
    from tilewright.backends.base import Backend, Launch
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target

# Screening: enough to rank; the best are timed again in interleaved rounds.
SCREEN = Effort(width=0.04, seconds=0.3, fewest=7, warmup_s=0.01)
_BLOCK_NS = 4e6
_KEPT_SAMPLES = 32


class MeasuredTime:
    """Median time of a call on warm caches, in us; the very launch that was checked is timed."""

    evidence = Evidence.MEASURED
    unit = "us"
    mode = "warm median"

    def __init__(
        self,
        family: Family,
        case: Case,
        target: Target,
        backend: Backend,
        seed: int = 0,
        threads: int = 0,
        screen: Effort = SCREEN,
        timer: Callable[[Launch], Timer] = timer_of,
    ) -> None:
        self.checker = Checker(family, case, target, backend, seed, threads)
        self.screen = screen
        self.timer = timer

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
            if failure:
                return failure
            stage = Stage.TIME
            with enter(stage):
                found = measure(self.timer(launch), self.screen)
            failure = self.checker.again(config, launch)
        except CRASHES as error:
            return Outcome.failed(stage, f"{type(error).__name__}: {error}")
        if failure:
            return failure
        if reason := self._impossible(found.median.value / 1e3):
            return Outcome.failed(stage, f"impossible: {reason}")
        return Outcome.ok(
            found.median.value / 1e3,
            [round(float(s) / 1e3, 4) for s in found.samples[:_KEPT_SAMPLES]],
            low=_finite(found.median.low / 1e3),
            high=_finite(found.median.high / 1e3),
            count=len(found.samples),
            clock=found.clock,
            quiet=found.disturbance.quiet,
        )

    @cached_property
    def _ceiling(self) -> Ceiling | None:
        """The machine's ceilings, if they were measured before: tuning does not wait for them."""
        known = self.checker.target.kind == "cpu" and ceilings.load() is not None
        return Ceiling() if known else None

    def _impossible(self, time_us: float) -> str | None:
        """Why no machine of this kind can be that fast; None if it can, or if that is not known."""
        if self._ceiling is None:
            return None
        c = self.checker
        _, reason = self._ceiling.judge(
            c.family.spec, c.case, time_us, c.threads or usable_cores(), False
        )
        return reason

    def rounds(self, configs: Sequence[Config], seconds: float, fewest: int) -> Rounds:
        timers: dict[int, Timer] = {}
        launches: dict[int, Launch] = {}
        failed: dict[int, str] = {}
        for i, config in enumerate(configs):
            try:
                launch, failure = self.checker.run(config)
            except CRASHES as error:
                failed[i] = f"{type(error).__name__}: {error}"
                continue
            if failure:
                failed[i] = failure.reason
                continue
            launches[i], timers[i] = launch, self.timer(launch)
        times = self._interleaved(timers, len(configs), seconds, fewest)
        for i, launch in launches.items():
            if late := self.checker.again(configs[i], launch):
                failed[i] = late.reason
        return Rounds(times, failed)

    def _interleaved(
        self, timers: Mapping[int, Timer], width: int, seconds: float, fewest: int
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Rounds of one block each way: the order of a round is there and back again, turned every round."""
        found: list[list[float]] = []
        if not timers:
            return np.full((0, width), np.nan)
        with undisturbed():
            calls = {i: float(np.median(t.sample(3, 1, 0))) for i, t in timers.items()}
            batches = {i: batch_for(calls[i], t.clock, False) for i, t in timers.items()}
            counts = {i: int(np.clip(_BLOCK_NS / (calls[i] * batches[i]), 2, 40)) for i in timers}
            end = time.monotonic() + seconds
            order = list(timers)
            while len(found) < fewest or time.monotonic() < end:
                blocks: dict[int, list[float]] = {i: [] for i in timers}
                for i in [*order, *reversed(order)]:
                    settle()
                    timers[i].once()
                    blocks[i].append(float(np.median(timers[i].sample(counts[i], batches[i], 0))))
                row = [float("nan")] * width
                for i, (there, back) in blocks.items():
                    row[i] = float(np.sqrt(there * back)) / 1e3
                found.append(row)
                order = order[1:] + order[:1]
        return np.array(found)

    def versions(self) -> Mapping[str, Any]:
        import torch

        found = {"torch": str(torch.__version__)}
        if self.checker.backend.name == "host":
            found |= _host_compiler()
        elif self.checker.backend.name == "triton":
            from tilewright.aot.compile import toolchain

            found["compiler"] = toolchain()
        return found


def _host_compiler() -> dict[str, str]:
    """The compiler as the library of built-in kernels names it in its .comment section; empty where there is none."""
    from tilewright.native import library_paths

    path = library_paths().get("host")
    content = path.read_bytes() if path else b""
    named = re.search(rb"(?:GCC: \([^)\x00]*\) [\d.]+|clang version [\d.]+)", content)
    return {"compiler": named.group().decode("ascii", "replace")} if named else {}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
