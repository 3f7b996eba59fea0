"""Where a bundle comes from: commit, compiler, torch, and the hash of all that determines its library."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tilewright.errors import Unavailable
from tilewright.registry import Family, package_folder
from tilewright.ship.layout import files_below

_SOURCES = {".cpp", ".hpp", ".h", ".py", ".cmake"}


def git_state(folder: Path) -> dict[str, Any]:
    """Commit of the repository that holds `folder`, and whether tracked files differ from it.

    Both are None outside a repository, or where git is not installed.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(status)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def compiler(command: str = "c++") -> str:
    """The first line of the compiler's own description; Unavailable if there is none."""
    try:
        done = subprocess.run(
            [command, "--version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        raise Unavailable(
            f"the compiler '{command}' does not run; a bundle is compiled with it"
        ) from None
    return done.stdout.splitlines()[0].strip()


def torch_version() -> str:
    """The installed torch, whose headers the library is compiled against."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        raise Unavailable(
            "torch is not installed; a bundle is compiled against its headers"
        ) from None


def content_hash(
    families: Sequence[Family], facts: Iterable[object], extra: Iterable[Path] = ()
) -> str:
    """Hex sha256 over every source of the library and the facts given; the bundle's name is made from it.

    Paths count relative to their room, so that the place of a checkout does not.
    """
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(json.dumps(fact, sort_keys=True).encode() + b"\0")
    folders = [
        ("kernels/_host", package_folder("tilewright.kernels") / "_host"),
        ("bindings", package_folder("tilewright.bindings")),
        *((f"families/{family.name}", family.folder) for family in families),
    ]
    files = [
        (f"{label}/{path.relative_to(folder).as_posix()}", path)
        for label, folder in folders
        for path in files_below(folder)
        if path.suffix in _SOURCES
    ]
    files += [(f"extra/{path.name}", path) for path in sorted(extra)]
    for label, path in sorted(files):
        digest.update(label.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
