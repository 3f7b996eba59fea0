"""What backends answered about built-in families, kept from one process to the next.

`list` asks hundreds of questions whose answers only change when a source changes, and importing every
family's planning to answer them takes longer than the rest of the command. The file's name holds a
fingerprint of our Python sources (paths, sizes, times), so an edit is another file.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tilewright.machine import cache_folder
from tilewright.registry import package_folder

PACKAGES = ("tilewright", "tilewright.kernels", "tilewright.ascendc")
KEPT = 8
"""How many fingerprints' files stay: other checkouts and versions of the same user."""


def _sources(folder: str) -> Iterator[str]:
    """One line for each Python file below a folder: path, size and time."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.endswith(".py"):
                known = entry.stat()
                yield f"{entry.path} {known.st_size} {known.st_mtime_ns}"
            elif entry.is_dir() and entry.name != "__pycache__":
                yield from _sources(entry.path)


def fingerprint() -> str:
    """Of every Python source an answer can depend on."""
    lines = (line for package in PACKAGES for line in _sources(str(package_folder(package))))
    text = "\n".join(lines).encode()
    return f"{zlib.crc32(text):08x}{zlib.adler32(text):08x}"


class Answers:
    """Pairs (state, reason) by a text key, read at once and written by `save` when there are new ones."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, tuple[str, str]] = {}
        self.changed = False
        # A file that cannot be read or is not ours costs time, no more.
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            read = json.loads(file.read_text(encoding="utf-8"))
            self.known = {key: (str(state), str(reason)) for key, (state, reason) in read.items()}

    def get(self, key: str) -> tuple[str, str] | None:
        return self.known.get(key)

    def put(self, key: str, state: str, reason: str) -> None:
        self.known[key] = (state, reason)
        self.changed = True

    def save(self) -> None:
        """Write what is new, whole or not at all; a folder that cannot be written is no error."""
        if not self.changed:
            return
        self.changed = False
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            part = self.file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(self.known), encoding="utf-8")
            part.replace(self.file)
            files = sorted(self.file.parent.glob("*.json"), key=lambda f: f.stat().st_mtime)
            for old in files[:-KEPT]:
                old.unlink()


@cache
def answers() -> Answers:
    """Those of the sources as they are when this is first asked."""
    return Answers(cache_folder("answers", f"{fingerprint()}.json"))
