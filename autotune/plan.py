"""One tuning, resolved: what is asked for, and by which processes it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.autotune.search import Role, splits
from tilewright.autotune.valuing.several import TIME
from tilewright.errors import UsageError

if TYPE_CHECKING:
    from tilewright.autotune.valuing.objective import Objective
    from tilewright.backends.base import Backend
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target


@dataclass(frozen=True, slots=True)
class Plan:
    """One tuning, resolved: what, where, with what, for how long."""

    family: Family
    case: Case
    target: Target
    backend: Backend
    sampler: str
    seed: int
    threads: int
    trials: int | None
    seconds: float | None
    storage: str | None
    workers: int
    compile_workers: int
    final_s: float
    guesses: Sequence[Config] = ()
    objectives: tuple[str, ...] = (TIME,)
    warm: bool = True


def require(trials: int | None, seconds: float | None, count: int, compile_workers: int) -> None:
    """Raise UsageError for numbers that make no tuning."""
    if trials is not None and trials < 1:
        raise UsageError(
            f"{trials} trials were asked for; accepted: 1 (the default config alone) or more"
        )
    if seconds is not None and seconds <= 0:
        raise UsageError(f"{seconds:g} seconds were asked for; accepted: more than 0")
    if count < 1:
        raise UsageError(f"{count} workers were asked for; accepted: 1 or more")
    if compile_workers < 0:
        raise UsageError(f"{compile_workers} compile workers were asked for; accepted: 0 or more")
    if compile_workers and count > 1:
        raise UsageError(
            f"{count} workers beside {compile_workers} compile workers were asked for; accepted: 1, the "
            "one that times"
        )


def roles(plan: Plan, objective: Objective) -> list[Role]:
    """One entry a worker process: each does everything, or one times what the others prepare."""
    if not plan.compile_workers:
        return [Role.ALL] * plan.workers
    if not splits(objective):
        return [Role.ALL] * plan.compile_workers
    return [Role.MEASURE] + [Role.PREPARE] * plan.compile_workers
