"""check: spec -> inputs -> backend -> compare with reference -> verdict, and a file that replays a failure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.backends import Backend, Cell, Launch, State, all_backends, backend
from tilewright.errors import CRASHES, Refused, TilewrightError, Unavailable, UsageError
from tilewright.inputs import Inputs, draw, reference_outputs
from tilewright.numerics import Comparison, compare, worst
from tilewright.space import Config
from tilewright.targets import Target, target

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.spec import KernelSpec, Precision


REFUSED, UNAVAILABLE = "refused", "unavailable"


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One verdict; the fields of `check`'s JSON rows.

    `state` says how outputs were computed (`run`, `interpret`, `twin`), or that the backend would not
    (`refused`, `unavailable`): then there is no verdict, and no failure either.
    """

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
    state: str
    evidence: str | None
    reason: str = ""
    failure: str | None = None
    replay: str | None = None
    # What the family tells of the outputs besides: `KernelSpec.report`.
    report: Mapping[str, float] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        """Whether outputs were computed and judged."""
        return self.state not in (REFUSED, UNAVAILABLE)


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
    Without `config` each case gets what a call gets where nothing is tuned; an empty one is the baseline.
    """
    for family in families:
        family.spec.require_flags(flags or {})
    taken, problem = False, None
    for family, one, cell in matching_cells(families, backends, targets, dtypes):
        if not cell.state.checks:
            continue
        where = target(cell.target)
        chosen = family.spec.default_config(where)
        space = family.spec.space_for(where)
        if config is not None and space:
            try:
                chosen = space.complete(config, chosen)
            except UsageError as error:
                # Another target may have the field or the value.
                problem = problem or UsageError(f"{error} (of {family.name} on {where.name})")
                continue
        taken = True
        precision = family.spec.precision(cell.dtype)
        for case in _cases(family, one, where, precision, chosen, sizes, flags, bool(config)):
            own = family.spec.config_for(case, where) if config is None else chosen
            yield Job(family, one, where, case, own, seed)
    if problem is not None and not taken:
        raise problem


def matching_cells(
    families: Sequence[Family],
    backends: Sequence[str] = (),
    targets: Sequence[str] = (),
    dtypes: Sequence[str] = (),
) -> Iterator[tuple[Family, Backend, Cell]]:
    """The cells of the matrix that a selection names, whatever this machine can do with them."""
    wanted = {target(t).name for t in targets}
    for family in families:
        precisions = family.spec.select_precisions(dtypes)
        for one in [backend(b) for b in backends] or list(all_backends().values()):
            for name in one.targets():
                if not wanted or name in wanted:
                    for precision in precisions:
                        yield family, one, one.cell(family, target(name), precision)


def _cases(
    family: Family,
    one: Backend,
    where: Target,
    precision: Precision,
    config: Config,
    sizes: dict[str, int] | None,
    flags: dict[str, str] | None,
    given_config: bool,
) -> list[Case]:
    """The one case asked for, or those of the spec that the backend takes and can do in time.

    Where it takes none with the given flags or config there is one all the same: its refusal is the answer.
    """
    spec, given = family.spec, flags or {}
    if not all(spec.takes(name, value, precision) for name, value in given.items()):
        return []
    if sizes is not None:
        return [one.case(family, sizes, precision, flags, config, where)]

    def accepts(case: Case) -> bool:
        return one.refuses(family, case, config, where) is None

    numbers = {name: value for name, value in given.items() if spec.flag(name).numeric}
    found = [
        case
        for case in with_numbers(spec, spec.check_cases(precision, one.name, accepts), numbers)
        if spec.flops_of(case) <= one.check_flops
        and accepts(case)
        and all(case.flags[k] == v for k, v in given.items() if k not in numbers)
    ]
    if found or not (flags or given_config):
        return found
    refused = max(spec.check_cases(precision), key=spec.flops_of)
    return [one.case(family, refused.sizes, precision, flags, config, where)]


def with_numbers(
    spec: KernelSpec, cases: Iterable[Case], numbers: Mapping[str, str]
) -> Iterator[Case]:
    """The cases with these numeric flags, each once, where they go with the case's sizes."""
    if not numbers:
        yield from cases
        return
    seen: set[Case] = set()
    for case in cases:
        flags = {**case.flags, **numbers}
        if spec.why_invalid(case.sizes, case.precision, flags) is None:
            changed = spec.case(case.sizes, case.precision, flags, case.memory)
            if changed not in seen:
                seen.add(changed)
                yield changed


