"""Configs valued by the clock: the target is this machine's processor or a device that is present."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.autotune.trials import LEVEL, Outcome, Stage
from tilewright.autotune.valuing.checked import Checker, Staged
from tilewright.autotune.valuing.gate import Facts, Gate
from tilewright.autotune.valuing.objective import Enter
from tilewright.autotune.valuing.screening import Noise, Screened, screen
from tilewright.autotune.valuing.sentinel import Sentinel
from tilewright.autotune.valuing.several import BYTES, MEMORY, SIZE, growth_of, peak_known
from tilewright.errors import CRASHES
from tilewright.evidence import Evidence
from tilewright.machine import usable_cores
from tilewright.perf import ceilings
from tilewright.perf.bench import Ceiling
from tilewright.perf.engine import Effort, Turns, batch_for
from tilewright.perf.machine_state import Watch
from tilewright.perf.timers import Timer, timer_of, undisturbed

if TYPE_CHECKING:
    import numpy.typing as npt

    from tilewright.backends.base import Backend, Launch
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target

# One repeat of screening, and one block of a round; never less than one call.
_REPEAT_NS = 8e6
_BLOCK_NS = 4e6
_WARM_UP_S = 0.02
# Times that a config is measured again because the machine changed meanwhile.
_MOST_AGAIN = 2
# A longer call needs no more than one look to be known.
_LONG_CALL_NS = 5e6


class MeasuredTime(Staged):
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
        timer: Callable[[Launch], Timer] = timer_of,
    ) -> None:
        self.checker = Checker(family, case, target, backend, seed, threads)
        self.timer = timer
        self.gate = Gate(
            target,
            family.spec.default_config(target),
            family.spec.config_for(case, target),
            timed=target.is_gpu,
        )
        self._weighs = False
        self._noise = Noise()
        self._best: float | None = None
        self._reference: Launch | None = None

    def _evaluate(self, config: Config, enter: Enter) -> Outcome:
        stage = Stage.GATE
        try:
            with enter(stage):
                reason = self.checker.refusal(config)
                facts, sizes = (None, {}) if reason else self._compiled(config)
            reason = reason or (self.gate.judge(config, facts) if facts else "")
            known = facts.details() if facts else {}
            if reason:
                return Outcome.failed(stage, reason, **known)
            stage = Stage.CHECK
            with enter(stage):
                launch, failure = self.checker.run(config)
            if failure:
                return failure
            stage = Stage.TIME
            with enter(stage):
                if self._weighs:
                    sizes = {BYTES[MEMORY]: growth_of(launch.run)}
                watch, timer = Watch(), self.timer(launch)
                with undisturbed():
                    found, doubts = self._screened(config, Block(timer))
            failure = self.checker.again(config, launch)
        except CRASHES as error:
            return Outcome.failed(stage, f"{type(error).__name__}: {error}")
        if failure:
            return failure
        if reason := self._impossible(found.value):
            return Outcome.failed(stage, f"impossible: {reason}")
        self._best = min(found.value, self._best or found.value)
        return Outcome.ok(
            found.value,
            [round(s, 4) for s in found.repeats],
            low=found.value * math.exp(-found.reach),
            high=found.value * math.exp(found.reach),
            count=len(found.counted),
            warm=found.warm,
            clock=timer.clock,
            quiet=watch.read().quiet,
            **doubts,
            **known,
            **sizes,
        )

    def _compiled(self, config: Config) -> tuple[Facts | None, dict[str, int]]:
        """Facts and sizes of the binary that a GPU will run; nothing of a processor's kernels, which are built whole."""
        c = self.checker
        if not c.target.is_gpu or c.backend.name != "triton":
            return None, {}
        from tilewright.aot import compile_config

        module = c.family.module("triton")
        found = compile_config(
            *(module, c.case.precision, c.case.flags, config, c.target.name), sizes=c.case.sizes
        )
        taken = found.shared_bytes + found.spill_bytes * found.threads
        return Facts.of_binary(found), {BYTES[SIZE]: len(found.binary), BYTES[MEMORY]: taken}

    def sizes(self, wanted: Sequence[str]) -> Mapping[str, Evidence | str]:
        if self.checker.target.kind != "cpu":
            if self.checker.backend.name == "triton":
                return {MEMORY: Evidence.COMPILED, SIZE: Evidence.COMPILED}
            why = f"the {self.checker.backend.name} backend does not say what its binaries take"
            return {MEMORY: why, SIZE: why}
        self._weighs = MEMORY in wanted and not peak_known()
        return {
            MEMORY: peak_known() or Evidence.MEASURED,
            SIZE: "the kernels of all configs are one library on a processor",
        }

    def _screened(self, config: Config, block: Block) -> tuple[Screened, dict[str, Any]]:
        """Screen until the reference before and after says that the machine was the same, a few times at most.

        What was disturbed goes into the details, with the word and what the reference took.
        """
        doubts: dict[str, Any] = {}
        watch = self.sentinel
        if watch is not None:
            watch.begin()
        while True:
            found = screen(block.repeat, self._noise, self._best)
            if watch is None:
                return found, doubts
            watch.measured(config)
            look = watch.look()
            if look.steady:
                return found, doubts | self._level(watch)
            spells = doubts.setdefault("disturbed", [])
            spells.append({"repeats_us": list(found.repeats), "reference": round(look.ratio, 4)})
            if len(spells) > _MOST_AGAIN:
                doubts["unsteady"] = True
                return found, doubts | self._level(watch)
            watch.settle()

    @staticmethod
    def _level(watch: Sentinel) -> dict[str, float]:
        """How far the machine as a whole has moved since the first trial, where that is more than noise."""
        moved = abs(math.log(watch.shift)) > watch.tolerance
        return {LEVEL: round(watch.shift, 4)} if moved else {}

    @cached_property
    def sentinel(self) -> Sentinel | None:
        """Watches the machine by the default config; None where that does not work."""
        c = self.checker
        try:
            launch, failure = c.run(c.family.spec.default_config(c.target), hard=False)
        except CRASHES:
            return None
        if failure:
            return None
        # A timer knows the addresses of the outputs and does not keep them.
        self._reference = launch
        return Sentinel(Block(self.timer(launch), _BLOCK_NS).repeat)

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

    @contextmanager
    def side_by_side(self, configs: Sequence[Config]) -> Iterator[Interleaved]:
        """Prepare, check and time all of them in turns; what each left is checked again at the end."""
        launches: dict[int, Launch] = {}
        failed: dict[int, str] = {}
        for i, config in enumerate(configs):
            try:
                launch, failure = self.checker.run(config, hard=False)
            except CRASHES as error:
                failed[i] = f"{type(error).__name__}: {error}"
                continue
            if failure:
                failed[i] = failure.reason
            else:
                launches[i] = launch
        with undisturbed():
            timers = {i: self.timer(launch) for i, launch in launches.items()}
            yield Interleaved(timers, len(configs), failed)
        for i, launch in launches.items():
            if late := self.checker.again(configs[i], launch):
                failed[i] = late.reason

    def versions(self) -> Mapping[str, Any]:
        import torch

        found = {"torch": str(torch.__version__)}
        if self.checker.backend.name == "host":
            found |= _host_compiler()
        elif self.checker.backend.name == "triton":
            from tilewright.aot.compile import toolchain

            found["compiler"] = toolchain()
        return found


