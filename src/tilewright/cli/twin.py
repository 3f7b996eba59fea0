"""tilewright twin: AscendC kernels on the host twin of the 910B."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright.cli import options, twin_names
from tilewright.cli.output import emit, number, progress, quiet, say, table

if TYPE_CHECKING:
    from tilewright.ascendc.twin.runner import How
    from tilewright.check import Job

app = options.application()

# The language of --args (ascendc/twin/arguments.py), as --help teaches it.
_ARGUMENTS = """
\b
--args has one entry for each parameter of the kernel, in its order:
  x:fp16[32,2048]=normal     an array: type, shape, and how it is filled
  n=65536                    a number; its type is that of the parameter
  s:fp32=0.5                 a number whose type is checked against the parameter's
  t:struct<int32,int32,fp32>=(1,2,0.5)   a plain struct, by value or behind a GM_ADDR
  t=@tiling.bin              the same from the bytes of a file
  b=null                     a null pointer

\b
Types:  fp16 bf16 fp32 fp64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool
Fills:  normal  normal(mean,std)  uniform  uniform(low,high)  randint(low,high)
        arange  zeros  ones  full(value)  @file.npy
        out        an output; filled with NaN bytes, so that what is not written shows
        workspace  scratch memory; filled likewise, neither compared nor saved

