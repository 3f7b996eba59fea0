"""tilewright report: one offline HTML file from the JSON of other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, say

app = options.application()


@app.command()
def run(
    out: Annotated[Path, typer.Argument(metavar="FILE.html", help="The page to write.")],
    documents: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DOC.json...]",
            help="Documents written with --json; none: list and doctor are run.",
        ),
    ] = None,
    title: Annotated[
        str, typer.Option("--title", help="Heading of the page.")
    ] = "tilewright report",
    json: options.Json = None,
) -> None:
    """Write one HTML file that shows what the given documents say; it needs no network and runs no script.

    Matrix, checks, rooflines, benchmarks with their evidence, tuning history, compiled kernels, twin runs,
    bundle verification. Measured and modelled numbers are marked apart everywhere.

    \b
    Examples:
      tilewright bench gemm --json bench.json; tilewright doctor --json doctor.json
      tilewright report out/report.html bench.json doctor.json
    """
    from tilewright.document import require_writable
    from tilewright.perf import report

    require_writable(out)
    found = [report.read(path) for path in documents or []] or report.local_documents()
    report.write(out, found, title)
    rows = [{"document": d.name, "schema": d.schema, "rows": len(d.rows)} for d in found]
    emit(json, "report", rows, path=str(out))
    say(
        f"{out}: {sum(len(d.rows) for d in found)} rows of {len(found)} documents, {out.stat().st_size // 1024} KiB",
        json,
    )
