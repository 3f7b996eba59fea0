"""The comparison table of docs/results.md: our host kernel against a family's peers, over a grid of sizes.

    python -m tilewright.perf.study gemm --out docs/results.md

Rows are appended to a file as they are measured, so an interrupted study goes on where it stopped: rows
of the same kernel, configs, torch and effort are reused, each with the day it was measured on.
The sizes come from `comparison(full)` in the family's peers module, else from its benchmark cases; our
flags from its `COMPARISON_FLAGS`, so that both sides may prepare constant operands once.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from tilewright.cases import Case, SizeGrid
from tilewright.document import write_text
from tilewright.errors import TilewrightError, Unavailable, UsageError
from tilewright.machine import data_folder, usable_cores
from tilewright.perf.study_rows import Row, Study, rows
from tilewright.perf.study_table import coverage, markdown, summary
from tilewright.registry import Family

_DEFAULT_PRECISIONS = 4


def comparison(family: Family, full: bool) -> tuple[SizeGrid | None, dict[str, str]]:
    """The family's own grid for peers (None if it declares none) and the flags of our side in it."""
    if family.spec.peers is None:
        raise UsageError(f"{family.name} declares no peers to be compared with")
    module = family.module(family.spec.peers.path.partition(":")[0])
    declared = getattr(module, "comparison", None)
    flags = dict(getattr(module, "COMPARISON_FLAGS", {}))
    return (None if declared is None else declared(full)), flags


def make(
    family: Family,
    precisions: Sequence[str],
    threads: Sequence[int],
    against: str,
    seconds: float,
    full: bool = False,
    quick: bool = False,
    seed: int = 0,
    flags: Mapping[str, str] | None = None,
) -> Study:
    """A study of a family. `quick` takes every fifth size, for a look of a minute or two."""
    sizes, fixed = comparison(family, full)
    fixed |= dict(flags or {})
    chosen = family.spec.select_precisions(precisions)
    if not precisions:
        chosen = chosen[:_DEFAULT_PRECISIONS]
    cases: list[Case] = []
    for precision in chosen:
        if sizes is None:
            found = list(family.spec.benchmark_cases(precision))
        else:
            found = [family.spec.case(s, precision.name, fixed) for s in sizes.sizes]
        cases += found[:: max(1, len(found) // 5)] if quick else found
    return Study(family, tuple(cases), tuple(threads), against, seconds, seed, fixed)


def run(
    family: Annotated[str, typer.Argument(help="The family to compare.")],
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", metavar="NAME,...", help="Precisions; the first four if not given."
        ),
    ] = "",
    threads: Annotated[str, typer.Option("--threads", metavar="N,...", help="Thread counts.")] = "",
    against: Annotated[str, typer.Option("--against", metavar="PEER")] = "torch-best",
    flags: Annotated[
        str, typer.Option("--flags", metavar="K=V,...", help="Fix flags of our side.")
    ] = "",
    seconds: Annotated[float, typer.Option("--seconds", help="Time budget of a row.")] = 1.5,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    full: Annotated[bool, typer.Option("--full", help="Every combination of the sizes.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the sizes.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure everything again instead of going on.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.md", help="Where the table goes; printed if not given."
        ),
    ] = None,
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The rows as a bench document.")
    ] = None,
) -> None:
    """Compare a family's host kernel with a peer over the family's comparison sizes."""
    from tilewright.registry import family as family_named

    try:
        counts = [int(n) for n in _names(threads)] or sorted({1, usable_cores()})
    except ValueError:
        raise UsageError(f"--threads takes whole numbers such as 1,2, not '{threads}'") from None
    fixed = dict(part.partition("=")[::2] for part in _names(flags))
    study = make(
        family_named(family), _names(dtype), counts, against, seconds, full, quick, seed, fixed
    )
    store = data_folder("study", f"{study.family.name}.jsonl")
    if again:
        store.unlink(missing_ok=True)
    found: list[Row] = []
    interrupted = False
    try:
        for number, row in rows(study, store):
            found.append(row)
            ratio = "not timed" if row["ratio"] is None else f"ratio {row['ratio']:.2f}"
            what = f"{row['dtype']} {row['case']} {row['threads']} thr"
            print(f"{number} of {study.total}: {what}: {ratio}", file=sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
    command = shlex.join(["python", "-m", "tilewright.perf.study", *sys.argv[1:]])
    text = markdown(study, found, command)
    if out is None:
        print(text)
    else:
        write_text(out, text)
    if json_ is not None:
        from tilewright.document import write

        write(str(json_), "bench", found, seed=seed, interrupted=interrupted, total=study.total)
    for line in [*summary(study, found), coverage(study, found).replace("*", "")]:
        print(line, file=sys.stderr)
    if interrupted:
        raise typer.Exit(Unavailable.exit_code)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def main() -> None:
    """Entry point; a known failure is one sentence and its exit code."""
    try:
        typer.run(run)
    except TilewrightError as error:
        print(f"study: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
