"""bench: check -> time -> row, for families x backends x cases x threads, against peers if asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tilewright import check, tables
from tilewright.backends import Backend, State, all_backends
from tilewright.backends import backend as backend_named
from tilewright.cases import Case
from tilewright.errors import Refused, TilewrightError, Unavailable, UsageError, unknown
from tilewright.inputs import Inputs, draw, from_logical
from tilewright.machine import usable_cores
from tilewright.perf import ceilings as limits
from tilewright.perf import gate
from tilewright.perf import peers as peer_table
from tilewright.perf.engine import Effort
from tilewright.perf.rows import (
    BenchRow,
    Subject,
    paired_row,
    plain_row,
    unavailable_row,
    wrong_row,
)
from tilewright.perf.timing import time_alone, time_beside
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.targets import Target, target

if TYPE_CHECKING:
    from tilewright.spec import KernelSpec, Precision


@dataclass(frozen=True, slots=True)
class Plan:
    """What to benchmark. Empty selections mean the defaults: the host backend (the reference where a family
    has no host kernel), the family's default precision, its benchmark cases, every core, warm caches, no peer. `inputs` makes them from
    family, case and seed: random ones, unless real ones are at hand."""

    families: Sequence[Family]
    backends: Sequence[str] = ()
    targets: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    sizes: Mapping[str, int] | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, int] | None = None
    threads: Sequence[int] = ()
    against: Sequence[str] = ()
    cold: bool = False
    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    cases: Sequence[Case] | None = None
    inputs: Callable[[Family, Case, int], Inputs] = draw

    def __post_init__(self) -> None:
        most = usable_cores()
        for count in self.threads:
            if not 1 <= count <= most:
                raise UsageError(
                    f"{count} threads were asked for; this process may use 1 to {most}"
                )


@dataclass(slots=True)
class Ceiling:
    """The ceilings of this machine, fetched when first needed; `reason` says why there are none."""

    found: limits.Ceilings | None = None
    reason: str = ""
    refreshed: bool = False
    tried: bool = False

    def get(self) -> limits.Ceilings | None:
        """The ceilings, measured on first use; None where they cannot be."""
        if not self.tried:
            self.tried = True
            try:
                self.found = limits.get()
            except Unavailable as error:
                self.reason = str(error)
        return self.found

    def refresh(self) -> None:
        """Measure once more: a kept ceiling may have been taken on a busy machine."""
        if not self.refreshed and self.found is not None:
            self.refreshed = True
            try:
                self.found = limits.get(refresh=True)
            except Unavailable as error:
                self.reason = str(error)

    def judge(
        self, spec: KernelSpec, case: Case, time_us: float, threads: int, cold: bool
    ) -> tuple[limits.Bound | None, str | None]:
        """The bound of a case and why a time is impossible, looking again at the ceilings before saying so."""
        known = self.get()
        if known is None:
            return None, None
        limit = limits.bound(spec, case, known, threads, cold)
        if time_us < limit.us and not self.refreshed:
            self.refresh()
            limit = limits.bound(spec, case, self.found or known, threads, cold)
        return limit, limits.impossible(time_us, limit)


def places(plan: Plan, family: Family) -> Iterator[tuple[Backend, Target]]:
    """The backends and targets a plan means for a family."""
    if plan.backends:
        chosen = [backend_named(name) for name in plan.backends]
    else:
        chosen = [all_backends()["host" if family.has("host.cpp") else "reference"]]
    for one in chosen:
        names = [n for n in one.targets() if not plan.targets or n in plan.targets]
        for name in names:
            yield one, target(name)


def precisions(plan: Plan, spec: KernelSpec) -> list[Precision]:
    """The precisions a plan means: the named ones, all for `all`, else the family's default."""
    if "all" in plan.dtypes:
        return list(spec.precisions)
    return [spec.precision(name) for name in plan.dtypes] or [spec.precision(None)]


def cases(plan: Plan, spec: KernelSpec, precision: Precision) -> list[Case]:
    """The cases of a plan under one precision."""
    if plan.cases is not None:
        return [c for c in plan.cases if c.precision == precision.name]
    if plan.sizes is not None:
        return [spec.case(plan.sizes, precision.name, plan.flags)]
    return [
        spec.case(c.sizes, c.precision, {**c.flags, **plan.flags}, c.memory)
        for c in spec.benchmark_cases(precision)
    ]


def not_timed(family: Family, one: Backend, where: Target, precision: Precision) -> str | None:
    """Why this machine cannot time a cell; None if it can. Only real execution is timed."""
    cell = one.cell(family, where, precision)
    if cell.state is not State.RUN:
        why = f" ({cell.reason})" if cell.reason else ""
        return f"{one.name} on {where.name} is '{cell.state}' here{why}; only what runs on its hardware is timed"
    if where.kind != "cpu":
        return f"bench reads processor clocks; it does not time {where.name}"
    return None


def count(plan: Plan) -> int:
    """Rows a plan will give, for progress."""
    total = 0
    for family in plan.families:
        for one, where in places(plan, family):
            for precision in precisions(plan, family.spec):
                if not_timed(family, one, where, precision):
                    total += 1
                    continue
                per_case = len(plan.threads or (0,)) * max(1, len(plan.against))
                total += len(cases(plan, family.spec, precision)) * per_case
    return total


