"""Compiling families that are not built in, and op libraries for bundles: cmake and ninja, cached by content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tilewright.errors import BuildFailed, Unavailable
from tilewright.machine import cache_folder
from tilewright.registry import Family, package_folder
from tilewright.tables import Entry

_SOURCES = {".cpp", ".hpp", ".h", ".inc", ".cmake", ".txt"}


def build_host_library(family: Family) -> Path:
    """The shared library of one family's host kernel, exporting `tw_host_<family>` through the C ABI.

    Raises Unavailable without a compiler, BuildFailed with the first error of a compiler that rejects it.
    """
    kernels = package_folder("tilewright.kernels")
    digest = _digest(_sources(family.folder), _sources(kernels / "_host"), words=[family.name])
    target = cache_folder(
        "build", f"host-{family.name}-{digest}", f"libtilewright_{family.name}.so"
    )
    if not target.exists():
        options = {"TW_FAMILY_DIRS": f"{family.name}={family.folder}", "TW_OUTPUT": target.stem}
        _build(kernels / "_host", options, target, f"the host kernel of {family.name}")
    return target


def build_torch_ops(
    families: Sequence[Family],
    namespace: str,
    out: Path | None = None,
    extra_sources: Sequence[Path] = (),
    tuned: Mapping[str, Iterable[Entry]] | None = None,
) -> Path:
    """One library of stable-ABI ops, `torch.ops.<namespace>.<family>`, that stands alone.

    The file is `<namespace>.abi3.so` with `PyInit_<namespace>`; `out` is where a copy goes (a file, or a
    folder that exists), None leaves it in the cache. `tuned` holds the configs each family applies by
    itself; `extra_sources` are C++ files compiled in. Raises Unavailable or BuildFailed.
    """
    from tilewright.bindings.table import op_of
    from tilewright.bindings.torch.generate import source

    kernels, bindings = package_folder("tilewright.kernels"), package_folder("tilewright.bindings")
    text = source([op_of(f, (tuned or {}).get(f.name, ())) for f in families], namespace, namespace)
    torch_folder = _torch_folder()
    version = (torch_folder / "version.py").read_text(encoding="utf-8")
    digest = _digest(
        *(_sources(f.folder) for f in families),
        _sources(kernels / "_host"),
        _sources(bindings),
        [Path(p) for p in extra_sources],
        words=[namespace, text, version, *(f.name for f in families)],
    )
    built = cache_folder("build", f"ops-{namespace}-{digest}", f"{namespace}.abi3.so")
    if not built.exists():
        generated = cache_folder("build", f"ops-{namespace}-{digest}", "generated.cpp")
        generated.parent.mkdir(parents=True, exist_ok=True)
        generated.write_text(text, encoding="utf-8")
        options = {
            "TW_NAMESPACE": namespace,
            "TW_FAMILY_DIRS": ";".join(f"{f.name}={f.folder}" for f in families),
            "TW_OPS_SOURCE": str(generated),
            "TW_EXTRA_SOURCES": ";".join(str(Path(p).resolve()) for p in extra_sources),
            "TORCH_FOLDER": str(torch_folder),
            "TW_KERNELS": str(kernels),
            "Python_EXECUTABLE": sys.executable,
        }
        what = f"the torch ops of {', '.join(f.name for f in families)}"
        _build(bindings / "torch", options, built, what)
    if out is None:
        return built
    target = out / built.name if out.is_dir() else out
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(built, target)
    return target


def tools() -> dict[str, str]:
    """Paths of cmake, ninja and the C++ compiler; raises Unavailable naming the missing one and what installs it."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    compiler = os.environ.get("CXX") or next(
        (c for c in ("g++", "c++") if shutil.which(c, path=path)), "g++"
    )
    wanted = {
        "cxx": (compiler, "on Debian or Ubuntu: sudo apt-get install g++"),
        "cmake": ("cmake", "pip install cmake"),
        "ninja": ("ninja", "pip install ninja"),
    }
    found: dict[str, str] = {}
    for key, (name, advice) in wanted.items():
        place = shutil.which(name, path=path)
        if place is None:
            raise Unavailable(f"building a kernel needs {name}, which is not on PATH; {advice}")
        found[key] = place
    return found


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("building torch ops needs torch; pip install torch")
    return Path(spec.submodule_search_locations[0])


def _sources(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.suffix in _SOURCES and p.is_file())


def _digest(*groups: Iterable[Path], words: Sequence[str]) -> str:
    """A hash of contents, names and the compiler: equal means nothing need be built."""
    compiler = subprocess.run(
        [tools()["cxx"], "-v"], capture_output=True, text=True, check=False
    ).stderr
    digest = hashlib.sha256("\0".join([*words, compiler]).encode())
    for group in groups:
        for path in group:
            digest.update(f"\0{path.name}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(source: Path, options: Mapping[str, str], target: Path, what: str) -> None:
    """Configure and build in a folder that goes away; the result appears at `target` at once or not at all."""
    found = tools()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as folder:
        build = Path(folder)
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
        os.replace(build / target.name, target)


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
