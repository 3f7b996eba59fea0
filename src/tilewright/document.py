"""The one JSON writer: every command's `--json` document has this shape."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from tilewright import __version__
from tilewright.errors import UsageError


def plain(value: Any) -> Any:
    """Dataclasses, mappings, enums, paths and non-finite floats to what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence | set | frozenset):
        return [plain(v) for v in value]
    return str(value)


def document(command: str, rows: Sequence[Any], **top: Any) -> dict[str, Any]:
    """`{"schema": "tilewright/<command>/1", "version", "host", "rows", ...}`."""
    from tilewright.machine import host

    return {
        "schema": f"tilewright/{command}/1",
        "version": __version__,
        "host": plain(host()),
        "rows": plain(list(rows)),
        **{k: plain(v) for k, v in top.items()},
    }


def write(where: str, command: str, rows: Sequence[Any], **top: Any) -> None:
    """Write the document to a file (atomically) or, for `-`, to standard output."""
    text = json.dumps(document(command, rows, **top), indent=1) + "\n"
    if where == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    write_text(Path(where), text)


def require_writable(path: Path) -> None:
    """Raise UsageError, before any work is done, where a file cannot be written."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; a file is wanted")
    if path.exists() and not path.is_file():
        if not os.access(path, os.W_OK):
            raise UsageError(f"{path} cannot be written: no permission")
        return
    folder = next(p for p in (path.absolute().parent, *path.absolute().parents) if p.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"{path} cannot be written: no permission in {folder}")


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it; a pipe or a device is written to.

    Raises UsageError where the system refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
