"""Timing of the page pool beside a mutex free list and a Python free list, in interleaved rounds."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilewright import native
from tilewright.errors import UsageError, unknown
from tilewright.evidence import Evidence
from tilewright.perf.statistics import median_estimate, ratio_estimate, verdict

PYTHON = "python-list"
OURS = "bitmap"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A pool of `pages`, of which the share `filled` is in use by others; each thread takes `burst` and frees them."""

    name: str
    pages: int
    burst: int
    filled: float
    what: str


SCENARIOS = {
    s.name: s
    for s in (
        Scenario("striped", 65536, 2048, 0.0, "each thread has room where its hint begins"),
        Scenario("large", 1 << 22, 2048, 0.0, "the same in a pool of 4 M pages"),
        Scenario("one-word", 64, 16, 0.0, "all threads are forced onto one word of 64 pages"),
        Scenario("full-99", 65536, 256, 0.99, "99 % of the pages are in use, at random"),
    )
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Every combination is a row. A batch of 1 is single calls."""

    scenarios: Sequence[str] = tuple(SCENARIOS)
    threads: Sequence[int] = (1, 2)
    batches: Sequence[int] = (1, 64)
    allocators: Sequence[str] = ()  # none: all
    turns: int = 12
    rounds: int = 60
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class PagesRow:
    """ns a page; medians over the rounds of all threads and turns, `pair` with its 95 % interval.

    `alloc` and `free` are the halves of one burst, each with a share of two readings of the clock; `pair` is
    timed over many. `ratio` is this allocator's time over the bitmap's in the same turn: above 1 the bitmap
    is faster. `running` is the least share of its time that a thread ran in the median turn: below 0.9 threads
    waited for processors, and contention shows too small.
    """

    scenario: str
    allocator: str
    threads: int
    batch: int
    pages: int
    burst: int
    filled: float
    alloc_ns: float
    free_ns: float
    pair_ns: float
    ci_low_ns: float
    ci_high_ns: float
    fastest_ns: float
    ratio: float | None
    ratio_ci_low: float | None
    ratio_ci_high: float | None
    verdict: str | None
    rounds: int
    running: float
    target: str = "cpu"
    evidence: Evidence = Evidence.MEASURED


_Round = tuple[float, float, float]
_Timing = tuple[list[_Round], float]


def allocators() -> list[str]:
    """Names of what can be timed."""
    return [*native.module().page_allocators(), PYTHON]


def count(plan: Plan) -> int:
    """Rows the plan will have."""
    chosen = plan.allocators or allocators()
    return len(plan.scenarios) * len(plan.threads) * len(plan.batches) * len(chosen)


def rows(plan: Plan) -> Iterator[PagesRow]:
    """Time the plan: in each turn every allocator runs its rounds under the same load, one after another."""
    known = allocators()
    for name in plan.allocators:
        if name not in known:
            raise unknown("allocator", name, known)
    for name in plan.scenarios:
        if name not in SCENARIOS:
            raise unknown("scenario", name, list(SCENARIOS))
    chosen = list(plan.allocators) or known
    for scenario, threads, batch in itertools.product(plan.scenarios, plan.threads, plan.batches):
        load, batch = _shared_out(SCENARIOS[scenario], threads, batch)
        turns: dict[str, list[_Timing]] = {one: [] for one in chosen}
        for _ in range(plan.turns):
            for one in chosen:
                turns[one].append(_run(one, load, threads, batch, plan))
        ours = turns.get(OURS)
        for one in chosen:
            yield _row(one, load, threads, batch, turns[one], ours if one != OURS else None)


def _shared_out(load: Scenario, threads: int, batch: int) -> tuple[Scenario, int]:
    """The load with bursts, and the batch, as small as it takes for all threads to have one at once."""
    free = math.floor(load.pages * (1 - load.filled))
    if threads < 1 or batch < 1 or threads > free:
        raise UsageError(
            f"--threads {threads} --batch {batch} in {load.name}: threads from 1 to {free}, batches from 1"
        )
    burst = min(load.burst, free // threads)
    batch = min(batch, burst)
    return replace(load, burst=burst - burst % batch), batch


def _run(one: str, load: Scenario, threads: int, batch: int, plan: Plan) -> _Timing:
    # Batches are done sooner: a turn should outlast what the system does in between.
    rounds = plan.rounds * (1 if batch == 1 else 8)
    if one == PYTHON:
        return _time_list(load, threads, batch, plan.rounds)
    found: _Timing = native.module().time_pages(
        one, load.pages, load.burst, batch, load.filled, threads, plan.pinned, rounds
    )
    return found


def _row(
    one: str,
    load: Scenario,
    threads: int,
    batch: int,
    turns: Sequence[_Timing],
    ours: Sequence[_Timing] | None,
) -> PagesRow:
    values = np.array([r for rounds, _ in turns for r in rounds])
    pair = median_estimate(values[:, 2])
    ratio = None
    if ours is not None:
        logs = [
            math.log(_pair(theirs) / _pair(own)) for theirs, own in zip(turns, ours, strict=True)
        ]
        ratio = ratio_estimate(logs)
    return PagesRow(
        scenario=load.name,
        allocator=one,
        threads=threads,
        batch=batch,
        pages=load.pages,
        burst=load.burst,
        filled=load.filled,
        alloc_ns=float(np.median(values[:, 0])),
        free_ns=float(np.median(values[:, 1])),
        pair_ns=pair.value,
        ci_low_ns=pair.low,
        ci_high_ns=pair.high,
        fastest_ns=float(values[:, 2].min()),
        ratio=None if ratio is None else ratio.value,
        ratio_ci_low=None if ratio is None else ratio.low,
        ratio_ci_high=None if ratio is None else ratio.high,
        verdict=None if ratio is None else verdict(ratio),
        rounds=len(values),
        running=float(np.median([running for _, running in turns])),
    )


def _pair(turn: _Timing) -> float:
    return float(np.median(np.array(turn[0])[:, 2]))


def _time_list(load: Scenario, threads: int, batch: int, rounds: int) -> _Timing:
    """A Python list as a stack, one for all threads as one pool is: pop and append, or slices under a lock."""
    free = list(range(round(load.pages * (1 - load.filled))))
    found: list[list[_Round]] = [[] for _ in range(threads)]
    barrier, lock = threading.Barrier(threads), threading.Lock()

    def burst() -> tuple[float, float]:
        return (
            _single_calls(free, load.burst)
            if batch == 1
            else _slices(free, load.burst, batch, lock)
        )

    def work(index: int) -> None:
        barrier.wait()
        burst()
        for _ in range(rounds):
            took, gave = burst()
            found[index].append((took, gave, took + gave))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    start, ran = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    # The interpreter runs one thread at a time.
    running = (time.process_time() - ran) / (time.perf_counter() - start)
    return [one for each in found for one in each], min(1.0, running)


def _single_calls(free: list[int], burst: int) -> tuple[float, float]:
    start = time.perf_counter_ns()
    taken = [free.pop() for _ in range(burst)]
    middle = time.perf_counter_ns()
    for page in taken:
        free.append(page)
    end = time.perf_counter_ns()
    return (middle - start) / burst, (end - middle) / burst


def _slices(free: list[int], burst: int, batch: int, lock: threading.Lock) -> tuple[float, float]:
    taken = []
    start = time.perf_counter_ns()
    for _ in range(burst // batch):
        with lock:
            taken.append(free[-batch:])
            del free[-batch:]
    middle = time.perf_counter_ns()
    for pages in taken:
        with lock:
            free.extend(pages)
    end = time.perf_counter_ns()
    return (middle - start) / burst, (end - middle) / burst
