"""tilewright doctor: what this machine has, can do, and how fast it can be."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, say, table

app = options.application()


@app.command()
def run(
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh",
            help="Measure the ceilings again (5 to 10 s); the best of old and new is kept.",
        ),
    ] = False,
    ceilings: Annotated[
        bool, typer.Option(help="Show measured ceilings; measured on first use, 5 to 10 s.")
    ] = True,
    json: options.Json = None,
) -> None:
    """Show instruction levels, measured ceilings, devices, toolchains and versions.

    Ceilings are read and write bandwidth per cache level and peak rates per operand type, with one
    and all threads; benchmarks show their distance from them. Exit code 1 if something needed is missing.
    """
    from tilewright.perf.doctor import findings

    def note(text: str) -> None:
        print(f"measuring {text}", file=sys.stderr)

    rows = list(findings(ceilings, refresh, note))
    emit(json, "doctor", rows)
    marks = {True: "ok", False: "MISSING", None: "-"}
    table(
        ("name", "value", "", "", "hint"),
        [(r.name, r.value, r.unit, marks[r.ok], r.hint) for r in rows],
        json=json,
    )
    missing = [r for r in rows if r.ok is False]
    for row in missing:
        say(f"{row.name}: {row.value}. {row.hint}", json)
    if missing:
        raise typer.Exit(1)
