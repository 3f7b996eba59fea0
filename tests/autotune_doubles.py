"""Stand-ins for tests of the tuner: a cost model over gemm's space, and a backend that can misbehave."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.autotune.trials import Outcome, Stage
from tilewright.autotune.valuing.objective import Enter
from tilewright.backends.base import Backend, Cell, Launch, State
from tilewright.cases import Case
from tilewright.errors import Refused
from tilewright.evidence import Evidence
from tilewright.inputs import Inputs, empty_outputs, reference_outputs
from tilewright.registry import Family, family
from tilewright.space import Config, Space
from tilewright.spec import Precision
from tilewright.targets import Target

SMALL = {"M": 8, "N": 32, "K": 16}


def gemm_case() -> Case:
    return family("gemm").spec.case(SMALL, "fp32")


def cost(config: Mapping[str, int]) -> float:
    """A deterministic time in us: a valley with interactions, the default far from its floor."""
    m, n, k = (np.log2(config[f]) for f in ("tile_m", "tile_n", "tile_k"))
    valley = 3 * (m - 6.6) ** 2 + 2 * (n - 6.0) ** 2 + (k - 8) ** 2 + 1.5 * abs(m + n - 12.6)
    return float(100 + 4 * valley + (15 if config["stages"] == 1 else 0))


@dataclass
class CostModel:
    """An objective with known values. It notes every evaluation in `log`, one JSON line each.

    `meet` processes wait for each other in their first trial, so that each of them has one. `killers` are configs whose evaluation kills the process, at most `kills` times; `wrong` fail their check.
    """

    log: Path | None = None
    sleep_s: float = 0.0
    meet: int = 0
    wrong: tuple[Config, ...] = ()
    killers: tuple[Mapping[str, int], ...] = ()
    kills: int = 1
    noise: float = 0.0
    flat: bool = False
    evidence: Evidence = Evidence.MODELLED
    unit: str = "us"
    mode: str = "cost model"
    calls: list[Config] = field(default_factory=list)

    def evaluate(self, config: Config, enter: Enter) -> Outcome:
        self.calls.append(config)
        with enter(Stage.GATE):
            self._wait()
        with enter(Stage.CHECK):
            if config in self.killers and self._deaths(config) < self.kills:
                self._note("died", config, 0.0)
                os.kill(os.getpid(), 9)
            if config in self.wrong:
                return Outcome.failed(Stage.CHECK, "element (0, 0) is 1 instead of 2")
        with enter(Stage.TIME):
            start = time.time()
            self._note("start", config, start)
            time.sleep(self.sleep_s)
            self._note("timed", config, start)
            return Outcome.ok(100.0 if self.flat else cost(config))

    def versions(self) -> dict[str, Any]:
        return {"compiler": "none"}

    def _wait(self) -> None:
        """For so many processes, a minute at most: the test says then who was missing."""
        if not self.meet:
            return
        assert self.log is not None
        place, end = self.log.with_name("met"), time.monotonic() + 60
        place.mkdir(exist_ok=True)
        (place / str(os.getpid())).touch()
        while len(list(place.iterdir())) < self.meet and time.monotonic() < end:
            time.sleep(0.01)

    def _note(self, what: str, config: Config, start: float) -> None:
        if self.log is not None:
            row = {
                "what": what,
                "config": dict(config),
                "start": start,
                "end": time.time(),
                "pid": os.getpid(),
            }
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def _deaths(self, config: Config) -> int:
        return sum(r["what"] == "died" and r["config"] == dict(config) for r in read_log(self.log))


class NoisyCostModel(CostModel):
    """The same with noise and drift, so that the end is a race of interleaved rounds."""

    @contextmanager
    def side_by_side(self, configs: Sequence[Config]) -> Iterator[NoisyRounds]:
        yield NoisyRounds(np.array([100.0 if self.flat else cost(c) for c in configs]))


class NoisyRounds:
    """1 % of noise on clocks that wander by 5 % a round."""

    def __init__(
        self, true: np.ndarray, noise: float = 0.01, drift: float = 0.05, seed: int = 6
    ) -> None:
        self.failed: dict[int, str] = {}
        self.taken: list[tuple[int, ...]] = []
        self._true, self._clock, self._noise, self._drift = true, 1.0, noise, drift
        self._rng = np.random.default_rng(seed)

    def round(self, alive: Sequence[int]) -> np.ndarray:
        self.taken.append(tuple(alive))
        self._clock *= math.exp(self._rng.normal(0, self._drift))
        row = np.full(len(self._true), np.nan)
        times = self._true * self._clock * self._rng.lognormal(0, self._noise, len(self._true))
        row[list(alive)] = times[list(alive)]
        return row


def read_log(path: Path | None) -> list[dict[str, Any]]:
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Misbehaving(Backend):
    """Computes gemm with torch, slower for larger `stages`; some configs are wrong, crash or are refused.

    A wrong config does nothing at all, so it is the fastest.
    """

    name = "double"

    def __init__(
        self,
        wrong: Sequence[Config] = (),
        crash: Sequence[Config] = (),
        refuse: Sequence[Config] = (),
        late: Sequence[Config] = (),
        cycles: Mapping[Config, int] | None = None,
    ) -> None:
        self.wrong, self.crash, self.refuse, self.late, self.cycles = (
            wrong,
            crash,
            refuse,
            late,
            cycles,
        )

    def targets(self) -> tuple[str, ...]:
        return ("cpu",) if self.cycles is None else ("ascend:910b1",)

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        return self._cell(
            family, target, precision, State.RUN if self.cycles is None else State.TWIN
        )

    def refuses(self, family: Family, case: Case, config: Config, target: Target) -> str | None:
        return "it does not like this tile" if config in self.refuse else None

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        if config in self.refuse:
            raise Refused("it does not like this tile")
        outputs = empty_outputs(family, case)
        runs = 0

        def run() -> None:
            nonlocal runs
            runs += 1
            if config in self.crash:
                raise RuntimeError("bad address")
            if config in self.wrong or (config in self.late and runs > 3):
                return
            end = time.perf_counter() + 5e-5 * config["stages"]
            for name, value in reference_outputs(family, case, inputs).items():
                outputs[name].copy_(value)
            while time.perf_counter() < end:
                pass

        details: dict[str, Any] = (
            {"cycles": self.cycles[config]} if self.cycles and config in self.cycles else {}
        )
        return Launch(run, outputs, details)


def small_family(folder: Path, **fields: tuple[int, ...]) -> Family:
    """gemm with a small space, in a folder of its own, so that installing writes there."""
    found = family("gemm")
    values = {"tile_m": (16, 32), "tile_n": (32,), "tile_k": (32,), "stages": (1, 2, 3), **fields}
    default = {k: Config(tile_m=32, tile_n=32, tile_k=32, stages=2) for k in ("cpu", "ascend")}
    spec = replace(
        found.spec, space={"cpu": Space(**values), "ascend": Space(**values)}, default=default
    )
    return Family(spec, folder, found.package, str(folder))


__all__ = [
    "CostModel",
    "Misbehaving",
    "NoisyCostModel",
    "NoisyRounds",
    "cost",
    "gemm_case",
    "small_family",
]
