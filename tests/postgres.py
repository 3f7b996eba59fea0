"""A PostgreSQL of the tests' own: a real server in a temporary folder, reached through a socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "tilewright"


def binaries() -> Path | None:
    """Where initdb and pg_ctl are: Debian's newest, or on PATH."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3])
    )
    on_path = shutil.which("initdb")
    found = debian[-1] if debian else Path(on_path) if on_path else None
    return found.parent if found else None


def why_missing() -> str:
    """Why there can be no server here, or ""."""
    if binaries() is None:
        return "there is no PostgreSQL: `apt-get install postgresql` brings it"
    if os.geteuid() == 0 and (_unprivileged() is None or shutil.which("setpriv") is None):
        return "PostgreSQL refuses root, and there is no user to run it as"
    return ""


def _unprivileged() -> str | None:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


def _as_user(*command: str) -> list[str]:
    if os.geteuid() != 0:
        return list(command)
    who = pwd.getpwnam(_unprivileged() or "nobody")
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", *command]


@contextmanager
def server() -> Iterator[str]:
    """A running server with an empty database; gives its URL."""
    where = binaries()
    assert where is not None
    folder = Path(tempfile.mkdtemp(prefix="tw-pg-"))
    data = folder / "data"
    if os.geteuid() == 0:
        who = pwd.getpwnam(_unprivileged() or "nobody")
        os.chown(folder, who.pw_uid, who.pw_gid)

    def run(program: str, *arguments: str) -> None:
        command = _as_user(str(where / program), *arguments)
        # The server inherits what it is started with: no pipe, which would never be closed.
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=log, timeout=120)

    settings = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=60"
    try:
        run("initdb", "-D", str(data), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        run("pg_ctl", "-D", str(data), "-w", "-t", "90", "-o", settings, "start")
        try:
            yield f"postgresql://{USER}@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.log").unlink(missing_ok=True)
