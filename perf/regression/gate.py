"""gate --base REV: every benchmark of two revisions compared in one run, a verdict each and one for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.backends import State, backend
from tilewright.errors import UsageError
from tilewright.evidence import Evidence
from tilewright.perf import ceilings, samples
from tilewright.perf.bench import Ceiling, Plan, cases, precisions
from tilewright.perf.machine_state import READING_COLUMNS, merged
from tilewright.perf.regression import decide
from tilewright.perf.regression.builds import Side
from tilewright.perf.regression.decide import Contest, Look, Policy
from tilewright.perf.regression.session import (
    FAILURES,
    Benchmark,
    Call,
    Session,
    calls_of,
    mismatch,
)
from tilewright.targets import CPU

WRONG, IMPOSSIBLE, UNAVAILABLE = "wrong", "impossible", "unavailable"


@dataclass(frozen=True, slots=True)
class GateRow:
    """One benchmark. Times in us; `ratio` is base / new: above 1 the new code is faster; `ci` its 95 % interval.

    `verdict` is same, faster, slower, inconclusive, or one of: wrong (an output of either side), impossible (below
    the machine's floor), unavailable (nothing to compare); `reason` explains the last three. `clock` is `run`
    (the calling thread, without waiting for a processor) or `native`. `passes` is how often it was measured on
    freshly loaded builds, `quads` how many ABBA quads there were in all,
    `log_ratios` what each pass gave.
    """

    family: str
    backend: str
    target: str
    case: str
    dtype: str
    threads: int
    verdict: str
    reason: str = ""
    evidence: str | None = None
    base_us: float | None = None
    new_us: float | None = None
    ratio: float | None = None
    ci: tuple[float, float] | None = None
    config: Any = None
    base_config: Any = None
    rel_err: float | None = None
    base_rel_err: float | None = None
    tolerance: float | None = None
    passes: int = 0
    quads: int = 0
    log_ratios: tuple[float, ...] = ()
    seconds: float = 0.0
    clock: str | None = None
    mhz: tuple[float, float] | None = None
    mhz_source: str | None = None
    others_busy: float | None = None
    steal: float | None = None
    load: float | None = None
    samples_id: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which benchmarks: as `bench` takes them, but every precision where none is named, and one thread."""

    plan: Plan
    threads: Sequence[int] = (1,)

    def benchmarks(self) -> list[Benchmark]:
        """All of them that run here; raises UsageError when there are none."""
        host, found = backend("host"), list[Benchmark]()
        for family in self.plan.families:
            for precision in precisions(self.plan, family.spec):
                if host.cell(family, CPU, precision).state is not State.RUN:
                    continue
                for case in cases(self.plan, family.spec, precision):
                    found += [Benchmark(family, case, n, self.plan.seed) for n in self.threads]
        if not found:
            names = ", ".join(f.name for f in self.plan.families)
            raise UsageError(
                f"{names} has no benchmark with a host kernel that runs here; `tilewright list` shows what does"
            )
        return found


@dataclass(slots=True)
class Gate:
    """A comparison of two sides; `rows` runs it. `own` says of each side whether its calls are made as this very package
    makes them, so that its own Python need not be asked."""

    base: Side
    new: Side
    benchmarks: Sequence[Benchmark]
    policy: Policy = field(default_factory=Policy)
    own: tuple[bool, bool] = (False, True)
    keep_samples: bool = True

    def rows(self, looked: Callable[[Benchmark, Contest], None] | None = None) -> list[GateRow]:
        """Measure everything; a row each, in the order of the benchmarks."""
        base_calls, new_calls = (
            calls_of(side, self.benchmarks, own)
            for side, own in zip((self.base, self.new), self.own, strict=True)
        )
        rows: dict[int, GateRow] = {}
        able: list[int] = []
        for i, calls in enumerate(zip(base_calls, new_calls, strict=True)):
            reason = mismatch(*calls)
            if reason:
                rows[i] = _bare(self.benchmarks[i], UNAVAILABLE, reason)
            else:
                able.append(i)
        chosen = [self.benchmarks[i] for i in able]
        both = [(base_calls[i], new_calls[i]) for i in able]
        for i, row in zip(able, self._timed(chosen, both, looked), strict=True):
            rows[i] = row
        return [rows[i] for i in range(len(self.benchmarks))]

    def _timed(
        self,
        benchmarks: Sequence[Benchmark],
        calls: Sequence[tuple[Call, Call]],
        looked: Callable[[Benchmark, Contest], None] | None,
    ) -> list[GateRow]:
        session = Session((self.base, self.new), benchmarks, calls, self.policy.pass_s)
        failed: dict[int, str] = {}

        def measure(index: int, attempt: int) -> Look | None:
            try:
                return session.look(index, attempt)
            except FAILURES as error:
                failed[index] = str(error)
                return None

        def tell(index: int, contest: Contest) -> None:
            if looked:
                looked(benchmarks[index], contest)

        try:
            contests = decide.run(len(benchmarks), self.policy, measure, tell, session.new_pass)
        finally:
            session.close()
        return [
            _bare(bench, WRONG, failed[i])
            if i in failed
            else self._row(bench, contests[i], calls[i], session, i)
            for i, bench in enumerate(benchmarks)
        ]

    def _row(
        self, bench: Benchmark, contest: Contest, calls: tuple[Call, Call], session: Session, i: int
    ) -> GateRow:
        estimate = contest.estimate()
        state = merged([look.disturbance for look in contest.looks])
        base_us, new_us = (
            decide.typical([getattr(look, side) for look in contest.looks]) / 1e3
            for side in ("base_ns", "new_ns")
        )
        reason = _impossible(bench, base_us, new_us)
        checked = session.compared[i]
        return GateRow(
            **_about(bench),
            verdict=IMPOSSIBLE if reason else contest.verdict,
            reason=reason or "",
            evidence=str(Evidence.MEASURED),
            base_us=base_us,
            new_us=new_us,
            ratio=estimate.value,
            ci=(estimate.low, estimate.high),
            config=calls[1]["config"],
            base_config=calls[0]["config"],
            rel_err=checked[1].rel_err,
            base_rel_err=checked[0].rel_err,
            tolerance=checked[1].tolerance,
            passes=len(contest.looks),
            quads=sum(look.quads for look in contest.looks),
            log_ratios=tuple(round(look.log_ratio, 6) for look in contest.looks),
            seconds=round(contest.spent_s, 3),
            clock=session.clocks[i],
            mhz=state.mhz(),
            mhz_source=state.clock_source,
            others_busy=state.others,
            steal=state.steal,
            load=state.load,
            samples_id=self._kept(bench, contest) if self.keep_samples else None,
        )

    def _kept(self, bench: Benchmark, contest: Contest) -> str:
        arrays: dict[str, Any] = {"log_ratio": np.array([look.log_ratio for look in contest.looks])}
        for k, look in enumerate(contest.looks):
            arrays |= {f"base_{k}": look.samples[0], f"new_{k}": look.samples[1]}
            arrays[f"machine_{k}"] = look.disturbance.table()
        about = {**_about(bench), "unit": "ns per call", "machine_columns": READING_COLUMNS}
        return samples.save(arrays, {**about, "base": self.base.tree, "new": self.new.tree})


def _about(bench: Benchmark) -> dict[str, Any]:
    return {
        "family": bench.family.name,
        "backend": "host",
        "target": "cpu",
        "case": str(bench.case),
        "dtype": bench.case.precision,
        "threads": bench.threads,
    }


def _bare(bench: Benchmark, verdict: str, reason: str) -> GateRow:
    return GateRow(**_about(bench), verdict=verdict, reason=reason)


def _impossible(bench: Benchmark, base_us: float, new_us: float) -> str | None:
    """Why no machine of this kind can be that fast, if its ceilings are known: a gate does not wait for them."""
    known = ceilings.load()
    if known is None:
        return None
    judge = Ceiling(known, tried=True)
    for name, time_us in (("base", base_us), ("new", new_us)):
        _, reason = judge.judge(bench.family.spec, bench.case, time_us, bench.threads, False)
        if reason:
            return f"{name}: {reason}"
    return None


def verdict(rows: Sequence[GateRow]) -> str:
    """The verdict of a gate: wrong and impossible outrank slower, then inconclusive, then faster or same.

    Benchmarks with nothing to compare do not count, unless there is nothing else.
    """
    said = [row.verdict for row in rows if row.verdict != UNAVAILABLE]
    for worst in (WRONG, IMPOSSIBLE):
        if worst in said:
            return worst
    return decide.overall(said)


def counts(rows: Sequence[GateRow]) -> dict[str, int]:
    """How many benchmarks got each verdict, the gravest first."""
    order = (
        WRONG,
        IMPOSSIBLE,
        decide.SLOWER,
        decide.INCONCLUSIVE,
        decide.FASTER,
        decide.SAME,
        UNAVAILABLE,
    )
    found = {said: sum(row.verdict == said for row in rows) for said in order}
    return {said: n for said, n in found.items() if n}


EXIT_CODES: Mapping[str, int] = {
    decide.SAME: 0,
    decide.FASTER: 0,
    decide.SLOWER: 1,
    WRONG: 1,
    IMPOSSIBLE: 1,
    decide.INCONCLUSIVE: 3,
}
