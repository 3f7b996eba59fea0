"""JSON files of a model's folder."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import BadModelFile


def read_text(path: Path) -> str:
    """A file's UTF-8 text; raises BadModelFile."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadModelFile(path, f"cannot be read: {error}") from error


def read_object(path: Path) -> dict[str, object]:
    """The object a file holds; raises BadModelFile for anything else."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadModelFile(path, f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadModelFile(path, "holds no JSON object")
    return found
