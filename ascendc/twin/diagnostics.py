"""Findings as a compiler prints them: place, kind, message, the line of the source, and a caret under it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from .runner import Finding

Locate = Callable[[str], Path | None]


def locate_in(*roots: tuple[str, Path]) -> Locate:
    """Finds files by the prefix under which findings name them: pairs of prefix and folder."""

    def locate(file: str) -> Path | None:
        places = [Path(file)] if file else []
        places += [
            folder / file[len(prefix) :] for prefix, folder in roots if file.startswith(prefix)
        ]
        return next((p for p in places if p.is_file()), None)

    return locate


def source_line(file: str, line: int, locate: Locate) -> str | None:
    """The text of a line, or None where the file is not there."""
    path = locate(file)
    if path is None or line < 1:
        return None
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, text in enumerate(lines, start=1):
            if number == line:
                return text.rstrip()
    return None


def _underline(text: str, message: str) -> str:
    """A caret under the call that the message is about, else under the statement."""
    code = re.sub(r"//.*", "", text).rstrip()
    begin = len(code) - len(code.lstrip())
    width = max(len(code) - begin, 1)
    for word in re.findall(r"\b[A-Z]\w+", message):
        if call := re.search(rf"\b\w*{word}\w*(?=\s*[<(])", code):
            begin, width = call.start(), call.end() - call.start()
            break
    blank = re.sub(r"[^\t]", " ", code[:begin])
    return f"{blank}^{'~' * (width - 1)}"


def _place(file: str, line: int, text: str, message: str, locate: Locate) -> str:
    source = source_line(file, line, locate)
    head = f"{file}:{line}: {text}"
    if source is None:
        return head
    return f"{head}\n{line:5d} | {source}\n{' ' * 5} | {_underline(source, message)}"


def render(finding: Finding, locate: Locate) -> str:
    """`file:line: error: kind: message`, the source line and a caret line; and the earlier of two accesses."""
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    core = f" {finding.core}" if finding.core else ""
    where = f"block {finding.block}{core}, pipe {finding.pipe}"
    text = f"error: {finding.kind}: {finding.message} [{where}]{times}"
    shown = _place(finding.file, finding.line, text, finding.message, locate)
    if not finding.other_file:
        return shown
    note = f"note: the earlier one [pipe {finding.other_pipe}]"
    return (
        f"{shown}\n{_place(finding.other_file, finding.other_line, note, finding.message, locate)}"
    )


def render_all(findings: Sequence[Finding], locate: Locate, most: int = 20) -> str:
    """The first ``most`` findings, and how many are left."""
    parts = [render(f, locate) for f in findings[:most]]
    if len(findings) > most:
        parts.append(f"... and {len(findings) - most} findings more")
    return "\n".join(parts)
