"""What is stored with a trial, and how a stored trial reads back."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.autotune import pareto
from tilewright.autotune.pool import Pool
from tilewright.autotune.proposers import History
from tilewright.space import Config

if TYPE_CHECKING:
    import numpy.typing as npt
    from optuna.trial import FrozenTrial

# User attributes of an Optuna trial.
CLAIM = "claim"
STAGE = "stage"
RECORD = "record"
# Within a record: which of the study's attributes `versions DIGEST` it was made with.
VERSIONS = "versions"
DROPPED = "dropped"
# Key of an outcome's details: what a reference config took by then over what it took at first, where that changed.
LEVEL = "level"
# Key of an outcome's details: its values by name where a study has several objectives.
OBJECTIVES = "objectives"


class Stage(StrEnum):
    """How far a trial came: the static gate, the correctness check, the timing (or modelling)."""

    GATE = "gate"
    CHECK = "check"
    TIME = "time"


class State(StrEnum):
    """What became of a trial. A failed one keeps its stage and reason and ranks behind every other."""

    OK = "ok"
    FAILED = "failed"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What evaluating one config gave: a value in the objective's unit, or the stage and reason it failed."""

    state: State
    stage: Stage
    value: float | None = None
    reason: str = ""
    samples: tuple[float, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def failed(stage: Stage, reason: str, **details: Any) -> Outcome:
        return Outcome(State.FAILED, stage, None, reason, (), details)

    @staticmethod
    def ok(value: float, samples: Sequence[float] = (), **details: Any) -> Outcome:
        return Outcome(State.OK, Stage.TIME, value, "", tuple(samples), details)

    @property
    def comparable(self) -> float | None:
        """The value as it would have been on the machine as it was at first; see `sentinel`."""
        return None if self.value is None else self.value / float(self.details.get(LEVEL, 1.0))

    @property
    def objectives(self) -> dict[str, float]:
        """The values by name where the study has several objectives; empty otherwise."""
        return dict(self.details.get(OBJECTIVES, {}))

    def record(self) -> dict[str, Any]:
        """As JSON types, for the trial's attribute."""
        return {
            "state": str(self.state),
            "stage": str(self.stage),
            "value": self.value,
            "reason": self.reason,
            "samples": list(self.samples),
            "details": dict(self.details),
        }

    @staticmethod
    def read(record: Mapping[str, Any]) -> Outcome:
        return Outcome(
            State(record["state"]),
            Stage(record["stage"]),
            record["value"],
            record["reason"],
            tuple(record["samples"]),
            record["details"],
        )


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One row of `tune`'s document. `value_us` is None unless the objective's unit is a time.

    `evidence` says how the value was obtained, None without one. `details` is what else the objective
    found: an interval, static facts, the file that replays a failure.
    """

    number: int
    target: str
    config: Config
    state: State
    value: float | None
    value_us: float | None
    unit: str
    stage: Stage
    reason: str
    arm: str
    evidence: str | None
    details: Mapping[str, Any] = field(default_factory=dict)


@cache
def _own_start() -> str:
    return _boot_time(os.getpid())


def _boot_time(pid: int) -> str:
    """When a process started, in ticks since boot: tells a process from a later one with its number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@dataclass(frozen=True, slots=True)
class Claim:
    """Which process works on a trial, what proposed it, and how often a process died of it."""

    host: str
    pid: int
    started: str
    arm: str
    deaths: int = 0

    @staticmethod
    def mine(arm: str, deaths: int = 0) -> Claim:
        return Claim(socket.gethostname(), os.getpid(), _own_start(), arm, deaths)

    @staticmethod
    def of(trial: FrozenTrial) -> Claim | None:
        content = trial.user_attrs.get(CLAIM)
        return Claim(**content) if content else None

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def own(self) -> bool:
        return self.here and self.pid == os.getpid() and self.started == _own_start()

    @property
    def released(self) -> bool:
        """Whether its process was interrupted and let go of the trial."""
        return not self.started

    @property
    def alive(self) -> bool:
        """Whether the process still runs; only meaningful on its own host."""
        return bool(self.started) and _boot_time(self.pid) == self.started

    def content(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "pid": self.pid,
            "started": self.started,
            "arm": self.arm,
            "deaths": self.deaths,
        }


def outcome(trial: FrozenTrial) -> Outcome | None:
    """The outcome of a trial; None while it has none."""
    record = trial.user_attrs.get(RECORD)
    return Outcome.read(record) if record else None


def index(trial: FrozenTrial, pool: Pool) -> int | None:
    """The trial's place in the pool; None while its params are incomplete."""
    return pool.index(trial.params)


def counts(trial: FrozenTrial) -> bool:
    """Whether the trial takes a place in the study: it was not dropped, and its params are complete or coming."""
    from optuna.trial import TrialState

    return trial.state != TrialState.FAIL


def history(trials: Sequence[FrozenTrial], pool: Pool) -> History:
    """What a sampler may know: finished trials by number, and the configs being worked on."""
    tried, values, arms, pending = [], list[float](), [], []
    vectors: list[tuple[float, ...]] = []
    for trial in trials:
        place = index(trial, pool) if counts(trial) else None
        if place is None:
            continue
        result = outcome(trial)
        if not trial.state.is_finished() or result is None:
            pending.append(place)
            continue
        claim = Claim.of(trial)
        tried.append(place)
        values.append(math.inf if result.comparable is None else result.comparable)
        vectors.append(tuple(result.objectives.values()))
        arms.append(claim.arm if claim else "")
    return History(
        np.array(tried, dtype=np.int64),
        _scalars(values, vectors, len(tried) + len(pending)),
        tuple(arms),
        np.array(pending, dtype=np.int64),
    )


def _scalars(
    values: Sequence[float], vectors: Sequence[tuple[float, ...]], place: int
) -> npt.NDArray[np.float64]:
    """What a sampler sees: the values, or with several objectives one number for the weights of this place."""
    count = max(map(len, vectors), default=0)
    if count < 2:
        return np.array(values, dtype=np.float64)
    missing = (math.inf,) * count
    return pareto.weighted(np.array([v or missing for v in vectors]), place)


def told(found: Outcome, behind: float, count: int) -> float | list[float]:
    """What Optuna is told of a trial in a study of `count` objectives; `behind` stands for a failure."""
    if count > 1:
        return list(found.objectives.values()) or [behind] * count
    return behind if found.value is None else found.value


def rows(
    trials: Sequence[FrozenTrial], pool: Pool, target: str, unit: str, evidence: str
) -> tuple[TrialRow, ...]:
    """One row a trial that counts, by number."""
    found = []
    for trial in trials:
        place = index(trial, pool) if counts(trial) else None
        if place is None:
            continue
        result = outcome(trial)
        claim = Claim.of(trial)
        done = trial.state.is_finished() and result is not None
        value = result.value if done and result else None
        found.append(
            TrialRow(
                number=trial.number,
                target=target,
                config=pool.config(place),
                state=result.state if done and result else State.RUNNING,
                value=value,
                value_us=value if unit == "us" else None,
                unit=unit,
                stage=result.stage
                if done and result
                else Stage(trial.user_attrs.get(STAGE, "gate")),
                reason=result.reason
                if done and result
                else "not finished; resuming the study retries it",
                arm=claim.arm if claim else "",
                evidence=None if value is None else evidence,
                details=result.details if done and result else {},
            )
        )
    return tuple(found)
