"""Several processes on one study: they gate and check side by side and time one at a time.

Either each does everything, or some prepare (gate, compile, check) and hand what passed to the one that
times on this device.

A worker that a kernel kills is replaced; the trial it died of is retried by another, and recorded as
failed when it kills again and again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from tilewright.autotune.sharing.claiming import Role
from tilewright.autotune.sharing.interrupt import Interruption
from tilewright.autotune.trials import State, TrialRow
from tilewright.errors import TilewrightError, Unavailable

if TYPE_CHECKING:
    from tilewright.autotune.sharing.claiming import Budget
    from tilewright.autotune.valuing.objective import Objective

_POLL_S = 0.2
_MOST_REPLACED = 20
_GRACE_S = 20.0
# Time between two readings of the study, as a multiple of how long one takes.
_READING_SHARE = 10.0


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
    role: Role = Role.ALL


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
    roles: Sequence[Role],
    rows: Callable[[], tuple[TrialRow, ...]],
    interruption: Interruption,
    report: Callable[[TrialRow], None] | None,
) -> int:
    """Run a worker of each role to the end of the budget; returns how many trials were finished meanwhile.

    `rows` reads the study. Raises Unavailable when a worker gave up with an error and nothing was done.
    """
    news = _News(rows, report)
    crew = _Crew(assignment, roles)
    told = False
    try:
        while crew.alive:
            time.sleep(_POLL_S)
            news.tell()
            crew.replace(wanted=not interruption.requested and assignment.budget.time_left())
            if interruption.requested and not told:
                told = True
                crew.stop()
    finally:
        _end(list(crew.alive))
    news.tell(at_once=True)
    if crew.gave_up and not news.count:
        raise Unavailable("every worker gave up before its first trial; their reasons are above")
    return news.count


class _News:
    """Reports trials as they are finished. Reading a database is not free: never for a large part of the time."""

    def __init__(
        self,
        rows: Callable[[], tuple[TrialRow, ...]],
        report: Callable[[TrialRow], None] | None,
    ) -> None:
        self._rows = rows
        self._report = report
        self._seen = {r.number for r in rows() if r.state is not State.RUNNING}
        self.count = 0
        self._next = 0.0

    def tell(self, at_once: bool = False) -> None:
        began = time.monotonic()
        if began < self._next and not at_once:
            return
        for row in self._rows():
            if row.state is not State.RUNNING and row.number not in self._seen:
                self._seen.add(row.number)
                self.count += 1
                if self._report:
                    self._report(row)
        spent = time.monotonic() - began
        self._next = began + _READING_SHARE * spent


class _Crew:
    """The worker processes. One that a signal killed is replaced by another of its role."""

    def __init__(self, assignment: Assignment, roles: Sequence[Role]) -> None:
        # Spawned, not forked: a fork would inherit the locks of torch's threads.
        self._context = multiprocessing.get_context("spawn")
        self._assignment = assignment
        self._replaced = 0
        self.gave_up = False
        self.alive: dict[BaseProcess, Role] = {}
        for role in roles:
            self._start(role)

    def _start(self, role: Role) -> None:
        one = replace(self._assignment, role=role)
        process = self._context.Process(target=work, args=(one,), daemon=True)
        process.start()
        self.alive[process] = role

    def replace(self, wanted: bool) -> None:
        """Take note of those that ended; start others for the killed ones while there is work."""
        dead = {p: role for p, role in self.alive.items() if p.exitcode is not None}
        for process, role in dead.items():
            del self.alive[process]
            code = process.exitcode or 0
            self.gave_up = self.gave_up or code > 0
            if code < 0 and wanted and self._replaced < _MOST_REPLACED:
                self._replaced += 1
                self._start(role)
        # Without anybody who prepares, the one that times would wait for ever.
        if self.gave_up and set(self.alive.values()) == {Role.MEASURE}:
            self.stop()

    def stop(self) -> None:
        """Ask every worker to let go of its trial and end."""
        for process in self.alive:
            _stop(process)


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
