"""A dispatch table from a sweep of sizes: tune each, time the winners on all, cut into few buckets.

The first size of the family (rows, tokens) varies; the others, precision and flags are the model's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from tilewright import tables
from tilewright.autotune import provenance
from tilewright.autotune.sharing.interrupt import Interruption
from tilewright.autotune.sharing.locks import held, lock_path
from tilewright.autotune.sharing.site import Site
from tilewright.autotune.sharing.storage import open_place
from tilewright.autotune.study import tune
from tilewright.autotune.tables.partition import (
    Floats,
    Range,
    Regret,
    costs,
    partition,
    regret,
    spread,
    summary,
    worth,
)
from tilewright.autotune.tables.result import Request, SweepResult, SweptBucket, told
from tilewright.autotune.valuing.objective import (
    Noisy,
    Objective,
    objective_for,
    pick_backend,
    rounds_of,
)
from tilewright.autotune.watch import Watch
from tilewright.buckets import Span
from tilewright.errors import Unavailable, UsageError
from tilewright.perf.statistics import FEWEST_QUADS
from tilewright.space import Config

if TYPE_CHECKING:
    from tilewright.autotune.result import TuneResult
    from tilewright.cases import Case

# Configs that are timed on every size: the default, what untuned calls get, the winners, and the ties that most sizes share.
MOST_CONFIGS = 16
# Half of the rounds choose, the other half are what regret is told from.
FEWEST_ROUNDS = 2 * (FEWEST_QUADS + 1)
# A size whose ratios are less certain than this factor is timed in further turns, and if that does not help
# reaches no family's table.
UNSURE = 1.2
MOST_TURNS = 3
_ROUNDS = "sweep rounds"


def sweep(
    request: Request,
    watching: Callable[[int], AbstractContextManager[Watch]] = lambda _: nullcontext(Watch()),
    notify: Callable[[str], None] = lambda _: None,
) -> SweepResult:
    """Tune every size, time the winners on all sizes, divide into buckets, write the table.

    Everything resumes: sizes through their studies, the interleaved rounds through what is kept with them.
    `watching` gives a display for the tuning of a size. Ctrl-C keeps what was found: finished sizes are in the
    user's table by themselves. Raises UsageError for a wrong request, Unavailable where nothing can value configs.
    """
    _require(request)
    tuned: list[TuneResult] = []
    for size in request.sizes.values:
        with watching(size) as watch:
            tuned.append(_tune_one(request, size, tuned, watch))
        if tuned[-1].interrupted:
            return SweepResult(request, tuple(tuned), interrupted=True, doubt="interrupted")
    result = SweepResult(request, tuple(tuned))
    if all(r.best is None for r in tuned):
        return replace(result, doubt="no trial of any size succeeded")
    default = request.family.spec.default_config(request.target)
    had = [
        request.family.spec.config_for(request.case(size), request.target)
        for size in request.sizes.values
    ]
    configs = _contenders(tuned, default, had)
    times = []
    with Interruption() as interruption:
        try:
            for size, one in zip(request.sizes.values, tuned, strict=True):
                notify(f"{request.sizes.dim}={size}: timing {len(configs)} configs in turns")
                base = configs.index(default)
                times.append(_rounds(request, size, one, configs, base, interruption))
        except KeyboardInterrupt:
            return replace(result, interrupted=True, doubt="interrupted")
    divided = _divide(result, configs, default, had, times)
    return _store(divided, configs) if request.store else divided


def _require(request: Request) -> None:
    names = request.family.spec.dim_names()
    dim = request.sizes.dim
    if dim != names[0]:
        raise UsageError(
            f"--sweep {dim}: tables of {request.family.name} are divided by {names[0]}; accepted: {names[0]}=A..B"
        )
    if dim in request.tail:
        raise UsageError(f"{dim} is both swept and in --shape; leave it out of --shape")
    if request.most < 1:
        raise UsageError(f"{request.most} buckets were asked for; accepted: 1 or more")
    request.case(request.sizes.values[0])


def _tune_one(
    request: Request,
    size: int,
    before: Sequence[TuneResult],
    watch: Watch,
) -> TuneResult:
    case = request.case(size)
    return tune(
        request.family,
        case,
        request.target,
        request.trials,
        seconds=request.seconds,
        backend=request.backend,
        sampler=request.sampler,
        storage=request.storage,
        workers=request.workers,
        compile_workers=request.compile_workers,
        seed=request.seed,
        threads=request.threads,
        store=request.store,
        objective=request.objective(case) if request.objective else None,
        watch=watch,
        final_s=request.final_s,
        guesses=_guesses(before),
        warm_start=request.warm_start,
    )


def _guesses(before: Sequence[TuneResult]) -> tuple[Config, ...]:
    """Winners of the two nearest smaller sizes, the nearest first."""
    found = [r.best.config for r in reversed(before[-2:]) if r.best]
    return tuple(dict.fromkeys(found))


def _contenders(
    tuned: Sequence[TuneResult], default: Config, had: Sequence[Config]
) -> tuple[Config, ...]:
    """The default, what untuned calls get, every winner, then ties by how many sizes share them."""
    winners = dict.fromkeys([default, *had, *(r.best.config for r in tuned if r.best)])
    shared = Counter(c for r in tuned for c in r.tie_set if c not in winners)
    ties = [c for c, count in shared.most_common() if count > 1]
    return (*winners, *ties[: max(0, MOST_CONFIGS - len(winners))])


def _rounds(
    request: Request,
    size: int,
    tuned: TuneResult,
    configs: Sequence[Config],
    base: int,
    interruption: Interruption,
) -> Floats:
    """Interleaved values[round, config] of one size, NaN where a config failed; kept with the size's study.

    What is kept and certain is not taken again; what is kept and uncertain is added to.
    """
    place = open_place(request.storage, request.family.name, request.target.file_stem)
    study = optuna.load_study(study_name=tuned.study, storage=place.storage)
    wanted = [dict(c) for c in configs]
    kept = study.user_attrs.get(_ROUNDS)
    times = np.empty((0, len(configs)))
    if kept and kept["configs"] == wanted:
        times = np.array(kept["times"], dtype=np.float64)
    case = request.case(size)
    objective = request.objective(case) if request.objective else _objective(request, case)
    space = request.family.spec.space_for(request.target)
    legal = [
        i
        for i, c in enumerate(configs)
        if space is None or not space.illegal(request.family.spec, case, c, request.target)
    ]
    site = Site(place, tuned.study, f"{request.target.name} {tuned.key.device}")
    for _ in range(MOST_TURNS):
        if len(times) and spread(times, base) <= UNSURE:
            break
        with interruption.breakable(), site.device():
            found = _valued(objective, [configs[i] for i in legal], request.retime_s)
        more = np.full((len(found), len(configs)), np.nan)
        more[:, legal] = found
        times = np.concatenate([times, more])
        study.set_user_attr(_ROUNDS, {"configs": wanted, "times": [_plain(row) for row in times]})
    return times


def _objective(request: Request, case: Case) -> Objective:
    backend = request.backend
    if backend is None or isinstance(backend, str):
        backend = pick_backend(request.family, request.target, case.precision, backend)
    return objective_for(
        request.family, case, request.target, backend, request.seed, request.threads
    )


def _valued(objective: Objective, configs: Sequence[Config], seconds: float) -> Floats:
    """Rounds of a noisy objective, one row of an exact one."""
    if isinstance(objective, Noisy):
        return rounds_of(objective, configs, seconds, FEWEST_ROUNDS)
    outcomes = [objective.evaluate(c, lambda stage: nullcontext()) for c in configs]
    return np.array([[np.nan if o.value is None else o.value for o in outcomes]])


def _divide(
    result: SweepResult,
    configs: tuple[Config, ...],
    default: Config,
    had: Sequence[Config],
    times: Sequence[Floats],
) -> SweepResult:
    """Cut by every other round, tell regret from the rounds between."""
    choosing = [t[::2] if len(t) > 1 else t for t in times]
    telling = [t[1::2] if len(t) > 1 else t for t in times]
    base = configs.index(default)
    cost = costs(choosing, base, [configs.index(one) for one in had])
    able = np.isfinite(cost).any(axis=1)
    if not able.all():
        size = result.request.sizes.values[int(np.argmin(able))]
        raise Unavailable(f"no config of the sweep runs {result.request.sizes.dim}={size}")
    best = [int(np.argmin(row)) for row in cost]
    everyone = range(len(best))

    def lost(columns: Sequence[int]) -> list[Regret]:
        return [regret(telling[i], columns[i], best[i]) for i in everyone]

    parts = partition(cost, result.request.most, worth(choosing, base))
    columns = [p.column for p in parts for _ in range(p.first, p.last + 1)]
    regrets = lost(columns)
    single = partition(cost, 1)[0].column
    gains = [regret(telling[i], base, columns[i]).value for i in everyone]
    known = [np.log1p(g) for g in gains if g is not None]
    timed = result.tuned[0].evidence == "measured"
    return replace(
        result,
        configs=configs,
        rounds=tuple(len(t) for t in times),
        values=tuple(tuple(_plain(np.median(t, axis=0))) for t in telling),
        buckets=_buckets(result.request.sizes.values, parts, configs, regrets),
        regret=summary(regrets),
        one_config=summary(lost([single] * len(best))),
        default=summary(lost([base] * len(best))),
        gain=float(np.exp(np.mean(known))) if known and timed else None,
        doubt=_doubt(result.request, times, base),
    )


def _doubt(request: Request, times: Sequence[Floats], base: int) -> str:
    """The sizes that the machine was too busy to tell; empty where all are certain."""
    wide = [(s, spread(t, base)) for s, t in zip(request.sizes.values, times, strict=True)]
    unsure = [f"{size} ({factor:.2g}x)" for size, factor in wide if factor > UNSURE]
    if not unsure:
        return ""
    return (
        f"the intervals of ratios are wider than {UNSURE:g}x for {request.sizes.dim}={', '.join(unsure)}: the machine was "
        "busy; the same command times these sizes further"
    )


def _plain(row: Floats) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in row]


def _buckets(
    sizes: Sequence[int],
    parts: Sequence[Range],
    configs: Sequence[Config],
    regrets: Sequence[Regret],
) -> tuple[SweptBucket, ...]:
    uppers = [sizes[p.last] for p in parts]
    overs = [sizes[0] - 1, *uppers[:-1]]
    return tuple(
        SweptBucket(
            over,
            upper,
            tuple(sizes[p.first : p.last + 1]),
            configs[p.column],
            tuple(regrets[p.first : p.last + 1]),
            summary(regrets[p.first : p.last + 1]),
        )
        for p, over, upper in zip(parts, overs, uppers, strict=True)
    )


def _store(result: SweepResult, configs: Sequence[Config]) -> SweepResult:
    """Write the buckets to the tables, in place of what they cover."""
    request = result.request
    bounds = [b.upper for b in result.buckets]
    entries = []
    for one in result.buckets:
        case = request.case(one.sizes[-1])
        bucket = tables.bucket(case, bounds)
        assert Span.of(bucket[0], one.over).holds(one.sizes[0])
        record = _record(result, one)
        entries.append(
            tables.Entry(bucket, case.precision, case.flags, one.config, record, over=one.over)
        )
    path = tables.user_path(request.family, request.target)
    # A family's own table is for others too: it takes what is certain.
    wanted = request.install and not result.doubt
    installed = [tables.installed_path(request.family, request.target)] if wanted else []
    for place in (path, *installed):
        with held(lock_path("table", str(place))):
            tables.store_sweep(place, request.family, request.target, entries)
    return replace(result, stored=(path, *installed)[-1])


def _record(result: SweepResult, one: SweptBucket) -> dict[str, Any]:
    """Provenance of a bucket: that of its largest size's study, and what the sweep measured."""
    request, sizes = result.request, result.request.sizes.values
    study = result.tuned[sizes.index(one.sizes[-1])]
    tail = ",".join(f"{k}={v}" for k, v in request.tail.items())
    objective = request.objective(request.case(one.sizes[-1])) if request.objective else None
    objective = objective or _objective(request, request.case(one.sizes[-1]))
    return {
        **asdict(study.key),
        "shape": f"{request.sizes.dim}={Span(one.over, one.upper)},{tail}",
        "versions": dict(provenance.versions(objective)),
        "study": study.study,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "evidence": study.evidence,
        "sampler": request.sampler,
        "seed": request.seed,
        "trials": len(study.rows),
        "sweep": {
            "sizes": list(one.sizes),
            "rounds": min(result.rounds),
            "regret": told(one.regret, one.sizes),
            "table_regret": told(result.regret, sizes),
            "one_config_regret": told(result.one_config, sizes),
            "default_regret": told(result.default, sizes),
            "buckets": len(result.buckets),
        },
    }
