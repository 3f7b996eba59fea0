"""Benchmarks of ours in the formats that the field's own tools read.

Each format is a module with `write(document, runs, out)`, which returns the files it wrote. `docs/exports.md`
says what each tool does with them, and what of ours has no place in its format.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tilewright.document import document, require_writable
from tilewright.errors import UsageError, unknown

# Name of the format to its module and what reads it.
FORMATS: dict[str, tuple[str, str]] = {
    "pytest-benchmark": ("pytest_benchmark", "`pytest-benchmark compare`"),
    "nvbench": ("nvbench", "`nvbench-compare-robust` and the other scripts of cuda-bench"),
    "flashinfer-bench": ("flashinfer_bench", "FlashInfer-Bench, as a trace set"),
    "google-benchmark": ("google_benchmark", "`compare.py` of Google Benchmark"),
    "perfetto": ("trace", "Perfetto and other readers of Chrome's trace events"),
}


def places(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """`FORMAT:FILE` of options; raises UsageError for another form, an unknown format or an unwritable file."""
    found = []
    for text in texts:
        name, separator, place = text.partition(":")
        if not separator or not place:
            raise UsageError(f"'{text}' is not FORMAT:FILE, such as nvbench:out.json")
        require(name)
        if name != "flashinfer-bench":
            require_writable(Path(place))
        found.append((name, Path(place)))
    return found


def require(name: str) -> None:
    """Raise UsageError for a format that is not there."""
    if name not in FORMATS:
        raise unknown("export format", name, list(FORMATS))


def export(name: str, content: dict[str, Any], out: Path) -> list[Path]:
    """Write a bench document in a format; returns the files.

    Raises UsageError for another kind of document, Unavailable where it has nothing that was measured.
    """
    from tilewright.perf.exports.runs import runs_of

    require(name)
    module = importlib.import_module(f"tilewright.perf.exports.{FORMATS[name][0]}")
    written: list[Path] = module.write(content, runs_of(content), out)
    return written


def of_rows(wanted: Sequence[tuple[str, Path]], rows: Sequence[Any]) -> list[Path]:
    """The rows of a bench that has just ended, in each format; the files or folders that were asked for."""
    content = document("bench", rows) if wanted else {}
    for name, place in wanted:
        export(name, content, place)
    return [place for _, place in wanted]
