"""Tuning on a recorded space: the sampler proposes, the recording answers. No clock and no device is involved."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tilewright.autotune.sampling.pool import Floats, Indices, Pool
from tilewright.autotune.sampling.proposers import History
from tilewright.autotune.store.donors import Donor
from tilewright.errors import UsageError
from tilewright.machine import usable_cores
from tilewright.perf.recorded import MARKS, Recording, Scalar, read

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording as a pool: `times_ms[i]` is that of the pool's config i, infinite where it failed, and `rows[i]`
    its row of the recording."""

    recording: Recording
    pool: Pool
    times_ms: Floats
    rows: Indices


@dataclass(frozen=True, slots=True)
class Curve:
    """One simulated tuning. `best[i]` is the optimum over the best time after i + 1 configs; `cpu_ms` the sampler's
    processor time a trial."""

    space: str
    sampler: str
    seed: int
    best: Floats
    arms: tuple[str, ...]
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Request:
    """What to simulate: every sampler with every seed on a space; `warm` are recordings of siblings."""

    space: Path
    samplers: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: int
    warm: tuple[Path, ...] = ()


@lru_cache(maxsize=4)
def load(path: Path) -> Recorded:
    """Read a recording as a pool; raises UsageError for what is none."""
    recording = read(path)
    fields, categories = {}, set()
    for name, values in recording.fields.items():
        whole = all(isinstance(v, int) for v in values)
        fields[name] = tuple(int(v) for v in values) if whole else tuple(range(len(values)))
        if any(isinstance(v, str) for v in values):
            categories.add(name)
    pool = Pool(fields, recording.ordinals, None, categories)
    radix = np.cumprod([1, *(len(v) for v in reversed(pool.values))])[-2::-1]
    order = np.argsort(recording.ordinals @ radix, kind="stable")
    return Recorded(recording, pool, recording.times_ms[order], order)


def donor(target: Recorded, source: Recording) -> Donor | None:
    """A sibling's configs that exist here, its best first; None where the fields are not the same."""
    if set(source.fields) != set(target.recording.fields):
        return None
    names = list(target.recording.fields)
    places = [{v: i for i, v in enumerate(target.recording.fields[n])} for n in names]
    configs, values = [], []
    for row in np.argsort(source.times_ms, kind="stable"):
        if not math.isfinite(source.times_ms[row]):
            break
        config: Mapping[str, Scalar] = source.config(int(row))
        found = [p.get(config[n]) for p, n in zip(places, names, strict=True)]
        if None in found:
            continue
        index = target.pool.index(
            {
                n: target.pool.values[f][o]
                for f, (n, o) in enumerate(zip(names, found, strict=True))
                if o is not None
            }
        )
        if index is not None:
            configs.append(index)
            values.append(float(source.times_ms[row]))
    return Donor(source.name, tuple(configs), tuple(values)) if configs else None


def simulate(
    target: Recorded, sampler: str, seed: int, budget: int, donors: Sequence[Donor] = ()
) -> Curve:
    """One tuning of `budget` unique legal configs, failures among them; a smaller space is tried whole."""
    from tilewright.autotune.sampling.samplers import proposer

    chosen = proposer(sampler, donors)
    count = min(budget, len(target.pool))
    values = np.full(budget, np.inf)
    if chosen is None:
        return _through_optuna(target, sampler, seed, count, values)
    tried = np.zeros(count, dtype=np.int64)
    arms: list[str] = []
    nothing = np.zeros(0, dtype=np.int64)
    began = time.process_time()
    for place in range(count):
        history = History(tried[:place], values[:place], tuple(arms), nothing)
        rng = np.random.default_rng([seed, place])
        proposal = chosen.propose(target.pool, history, history.free(target.pool), rng)
        tried[place], values[place] = proposal.index, target.times_ms[proposal.index]
        arms.append(proposal.arm)
    spent = time.process_time() - began
    return _curve(target, sampler, seed, values, arms, spent)


def _through_optuna(target: Recorded, sampler: str, seed: int, count: int, values: Floats) -> Curve:
    """The same for a sampler of Optuna's, which wants a study; the spent time includes the study's."""
    import optuna

    from tilewright.autotune import trials
    from tilewright.autotune.sampling import samplers

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chosen = samplers.sampler(sampler, target.pool, seed)
    study = optuna.create_study(sampler=chosen)
    distributions = target.pool.distributions()
    arms: list[str] = []
    began = time.process_time()
    for place in range(count):
        trial = study.ask(distributions)
        index = target.pool.index(trial.params)
        assert index is not None, "samplers propose points of the pool"
        values[place] = target.times_ms[index]
        good = math.isfinite(values[place])
        found = (
            trials.Outcome.ok(float(values[place]))
            if good
            else trials.Outcome.failed(trials.Stage.TIME, "failed when it was recorded")
        )
        arms.append(chosen.last_arm)
        trial.set_user_attr(trials.CLAIM, trials.Claim.mine(chosen.last_arm).content())
        trial.set_user_attr(trials.RECORD, found.record())
        behind = 10 * max((v for v in values[:place] if math.isfinite(v)), default=1e6)
        study.tell(trial, float(values[place]) if good else behind)
    return _curve(target, sampler, seed, values, arms, time.process_time() - began)


