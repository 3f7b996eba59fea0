"""Compiling a bundle's library: one CMake build a set of families, kept so that unchanged objects are not remade."""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.build import tools
from tilewright.errors import BuildFailed, Unavailable
from tilewright.machine import cache_folder, usable_cores
from tilewright.registry import Family, package_folder
from tilewright.ship.device import device_sources

if TYPE_CHECKING:
    from tilewright.bindings.table import Op

_ERROR = re.compile(r"\berror\b:|CMake Error|undefined reference|undefined symbol")
_HERE = Path(__file__).resolve().parent


def compile_library(
    families: Sequence[Family],
    ops: Sequence[Op],
    identifier: str,
    entries: Sequence[Mapping[str, Any]],
    torch_target: str,
    out: Path,
    cache: Path | None = None,
) -> Path:
    """Compile `out`/<identifier>.abi3.so with ops in namespace `identifier` and the launcher of `entries`.

    `torch_target` is the oldest torch it loads in, such as "2.11". `cache` holds the build
    (default: the user's cache folder). Raises Unavailable without a compiler, cmake or torch, BuildFailed with
    the compiler's first error.
    """
    from tilewright.bindings.torch import generate

    build = (cache or cache_folder("ship")) / _key(families)
    with _locked(build):
        generated = build / "cmake" / "generated"
        generated.mkdir(parents=True, exist_ok=True)
        source = generated / "ops.cpp"
        _write(source, generate.source(ops, identifier, identifier))
        extra = device_sources(generated, ops, entries, identifier)
        definitions = {
            "TW_BINDINGS": package_folder("tilewright.bindings"),
            "TW_KERNELS": package_folder("tilewright.kernels"),
            "TW_SHIP": package_folder("tilewright.ship"),
            "TORCH_FOLDER": _torch_folder(),
            "Python_EXECUTABLE": sys.executable,
            "TW_NAMESPACE": identifier,
            "TW_MODULE": identifier,
            "TW_FAMILY_DIRS": ";".join(f"{f.name}={f.folder}" for f in families),
            "TW_OPS_SOURCE": source,
            "TW_EXTRA_SOURCES": ";".join(map(str, extra)),
            "TW_TORCH_TARGET": _version_macro(torch_target),
            "TW_OUTPUT_DIR": build / "out",
        }
        found = tools()
        cmake = found["cmake"]
        generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={found['ninja']}"]
        generator.append(f"-DCMAKE_CXX_COMPILER={found['cxx']}")
        given = [f"-D{name}={value}" for name, value in definitions.items()]
        _run([cmake, "-S", str(_HERE), "-B", str(build / "cmake"), *generator, *given])
        _run([cmake, "--build", str(build / "cmake"), "-j", str(usable_cores())])
        library = out / f"{identifier}.abi3.so"
        shutil.copyfile(build / "out" / library.name, library)
        (build / "out" / library.name).unlink()
    return library


def _key(families: Sequence[Family]) -> str:
    """A folder for each checkout, interpreter and set of families."""
    parts = [sys.executable, str(_HERE), *(f"{f.name}={f.folder}" for f in families)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@contextmanager
def _locked(build: Path) -> Iterator[None]:
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _torch_folder() -> Path:
    found = find_spec("torch")
    if found is None or found.origin is None:
        raise Unavailable("torch is not installed; a bundle is compiled against its headers")
    return Path(found.origin).parent


def _version_macro(version: str) -> str:
    major, minor = (int(part) for part in version.split("."))
    return f"0x{major:02x}{minor:02x}000000000000"


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    lines = [
        line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()
    ]
    at = next((i for i, line in enumerate(lines) if _ERROR.search(line)), 0)
    # CMake puts its reason on the line after the heading.
    first = (
        " ".join(lines[at : at + 2])
        if lines and lines[at].endswith(":")
        else "".join(lines[at : at + 1])
    )
    raise BuildFailed(f"the library of the bundle does not compile: {first}")
