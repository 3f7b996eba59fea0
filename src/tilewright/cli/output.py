"""What every command shares: JSON out, tables on a terminal, progress, errors as one sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class Step(Protocol):
    """Call once per finished piece of work, with a word about it."""

    def __call__(self, note: str = "", advance: int = 1) -> None: ...


def emit(json: str | None, command: str, rows: Sequence[Any], **top: Any) -> None:
    """Write the command's JSON document if `--json` was given."""
    if json is not None:
        from tilewright.document import write

        write(json, command, rows, **top)


def quiet(json: str | None) -> bool:
    """Whether standard output belongs to the JSON document."""
    return json == "-"


def say(text: str = "", json: str | None = None) -> None:
    """A line for people; goes to standard error when standard output carries JSON."""
    print(text, file=sys.stderr if quiet(json) else sys.stdout)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", json: str | None = None
) -> None:
    """A table for people, plain where it is not a terminal; silent when standard output carries JSON."""
    if quiet(json):
        return
    cells = [["" if v is None else str(v) for v in row] for row in rows]
    if not sys.stdout.isatty():
        _plain_table(columns, cells, title)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in cells:
        drawn.add_row(*map(escape, row))
    Console().print(drawn)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    """Columns two spaces apart, one row a line: for pipes and logs."""
    lines = [list(columns), *([" ".join(v.split()) for v in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    if title:
        print(title)
    for line in lines:
        print("  ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)).rstrip())


@contextmanager
def progress(what: str, total: int | None, json: str | None = None) -> Iterator[Step]:
    """A progress bar with time left on a terminal; plain lines at most every five seconds elsewhere.

    Inside it SIGTERM, as `timeout` sends it, is Ctrl-C: what was found so far is kept.
    """
    with _sigterm_as_ctrl_c(), _progress(what, total) as step:
        yield step


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    import os
    import signal
    import threading

    owner = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() == owner:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # a forked worker ends as it would have
        os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Step]:
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        with bar:
            task = bar.add_task(what, total=total, note="")

            def on_terminal(note: str = "", advance: int = 1) -> None:
                bar.update(task, advance=advance, note=note)

            yield on_terminal
        return
    yield _plain_lines(what, total)


def _plain_lines(what: str, total: int | None) -> Step:
    import time

    done = 0
    said = time.monotonic()

    def in_lines(note: str = "", advance: int = 1) -> None:
        nonlocal done, said
        done += advance
        if time.monotonic() - said >= 5 or done == total:
            said = time.monotonic()
            print(
                f"{what}: {done}{f' of {total}' if total else ''} {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    return in_lines


def number(value: float | None, digits: int = 3) -> str:
    """A float in few significant digits; a dash for None."""
    return "-" if value is None else f"{value:.{digits}g}"
