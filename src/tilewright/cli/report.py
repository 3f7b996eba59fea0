"""tilewright report: one offline HTML file from the JSON of other commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, say

if TYPE_CHECKING:
    from tilewright.perf.report import Document

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
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="URL",
            help="Also the tunings of a storage: journal:PATH, sqlite:///PATH, postgresql://...",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="STUDY", help="With --study: this study alone."),
    ] = None,
    title: Annotated[
        str, typer.Option("--title", help="Heading of the page.")
    ] = "tilewright report",
    json: options.Json = None,
) -> None:
    """Write one HTML file that shows what the given documents say; it needs no network and runs no script.

    Matrix, checks, rooflines, benchmarks with their evidence, compiled kernels, twin runs, bundle verification.
    Of tunings: history with failures, importance of fields, parallel coordinates, Pareto front, dispatch tables with
    their regret; of replays: quality over evaluations. Measured and modelled numbers are marked apart everywhere.

    \b
    Examples:
      tilewright bench gemm --json bench.json; tilewright doctor --json doctor.json
      tilewright report out/report.html bench.json doctor.json
      tilewright report out/tuning.html --study sqlite:///studies.db
    """
    from tilewright.document import require_writable
    from tilewright.perf import report

    require_writable(out)
    found = [report.read(path) for path in documents or []] + _studies(study, name)
    found = found or report.local_documents()
    report.write(out, found, title)
    rows = [{"document": d.name, "schema": d.schema, "rows": len(d.rows)} for d in found]
    emit(json, "report", rows, path=str(out))
    say(
        f"{out}: {sum(len(d.rows) for d in found)} rows of {len(found)} documents, {out.stat().st_size // 1024} KiB",
        json,
    )


def _studies(url: str | None, name: str | None) -> list[Document]:
    """The studies of a storage as documents of `tune`."""
    from tilewright.errors import UsageError

    if url is None:
        if name is not None:
            raise UsageError(f"--name {name} needs --study, the storage it is in")
        return []
    from tilewright.autotune.study_document import documents
    from tilewright.perf.report import parse

    return [parse(title, content) for title, content in documents(url, name)]
