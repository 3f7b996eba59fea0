"""The measuring side of a gate: both builds' kernels in this one process, on the same memory, in turns.

Each build is a shared library with its own state; both are loaded as copies under new names, so that
even equal files are loaded twice. Inputs and outputs are shared: a difference of their addresses
cannot look like a difference of the code. Every pass loads new copies and draws new memory.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilewright import native
from tilewright.backends.host import view as tensor_view
from tilewright.cases import Case
from tilewright.errors import BuildFailed, CheckFailed, Unavailable
from tilewright.inputs import Inputs, draw_typical, make_outputs
from tilewright.numerics import Comparison
from tilewright.perf.engine import Effort, Rounds, measure_rounds
from tilewright.perf.gate import Expected, poison, require
from tilewright.perf.regression import describe
from tilewright.perf.regression.builds import Side, view
from tilewright.perf.regression.decide import Look
from tilewright.perf.timers import NativeTimer, RunTimer, Timer
from tilewright.registry import Family

# Others only ever make a call longer, and how long depends on them: the lowest tenth of the samples is what the code
# does. On a machine whose two cores that others used, passes of it scattered by 0.4 to 1 %, their medians by 1 to 5 %.
QUANTILE = 0.1
# Single samples in turns: both sides see the same states of a machine whose state changes every few milliseconds.
# Calls with threads take several samples in a row, since the sides' threads have to come to rest in between.
_BLOCK_NS = 2e6
_WARMUP_S = 0.005
_FEWEST_QUADS = 16
_MOST_QUADS = 80
BASE, NEW = 0, 1


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: a case of a family on the host backend with a thread count."""

    family: Family
    case: Case
    threads: int
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """As `describe` takes it."""
        return {
            "family": self.family.name,
            "sizes": dict(self.case.sizes),
            "precision": self.case.precision,
            "flags": dict(self.case.flags),
            "memory": self.case.memory,
            "seed": self.seed,
        }

    @property
    def who(self) -> str:
        return f"{self.family.name} on host ({self.case.precision}, {self.case}, {self.threads} threads)"


Call = Mapping[str, Any]


