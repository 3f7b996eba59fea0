"""The two sides of a gate: a revision's sources from git, and its host kernels built from them.

Both sides are git trees (the working tree becomes one through an index of its own), so both are
extracted and built the same way and kept by the hash of what went in. The repository itself is only read.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tilewright import build as tools
from tilewright.errors import Unavailable, UsageError
from tilewright.machine import cache_folder
from tilewright.registry import package_folder

WORKING_TREE = "the working tree"
# Folders of the repository that are subpackages of `tilewright`, as far as a side may need them.
_ROOMS = ("kernels", "ascendc", "bindings", "perf", "autotune", "models", "ship")


@dataclass(frozen=True, slots=True)
class Side:
    """A revision: what the user called it, the hash of its tree, its extracted sources, its built kernels."""

    name: str
    tree: str
    sources: Path
    library: Path

    @property
    def library_hash(self) -> str:
        """SHA-256 of the built kernels: equal hashes are the same machine code."""
        return hashlib.sha256(self.library.read_bytes()).hexdigest()


def repository() -> Path:
    """The git work tree this package runs from; raises Unavailable where it does not run from one."""
    kernels = package_folder("tilewright.kernels")
    if shutil.which("git") is None:
        raise Unavailable("gate --base REV builds revisions from git, and git is not on PATH")
    found = subprocess.run(
        ["git", "-C", str(kernels), "rev-parse", "--show-toplevel"],
        capture_output=True,
        text=True,
        check=False,
    )
    root = Path(found.stdout.strip() or "/")
    if found.returncode != 0 or not (root / "kernels" / "_host").is_dir():
        raise Unavailable(
            f"gate --base REV needs the git repository of the kernels; {kernels} is not inside it"
        )
    return root


def _git(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    found = subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    if found.returncode != 0:
        reason = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UsageError(f"git {arguments[0]} failed: {reason}")
    return found.stdout.strip()


def tree_of(root: Path, revision: str) -> str:
    """The tree of a revision; raises UsageError for a name git does not know."""
    try:
        return _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{tree}}")
    except UsageError:
        raise UsageError(
            f"'{revision}' is neither a file nor a revision of {root}; "
            "accepted: a commit, branch or tag, or the JSON of `tilewright bench`"
        ) from None


def working_tree(root: Path) -> str:
    """A tree of the files as they are now, new ones that git does not ignore included; the index stays untouched."""
    with tempfile.TemporaryDirectory(prefix="tilewright-index-") as folder:
        own = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(root, "read-tree", "HEAD", env=own)
        _git(root, "add", "--all", env=own)
        return _git(root, "write-tree", env=own)


def extract(root: Path, tree: str, folder: Path) -> None:
    """The files of a tree, in a folder that appears whole or not at all."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(
        ["git", "-C", str(root), "archive", "--format=tar", tree], capture_output=True, check=False
    )
    if packed.returncode != 0:
        raise UsageError(f"git archive failed: {packed.stderr.decode(errors='replace').strip()}")
    fresh = Path(tempfile.mkdtemp(prefix="tree-", dir=folder.parent))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(fresh, filter="data")
        os.replace(fresh, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def build(root: Path, tree: str, name: str) -> Side:
    """A tree extracted and its host kernels built by the tree's own rules; kept by content and compiler.

    Raises UsageError for a tree without host kernels, Unavailable without a compiler, BuildFailed with the first
    error of a compiler that rejects them.
    """
    sources = cache_folder("gate", "trees", tree)
    extract(root, tree, sources)
    kernels = sources / "kernels"
    families = {p.parent.name: p.parent for p in sorted(kernels.glob("*/host.cpp"))}
    if not families or not (kernels / "_host" / "CMakeLists.txt").is_file():
        raise UsageError(f"{name} has no host kernels under kernels/ that could be built")
    key = tools.digest(tools.sources(kernels), words=sorted(families))
    library = cache_folder("gate", "builds", key, "libhost.so")
    if not library.exists():
        dirs = ";".join(f"{family}={folder}" for family, folder in families.items())
        options = {"TW_FAMILY_DIRS": dirs, "TW_OUTPUT": library.stem}
        tools.build(kernels / "_host", options, library, f"{name} (tree {tree[:12]})")
    return Side(name, tree, sources, library)


def view(sources: Path) -> Path:
    """A folder that, put on PYTHONPATH, makes a side's own Python package importable."""
    folder = sources.parent / f"{sources.name}.view"
    package = folder / "tilewright"
    if package.is_dir():
        return folder
    fresh = Path(tempfile.mkdtemp(prefix="view-", dir=sources.parent))
    try:
        place = fresh / "tilewright"
        place.mkdir()
        for item in (sources / "src" / "tilewright").iterdir():
            (place / item.name).symlink_to(item)
        for room in _ROOMS:
            if (sources / room).is_dir():
                (place / room).symlink_to(sources / room)
        os.replace(fresh, folder)
    except OSError:
        if not package.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder
