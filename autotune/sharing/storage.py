"""Where studies are kept: a journal file of this user by default, any database by URL."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import ExperimentalWarning

from tilewright.autotune.sharing.locks import JournalLock, lock_path
from tilewright.errors import Unavailable, UsageError
from tilewright.machine import data_folder

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_ANSWER_S = 10.0
ACCEPTED = (
    "journal:PATH, sqlite:///PATH, postgresql://..., grpc://HOST:PORT or another database URL"
)


@dataclass(frozen=True, slots=True)
class Place:
    """An open storage. `url` opens it again and may hold a password; `shown` never does.

    `lock_file` is what processes that work on it exclude one another with; None where other machines reach
    it too, so that no file can.
    """

    storage: BaseStorage
    url: str
    shown: str
    lock_file: Path | None


def open_place(url: str | None, family: str, target_stem: str) -> Place:
    """Open a storage; raises UsageError for what is not a URL, Unavailable where it cannot be reached."""
    if url is None:
        url = f"journal:{data_folder('studies') / f'{family}-{target_stem}.journal'}"
    return open_url(url)


def open_url(url: str) -> Place:
    """Open the storage of a URL; raises as `open_place` does."""
    if url.startswith("journal:"):
        return _journal(Path(url.removeprefix("journal:")).expanduser())
    if url.startswith("grpc:"):
        return _proxy(url)
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
        lock.acquire()
        lock.release()
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used as a study journal: {error}") from None
    shown = f"journal:{path}"
    return Place(storage, shown, shown, path.with_name(path.name + ".turn"))


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
    if parsed.drivername == "postgresql":
        # Optuna hands the URL to SQLAlchemy, whose default driver depends on its version.
        parsed = parsed.set(drivername="postgresql+psycopg")
    try:
        file = Path(parsed.database) if local and parsed.database else None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        storage = _tables(RDBStorage, parsed.render_as_string(hide_password=False), options)
    except ImportError as error:
        raise Unavailable(f"{shown} needs a driver that is not installed: {error}") from None
    except (SQLAlchemyError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unavailable(f"{shown} cannot be opened: {first}") from None
    if local:
        named = file or lock_path("turn", url)
        return Place(storage, url, shown, named.with_name(named.name + ".turn"))
    return Place(storage, url, shown, None)


def _tables(make: Callable[..., BaseStorage], url: str, options: dict[str, Any]) -> BaseStorage:
    """Open a database; of several processes that create its tables at once, all but one have to try again."""
    from sqlalchemy.exc import DBAPIError

    for pause_s in (0.2, 1.0):
        try:
            return make(url, engine_kwargs=options)
        except DBAPIError as error:
            if "already exists" not in str(error) and "duplicate key" not in str(error):
                raise
            time.sleep(pause_s)
    return make(url, engine_kwargs=options)


def _proxy(url: str) -> Place:
    """A storage that `tilewright store serve` offers; one that does not answer is not waited for."""
    host, port = address(url)
    if find_spec("grpc") is None or find_spec("google.protobuf") is None:
        raise Unavailable(f"{url} needs gRPC; `pip install 'tilewright[grpc]'` brings it")
    from optuna.storages import GrpcStorageProxy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = GrpcStorageProxy(host=host, port=port)
    try:
        storage.wait_server_ready(timeout=_ANSWER_S)
    except ConnectionError:
        raise Unavailable(
            f"{url} does not answer; `tilewright store serve --study URL --port {port}` on {host} starts it"
        ) from None
    return Place(storage, url, url, None)


def address(url: str) -> tuple[str, int]:
    """Host and port of `grpc://HOST:PORT`; raises UsageError for anything else."""
    host, _, port = url.removeprefix("grpc://").rstrip("/").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--study '{url}' is no address; accepted: grpc://HOST:PORT")
    return host.strip("[]"), int(port)


def serve(place: Place, host: str, port: int) -> None:
    """Offer a storage to other machines over gRPC until the process is ended.

    Raises UsageError for a journal, which Optuna's proxy cannot serve, Unavailable where it cannot listen.
    """
    if find_spec("grpc") is None or find_spec("google.protobuf") is None:
        raise Unavailable("serving needs gRPC; `pip install 'tilewright[grpc]'` brings it")
    if place.url.startswith(("journal:", "grpc:")):
        raise UsageError(
            f"{place.shown} cannot be served; accepted: a database, such as sqlite:///PATH or postgresql://..."
        )
    from optuna.storages import get_storage, run_grpc_proxy_server

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            # Optuna's advice: a database is served through its cache.
            run_grpc_proxy_server(get_storage(place.storage), host=host, port=port)
        except RuntimeError as error:
            raise Unavailable(f"{host}:{port} cannot be listened on: {error}") from None
