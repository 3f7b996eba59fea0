"""An environment that has torch but not tilewright and no compiler: what a receiver of a bundle has.

Nothing is installed or copied: the site-packages of the new environment links the folders that
torch's distributions (and, if asked, the `kernels` client's) own in the environment this runs in.
"""

from __future__ import annotations

import importlib.metadata as installed
import re
import shutil
import subprocess
import venv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilewright.errors import TilewrightError, Unavailable

COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "nvcc", "ld", "make", "cmake", "ninja")
_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)")


@dataclass(frozen=True, slots=True)
class CleanVenv:
    """`python` is the environment's interpreter; PATH of what runs there is `bin` alone."""

    path: Path
    python: Path
    distributions: tuple[str, ...]

    @property
    def bin(self) -> Path:
        """The only folder on PATH: links to the interpreter and nothing else."""
        return self.path / "only-python"

    def environment(self) -> dict[str, str]:
        """Variables of a command there; nothing of this process's environment is handed on."""
        home = self.path / "home"
        return {"PATH": str(self.bin), "HOME": str(home), "LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1"}

    def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        extra: dict[str, str] | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python on `arguments`; returns the finished process, text captured."""
        return subprocess.run(
            [str(self.python), "-s", *arguments],
            cwd=cwd or self.path / "home",
            env={**self.environment(), **(extra or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def make(path: Path, extra: Iterable[str] = ()) -> CleanVenv:
    """Create the environment at `path` (which must not exist) with torch and the `extra` distributions.

    Raises Unavailable if one of them is not installed here, TilewrightError if the result is not
    clean: tilewright importable, or a compiler on PATH.
    """
    if path.exists():
        raise TilewrightError(f"{path} exists; a clean environment is made in a new folder")
    names = closure(("torch", *extra))
    venv.EnvBuilder(with_pip=False, symlinks=True).create(path)
    site = next((path / "lib").glob("python3.*/site-packages"))
    for name in names:
        for source in _owned(installed.distribution(name)):
            link = site / source.name
            if not link.exists():
                link.symlink_to(source)
    made = CleanVenv(path, path / "bin" / "python", names)
    made.bin.mkdir()
    for name in ("python", "python3"):
        (made.bin / name).symlink_to(path / "bin" / "python")
    (path / "home").mkdir()
    assert_clean(made)
    return made


def assert_clean(made: CleanVenv) -> None:
    """Ask the environment itself; raises TilewrightError with what it has and should not."""
    probe = (
        "import importlib.util as u, shutil, sys\n"
        "print(u.find_spec('tilewright') is not None, u.find_spec('torch') is not None,\n"
        f"      ','.join(c for c in {COMPILERS!r} if shutil.which(c)) or '-')"
    )
    finished = made.run(["-c", probe])
    words = finished.stdout.split()
    if finished.returncode != 0 or len(words) != 3:
        raise TilewrightError(
            f"the clean environment at {made.path} does not start: {finished.stderr[-300:]}"
        )
    if words[0] != "False":
        raise TilewrightError(f"tilewright can be imported in the clean environment at {made.path}")
    if words[1] != "True":
        raise TilewrightError(f"torch cannot be found in the clean environment at {made.path}")
    if words[2] != "-":
        raise TilewrightError(f"the clean environment at {made.path} has {words[2]} on PATH")


def closure(names: Iterable[str]) -> tuple[str, ...]:
    """Normalised names of the distributions and all they require here, sorted; Unavailable if one is missing."""
    found: set[str] = set()
    todo = [_normal(name) for name in names]
    roots = set(todo)
    while todo:
        name = todo.pop()
        if name in found or name == "tilewright":
            continue
        try:
            distribution = installed.distribution(name)
        except installed.PackageNotFoundError:
            if name in roots:
                raise Unavailable(
                    f"{name} is not installed, so no environment with it can be made"
                ) from None
            continue  # A requirement of another platform or Python.
        found.add(name)
        for requirement in distribution.requires or []:
            spelled, _, marker = requirement.partition(";")
            match = _REQUIREMENT.match(spelled.strip())
            if match and "extra" not in marker:
                todo.append(_normal(match.group(1)))
    return tuple(sorted(found))


def remove(made: CleanVenv) -> None:
    """Delete the environment; what it links to stays."""
    shutil.rmtree(made.path)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _owned(distribution: installed.Distribution) -> list[Path]:
    """The top-level folders and modules of a distribution in its site-packages."""
    root = Path(str(distribution.locate_file(""))).resolve()
    tops = {
        file.parts[0]
        for file in distribution.files or []
        if file.parts[0] not in ("..", "__pycache__")
    }
    return [
        root / top for top in sorted(tops) if (root / top).exists() and not top.endswith(".pth")
    ]
