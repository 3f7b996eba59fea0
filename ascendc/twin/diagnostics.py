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
    head = message.partition(":")[0]
    named = rf"\b\w*{re.escape(head)}\w*(?=\s*[<(])"
    call = re.search(named, code) if re.fullmatch(r"\w+", head) else None
    if call:
        begin, width = call.start(), call.end() - call.start()
    blank = re.sub(r"[^\t]", " ", code[:begin])
    return f"{blank}^{'~' * (width - 1)}"


def render(finding: Finding, locate: Locate) -> str:
    """`file:line: error: kind: message`, the source line and a caret line."""
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    where = f"block {finding.block}, pipe {finding.pipe}"
    text = (
        f"{finding.file}:{finding.line}: error: {finding.kind}: {finding.message} [{where}]{times}"
    )
    line = source_line(finding.file, finding.line, locate)
    if line is None:
        return text
    margin = f"{finding.line:5d} | "
    return f"{text}\n{margin}{line}\n{' ' * 5} | {_underline(line, finding.message)}"


def render_all(findings: Sequence[Finding], locate: Locate, most: int = 20) -> str:
    """The first ``most`` findings, and how many are left."""
    parts = [render(f, locate) for f in findings[:most]]
    if len(findings) > most:
        parts.append(f"... and {len(findings) - most} findings more")
    return "\n".join(parts)
