"""File locks that die with their holder: one measures at a time, one asks at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from optuna.storages.journal import JournalFileOpenLock

from tilewright.machine import cache_folder

_BLOCK = 1 << 16


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


@contextmanager
def turnstile(path: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock that has many sharers: whoever wants it alone closes the door behind those who are in.

    Without it, sharers that come and go would keep a waiting measurement out for good.
    """
    door = path.with_name(path.name + ".door")
    with ExitStack() as inside:
        with held(door):
            inside.enter_context(held(path, shared))
        yield


@contextmanager
def calm(path: Path, patience_s: float) -> Iterator[None]:
    """Wait until nobody holds a lock alone, but no longer than that: for work that must be done anyhow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    end = time.monotonic() + patience_s
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    break
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def drop_torn_line(journal: Path) -> None:
    """Cut what follows the last line end; the caller holds the journal's lock."""
    if not journal.exists() or not (size := journal.stat().st_size):
        return
    with journal.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        end = size
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        file.truncate(end)


class JournalLock(JournalFileOpenLock):
    """The journal's lock on flock: Optuna's own locks are files, which stay behind when a process is killed.

    Taking it drops the half line of a writer that was killed, after which nothing could be read any more.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._path = journal.with_name(journal.name + ".flock")
        self._handle: int | None = None

    def acquire(self) -> bool:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._handle = handle
        drop_torn_line(self._journal)
        return True

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
