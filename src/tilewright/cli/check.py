"""tilewright check: outputs against the fp64 reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, progress, quiet, say, table

if TYPE_CHECKING:
    from tilewright.backends import Cell
    from tilewright.check import CheckRow, Job

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
    from tilewright.registry import select

    not_computed: list[Cell] = []
    if replay is not None:
        from tilewright.replay import load

        job, inputs = load(replay)
        rows, interrupted = [check.run(job, inputs, failures)], False
    else:
        where = (
            select(families or []),
            options.names(backend),
            options.names(target),
            options.names(dtype),
        )
        jobs = check.jobs(
            *where, options.shape(shape), options.flags(flags), options.config(config), seed
        )
        selected = [replace(job, threads=threads) for job in jobs]
        if not selected:
            raise check.why_nothing(*where, options.flags(flags))
        cells = [cell for _, _, cell in check.matching_cells(*where)]
        not_computed = [cell for cell in cells if not cell.state.checks]
        rows, interrupted = _run_all(selected, failures, json)
    wrong = [r for r in rows if r.decided and not r.ok]
    undecided = [r for r in rows if not r.decided]
    emit(json, "check", rows, seed=seed, interrupted=interrupted, not_computed=not_computed)
    if not quiet(json):
        _summary(rows)
        _remark_cells(not_computed)
    for row in [*wrong[:10], *undecided[:10]]:
        word = "FAILED" if row.decided else row.state.upper()
        say(
            f"{word} {row.family} {row.backend} {row.target} {row.dtype} {row.case}: {row.reason}",
            json,
        )
        if row.replay:
            say(f"  replay: {row.replay}", json)
    decided = len(rows) - len(undecided)
    say(f"{decided - len(wrong)} of {decided} checks ok, seed {seed}", json)
    if interrupted:
        say(f"interrupted: {len(rows)} of {len(selected)} were checked before", json)
    if wrong:
        raise typer.Exit(1)
    if interrupted or not decided:
        raise typer.Exit(3)


def _run_all(
    selected: list[Job], failures: Path | None, json: str | None
) -> tuple[list[CheckRow], bool]:
    """The verdicts, and whether Ctrl-C came before the last one."""
    from tilewright import check

    rows: list[CheckRow] = []
    with progress("check", len(selected), json) as step:
        try:
            for row in check.run_all(selected, failures):
                rows.append(row)
                step(f"{row.family} {row.backend} {row.dtype}")
        except KeyboardInterrupt:
            return rows, True
    return rows, False


def _remark_cells(cells: list[Cell]) -> None:
    """What the selection names and this machine cannot compute; listed, not failed."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.family, cell.backend, f"{cell.state}: {cell.reason}"), []).append(
            cell
        )
    for (family, backend, why), group in groups.items():
        targets = ", ".join(dict.fromkeys(c.target for c in group))
        dtypes = ", ".join(dict.fromkeys(c.dtype for c in group))
        say(f"not computed here: {family} {backend} on {targets} ({dtypes}), {why}")


def _summary(rows: list[CheckRow]) -> None:
    groups: dict[tuple[str, str, str, str], list[CheckRow]] = {}
    for row in filter(lambda r: r.decided, rows):
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
    if lines:
        table(("family", "backend", "target", "dtype", "ok", "worst rel_err", "tolerance"), lines)
    for (family, backend, where, dtype), group in groups.items():
        for name in dict.fromkeys(name for row in group for name in row.report):
            told = [row.report[name] for row in group if name in row.report]
            say(
                f"{family} {backend} {where} {dtype}: {name} {number(sum(told) / len(told))} on average, "
                f"at least {number(min(told))}, in {len(told)} checks"
            )