def calls_of(side: Side, benchmarks: Sequence[Benchmark], own: bool = False) -> list[Call]:
    """What a side hands its kernels, by its own Python; raises Unavailable when that cannot be asked.

    `own`: the side is this very package, so nothing has to be started.
    """
    asked = [b.as_dict() for b in benchmarks]
    if own:
        return [describe.call(a) for a in asked]
    # -S keeps this environment's editable install of the package out; its libraries stay reachable.
    path = os.pathsep.join(
        [
            str(view(side.sources)),
            *dict.fromkeys(sysconfig.get_paths()[k] for k in ("purelib", "platlib")),
        ]
    )
    done = subprocess.run(
        [sys.executable, "-S", describe.__file__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        found: list[Call] = json.loads(done.stdout)
    except json.JSONDecodeError:
        words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Unavailable(
            f"the Python package of {side.name} cannot say how it calls its kernels: {words}"
        ) from None
    return found


def mismatch(base: Call, new: Call) -> str | None:
    """Why the calls of two sides cannot be compared on the same memory; None if they can."""
    for name, one in (("base", base), ("new", new)):
        if "reason" in one:
            return f"{name} does not do this benchmark: {one['reason']}"
    for what in ("inputs", "outputs"):
        if base[what] != new[what]:
            return (
                f"the two revisions make different {what} for this benchmark, so times say nothing"
            )
    return None


class Libraries:
    """Copies of both sides' kernels, loaded under names of their own and deleted once they are mapped."""

    def __init__(self, sides: Sequence[Side]) -> None:
        self._sides = sides
        self._paths: list[str] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def refresh(self, attempt: int) -> None:
        """Load both once more, the base first in even passes and last in odd ones."""
        self.close()
        self._folder = tempfile.TemporaryDirectory(prefix="tilewright-gate-")
        self._paths = [str(Path(self._folder.name) / f"{i}.so") for i in (BASE, NEW)]
        for i in (BASE, NEW) if attempt % 2 == 0 else (NEW, BASE):
            shutil.copyfile(self._sides[i].library, self._paths[i])
            native.module().load_library(self._paths[i])

    def function(self, side: int, family: str) -> int:
        """The address of a family's kernel."""
        return int(native.module().symbol(self._paths[side], f"tw_host_{family}"))

    def close(self) -> None:
        """The files go; what is loaded stays until the process ends."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A benchmark's two calls on shared memory, with the check of what they leave there."""

    benchmark: Benchmark
    inputs: Inputs
    outputs: Mapping[str, Any]
    calls: tuple[Any, Any]
    expected: Expected

    def check(self) -> tuple[Comparison, Comparison]:
        """Run each side on poisoned outputs and compare; raises CheckFailed naming the side that is wrong."""
        verdicts = []
        for name, call in zip(("base", "new"), self.calls, strict=True):
            poison(self.outputs, self.inputs)
            call.run()
            verdicts.append(self.expected.judge(self.outputs))
            require(verdicts[-1], f"{self.benchmark.who} of {name} is wrong, so it is not timed")
        poison(self.outputs, self.inputs)
        return verdicts[0], verdicts[1]

    def check_left(self) -> None:
        """Compare what the timing left: the output of whichever side the lot put last; raises CheckFailed."""
        left = self.expected.judge(self.outputs)
        who = self.benchmark.who
        require(left, f"{who} was right before timing and wrong after it, so its time is dropped")

    def timers(self) -> tuple[Timer, Timer]:
        """One thread: without waiting for a processor. More: the plain clock, since waiting for each other counts."""
        make: Callable[[Any], Timer] = RunTimer if self.benchmark.threads == 1 else NativeTimer
        return make(self.calls[BASE]), make(self.calls[NEW])


class Session:
    """Takes the looks that `decide.run` asks for."""

    def __init__(
        self,
        sides: tuple[Side, Side],
        benchmarks: Sequence[Benchmark],
        calls: Sequence[tuple[Call, Call]],
        pass_s: float,
    ) -> None:
        self.benchmarks = benchmarks
        self._calls = calls
        self._pass_s = pass_s
        self._libraries = Libraries(sides)
        self._expected: dict[int, Expected] = {}
        self.compared: dict[int, tuple[Comparison, Comparison]] = {}
        self.clocks: dict[int, str] = {}
        self.waited_s = 0.0

    def new_pass(self, attempt: int) -> None:
        """Fresh copies of both builds."""
        self._libraries.refresh(attempt)

    def close(self) -> None:
        self._libraries.close()

    def prepare(self, index: int) -> Prepared:
        """A benchmark's calls on fresh memory."""
        from tilewright.backends import backend

        bench = self.benchmarks[index]
        inputs = draw_typical(bench.family, bench.case, bench.seed)
        if index not in self._expected:
            self._expected[index] = Expected.of(bench.family, bench.case, inputs, backend("host"))
        outputs = make_outputs(bench.family, bench.case, inputs)
        spec = bench.family.spec
        tensors = [tensor_view(t.name, inputs.physical[t.name]) for t in spec.inputs]
        tensors += [tensor_view(t.name, outputs.get(t.name)) for t in spec.outputs]
        base, new = (
            native.module().prepare(
                self._libraries.function(side, bench.family.name),
                tensors,
                dict(self._calls[index][side]["attributes"]),
                bench.threads,
            )
            for side in (BASE, NEW)
        )
        return Prepared(bench, inputs, outputs, (base, new), self._expected[index])

    def look(self, index: int, attempt: int) -> Look:
        """One pass of one benchmark: both are checked before they are timed for the first time, and what the timing in
        turns leaves is checked after every pass. Raises CheckFailed when a side is wrong."""
        began = time.monotonic()
        prepared = self.prepare(index)
        if index not in self.compared:
            self.compared[index] = prepared.check()
        timers = prepared.timers()
        self.clocks[index] = timers[0].clock
        alone = prepared.benchmark.threads == 1
        rounds = measure_rounds(
            timers,
            Effort(seconds=self._pass_s, warmup_s=_WARMUP_S),
            fewest=_FEWEST_QUADS,
            most=_MOST_QUADS,
            block_ns=0.0 if alone else _BLOCK_NS,
            alone=alone,
            seed=attempt,
        )
        prepared.check_left()
        self.waited_s += sum(getattr(t, "waited_ns", 0.0) for t in timers) / 1e9
        return look_of(rounds, time.monotonic() - began)


def look_of(rounds: Rounds, seconds: float) -> Look:
    """A pass from its rounds: each side's low quantile over all samples, and the log of their ratio."""
    base, new = (float(np.quantile(rounds.samples[side], QUANTILE)) for side in (BASE, NEW))
    return Look(
        math.log(base / new),
        base,
        new,
        seconds,
        rounds.disturbance,
        len(rounds.logs),
        rounds.samples,
    )


# What may stop one benchmark of a gate without stopping the gate.
FAILURES = (CheckFailed, BuildFailed)