def why_nothing(
    families: Sequence[Family],
    backends: Sequence[str],
    targets: Sequence[str],
    dtypes: Sequence[str],
    flags: dict[str, str] | None,
) -> TilewrightError:
    """Why a selection holds no job: it names nothing, or nothing that can be computed here."""
    cells = [cell for _, _, cell in matching_cells(families, backends, targets, dtypes)]
    if not cells:
        named = ", ".join(backends) or "any backend"
        return UsageError(
            f"{named} does not address {', '.join(targets)}; `tilewright list` shows which does"
        )
    if any(cell.state.checks for cell in cells):
        text = ",".join(f"{k}={v}" for k, v in (flags or {}).items())
        precisions = ", ".join(dict.fromkeys(cell.dtype for cell in cells))
        return UsageError(f"--flags {text} do not go with {precisions}")
    reasons = dict.fromkeys(f"{c.backend} on {c.target} is '{c.state}' ({c.reason})" for c in cells)
    return Unavailable(f"nothing of this can be computed here: {'; '.join(reasons)}")


def launch(job: Job, inputs: Inputs) -> Launch:
    """Prepare the job's call on these inputs."""
    return job.backend.prepare(job.family, job.case, inputs, job.config, job.target, job.threads)


def tolerance(family: Family, case: Case, one: Backend, output: str | None = None) -> float:
    """What an output (None: the first) is compared under: the spec's bound, and what the hardware adds to it.

    Hardware adds nothing to what must be exact.
    """
    bound = family.spec.tolerance_of(output, case)
    return bound + one.added_error(family, case) if bound else 0.0


def compare_outputs(job: Job, inputs: Inputs, outputs: Any) -> Comparison:
    """The worst comparison over all outputs; of equals, the one nearest its own tolerance."""
    expected = reference_outputs(job.family, job.case, inputs)
    found = [
        compare(
            outputs[name],
            ref,
            tolerance(job.family, job.case, job.backend, name),
            job.family.spec.unit_of(name),
        )
        for name, ref in expected.items()
    ]
    return worst(found)


def run(job: Job, inputs: Inputs | None = None, failures: Path | None = None) -> CheckRow:
    """Check one job. A failure is written to a file under `failures` with the command that replays it."""
    outputs: Mapping[str, torch.Tensor] = {}
    try:
        inputs = inputs or draw(job.family, job.case, job.seed)
        prepared = launch(job, inputs)
        prepared.run()
        outputs = prepared.outputs
        verdict = compare_outputs(job, inputs, outputs)
        findings = prepared.details.get("findings") or []
        reason = verdict.reason
        if not reason and findings:
            reason = f"{len(findings)} findings, the first: {findings[0]}"
    except Refused as error:
        return _undecided(job, REFUSED, str(error))
    except Unavailable as error:
        return _undecided(job, UNAVAILABLE, str(error))
    except CRASHES as error:
        known = isinstance(error, TilewrightError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        verdict = Comparison(False, math.inf, math.inf, math.inf, (), 0.0, reason)
    if not reason or inputs is None:
        row = _row(job, verdict, reason)
        return replace(row, report=reported(job, inputs, outputs)) if inputs else row
    from tilewright.replay import command, save

    path = save(job, inputs, outputs, verdict, failures, keep_inputs=not inputs.drawn)
    return _row(job, verdict, reason, path, command(path))


def reported(job: Job, inputs: Inputs, outputs: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
    """What the family has to tell of outputs that are right, such as how often a coarse way finds the exact one."""
    spec = job.family.spec
    if spec.report is None:
        return {}
    found = {name: value.cpu() for name, value in outputs.items()}
    told: Mapping[str, float] = spec.report.resolve(job.family.package)(
        job.case, inputs.logical, found
    )
    return told


def _row(
    job: Job,
    verdict: Comparison,
    reason: str,
    failure: Path | None = None,
    replay: str | None = None,
) -> CheckRow:
    precision = job.family.spec.precision(job.case.precision)
    state = job.backend.cell(job.family, job.target, precision).state
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
        state=str(state),
        evidence=str(state.evidence),
        reason=reason,
        failure=str(failure) if failure else None,
        replay=replay,
    )


def _undecided(job: Job, state: str, reason: str) -> CheckRow:
    nothing = Comparison(False, math.inf, math.inf, math.inf, (), 0.0, reason)
    return replace(_row(job, nothing, reason), state=state, evidence=None)


def run_all(selected: Iterable[Job], failures: Path | None = None) -> Iterator[CheckRow]:
    """Check every job, one verdict after the other."""
    for job in selected:
        yield run(job, failures=failures)


__all__ = ["CheckRow", "Job", "State", "compare_outputs", "jobs", "launch", "run", "run_all"]
