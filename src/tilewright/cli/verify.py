"""tilewright verify: run the verify.py that a bundle carries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, say, table

app = typer.Typer()


@app.command()
def run(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A bundle, as `tilewright ship` wrote it.")
    ],
    quick: Annotated[bool, typer.Option("--quick", help="opcheck one call an op only.")] = False,
    manifest_sha256: Annotated[
        str | None,
        typer.Option(
            "--manifest-sha256", metavar="HEX", help="What manifest.json itself must hash to."
        ),
    ] = None,
    assume_torch: Annotated[
        str | None,
        typer.Option("--assume-torch", metavar="VERSION", help="Pretend this torch is installed."),
    ] = None,
    assume_cpu_level: Annotated[
        str | None,
        typer.Option(
            "--assume-cpu-level", metavar="LEVEL", help="Pretend the CPU has at most this level."
        ),
    ] = None,
    json: options.Json = None,
) -> None:
    """Verify a bundle on this machine: hashes first, then platform, torch, CPU, ABI, load, opcheck, golden vectors.

    The bundle's own verify.py does the work with this Python; it needs torch and not tilewright, so
    a receiver runs the very same file.

    Example:  tilewright verify out/bundle
    """
    from tilewright.ship.receive import verify

    given = ["--quick"] if quick else []
    for name, value in (
        ("--manifest-sha256", manifest_sha256),
        ("--assume-torch", assume_torch),
        ("--assume-cpu-level", assume_cpu_level),
    ):
        if value is not None:
            given += [name, value]
    verdict = verify(folder, given)
    emit(json, "verify", verdict.rows)
    table(
        ("stage", "state", "detail"),
        [(r["stage"], r["state"], r["detail"]) for r in verdict.rows],
        json=json,
    )
    if not verdict.ok:
        say(verdict.first_problem(), json)
        raise typer.Exit(verdict.exit_code)