class Block:
    """Repeats of one call that take about as long as each other, whatever the call takes."""

    def __init__(self, timer: Timer, lasting_ns: float = _REPEAT_NS) -> None:
        self._timer = timer
        call_ns = max(1.0, float(timer.sample(1, 1, 0)[0]))
        if call_ns < _LONG_CALL_NS:
            call_ns = max(1.0, float(np.median(timer.sample(3, 1, 0))))
        self._batch = batch_for(call_ns, timer.clock, False)
        self._count = int(np.clip(lasting_ns / (call_ns * self._batch), 1, 40))

    def repeat(self) -> float:
        """Median of its samples, us a call."""
        return float(np.median(self._timer.sample(self._count, self._batch, 0))) / 1e3


class Interleaved:
    """Rounds of all configs still in the race, by the engine that `bench` and `gate` time with."""

    def __init__(self, timers: Mapping[int, Timer], count: int, failed: dict[int, str]) -> None:
        self.failed = failed
        self._places, self._count = list(timers), count
        effort = Effort(warmup_s=_WARM_UP_S)
        self._turns = Turns([timers[i] for i in self._places], effort, block_ns=_BLOCK_NS)

    def round(self, alive: Sequence[int]) -> npt.NDArray[np.float64]:
        """Times in us."""
        good = [p for p, i in enumerate(self._places) if i in alive and i not in self.failed]
        row = np.full(self._count, np.nan)
        row[self._places] = np.exp(self._turns.round(good)) / 1e3
        return row


def _host_compiler() -> dict[str, str]:
    """The compiler as the library of built-in kernels names it in its .comment section; empty where there is none."""
    from tilewright.native import library_paths

    path = library_paths().get("host")
    content = path.read_bytes() if path else b""
    named = re.search(rb"(?:GCC: \([^)\x00]*\) [\d.]+|clang version [\d.]+)", content)
    return {"compiler": named.group().decode("ascii", "replace")} if named else {}
