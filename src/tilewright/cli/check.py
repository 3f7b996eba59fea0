"""tilewright check: outputs against the fp64 reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, progress, quiet, say, table

if TYPE_CHECKING:
    from tilewright.check import CheckRow

app = options.application()


@app.command()
def run(
    families: options.Families = None,
    backend: options.Backend = None,
    target: options.TargetNames = None,
    shape: options.Shape = None,
    dtype: options.Dtype = None,
    flags: options.Flags = None,
    config: options.ConfigText = None,
    seed: options.Seed = 0,
    all_: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Every family, backend and target that can run here (the default selection).",
        ),
    ] = False,
    threads: Annotated[
        int, typer.Option("--threads", help="Threads of host kernels; 0 is all.")
    ] = 0,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", metavar="FILE", help="Run the one call of a failure file again."),
    ] = None,
    failures: Annotated[
        Path | None, typer.Option("--failures", metavar="DIR", help="Where failure files go.")
    ] = None,
    json: options.Json = None,
) -> None:
    """Compare outputs with the fp64 reference, within tolerances that follow from the dtype.

    Without --shape the cases of the spec are run: odd sizes, tails, empty, strided views, every flag.
    Inputs are drawn from --seed; outputs start as NaN. A failure leaves one file with inputs, config,
    outputs and worst elements, and prints the command that replays it.

    \b
    Examples:
      tilewright check gemm --backend host
      tilewright check gemm --shape M=1,N=577,K=63 --dtype bf16 --flags b_layout=KN
    """
    from dataclasses import replace

    from tilewright import check
    from tilewright.errors import UsageError
    from tilewright.registry import select

    if replay is not None:
        from tilewright.replay import load

        job, inputs = load(replay)
        rows = [check.run(job, inputs, failures)]
    else:
        selected = [
            replace(job, threads=threads)
            for job in check.jobs(
                select(families or []),
                options.names(backend),
                options.names(target),
                options.names(dtype),
                options.shape(shape),
                options.flags(flags),
                options.config(config),
                seed,
            )
        ]
        if not selected:
            raise UsageError("nothing that can run here matches; `tilewright list` shows what can")
        with progress("check", len(selected), json) as step:
            rows = check.run_all(
                selected, lambda row: step(f"{row.family} {row.backend} {row.dtype}"), failures
            )
    failed = [r for r in rows if not r.ok]
    emit(json, "check", rows)
    if not quiet(json):
        _summary(rows)
    for row in failed[:10]:
        say(
            f"FAILED {row.family} {row.backend} {row.target} {row.dtype} {row.case}: {row.reason}",
            json,
        )
        if row.replay:
            say(f"  replay: {row.replay}", json)
    say(f"{len(rows) - len(failed)} of {len(rows)} checks ok, seed {seed}", json)
    if failed:
        raise typer.Exit(1)


def _summary(rows: list[CheckRow]) -> None:
    groups: dict[tuple[str, str, str, str], list[CheckRow]] = {}
    for row in rows:
        groups.setdefault((row.family, row.backend, row.target, row.dtype), []).append(row)
    lines = [
        (
            *where,
            f"{sum(r.ok for r in group)}/{len(group)}",
            number(max(r.rel_err for r in group)),
            number(max(r.tolerance for r in group)),
        )
        for where, group in groups.items()
    ]
    table(("family", "backend", "target", "dtype", "ok", "worst rel_err", "tolerance"), lines)
