"""`tune`: search the legal configs of one case on one target, keep the best with its provenance."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from tilewright import tables
from tilewright.autotune import provenance, trials
from tilewright.autotune.choosing import final
from tilewright.autotune.plan import Plan, require, roles
from tilewright.autotune.result import TuneResult
from tilewright.autotune.sampling import warm
from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sampling.samplers import sampler as sampler_named
from tilewright.autotune.search import Budget, Search
from tilewright.autotune.sharing import workers
from tilewright.autotune.sharing.interrupt import Interruption
from tilewright.autotune.sharing.locks import held, lock_path
from tilewright.autotune.sharing.site import Site
from tilewright.autotune.sharing.storage import open_place
from tilewright.autotune.sharing.workers import Assignment
from tilewright.autotune.trials import TrialRow
from tilewright.autotune.valuing.objective import Noisy, Objective, objective_for, pick_backend
from tilewright.autotune.valuing.several import TIME, names, several
from tilewright.autotune.watch import Watch
from tilewright.backends.base import Backend
from tilewright.errors import UsageError
from tilewright.registry import Family
from tilewright.registry import family as family_named
from tilewright.targets import Target
from tilewright.targets import target as target_named

if TYPE_CHECKING:
    from tilewright.autotune.choosing.final import Decision
    from tilewright.autotune.provenance import StudyKey
    from tilewright.cases import Case
    from tilewright.space import Config

DEFAULT_TRIALS = 40
_DECISION = "decision"
# Seconds for the interleaved comparison at the end, and after Ctrl-C.
FINAL_S = 6.0
_HURRIED_S = 1.5


def tune(
    family: Family | str,
    case: Case,
    target: Target | str = "cpu",
    trials: int | None = None,
    *,
    seconds: float | None = None,
    backend: Backend | str | None = None,
    sampler: str = "portfolio",
    storage: str | None = None,
    workers: int = 1,
    compile_workers: int = 0,
    seed: int = 0,
    threads: int = 0,
    install: bool = False,
    store: bool = True,
    objective: Objective | None = None,
    report: Callable[[TrialRow], None] | None = None,
    final_s: float = FINAL_S,
    objectives: Sequence[str] = (TIME,),
    guesses: Sequence[Config] = (),
    watch: Watch | None = None,
    warm_start: bool = True,
) -> TuneResult:
    """Search configs of `case`; the default is trial 0 and is compared with the best at the end.

    So is what a call gets where nothing is tuned, if the family's tiling names another: it is trial 1.

    `trials` counts the study's trials altogether, so that running it again resumes and then measures
    nothing; `seconds` bounds this run. With neither, 40 trials. `storage` is `journal:PATH` or a
    database URL, by default a journal of this user. `workers` processes do everything, or, with
    `compile_workers`, that many prepare configs (gate, compile, check) for the one that times. Ctrl-C
    ends the search and keeps what was found. `objectives` are some of time, memory and size: with several
    the study keeps the Pareto front, and the winner is chosen by time; without time none is chosen.
    `guesses` are configs to try right after the default in a new study, such as winners of other sizes.
    A new study starts warm from studies of neighbouring shapes and other devices in the same storage, unless
    `warm_start` is False.
    `watch` is told of every step, `report` of finished trials alone.
    The winner goes to this user's table and, with `install`, to the family's own; `store=False` writes
    neither. Raises UsageError for a wrong request, Unavailable where nothing can value configs.
    """
    found = family_named(family) if isinstance(family, str) else family
    where = target_named(target) if isinstance(target, str) else target
    require(trials, seconds, workers, compile_workers)
    one = (
        backend
        if isinstance(backend, Backend)
        else pick_backend(found, where, case.precision, backend)
    )
    limit = DEFAULT_TRIALS if trials is None and seconds is None else trials
    wanted = names(",".join(objectives))
    if len(wanted) > 1 and sampler == "cmaes":
        raise UsageError(
            "sampler cmaes takes one objective; accepted for several: any other sampler"
        )
    plan = Plan(
        found, case, where, one, sampler, seed, threads, limit, seconds, storage, workers,
        compile_workers, final_s, tuple(guesses), wanted, warm_start,
    )  # fmt: skip
    given = objective
    chosen = several(given or objective_for(found, case, where, one, seed, threads), wanted)
    return _run(plan, chosen, given, report, watch or Watch(), install, store)


def default_case(
    family: Family, dtype: str | None = None, flags: dict[str, str] | None = None
) -> Case:
    """The benchmark case of median work: what is tuned when no shape is named."""
    precision = family.spec.precision(dtype)
    cases = [
        family.spec.case(c.sizes, precision.name, {**c.flags, **(flags or {})})
        for c in family.spec.benchmark_cases(precision)
    ]
    return sorted(cases, key=family.spec.flops_of)[len(cases) // 2]


def _run(
    plan: Plan,
    objective: Objective,
    given: Objective | None,
    report: Callable[[TrialRow], None] | None,
    watch: Watch,
    install: bool,
    store: bool,
) -> TuneResult:
    started = time.monotonic()
    report = report or watch.trial
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pool = Pool.of(plan.family.spec, plan.case, plan.target, provenance.rules_hash(plan.family))
    sampler_named(plan.sampler, pool, plan.seed)  # a wrong name is told before anything is stored
    key = provenance.key_of(
        plan.family, plan.case, plan.target, plan.backend, pool, objective, plan.threads
    )
    place = open_place(plan.storage, plan.family.name, plan.target.file_stem)
    with held(place.lock_file) if place.lock_file else nullcontext():
        study = optuna.create_study(
            study_name=key.name,
            storage=place.storage,
            directions=["minimize"] * len(plan.objectives),
            load_if_exists=True,
        )
        _describe(study, key, objective)
        warm.choose(study, place, key, pool, plan.warm)
        _enqueue(study, pool, plan.guesses, plan.trials)
    study.sampler = sampler_named(plan.sampler, pool, plan.seed, warm.chosen(study))
    site = Site(place, key.name, f"{plan.target.name} {key.device}")
    until = None if plan.seconds is None else time.time() + _searching_s(plan, objective, started)
    budget = Budget(plan.trials, until)
    quiet = f"{plan.target.name} {key.device}"

    def read() -> tuple[TrialRow, ...]:
        return trials.rows(
            study.get_trials(deepcopy=False),
            pool,
            plan.target.name,
            objective.unit,
            str(objective.evidence),
        )

    watch.begin([r for r in read() if r.state is not trials.State.RUNNING])
    with Interruption() as interruption:
        if plan.workers == 1 and not plan.compile_workers:
            search = Search(
                study,
                pool,
                plan.target.name,
                objective,
                budget,
                quiet,
                plan.target.kind == "cpu",
                place,
                watch=watch,
            )
            measured = search.run(interruption, report)
        else:
            assignment = _assignment(plan, place.url, key.name, quiet, budget, given)
            measured = workers.run(assignment, roles(plan, objective), read, interruption, report)
        interrupted = interruption.requested
        interruption.again()
        rows = read()
        watch.phase("timing the best and the default again, in turns")
        decision = _decide(study, objective, rows, pool, plan, site, interruption, interrupted)
        interrupted = interrupted or interruption.requested
    result = TuneResult(
        key=key,
        study=key.name,
        storage=place.shown,
        sampler=plan.sampler,
        seed=plan.seed,
        evidence=str(objective.evidence),
        unit=objective.unit,
        pool=len(pool),
        rows=rows,
        decision=decision,
        measured=measured,
        seconds=time.monotonic() - started,
        interrupted=interrupted,
        stored=_store(plan, key, objective, decision, len(rows), install) if store else None,
        objectives=plan.objectives,
    )
    return result


def _searching_s(plan: Plan, objective: Objective, started: float) -> float:
    """Seconds for trials: what is left of those asked for once the comparison at the end has its own."""
    assert plan.seconds is not None
    final = min(plan.final_s, plan.seconds / 4) if isinstance(objective, Noisy) else 0.0
    return max(0.0, plan.seconds - (time.monotonic() - started) - final)


def _describe(study: optuna.Study, key: StudyKey, objective: Objective) -> None:
    """What the study is about, for whoever opens it in a dashboard; written once."""
    if provenance.STUDY_KEY not in study.user_attrs:
        study.set_user_attr(provenance.STUDY_KEY, asdict(key))
        study.set_user_attr(provenance.STUDY_EVIDENCE, str(objective.evidence))
        study.set_user_attr("unit", objective.unit)


def _enqueue(study: optuna.Study, pool: Pool, guesses: Sequence[Config], limit: int | None) -> None:
    """Put the guesses that are legal here into a new study's queue, behind the default and what untuned calls get.

    What waits takes a place of the budget, so that the queue leaves room for the search.
    """
    first = [pool.config(place) for place in pool.first]
    legal = [c for c in dict.fromkeys(guesses) if c not in first and pool.index(c) is not None]
    legal = legal if limit is None else legal[: max(0, limit - len(first) - 1)]
    if legal and not study.get_trials(deepcopy=False):
        for config in (*first, *legal):
            study.enqueue_trial(dict(config))


def _decide(
    study: optuna.Study,
    objective: Objective,
    rows: tuple[TrialRow, ...],
    pool: Pool,
    plan: Plan,
    site: Site,
    interruption: Interruption,
    hurried: bool,
) -> Decision | None:
    """The decision kept in the study if no trial was added since, else a new one."""
    if not final.ranked(rows):
        return None
    default = pool.config(pool.default)
    finished = sum(r.state is not trials.State.RUNNING for r in rows)
    kept = study.user_attrs.get(_DECISION)
    if kept and kept["trials"] == finished and kept["seed"] == plan.seed:
        known = final.read(kept["decision"])
        if known is not None:
            return known
    seconds, most = (
        (min(_HURRIED_S, plan.final_s), 2) if hurried else (plan.final_s, final.FINALISTS)
    )
    try:
        with interruption.breakable(), site.device():
            decision = final.decide(objective, rows, default, seconds, most, pool.suggested)
    except KeyboardInterrupt:
        return final.by_screening(rows, default, final.CUT_OFF)
    finally:
        site.heart.stop()
    if not hurried:
        content = {"trials": finished, "seed": plan.seed, "decision": final.content(decision)}
        study.set_user_attr(_DECISION, content)
    return decision


def _store(
    plan: Plan,
    key: StudyKey,
    objective: Objective,
    decision: Decision | None,
    count: int,
    install: bool,
) -> Path | None:
    """Write the winner to the tables; a decision that does not stand gets to none."""
    if decision is None or not decision.stands:
        return None
    best, default = decision.best, decision.default
    record: dict[str, Any] = {
        **asdict(key),
        "versions": dict(provenance.versions(objective)),
        "study": key.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "value": best.value,
        "default_value": default.value if default else None,
        "gain": decision.gain,
        "gain_low": best.ratio_low,
        "gain_high": best.ratio_high,
        "score_ratio": decision.score_ratio,
        "verdict": decision.verdict,
        "tied": len(decision.tie_set),
        "trials": count,
        "evidence": str(objective.evidence),
        "sampler": plan.sampler,
        "seed": plan.seed,
    }
    entry = tables.Entry(
        tables.bucket(plan.case), plan.case.precision, plan.case.flags, best.config, record
    )
    path = tables.user_path(plan.family, plan.target)
    places = [path, tables.installed_path(plan.family, plan.target)] if install else [path]
    for one in places:
        with held(lock_path("table", str(one))):
            tables.store(one, plan.family, plan.target, entry)
    return places[-1]


def _assignment(
    plan: Plan, url: str, name: str, quiet: str, budget: Budget, objective: Objective | None
) -> Assignment:
    return Assignment(
        family=plan.family.name,
        case=plan.case.as_dict(),
        target=plan.target.name,
        backend=plan.backend.name,
        seed=plan.seed,
        threads=plan.threads,
        sampler=plan.sampler,
        storage_url=url,
        study_name=name,
        quiet_device=quiet,
        checks_disturb=plan.target.kind == "cpu",
        budget=budget,
        objective=objective,
        objectives=plan.objectives,
    )


def objective_of(assignment: Assignment) -> Objective:
    """The objective a worker uses: the one it was sent, or its own."""
    from tilewright.backends import backend

    if assignment.objective is not None:
        return several(assignment.objective, assignment.objectives)
    family, where = family_named(assignment.family), target_named(assignment.target)
    one = backend(assignment.backend)
    own = objective_for(
        family, _case(family, assignment), where, one, assignment.seed, assignment.threads
    )
    return several(own, assignment.objectives)


def join(assignment: Assignment) -> Search:
    """A search on an existing study, in a worker process."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    family, where = family_named(assignment.family), target_named(assignment.target)
    pool = Pool.of(family.spec, _case(family, assignment), where, provenance.rules_hash(family))
    place = open_place(assignment.storage_url, assignment.family, where.file_stem)
    study = optuna.load_study(study_name=assignment.study_name, storage=place.storage)
    study.sampler = sampler_named(assignment.sampler, pool, assignment.seed, warm.chosen(study))
    objective = objective_of(assignment)
    return Search(
        study,
        pool,
        where.name,
        objective,
        assignment.budget,
        assignment.quiet_device,
        assignment.checks_disturb,
        place,
        assignment.role,
    )


def _case(family: Family, assignment: Assignment) -> Case:
    content: dict[str, Any] = dict(assignment.case)
    return family.spec.case(
        content["sizes"], content["precision"], content["flags"], content["memory"]
    )
