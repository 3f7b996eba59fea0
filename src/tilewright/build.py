"""Compiling what is not built in: cmake and ninja from the environment, results cached by content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tilewright.errors import BuildFailed, Unavailable
from tilewright.machine import cache_folder
from tilewright.registry import Family, package_folder

_SOURCES = {".cpp", ".hpp", ".h", ".inc", ".cmake", ".txt"}


def build_host_library(family: Family) -> Path:
    """The shared library of one family's host kernel, exporting `tw_host_<family>` through the C ABI.

    Raises Unavailable without a compiler, BuildFailed with the first error of a compiler that rejects it.
    """
    kernels = package_folder("tilewright.kernels")
    folders = [family.folder, *needed(family.folder), kernels / "_host"]
    key = digest(*map(sources, folders), words=[family.name])
    target = cache_folder("build", f"host-{family.name}-{key}", f"libtilewright_{family.name}.so")
    if not target.exists():
        options = {"TW_FAMILY_DIRS": f"{family.name}={family.folder}", "TW_OUTPUT": target.stem}
        build(kernels / "_host", options, target, f"the host kernel of {family.name}")
    return target


def needed(folder: Path) -> list[Path]:
    """Folders of the built-in families whose functions a family's host kernel calls, and of those that they need.

    Each once, as the `host_needs.txt` in every folder says.
    """
    found: dict[Path, None] = {}
    open_folders = [folder]
    while open_folders:
        listed = open_folders.pop() / "host_needs.txt"
        names = listed.read_text(encoding="utf-8").split() if listed.exists() else []
        new = [package_folder("tilewright.kernels") / name for name in names]
        open_folders += [one for one in new if one not in found]
        found |= dict.fromkeys(new)
    return list(found)


def tools() -> dict[str, str]:
    """Paths of cmake, ninja and the C++ compiler; raises Unavailable naming the missing one and what installs it."""
    return {
        "cxx": compiler(),
        "cmake": _tool("cmake", "pip install cmake"),
        "ninja": _tool("ninja", "pip install ninja"),
    }


def compiler() -> str:
    """The path of the C++ compiler; raises Unavailable naming it and what installs it."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++"]
    there = (c for c in names if shutil.which(c, path=_search_path()))
    return _tool(next(there, names[0]), "on Debian or Ubuntu: sudo apt-get install g++")


def _search_path() -> str:
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def _tool(name: str, advice: str) -> str:
    place = shutil.which(name, path=_search_path())
    if place is None:
        raise Unavailable(f"building a kernel needs {name}, which is not on PATH; {advice}")
    return place


def sources(folder: Path) -> Iterator[Path]:
    """C++ and CMake files under a folder, in a fixed order."""
    return (p for p in sorted(folder.rglob("*")) if p.suffix in _SOURCES and p.is_file())


def digest(*groups: Iterable[Path], words: Sequence[str]) -> str:
    """A hash of contents, names and the compiler: equal means nothing need be built."""
    version = subprocess.run([compiler(), "-v"], capture_output=True, text=True, check=False).stderr
    content = hashlib.sha256("\0".join([*words, version]).encode())
    for group in groups:
        for path in group:
            content.update(f"\0{path.name}\0".encode())
            content.update(path.read_bytes())
    return content.hexdigest()[:16]


def build(source: Path, options: Mapping[str, str], target: Path, what: str) -> None:
    """Configure and build in a folder that goes away; the result appears at `target` at once or not at all."""
    found = tools()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as folder:
        configure = [
            found["cmake"],
            "-S",
            str(source),
            "-B",
            folder,
            "-G",
            "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        configure += [
            f"-DCMAKE_MAKE_PROGRAM={found['ninja']}",
            f"-DCMAKE_CXX_COMPILER={found['cxx']}",
        ]
        configure += [f"-D{key}={value}" for key, value in options.items()]
        _run(configure, what)
        _run([found["cmake"], "--build", folder], what)
        os.replace(Path(folder) / target.name, target)


def _run(command: Sequence[str], what: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return
    lines = [
        line.strip() for line in (result.stdout + "\n" + result.stderr).splitlines() if line.strip()
    ]
    errors = [
        line
        for line in lines
        if re.search(r"\berror\b:|CMake Error|undefined reference|undefined symbol", line)
    ]
    first = (errors or lines or ["no output"])[0]
    # CMake puts its reason on the lines after the heading.
    if first.startswith("CMake Error") and first.endswith(":"):
        first += " " + next((line for line in lines[lines.index(first) + 1 :]), "")
    raise BuildFailed(f"{what} does not build: {first}")
