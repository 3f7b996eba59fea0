"""Where studies are kept: a journal file of this user by default, any database by URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.autotune.locks import JournalLock
from tilewright.errors import Unavailable, UsageError
from tilewright.machine import data_folder

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

ACCEPTED = "journal:PATH, sqlite:///PATH, postgresql://... or another database URL"


@dataclass(frozen=True, slots=True)
class Place:
    """An open storage. `url` opens it again and may hold a password; `shown` never does.

    `local` says that only processes of this machine can work on it.
    """

    storage: BaseStorage
    url: str
    shown: str
    local: bool


def open_place(url: str | None, family: str, target_stem: str) -> Place:
    """Open a storage; raises UsageError for what is not a URL, Unavailable where it cannot be reached."""
    if url is None:
        url = f"journal:{data_folder('studies') / f'{family}-{target_stem}.journal'}"
    return open_url(url)


def open_url(url: str) -> Place:
    """Open the storage of a URL; raises as `open_place` does."""
    if url.startswith("journal:"):
        return _journal(Path(url.removeprefix("journal:")).expanduser())
    if "://" not in url:
        raise UsageError(f"--study '{url}' is not a storage; accepted: {ACCEPTED}")
    return _database(url)


def _journal(path: Path) -> Place:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if path.is_dir():
        raise UsageError(f"--study journal:{path} is a folder; give the name of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalLock(path)
        _drop_torn_line(path, lock)
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used as a study journal: {error}") from None
    return Place(storage, f"journal:{path}", f"journal:{path}", True)


def _drop_torn_line(path: Path, lock: JournalLock) -> None:
    """A machine that died while writing leaves half a line, after which nothing more could be read."""
    if not path.exists():
        return
    lock.acquire()
    try:
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _database(url: str) -> Place:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UsageError(f"--study '{url}' is not a storage; accepted: {ACCEPTED}") from None
    shown = parsed.render_as_string(hide_password=True)
    local = parsed.get_backend_name() == "sqlite"
    options = {"connect_args": {"timeout": 60}} if local else {"pool_pre_ping": True}
    try:
        if local and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        storage = RDBStorage(url, engine_kwargs=options)
    except ImportError as error:
        raise Unavailable(f"{shown} needs a driver that is not installed: {error}") from None
    except (SQLAlchemyError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unavailable(f"{shown} cannot be opened: {first}") from None
    return Place(storage, url, shown, local)
