"""One offline HTML file from the JSON documents of tilewright's commands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tilewright.document import write_text
from tilewright.errors import UsageError

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """One command's JSON: where it came from, which command, its rows and its other top-level fields."""

    name: str
    command: str
    schema: str
    version: str
    host: Mapping[str, Any]
    rows: Sequence[Row]
    top: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a section: a plot, a table, or lines of text; `caption` belongs to the table, else to the plot.

    What is folded is shown when asked for, under its caption (a table) or its heading (a plot).
    """

    heading: str = ""
    svg: Any = None
    caption: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    lines: Sequence[str] = ()
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of the page; `id` is its anchor."""

    id: str
    title: str
    blocks: Sequence[Block]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure at the top of the page."""

    label: str
    value: str
    cls: str = ""


@dataclass(frozen=True, slots=True)
class Documents:
    """All documents of a report, by command."""

    all: Sequence[Document] = field(default_factory=tuple)

    def of(self, command: str) -> list[Document]:
        return [d for d in self.all if d.command == command]

    def rows(self, *commands: str) -> list[Row]:
        return [row for c in commands for d in self.of(c) for row in d.rows]


def parse(name: str, content: object) -> Document:
    """A document from its JSON; raises UsageError when it is not one of ours."""
    if not isinstance(content, dict) or not str(content.get("schema", "")).startswith(
        "tilewright/"
    ):
        raise UsageError(
            f"{name} is not a JSON document of a tilewright command (no schema tilewright/...)"
        )
    rows = content.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise UsageError(f"{name} has no list of rows")
    schema = str(content["schema"])
    top = {k: v for k, v in content.items() if k not in ("schema", "version", "host", "rows")}
    host = content.get("host")
    return Document(
        name,
        schema.split("/")[1],
        schema,
        str(content.get("version", "?")),
        host if isinstance(host, dict) else {},
        rows,
        top,
    )


def read(path: Path) -> Document:
    """Read one document; raises UsageError naming the file and what is wrong with it."""
    try:
        return parse(path.name, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from None


def local_documents(measure: bool = True) -> list[Document]:
    """What a report of nothing in particular shows: the matrix and this machine."""
    from tilewright.backends import cells
    from tilewright.document import document
    from tilewright.perf.doctor import findings
    from tilewright.registry import families

    matrix = document("list", list(cells(list(families().values()))))
    doctor = document("doctor", list(findings(measure)))
    return [parse("this machine", matrix), parse("this machine", doctor)]


def render(
    documents: Sequence[Document], title: str = "tilewright report", date: str | None = None
) -> str:
    """The page as text. `date` is shown as given; now (UTC) if it is not."""
    import jinja2

    from tilewright.perf.sections import sections, tiles

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    every = Documents(tuple(documents))
    hosts = {json.dumps(d.host, sort_keys=True): d.host for d in documents if d.host}
    return environment.get_template("report.html.j2").render(
        title=title,
        date=date or datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        hosts=[_host(h) for h in hosts.values()],
        versions=sorted({d.version for d in documents}),
        sections=sections(every),
        tiles=tiles(every),
        documents=documents,
    )


def _host(given: Mapping[str, Any]) -> dict[str, Any]:
    return {k: given.get(k, "?") for k in ("cpu", "cores", "isa", "os", "python")}


def write(path: Path, documents: Sequence[Document], title: str = "tilewright report") -> None:
    """Write the page; raises UsageError when there is nothing to show."""
    if not documents:
        raise UsageError("a report needs at least one document")
    write_text(path, render(documents, title))
