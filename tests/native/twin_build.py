"""Builds the twin and native test kernels once per state of their sources, under build/."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tilewright import native
from tilewright.ascendc import soc
from tilewright.ascendc.ops.gemm import host
from tilewright.ascendc.twin import runner

ROOT = Path(__file__).resolve().parents[2]
ASCENDC = ROOT / "ascendc"
NATIVE = Path(__file__).resolve().parent

__all__ = [
    "ASCENDC",
    "NATIVE",
    "ROOT",
    "cache_folder",
    "compile_kernels",
    "headers_digest",
    "host",
    "kernels",
    "runner",
    "soc",
    "twin",
]


def _digest(paths: list[Path], *more: str) -> str:
    h = hashlib.sha256()
    for path in sorted(paths):
        h.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    h.update("\0".join(more).encode())
    return h.hexdigest()[:16]


def _sources() -> list[Path]:
    return [
        p for p in ASCENDC.rglob("*") if p.suffix in (".h", ".cpp", ".txt") and "npu" not in p.parts
    ]


def _cache() -> Path:
    path = Path(os.environ.get("TILEWRIGHT_TEST_BUILD", ROOT / "build" / "twin-tests"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is needed to build the twin"
    return found


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, " ".join(command) + "\n" + done.stdout + done.stderr


def _installed() -> Path | None:
    """The twin that the package carries, if it is not older than the sources."""
    path = native.library_paths().get("twin")
    if path is None or path.stat().st_mtime < max(p.stat().st_mtime for p in _sources()):
        return None
    return Path(path)


@cache
def twin() -> Path:
    """libtilewright_twin.so of the tree as it is."""
    named = os.environ.get("TILEWRIGHT_TWIN_LIBRARY")
    if named:
        return Path(named)
    if (ready := _installed()) is not None:
        return ready
    out = _cache() / f"twin-{_digest(_sources())}.so"
    with open(_cache() / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            build = _cache() / "cmake"
            _run(_tool("cmake"), "-S", str(ASCENDC), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release")
            _run(_tool("cmake"), "--build", str(build), "-j2")
            shutil.copy(build / "libtilewright_twin.so", out.with_suffix(".tmp"))
            out.with_suffix(".tmp").replace(out)
    return out


@cache
def headers_digest() -> str:
    """Of what a kernel's compilation depends on besides itself."""
    include = [p for p in _sources() if "include" in p.relative_to(ASCENDC).parts]
    return _digest(include)


def cache_folder() -> Path:
    return _cache()


def compile_kernels(source: Path, out: Path, *flags: str) -> None:
    """A shared object of kernels, as a user's file is compiled."""
    temporary = out.with_suffix(f".{os.getpid()}")
    _run(
        "g++",
        "-std=c++17",
        "-g0",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        f"-fmacro-prefix-map={ROOT}/=",
        f"-I{ASCENDC / 'include'}",
        *flags,
        str(source),
        "-o",
        str(temporary),
    )
    temporary.replace(out)


@cache
def kernels(source: str) -> Path:
    """A shared object of ``tests/native/<source>``."""
    path = NATIVE / source
    twin()
    digest = _digest([path, *NATIVE.glob("*.h"), *_sources()])
    out = _cache() / f"{path.stem}-{digest}.so"
    if not out.exists():
        compile_kernels(path, out, "-O1", "-Wall", "-Wextra", "-Werror")
    return out
