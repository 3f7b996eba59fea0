"""What is stored with a trial, and how a stored trial reads back."""

from __future__ import annotations

import hashlib
import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sampling.proposers import History
from tilewright.autotune.valuing import pareto
from tilewright.machine import cache_folder
from tilewright.space import Config

if TYPE_CHECKING:
    import numpy.typing as npt
    from optuna.trial import FrozenTrial

# User attributes of an Optuna trial.
CLAIM = "claim"
BEAT = "beat"
STAGE = "stage"
RECORD = "record"
# Within a record: which of the study's attributes `versions DIGEST` it was made with.
VERSIONS = "versions"
DROPPED = "dropped"
# Key of an outcome's details: what a reference config took by then over what it took at first, where that changed.
LEVEL = "level"
# Key of an outcome's details: seconds by stage, compilation in the gate's or the check's.
SPENT = "spent_s"
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
    found: an interval, static facts, the file that replays a failure. `values` holds those of several objectives,
    named with their units.
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
    values: Mapping[str, float] = field(default_factory=dict)


def with_units(values: Mapping[str, float], unit: str) -> dict[str, float]:
    """`time` and the like as `time_us` or `score`, `memory_bytes`, `size_bytes`; `unit` is that of `time`."""
    names = {"time": "time_us" if unit == "us" else unit}
    return {names.get(n, f"{n}_bytes"): v for n, v in values.items()}


@cache
def _start_of(pid: int) -> str:
    return _boot_time(pid)


def _boot_time(pid: int) -> str:
    """When a process started, in ticks since boot: tells a process from a later one with its number.

    Empty for one that is gone, or dead and not yet collected by its parent.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


@cache
def machine() -> str:
    """Identifies this machine since it was started, the same in each of its containers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = socket.gethostname()
    return hashlib.sha256(boot.encode()).hexdigest()[:12]


@cache
def place() -> str:
    """Where process numbers mean what they mean here: this boot of this machine, this container.

    Host names repeat among containers and machines; a number asked for in the wrong place would call a
    living process dead.
    """
    try:
        names = os.readlink("/proc/self/ns/pid")
    except OSError:
        names = ""
    return f"{machine()}/{names}"


def locks() -> str:
    """Which file locks this process takes: other users and containers of this machine have others."""
    folder = cache_folder("locks")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


@dataclass(frozen=True, slots=True)
class Claim:
    """Which process works on a trial, what proposed it, and how often a process died of it.

    `started` is empty once the process let go of it; `ready` says that all that is left is to time it.
    `machine`, `place` and `locks` tell who can look it up and whose file locks it heeds.
    """

    host: str
    pid: int
    started: str
    arm: str
    deaths: int = 0
    machine: str = ""
    place: str = ""
    locks: str = ""
    ready: bool = False

    @staticmethod
    def mine(arm: str, deaths: int = 0) -> Claim:
        pid = os.getpid()
        where = (machine(), place(), locks())
        return Claim(socket.gethostname(), pid, _start_of(pid), arm, deaths, *where)

    @staticmethod
    def of(trial: FrozenTrial) -> Claim | None:
        content = trial.user_attrs.get(CLAIM)
        return Claim(**content) if content else None

    @property
    def here(self) -> bool:
        """Whether its process number can be asked for from here."""
        return self.place == place()

    @property
    def own(self) -> bool:
        return self.here and self.pid == os.getpid() and self.started == _start_of(self.pid)

    @property
    def beside(self) -> bool:
        """Whether its process runs on this machine and heeds other file locks than this one."""
        return self.machine == machine() and (self.place, self.locks) != (place(), locks())

    @property
    def released(self) -> bool:
        """Whether its process let go of the trial: interrupted, or done with its part."""
        return not self.started

    @property
    def alive(self) -> bool:
        """Whether the process still runs; only meaningful where it is `here`."""
        return bool(self.started) and _boot_time(self.pid) == self.started

    def content(self) -> dict[str, Any]:
        return asdict(self)


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
                values=with_units(result.objectives, unit) if done and result else {},
            )
        )
    return tuple(found)
