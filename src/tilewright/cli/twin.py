"""tilewright twin: AscendC kernels on the host twin of the 910B."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, progress, quiet, say, table

if TYPE_CHECKING:
    from tilewright.check import Job

app = options.application()


@app.callback()
def twin() -> None:
    """Run AscendC kernels on the host twin of the Ascend 910B: no NPU, no CANN.

    The twin executes every instruction of the kernel with the values, rounding and limits of the
    hardware, and reports what would fail there: memory overruns, misalignment, illegal parameters,
    capacity, flags that do not pair. It measures no time.
    """


@app.command("run")
def run(
    what: Annotated[str, typer.Argument(metavar="FAMILY", help="The family to run.")],
    target: Annotated[str, typer.Option("--target", help="The chip.")] = "ascend:910b1",
    shape: options.Shape = None,
    dtype: options.Dtype = None,
    flags: options.Flags = None,
    config: options.ConfigText = None,
    schedule: Annotated[
        str, typer.Option("--schedule", help="program: instructions take effect in program order.")
    ] = "program",
    auto_sync: Annotated[
        str,
        typer.Option(
            "--auto-sync", metavar="on|off", help="off: only the synchronisation the kernel writes."
        ),
    ] = "off",
    seed: options.Seed = 0,
    threads: Annotated[int, typer.Option("--threads", help="Host threads; 0 is all.")] = 0,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="One JSON object per instruction and line."),
    ] = None,
    json: options.Json = None,
) -> None:
    """Run a family's AscendC kernel, check its output and list what the twin found.

    Without --shape the spec's cases are run. Findings make the exit code 1, as a wrong output does.

    \b
    Examples:
      tilewright twin run gemm --dtype fp16 --shape M=64,N=128,K=256
      tilewright twin run gemm --dtype int8 --config '{"tile_m":128,"tile_n":128,"unit_flag":1}'
    """
    from tilewright import check
    from tilewright.document import require_writable
    from tilewright.errors import Unavailable, UsageError, unknown
    from tilewright.registry import family

    if trace is not None:
        require_writable(trace)
    if what.endswith(".cpp"):
        raise Unavailable(
            f"{what}: running a kernel file outside of a family is not in this version; put it into a family's "
            "ascendc folder (docs/write_a_kernel.md)"
        )
    if schedule in ("timeline", "random"):
        raise Unavailable(
            f"schedule '{schedule}' is not in this version of the twin; it has program"
        )
    if schedule != "program":
        raise unknown("schedule", schedule, ["program"])
    if auto_sync == "on":
        raise Unavailable(
            "inserting synchronisation needs the pipes' schedule, which this version of the twin does not have; "
            "it has --auto-sync off"
        )
    if auto_sync != "off":
        raise unknown("value of --auto-sync", auto_sync, ["off"])
    where = ([family(what)], ["ascendc"], [target], options.names(dtype))
    chosen = (options.shape(shape), options.flags(flags), options.config(config))
    jobs = list(check.jobs(*where, *chosen, seed))
    if not jobs:
        raise check.why_nothing(*where, options.flags(flags))
    if trace is not None and len(jobs) > 1:
        raise UsageError(
            f"--trace holds one run and {len(jobs)} are selected; give --shape and --dtype"
        )
    rows: list[dict[str, Any]] = []
    interrupted = False
    with progress("twin", len(jobs), json) as step:
        try:
            for job in jobs:
                rows.append(_run(job, threads, trace))
                step(f"{job.case.precision} {job.case}")
        except KeyboardInterrupt:
            interrupted = True
    findings = [f for row in rows for f in row["findings_list"]]
    emit(
        json,
        "twin",
        [{k: v for k, v in r.items() if k != "findings_list"} for r in rows],
        findings=findings,
        interrupted=interrupted,
    )
    if not quiet(json):
        _show(rows)
    for finding in findings[:20]:
        say(str(finding["text"]), json)
    bad = [r for r in rows if not r["ok"]]
    for row in bad[:5]:
        word = "FAILED" if row["state"] == "twin" else "REFUSED"
        say(f"{word} {row['dtype']} {row['case']}: {row['reason']}", json)
    say(f"{len(rows) - len(bad)} of {len(rows)} ok, {len(findings)} findings, seed {seed}", json)
    if interrupted:
        say(f"interrupted: {len(rows)} of {len(jobs)} were run before", json)
    if any(row["state"] == "twin" for row in bad):
        raise typer.Exit(1)
    if interrupted or len(bad) == len(rows):
        raise typer.Exit(3)


def _run(job: Job, threads: int, trace: Path | None) -> dict[str, Any]:
    from dataclasses import asdict

    from tilewright import check
    from tilewright.backends.ascendc import AscendC
    from tilewright.document import plain
    from tilewright.errors import CRASHES, Refused, TilewrightError
    from tilewright.inputs import draw

    assert isinstance(job.backend, AscendC)
    base = {
        "family": job.family.name,
        "target": job.target.name,
        "case": str(job.case),
        "dtype": job.case.precision,
        "config": dict(job.config),
        "schedule": "program",
        "seed": job.seed,
    }
    nothing: dict[str, Any] = {
        "ok": False,
        "rel_err": None,
        "tolerance": None,
        "findings": 0,
        "peak": {},
        "instructions": {},
        "blocks": None,
        "cycles": None,
        "cycles_evidence": None,
        "evidence": None,
        "findings_list": [],
    }
    try:
        inputs = draw(job.family, job.case, job.seed)
        launch = job.backend.prepare(
            job.family, job.case, inputs, job.config, job.target, threads, trace
        )
        launch.run()
        verdict = check.compare_outputs(job, inputs, launch.outputs)
    except Refused as error:
        return {**base, **nothing, "state": check.REFUSED, "reason": str(error)}
    except TilewrightError:
        # The kernel does not build or load: no case of it will run.
        raise
    except CRASHES as error:
        reason = f"{type(error).__name__}: {error}"
        return {**base, **nothing, "state": "twin", "reason": reason}
    result = launch.details["result"]
    return {
        **base,
        "state": "twin",
        "evidence": "modelled",
        "ok": verdict.ok and not result.findings,
        "rel_err": verdict.rel_err,
        "tolerance": verdict.tolerance,
        "findings": len(result.findings),
        "peak": dict(result.peak),
        "instructions": plain(result.counts),
        "blocks": result.blocks,
        "cycles": launch.details["cycles"],
        "cycles_evidence": "modelled: a floor from instruction counts",
        "reason": verdict.reason or (f"{len(result.findings)} findings" if result.findings else ""),
        "findings_list": [{**plain(asdict(f)), "text": str(f)} for f in result.findings],
    }


def _show(rows: list[dict[str, Any]]) -> None:
    def peak(row: dict[str, Any], name: str) -> str:
        return str(row["peak"].get(name, "-"))

    table(
        ("dtype", "case", "ok", "rel_err", "findings", "blocks")
        + ("UB B", "L1 B", "L0A B", "L0B B", "L0C B"),
        [
            (
                r["dtype"],
                r["case"],
                "yes" if r["ok"] else "no",
                number(r["rel_err"]),
                r["findings"],
                r.get("blocks", "-"),
                *(peak(r, m) for m in ("ub", "l1", "l0a", "l0b", "l0c")),
            )
            for r in rows
        ],
    )