def rows(plan: Plan, ceiling: Ceiling | None = None) -> Iterator[BenchRow]:
    """One row per family, backend, case, thread count and peer. A row that has no time says why."""
    ceiling = ceiling or Ceiling()
    for family in plan.families:
        _known_peers(plan, family)
        for one, where in places(plan, family):
            for precision in precisions(plan, family.spec):
                reason = not_timed(family, one, where, precision)
                if reason:
                    subject = Subject(
                        family,
                        one,
                        where,
                        precision.name,
                        None,
                        Config({}),
                        "",
                        plan.seed,
                        0,
                        plan.cold,
                    )
                    yield unavailable_row(subject, reason)
                    continue
                for case in cases(plan, family.spec, precision):
                    yield from _case_rows(plan, family, one, where, case, ceiling)


def _case_rows(
    plan: Plan, family: Family, one: Backend, where: Target, case: Case, ceiling: Ceiling
) -> Iterator[BenchRow]:
    inputs = plan.inputs(family, case, plan.seed)
    expected = gate.Expected.of(family, case, inputs)
    for threads in plan.threads or (usable_cores(),):
        with peer_table.torch_threads(threads):
            if not plan.against:
                subject = _subject(plan, family, one, where, case, threads)
                work = partial(_alone, plan, subject, inputs, expected, ceiling)
                yield _guarded(subject, inputs, work)
                continue
            known = peer_table.find(family, case, inputs, threads)
            for wanted in plan.against:
                yield _against(
                    plan,
                    family,
                    one,
                    where,
                    case,
                    threads,
                    inputs,
                    expected,
                    known,
                    wanted,
                    ceiling,
                )


def _subject(
    plan: Plan, family: Family, one: Backend, where: Target, case: Case, threads: int
) -> Subject:
    if plan.config is not None:
        space = family.spec.space_for(where)
        default = family.spec.default_config(where)
        chosen, source = (space.complete(plan.config, default) if space else default), "given"
    else:
        choice = tables.choose(family, case, where)
        chosen, source = choice.config, choice.source
    return Subject(
        family, one, where, case.precision, case, chosen, source, plan.seed, threads, plan.cold
    )


def _guarded(
    subject: Subject, inputs: Inputs, work: Callable[[], BenchRow], peer: str | None = None
) -> BenchRow:
    """The row of some work, or the row that says why there is none."""
    try:
        return work()
    except (Refused, Unavailable) as error:
        return unavailable_row(subject, str(error), peer)
    except UsageError:
        raise
    except TilewrightError as error:
        assert subject.case is not None
        job = check.Job(
            subject.family,
            subject.backend,
            subject.target,
            subject.case,
            subject.config,
            subject.seed,
            subject.threads,
        )
        failed = check.run(job, inputs)
        again = f"; replay: {failed.replay}" if failed.replay else ""
        return wrong_row(subject, f"{error}{again}")


def _alone(
    plan: Plan, subject: Subject, inputs: Inputs, expected: gate.Expected, ceiling: Ceiling
) -> BenchRow:
    measurement, verdict = time_alone(subject, inputs, expected, plan.effort)
    assert subject.case is not None
    limit, why = ceiling.judge(
        subject.family.spec,
        subject.case,
        measurement.median.value / 1e3,
        subject.threads,
        subject.cold,
    )
    return plain_row(subject, measurement, verdict, limit, why)


def _against(
    plan: Plan,
    family: Family,
    one: Backend,
    where: Target,
    case: Case,
    threads: int,
    inputs: Inputs,
    expected: gate.Expected,
    known: Sequence[peer_table.Peer],
    wanted: str,
    ceiling: Ceiling,
) -> BenchRow:
    subject = _subject(plan, family, one, where, case, threads)

    def work() -> BenchRow:
        peer, timer, note = peer_table.resolve(wanted, family, known, expected)
        like, ours = _like_for_like(plan, family, one, where, case, inputs, peer)
        fitted = subject if like is case else _subject(plan, family, one, where, like, threads)
        pair, verdict = time_beside(fitted, ours, expected, timer, peer.name, plan.effort)
        limit, why = ceiling.judge(
            family.spec, like, pair.ours.median.value / 1e3, threads, plan.cold
        )
        return paired_row(fitted, pair, verdict, limit, why, wanted, peer, note)

    return _guarded(subject, inputs, work, wanted)


def _known_peers(plan: Plan, family: Family) -> None:
    """Raise UsageError for a peer that the family declares for none of the plan's precisions."""
    if not plan.against or family.spec.peers is None:
        return
    declared: dict[str, None] = {}
    for precision in precisions(plan, family.spec):
        case = family.spec.case(
            dict.fromkeys(family.spec.dim_names(), 1), precision.name, plan.flags
        )
        found = peer_table.find(family, case, draw(family, case, 0), 1)
        declared.update(dict.fromkeys(peer_table.names(family, found)))
    for wanted in plan.against:
        if wanted not in declared:
            raise unknown(f"peer of {family.name} for these precisions", wanted, list(declared))


def _like_for_like(
    plan: Plan,
    family: Family,
    one: Backend,
    where: Target,
    case: Case,
    inputs: Inputs,
    peer: peer_table.Peer,
) -> tuple[Case, Inputs]:
    """Our case in the layout that matches the peer's, unless the user fixed that flag or we do not take it."""
    wished = {k: v for k, v in peer.flags.items() if k not in plan.flags}
    if not wished or all(case.flags.get(k) == v for k, v in wished.items()):
        return case, inputs
    like = family.spec.case(case.sizes, case.precision, {**case.flags, **wished}, case.memory)
    if one.refuses(family, like, family.spec.default_config(where), where):
        return case, inputs
    return like, from_logical(family, like, inputs.logical)
