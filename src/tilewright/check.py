"""check: spec -> inputs -> backend -> compare with reference -> verdict, and a file that replays a failure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.backends import Backend, Launch, State, all_backends, backend
from tilewright.errors import Refused, TilewrightError, Unavailable
from tilewright.inputs import Inputs, draw, reference_outputs
from tilewright.numerics import Comparison, compare
from tilewright.space import Config
from tilewright.targets import Target, target

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.spec import Precision


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One verdict; the fields of `check`'s JSON rows."""

    family: str
    backend: str
    target: str
    case: str
    dtype: str
    config: Config
    ok: bool
    rel_err: float
    max_abs_err: float
    tolerance: float
    seed: int
    evidence: str
    reason: str = ""
    failure: str | None = None
    replay: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to check."""

    family: Family
    backend: Backend
    target: Target
    case: Case
    config: Config
    seed: int
    threads: int = 0


def jobs(
    families: Sequence[Family],
    backends: Sequence[str] = (),
    targets: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    sizes: dict[str, int] | None = None,
    flags: dict[str, str] | None = None,
    config: dict[str, int] | None = None,
    seed: int = 0,
) -> Iterator[Job]:
    """Everything that can be computed on this machine and matches the selection.

    Without `sizes` the spec's own cases are taken, those a slow backend cannot do in time left out.
    """
    wanted_targets = {target(t).name for t in targets}
    for family in families:
        precisions = family.spec.select_precisions(dtypes)
        for one in [backend(b) for b in backends] or list(all_backends().values()):
            for name in one.targets():
                if wanted_targets and name not in wanted_targets:
                    continue
                where = target(name)
                for precision in precisions:
                    if not one.cell(family, where, precision).state.checks:
                        continue
                    chosen = family.spec.default_config(where)
                    space = family.spec.space_for(where)
                    if config and space:
                        chosen = space.complete(config, chosen)
                    for case in _cases(family, one, where, precision, chosen, sizes, flags):
                        yield Job(family, one, where, case, chosen, seed)


def _cases(
    family: Family,
    one: Backend,
    where: Target,
    precision: Precision,
    config: Config,
    sizes: dict[str, int] | None,
    flags: dict[str, str] | None,
) -> list[Case]:
    """The one case asked for, or those of the spec that the backend takes and can do in time."""
    if sizes is not None:
        return [one.case(family, sizes, precision, flags, config, where)]

    def accepts(case: Case) -> bool:
        return one.refuses(family, case, config, where) is None

    return [
        case
        for case in family.spec.check_cases(precision, one.name, accepts)
        if family.spec.flops_of(case) <= one.check_flops
        and all(case.flags[k] == v for k, v in (flags or {}).items())
    ]


def launch(job: Job, inputs: Inputs) -> Launch:
    """Prepare the job's call on these inputs."""
    return job.backend.prepare(job.family, job.case, inputs, job.config, job.target, job.threads)


def compare_outputs(job: Job, inputs: Inputs, outputs: Any) -> Comparison:
    """The worst comparison over all outputs."""
    tolerance = job.family.spec.tolerance.of(job.family.spec, job.case)
    tolerance += job.backend.added_error(job.family, job.case)
    expected = reference_outputs(job.family, job.case, inputs)
    results = [compare(outputs[name], ref, tolerance) for name, ref in expected.items()]
    return max(results, key=lambda c: (not c.ok, c.rel_err, c.worst))


def run(job: Job, inputs: Inputs | None = None, failures: Path | None = None) -> CheckRow:
    """Check one job. A failure is written to a file under `failures` with the command that replays it."""
    given = inputs is not None
    inputs = inputs or draw(job.family, job.case, job.seed)
    try:
        prepared = launch(job, inputs)
        prepared.run()
        verdict = compare_outputs(job, inputs, prepared.outputs)
        outputs = prepared.outputs
        findings = prepared.details.get("findings") or []
        reason = verdict.reason
        if not reason and findings:
            reason = f"{len(findings)} findings, the first: {findings[0]}"
    except (Refused, Unavailable) as error:
        return _row(job, Comparison(False, math.inf, math.inf, math.inf, (), 0.0, ""), str(error))
    except TilewrightError as error:
        verdict = Comparison(False, math.inf, math.inf, math.inf, (), 0.0, str(error))
        outputs, reason = {}, str(error)
    if not reason:
        return _row(job, verdict, "")
    from tilewright.replay import save

    path = save(job, inputs, outputs, verdict, failures, keep_inputs=given)
    return _row(job, verdict, reason, path)


def _row(job: Job, verdict: Comparison, reason: str, failure: Path | None = None) -> CheckRow:
    return CheckRow(
        family=job.family.name,
        backend=job.backend.name,
        target=job.target.name,
        case=str(job.case),
        dtype=job.case.precision,
        config=job.config,
        ok=not reason,
        rel_err=verdict.rel_err,
        max_abs_err=verdict.max_abs_err,
        tolerance=verdict.tolerance,
        seed=job.seed,
        evidence=str(job.backend.evidence),
        reason=reason,
        failure=str(failure) if failure else None,
        replay=f"tilewright check --replay {failure}" if failure else None,
    )


def run_all(
    selected: Sequence[Job],
    report: Callable[[CheckRow], None] | None = None,
    failures: Path | None = None,
) -> list[CheckRow]:
    """Check every job; an interrupted run keeps the verdicts it has."""
    rows: list[CheckRow] = []
    try:
        for job in selected:
            rows.append(run(job, failures=failures))
            if report:
                report(rows[-1])
    except KeyboardInterrupt:
        pass
    return rows


__all__ = ["CheckRow", "Job", "State", "compare_outputs", "jobs", "launch", "run", "run_all"]
