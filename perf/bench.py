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
from tilewright.errors import (
    KernelFailed,
    Refused,
    TilewrightError,
    Unavailable,
    UsageError,
    unknown,
)
from tilewright.inputs import Inputs, draw_typical, from_logical
from tilewright.machine import usable_cores
from tilewright.peers import Peer, first_line
from tilewright.perf import ceilings as limits
from tilewright.perf import gate
from tilewright.perf import peers as peer_table
from tilewright.perf.device import ceilings as device_ceilings
from tilewright.perf.device.trial import on_device
from tilewright.perf.engine import Effort
from tilewright.perf.peers.itself import is_flag, itself
from tilewright.perf.rows import (
    BenchRow,
    Subject,
    paired_row,
    plain_row,
    unavailable_row,
    wrong_row,
)
from tilewright.perf.timing import time_alone, time_beside
from tilewright.perf.watch import Cheated
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.targets import Target, target

if TYPE_CHECKING:
    from tilewright.spec import KernelSpec, Precision


@dataclass(frozen=True, slots=True)
class Plan:
    """What to benchmark. Empty selections mean the defaults: the host backend (the reference where a family
    has no host kernel), the family's default precision, its benchmark cases, every core, warm caches, no
    peer. `inputs` makes them from family, case and seed: random ones, unless real ones are at hand."""

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
    inputs: Callable[[Family, Case, int], Inputs] = draw_typical

    def __post_init__(self) -> None:
        most = usable_cores()
        for count in self.threads:
            if not 1 <= count <= most:
                raise UsageError(
                    f"{count} threads were asked for; this process may use 1 to {most}"
                )


def _of_the_processor(refresh: bool) -> limits.Ceilings:
    return limits.get(refresh=refresh)


@dataclass(slots=True)
class Ceiling:
    """The ceilings of this machine or of its GPU, fetched when first needed; `reason` says why there are none.

    `source` gets them, measured again for True.
    """

    found: limits.Ceilings | None = None
    reason: str = ""
    refreshed: bool = False
    tried: bool = False
    source: Callable[[bool], limits.Ceilings] = _of_the_processor

    def get(self) -> limits.Ceilings | None:
        """The ceilings, measured on first use; None where they cannot be."""
        if not self.tried:
            self.tried = True
            try:
                self.found = self.source(False)
            except Unavailable as error:
                self.reason = str(error)
        return self.found

    def refresh(self) -> None:
        """Measure once more: a kept ceiling may have been taken on a busy machine."""
        if not self.refreshed and self.found is not None:
            self.refreshed = True
            try:
                self.found = self.source(True)
            except Unavailable as error:
                self.reason = str(error)

    def judge(
        self, spec: KernelSpec, case: Case, time_us: float, threads: int, cold: bool
    ) -> tuple[limits.Bound | None, str | None]:
        """The bound of a case and why a time is impossible, looking again at the ceilings before saying so."""
        known = self.get()
        if known is None:
            return None, None
        threads = max(1, threads)
        limit = limits.bound(spec, case, known, threads, cold)
        if time_us < limit.us and not self.refreshed:
            self.refresh()
            limit = limits.bound(spec, case, self.found or known, threads, cold)
        return limit, limits.impossible(time_us, limit)


def places(plan: Plan, family: Family) -> Iterator[tuple[Backend, Target]]:
    """The backends and targets a plan means for a family; raises UsageError for an unknown name.

    Without backends: the family's own way of running on this processor, and for any other target the
    backends that address it, without those that can only compile where another computes.
    """
    wanted = [target(name) for name in plan.targets]
    if plan.backends:
        for one in [backend_named(name) for name in plan.backends]:
            for where in wanted or [target(name) for name in one.targets()]:
                if where.name in one.targets():
                    yield one, where
        return
    here = all_backends()["host" if family.has("host.cpp") else "reference"]
    for where in wanted or [target(name) for name in here.targets()]:
        if where.name in here.targets():
            yield here, where
            continue
        addressing = [one for one in all_backends().values() if where.name in one.targets()]
        usual = family.spec.precision(None)
        able = [one for one in addressing if one.cell(family, where, usual).state.checks]
        for one in able or addressing:
            yield one, where


def precisions(plan: Plan, spec: KernelSpec) -> list[Precision]:
    """The precisions a plan means: the named ones, all for `all`, else the family's default."""
    if "all" in plan.dtypes:
        return list(spec.precisions)
    return spec.select_precisions(plan.dtypes) if plan.dtypes else [spec.precision(None)]


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
    if where.kind != "cpu" and not where.is_gpu:
        return f"bench reads the clocks of processors and GPUs; it does not time {where.name}"
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
                per_case = len(_threads(plan, where)) * max(1, len(plan.against))
                total += len(cases(plan, family.spec, precision)) * per_case
    return total


def _threads(plan: Plan, where: Target) -> Sequence[int]:
    """Thread counts of a target's rows: 0 on a GPU, whose calls no threads of ours take part in."""
    return (0,) if where.is_gpu else plan.threads or (usable_cores(),)


def gpu_ceiling() -> Ceiling:
    """Of this machine's GPU, fetched when first needed."""
    return Ceiling(source=device_ceilings.get)


def rows(
    plan: Plan, ceiling: Ceiling | None = None, of_gpu: Ceiling | None = None
) -> Iterator[BenchRow]:
    """One row per family, backend, case, thread count and peer. A row that has no time says why."""
    ceiling, of_gpu = ceiling or Ceiling(), of_gpu or gpu_ceiling()
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
                limit = of_gpu if where.is_gpu else ceiling
                for case in cases(plan, family.spec, precision):
                    yield from _case_rows(plan, family, one, where, case, limit)