def _curve(
    target: Recorded, sampler: str, seed: int, values: Floats, arms: Sequence[str], spent_s: float
) -> Curve:
    best = target.recording.optimum_ms / np.minimum.accumulate(values)
    per_trial = spent_s * 1e3 / max(1, len(arms))
    return Curve(target.recording.name, sampler, seed, best, tuple(arms), per_trial)


def require(requests: Sequence[Request]) -> None:
    """Raise UsageError for a wrong sampler, a file that is no recording, or a sibling of another kernel."""
    from tilewright.autotune.sampling.samplers import sampler

    for request in requests:
        target = load(request.space)
        for name in request.samplers:
            sampler(name, target.pool, 0)
        for one in request.warm:
            if donor(target, read(one)) is None:
                raise UsageError(
                    f"{one.name} shares no config with {request.space.name}; accepted for --warm: "
                    f"recordings with the fields {', '.join(target.recording.fields)}"
                )


def curves(request: Request, workers: int = 0) -> Iterator[Curve]:
    """Every sampler with every seed, over the cores (or in this process for `workers` 1), as they come."""
    jobs = [
        (request.space, sampler, seed, request.budget, request.warm)
        for sampler in request.samplers
        for seed in request.seeds
    ]
    count = min(workers or usable_cores(), len(jobs))
    if count <= 1:
        yield from map(_job, jobs)
        return
    # Spawned, not forked: a fork would inherit the locks of the linear algebra's threads.
    context = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(count, context) as pool:
        yield from pool.map(_job, jobs, chunksize=max(1, len(jobs) // (count * 8)))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """With a process a core, threads of the linear algebra below would only get in each other's way."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _job(job: tuple[Path, str, int, int, tuple[Path, ...]]) -> Curve:
    space, sampler, seed, budget, warm = job
    target = load(space)
    found = [donor(target, load(one).recording) for one in warm]
    return simulate(target, sampler, seed, budget, [d for d in found if d])


@dataclass(frozen=True, slots=True)
class Row:
    """One point of a curve, for `replay`'s document."""

    space: str
    sampler: str
    seed: int
    at: int
    fraction_of_optimum: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Over the seeds: the mean and the 10th percentile of the fraction of the optimum."""

    space: str
    sampler: str
    at: int
    mean: float
    p10: float
    seeds: int


def rows(found: Sequence[Curve]) -> list[Row]:
    """The marks of each curve, with its end."""
    return [
        Row(c.space, c.sampler, c.seed, at, float(c.best[at - 1]), round(c.cpu_ms, 3))
        for c in found
        for at in _marks(len(c.best))
    ]


def summary(found: Sequence[Row]) -> list[Summary]:
    """Rows of several seeds as one, in the order in which they come."""
    groups: dict[tuple[str, str, int], list[float]] = {}
    for row in found:
        groups.setdefault((row.space, row.sampler, row.at), []).append(row.fraction_of_optimum)
    return [
        Summary(*key, float(np.mean(v)), float(np.quantile(v, 0.1)), len(v))
        for key, v in groups.items()
    ]


def _marks(length: int) -> list[int]:
    """25, 50, 100, 200 as far as the budget reaches, and its end if that is none of them."""
    return sorted({m for m in MARKS if m <= length} | {length})


@dataclass(frozen=True, slots=True)
class Gated:
    """What the static gate drops of a space's working configs, and which part of the fastest 1 % it keeps."""

    space: str
    configs: int
    dropped: float
    top_kept: float
    optimum_kept: bool
    remark: str


def gated(recording: Recording) -> Gated:
    """The gate on a whole recording; raises UsageError where it keeps no facts of binaries."""
    from tilewright.autotune.valuing.gate import facts_of, sift

    facts = list(facts_of(recording))
    if not any(facts):
        raise UsageError(
            f"{recording.name} keeps no facts of binaries; accepted for --gate: KTT results"
        )
    found = sift(facts)
    works = np.isfinite(recording.times_ms)
    passes = np.array(found.passes)
    top = np.argsort(recording.times_ms, kind="stable")[: max(1, int(works.sum()) // 100)]
    return Gated(
        recording.name,
        int(works.sum()),
        float(1 - passes[works].mean()),
        float(passes[top].mean()),
        bool(passes[top[0]]),
        found.remark,
    )
