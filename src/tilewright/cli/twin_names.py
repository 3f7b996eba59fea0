"""tilewright twin api: the documented names of the basic API and their state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, say, table


def api(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Parts of names; all if none is given."),
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE.md", help="Write the page of all names.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE.md", help="Exit 1 if the page is not up to date."),
    ] = None,
    json: options.Json = None,
) -> None:
    """List the documented names of the basic API: implemented, with their tests, or refused, and why.

    \b
    Examples:
      tilewright twin api DataCopy
      tilewright twin api --write docs/twin-api.md
    """
    from tilewright.ascendc.twin import api_page
    from tilewright.document import plain, write_text
    from tilewright.errors import UsageError

    place = write or check
    # The tests stand beside the page, in a checkout.
    tests = None if place is None else place.resolve().parent.parent / "tests"
    rows = api_page.rows(tests if tests is not None and tests.is_dir() else None)
    found = [r for r in rows if not names or any(n.lower() in r.name.lower() for n in names)]
    if not found:
        raise UsageError(f"no documented name contains {' or '.join(names or [])}")
    if write is not None:
        write_text(write, api_page.page(rows))
    stale = check is not None and check.read_text(encoding="utf-8") != api_page.page(rows)
    emit(json, "twin", [plain(r) for r in found])
    if place is None:
        table(
            ("name", "state", "", "page"),
            [(r.name, r.state, r.detail, r.page) for r in found],
            json=json,
        )
    if stale:
        say(f"{check} is not up to date; run tilewright twin api --write {check}", json)
        raise typer.Exit(1)