\b
--expect computes in fp64 with the names of --args: + - * / // % ** @,
comparisons, x[:, 0], and functions such as sqrt exp log tanh erf sigmoid
softmax maximum where sum mean max cumsum sort argsort transpose fp16 bf16.
"""


@app.callback()
def twin() -> None:
    """Run AscendC kernels on the host twin of the Ascend 910B: no NPU, no CANN.

    The twin executes every instruction of the kernel with the values, rounding and limits of the
    hardware, and reports what would fail there: missing synchronisation, deadlocks, memory overruns,
    misalignment, illegal parameters, capacity, flags that do not pair. It measures no time.
    """


@app.command("run", epilog=_ARGUMENTS)
def run(
    what: Annotated[
        str,
        typer.Argument(metavar="FAMILY|FILE.cpp", help="A family, or any file of AscendC kernels."),
    ],
    target: Annotated[str, typer.Option("--target", "--soc", help="The chip.")] = "ascend:910b1",
    shape: options.Shape = None,
    dtype: options.Dtype = None,
    flags: options.Flags = None,
    config: options.ConfigText = None,
    schedule: Annotated[
        str,
        typer.Option(
            "--schedule",
            metavar="program|timeline|random",
            help="When instructions take effect: in program order, in simulated time, or as late and early as the "
            "kernel's synchronisation allows, drawn from --seed. Findings do not depend on it; values do.",
        ),
    ] = "program",
    auto_sync: Annotated[
        str,
        typer.Option(
            "--auto-sync",
            metavar="on|off",
            help="on: also what CANN's compiler inserts by default, between vector instructions and between the "
            "scalar unit and other pipes of a vector core.",
        ),
    ] = "off",
    seed: options.Seed = 0,
    threads: Annotated[int, typer.Option("--threads", help="Host threads; 0 is all.")] = 0,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="One JSON object per instruction and line."),
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(
            "--entry",
            metavar="KERNEL",
            help="FILE: the kernel; not needed where there is one. Instances of templates as 'copy<half>'.",
        ),
    ] = None,
    host_entry: Annotated[
        str | None,
        typer.Option(
            "--host-entry",
            metavar="NAME",
            help="FILE: a host function, main included, whose kernel<<<...>>>(...) run on the twin.",
        ),
    ] = None,
    args: Annotated[
        str | None,
        typer.Option(
            "--args", metavar="NAME:TYPE[SHAPE]=FILL,...", help="FILE: the arguments; see below."
        ),
    ] = None,
    blocks: Annotated[
        int | None, typer.Option("--blocks", metavar="N", help="FILE: blocks of the launch; 1.")
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="OUTPUT=EXPRESSION",
            help="FILE: what an output must be, in fp64, such as z=x+y or 'z=softmax(x)'; may be repeated.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance", help="FILE: relative error allowed; four roundings of the output's type."
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="DIR", help="FILE: write outputs there as .npy."),
    ] = None,
    include: Annotated[
        list[Path] | None, typer.Option("-I", metavar="DIR", help="FILE: a folder of headers.")
    ] = None,
    define: Annotated[
        list[str] | None, typer.Option("-D", metavar="NAME[=VALUE]", help="FILE: a macro.")
    ] = None,
    json: options.Json = None,
) -> None:
    """Run a family's AscendC kernel, or any kernel file, check its output and list what the twin found.

    Of a family, without --shape, the spec's cases are run. Findings make the exit code 1, as a wrong
    output and a source that does not compile do.

    \b
    Examples:
      tilewright twin run gemm --dtype fp16 --shape M=64,N=128,K=256
      tilewright twin run gemm --dtype int8 --config '{"tile_m":128,"tile_n":128,"unit_flag":1}'
      tilewright twin run my_kernel.cpp --entry add --blocks 8 --expect z=x+y \\
        --args "x:fp16[32,2048]=normal, y:fp16[32,2048]=normal, z:fp16[32,2048]=out, n=65536"
    """
    from tilewright import check
    from tilewright.ascendc.twin.runner import unchecked_text
    from tilewright.document import require_writable
    from tilewright.errors import UsageError
    from tilewright.registry import family

    if trace is not None:
        require_writable(trace)
    how = _how(schedule, seed, auto_sync)
    from tilewright.cli import twin_file

    chosen_of = {"--shape": shape, "--dtype": dtype, "--flags": flags, "--config": config}
    only_file = {
        **{"--entry": entry, "--host-entry": host_entry, "--args": args, "--blocks": blocks},
        **{
            "--expect": expect,
            "--tolerance": tolerance,
            "--save": save,
            "-I": include,
            "-D": define,
        },
    }
    if twin_file.looks_like_file(what):
        _refuse(chosen_of, f"{what} is a file", "a family")
        return twin_file.run_file(
            twin_file.Request(
                file=Path(what),
                entry=entry,
                host_entry=host_entry,
                arguments=args or "",
                blocks=1 if blocks is None else blocks,
                seed=seed,
                target=_chip(target),
                include=include or (),
                define=define or (),
                expect=expect or (),
                tolerance=tolerance,
                save=save,
                launch={
                    "threads": threads,
                    "trace": trace,
                    "schedule": how.schedule,
                    "seed": how.seed,
                    "auto_sync": how.auto_sync,
                },
            ),
            json,
        )
    _refuse(only_file, f"{what} is a family", "a file")
    target = _chip(target)
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
                rows.append(_run(job, threads, trace, how))
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
    unchecked = sum(row["unchecked_gm"] or 0 for row in rows)
    if unchecked:
        say(unchecked_text(unchecked), json)
    if interrupted:
        say(f"interrupted: {len(rows)} of {len(jobs)} were run before", json)
    if any(row["state"] == "twin" for row in bad):
        raise typer.Exit(1)
    if interrupted or len(bad) == len(rows):
        raise typer.Exit(3)


app.command("api")(twin_names.api)


def _sources(job: Job) -> Any:
    """Finds the files that findings of a family name."""
    from tilewright.ascendc.twin.diagnostics import locate_in
    from tilewright.registry import package_folder

    return locate_in(
        ("ascendc/", package_folder("tilewright.ascendc")),
        (f"{job.family.name}/ascendc/", job.family.ascendc_folder),
    )


def _chip(name: str) -> str:
    """`910b1` and `ascend:910b1` are the same chip."""
    from tilewright.errors import unknown
    from tilewright.targets import ALL

    chips = [t for t in ALL if t.startswith("ascend:")]
    full = name if ":" in name else f"ascend:{name}"
    if full.startswith("ascend:") and full not in ALL:
        raise unknown("chip", name, chips)
    return full


def _refuse(given: dict[str, Any], what: str, of: str) -> None:
    """Options of the one kind of run that were given to the other."""
    from tilewright.errors import UsageError

    named = [name for name, value in given.items() if value is not None]
    if named:
        raise UsageError(f"{what}; {', '.join(named)} belong{'s' * (len(named) == 1)} to {of}")


def _how(schedule: str, seed: int, auto_sync: str) -> How:
    from tilewright.ascendc.twin.runner import SCHEDULES, How
    from tilewright.errors import unknown

    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, list(SCHEDULES))
    if auto_sync not in ("on", "off"):
        raise unknown("value of --auto-sync", auto_sync, ["on", "off"])
    return How(schedule, seed, auto_sync == "on")


def _run(job: Job, threads: int, trace: Path | None, how: How) -> dict[str, Any]:
    from dataclasses import asdict

    from tilewright import check
    from tilewright.ascendc.twin.diagnostics import render
    from tilewright.ascendc.twin.runner import CYCLES_ARE, running
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
        "schedule": how.schedule,
        "auto_sync": how.auto_sync,
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
        "inserted_syncs": None,
        "unchecked_gm": None,
        "cycles": None,
        "cycles_evidence": None,
        "evidence": None,
        "findings_list": [],
    }
    try:
        inputs = draw(job.family, job.case, job.seed)
        with running(how):
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
        "inserted_syncs": result.inserted_syncs,
        "unchecked_gm": result.unchecked_gm,
        "cycles": result.cycles or launch.details["cycles"],
        "cycles_evidence": CYCLES_ARE,
        "reason": verdict.reason or (f"{len(result.findings)} findings" if result.findings else ""),
        "findings_list": [
            {**plain(asdict(f)), "text": render(f, _sources(job))} for f in result.findings
        ],
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
