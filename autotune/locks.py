"""File locks that die with their holder: one measures at a time, one asks at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages.journal import JournalFileOpenLock

from tilewright.machine import cache_folder


def lock_path(purpose: str, what: str) -> Path:
    """The lock file of this user for one thing, such as the measuring of one device."""
    return cache_folder("locks", f"{purpose}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.lock")


@contextmanager
def held(path: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock, alone or with other sharers; the system releases it if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class JournalLock(JournalFileOpenLock):
    """The journal's lock on flock: Optuna's own locks are files, which stay behind when a process is killed."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._path = journal.with_name(journal.name + ".flock")
        self._handle: int | None = None

    def acquire(self) -> bool:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._handle = handle
        return True

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
