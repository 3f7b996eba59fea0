"""Several processes on one study: they gate and check side by side and time one at a time.

A worker that a kernel kills is replaced; the trial it died of is retried by another, and recorded as
failed when it kills again and again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from tilewright.autotune.interrupt import Interruption
from tilewright.autotune.trials import State, TrialRow
from tilewright.errors import TilewrightError, Unavailable

if TYPE_CHECKING:
    from tilewright.autotune.objective import Objective
    from tilewright.autotune.search import Budget

_POLL_S = 0.2
_MOST_REPLACED = 20
_GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker needs to join a study, in a form that can be sent to another process.

    `objective` is sent along when it was given by the caller; else the worker makes its own.
    """

    family: str
    case: dict[str, object]
    target: str
    backend: str
    seed: int
    threads: int
    sampler: str
    storage_url: str
    study_name: str
    quiet_device: str
    checks_disturb: bool
    budget: Budget
    objective: Objective | None
    objectives: tuple[str, ...] = ("time",)


def work(assignment: Assignment) -> None:
    """The life of one worker process; ends with code 0 when there is nothing left to do."""
    from tilewright.autotune.study import join

    try:
        search = join(assignment)
        with Interruption() as interruption:
            search.run(interruption)
    except TilewrightError as error:
        print(f"tilewright: worker {os.getpid()}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None


def run(
    assignment: Assignment,
    count: int,
    rows: Callable[[], tuple[TrialRow, ...]],
    interruption: Interruption,
    report: Callable[[TrialRow], None] | None,
) -> int:
    """Run `count` workers to the end of the budget; returns how many trials they finished.

    `rows` reads the study. Raises Unavailable when a worker gave up with an error and nothing was done.
    """
    # Spawned, not forked: a fork would inherit the locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    before = {r.number for r in rows() if r.state is not State.RUNNING}
    seen = set(before)

    def tell_new() -> None:
        for row in rows():
            if row.state is not State.RUNNING and row.number not in seen:
                seen.add(row.number)
                if report:
                    report(row)

    def start() -> BaseProcess:
        process = context.Process(target=work, args=(assignment,), daemon=True)
        process.start()
        return process

    alive = [start() for _ in range(count)]
    replaced, gave_up, told = 0, False, False
    try:
        while alive:
            time.sleep(_POLL_S)
            tell_new()
            dead = [p.exitcode for p in alive if p.exitcode is not None]
            alive = [p for p in alive if p.exitcode is None]
            gave_up = gave_up or any(code > 0 for code in dead)
            for code in dead:
                wanted = not interruption.requested and assignment.budget.time_left()
                if code < 0 and wanted and replaced < _MOST_REPLACED:
                    replaced += 1
                    alive.append(start())
            if interruption.requested and not told:
                told = True
                for process in alive:
                    _stop(process)
    finally:
        _end(alive)
    tell_new()
    if gave_up and len(seen) == len(before):
        raise Unavailable("every worker gave up before its first trial; their reasons are above")
    return len(seen - before)


def _stop(process: BaseProcess) -> None:
    """Ask a worker to let go of its trial and end."""
    if process.pid is not None and process.exitcode is None:
        os.kill(process.pid, signal.SIGTERM)


def _end(alive: list[BaseProcess]) -> None:
    for process in alive:
        _stop(process)
    end = time.monotonic() + _GRACE_S
    for process in alive:
        process.join(max(0.0, end - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
