"""Worker processes for tests of studies that several machines share: forked, so that they start at once."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna

from autotune_doubles import CostModel, gemm_case, read_log
from tilewright.autotune import trials
from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sampling.samplers import sampler
from tilewright.autotune.search import Search
from tilewright.autotune.sharing.claiming import Budget, Role
from tilewright.autotune.sharing.interrupt import Interruption
from tilewright.autotune.sharing.liveness import Pace
from tilewright.autotune.sharing.storage import open_url
from tilewright.registry import family
from tilewright.targets import CPU

# So quick that a dead machine is noticed within a test; a stalled fork still gets a few seconds.
QUICK = Pace(beat_s=0.3, dead_s=8.0)
STUDY = "shared"


@dataclass(frozen=True)
class Job:
    """A worker on the study `shared` of a storage. `machine` is the name of the machine it pretends to be on.

    `cache` gives it file locks of its own on this machine, as another user or container has.
    """

    url: str
    model: CostModel
    trials: int
    machine: str = ""
    cache: str = ""
    role: Role = Role.ALL
    seed: int = 3
    sampler: str = "random"
    pace: Pace = QUICK
    checks_disturb: bool = True


@cache
def _pool() -> Pool:
    return Pool.of(family("gemm").spec, gemm_case(), CPU)


_STARTED: list[BaseProcess] = []


def end_all() -> None:
    """Kill what a failed test left behind."""
    for process in _STARTED:
        if process.is_alive():
            process.kill()
        process.join()
    _STARTED.clear()


def search(job: Job) -> Search:
    """What a worker runs, for the study of its storage, which is made if it is not there."""
    if job.cache:
        os.environ["TILEWRIGHT_CACHE"] += f"/{job.cache}"
    if job.machine:
        # Another machine has locks of its own.
        os.environ["TILEWRIGHT_CACHE"] += f"/{job.machine}"
        trials.machine = lambda: job.machine  # type: ignore[assignment]
        trials.place = lambda: f"{job.machine}/1"  # type: ignore[assignment]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = open_url(job.url)
    pool = _pool()
    study = optuna.create_study(
        study_name=STUDY,
        storage=place.storage,
        sampler=sampler(job.sampler, pool, job.seed),
        load_if_exists=True,
    )
    return Search(
        study,
        pool,
        "cpu",
        job.model,
        Budget(job.trials, None),
        f"device of {place.url}",
        job.checks_disturb,
        place,
        job.role,
        job.pace,
    )


def _work(job: Job) -> None:
    with Interruption() as interruption:
        search(job).run(interruption)


def start(job: Job) -> BaseProcess:
    """A worker process. What it needs is loaded and enumerated before, once for all."""
    _pool()
    process = multiprocessing.get_context("fork").Process(target=_work, args=(job,))
    process.start()
    _STARTED.append(process)
    return process


def finish(*processes: BaseProcess, timeout_s: float = 120.0) -> list[int | None]:
    """Wait for workers and return their exit codes; one that hangs is killed and has none."""
    end = time.monotonic() + timeout_s
    codes = []
    for process in processes:
        process.join(max(0.1, end - time.monotonic()))
        codes.append(process.exitcode)
        if process.exitcode is None:
            process.kill()
            process.join()
    return codes


def wait_until(true: Callable[[], bool], timeout_s: float = 90.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)


def timing(log: Path) -> set[int]:
    """Processes that are in the middle of timing: they noted its start and not yet its end."""
    rows = read_log(log)
    open_ = {r["pid"]: 0 for r in rows}
    for row in rows:
        open_[row["pid"]] += {"start": 1, "timed": -1}.get(row["what"], 0)
    return {pid for pid, count in open_.items() if count > 0}