@dataclass(frozen=True, slots=True)
class _Bench:
    """One case on one backend with what its rows share: inputs, their reference outputs, ceilings."""

    plan: Plan
    family: Family
    backend: Backend
    target: Target
    case: Case
    inputs: Inputs
    expected: gate.Expected
    ceiling: Ceiling

    def subject(self, case: Case, threads: int) -> Subject:
        """What a row is about, with the config that is given or tuned for the case."""
        plan, spec = self.plan, self.family.spec
        if plan.config is not None:
            space, default = spec.space_for(self.target), spec.default_config(self.target)
            config, source = (space.complete(plan.config, default) if space else default), "given"
        else:
            choice = tables.choose(self.family, case, self.target)
            config, source = choice.config, choice.source
        return Subject(
            self.family, self.backend, self.target, case.precision, case, config, source,
            plan.seed, threads, plan.cold,
        )  # fmt: skip


def _case_rows(
    plan: Plan, family: Family, one: Backend, where: Target, case: Case, ceiling: Ceiling
) -> Iterator[BenchRow]:
    inputs = plan.inputs(family, case, plan.seed)
    expected = gate.Expected.of(family, case, inputs, one)
    bench = _Bench(plan, family, one, where, case, inputs, expected, ceiling)
    for threads in _threads(plan, where):
        with peer_table.torch_threads(threads or usable_cores()):
            if not plan.against:
                subject = bench.subject(case, threads)
                yield _guarded(subject, inputs, partial(_alone, bench, subject))
                continue
            theirs = on_device(inputs) if where.is_gpu else inputs
            known = peer_table.find(family, case, theirs, threads)
            known += [
                itself(partial(bench.subject, threads=threads), case, inputs, wanted)
                for wanted in plan.against
                if is_flag(wanted)
            ]
            for wanted in plan.against:
                yield _against(bench, threads, known, wanted)


def _guarded(
    subject: Subject,
    inputs: Inputs,
    work: Callable[[], BenchRow],
    peer: str | None = None,
    peer_is: str | None = None,
) -> BenchRow:
    """The row of timing the subject on these inputs, or the row that says why there is no time."""
    try:
        return work()
    except (Refused, Unavailable) as error:
        return unavailable_row(subject, str(error), peer, peer_is)
    except UsageError:
        raise
    except Cheated as error:
        # There is nothing to replay: the inputs were of a secret seed, and the public ones were right.
        return wrong_row(subject, str(error), peer, peer_is)
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
        return wrong_row(subject, f"{error}{again}", peer, peer_is)
    except RuntimeError as error:
        if not subject.target.is_gpu:
            raise
        # Such as a GPU without the memory for it: the other rows stay.
        return unavailable_row(subject, first_line(error), peer, peer_is)


def _alone(bench: _Bench, subject: Subject) -> BenchRow:
    plan = bench.plan
    measurement, verdict = time_alone(subject, bench.inputs, bench.expected, plan.effort)
    limit, why = bench.ceiling.judge(
        bench.family.spec, bench.case, measurement.median.value / 1e3, subject.threads, plan.cold
    )
    return plain_row(subject, measurement, verdict, limit, why)


def _against(bench: _Bench, threads: int, known: Sequence[Peer], wanted: str) -> BenchRow:
    try:
        on_gpu = bench.target.is_gpu
        peer, timer, note = peer_table.resolve(wanted, bench.family, known, bench.expected, on_gpu)
        if timer.clock == "queued":
            note = "; ".join(filter(None, (note, "queued from Python, not a graph")))
    except (Unavailable, Refused, KernelFailed) as error:
        return unavailable_row(bench.subject(bench.case, threads), str(error), wanted)
    like, ours = _like_for_like(bench, peer)
    fitted = bench.subject(like, threads)

    def work() -> BenchRow:
        effort = bench.plan.effort
        pair, verdict = time_beside(fitted, ours, bench.expected, timer, peer.name, effort)
        limit, why = bench.ceiling.judge(
            bench.family.spec, like, pair.ours.median.value / 1e3, threads, bench.plan.cold
        )
        return paired_row(fitted, pair, verdict, limit, why, wanted, peer, note)

    # A failure is that of the call as it was fitted to the peer: its layout, config and inputs.
    return _guarded(fitted, ours, work, wanted, peer.name)


def _known_peers(plan: Plan, family: Family) -> None:
    """Raise UsageError for a peer that the family declares for none of the plan's precisions."""
    flags = {w.partition("=")[0]: w.partition("=")[2] for w in plan.against if is_flag(w)}
    family.spec.require_flags(flags)
    if all(is_flag(w) for w in plan.against) or family.spec.peers is None:
        return
    declared: dict[str, None] = {}
    for precision in precisions(plan, family.spec):
        case = family.spec.sample_case(precision, plan.flags)
        if case is None:
            continue
        found = peer_table.find(family, case, draw_typical(family, case, 0), 1)
        declared.update(dict.fromkeys(peer_table.names(family, found)))
    for wanted in plan.against:
        if wanted not in declared and not is_flag(wanted):
            raise unknown(f"peer of {family.name} for these precisions", wanted, list(declared))


def _like_for_like(bench: _Bench, peer: Peer) -> tuple[Case, Inputs]:
    """Our case in the layout that matches the peer's, unless the user fixed that flag or we do not take it."""
    case, spec = bench.case, bench.family.spec
    wished = {k: v for k, v in peer.flags.items() if k not in bench.plan.flags}
    if not wished or all(case.flags.get(k) == v for k, v in wished.items()):
        return case, bench.inputs
    like = spec.case(case.sizes, case.precision, {**case.flags, **wished}, case.memory)
    default = spec.default_config(bench.target)
    if bench.backend.refuses(bench.family, like, default, bench.target):
        return case, bench.inputs
    return like, from_logical(bench.family, like, bench.inputs.logical)
