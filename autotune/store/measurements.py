"""Records from elsewhere, in an append-only file of this user: one JSON line each, none twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tilewright.autotune.sharing.locks import held
from tilewright.autotune.store.record import Record, read
from tilewright.errors import UsageError
from tilewright.machine import data_folder

SCHEMA = "tilewright/measurement/1"


def default_path() -> Path:
    """This user's file of imported measurements."""
    return data_folder("measurements", "imported.jsonl")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a file holds; `damaged` counts lines that are no records (half of one after a power cut)."""

    records: tuple[Record, ...]
    damaged: int


def load(path: Path | None = None) -> Kept:
    """Read the file; an absent one is empty. A damaged line costs itself alone."""
    where = default_path() if path is None else path
    if not where.exists():
        return Kept((), 0)
    found: list[Record] = []
    damaged = 0
    for text in where.read_text(encoding="utf-8", errors="replace").split("\n"):
        if not text:
            continue
        try:
            found.append(parse_line(text))
        except UsageError:
            damaged += 1
    return Kept(tuple(found), damaged)


def append(records: Iterable[Record], path: Path | None = None) -> int:
    """Add those that are not there yet and return how many; several processes may do so at once."""
    where = default_path() if path is None else path
    try:
        with held(where.with_name(where.name + ".lock")):
            known = {r.digest for r in load(where).records}
            lines = []
            for record in records:
                if record.digest not in known:
                    known.add(record.digest)
                    lines.append(line(record))
            if lines:
                _write(where, "".join(lines).encode())
    except OSError as error:
        raise UsageError(f"{where} cannot be written: {error.strerror or error}") from None
    return len(lines)


def parse_line(text: str) -> Record:
    """What `line` wrote; raises UsageError for anything else."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UsageError(f"not a line of {SCHEMA}")
    return read(content)


def line(record: Record) -> str:
    """A record as one line."""
    return json.dumps({"schema": SCHEMA, **record.as_dict()}, separators=(",", ":")) + "\n"


def _write(where: Path, content: bytes) -> None:
    """Append and flush to disk; after half a line (its writer was killed) a new one is begun."""
    with where.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            content = content if file.read(1) == b"\n" else b"\n" + content
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
