"""Compiling a bundle's library: one CMake build a set of families, kept so that unchanged objects are not remade."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.errors import BuildFailed, Unavailable
from tilewright.machine import cache_folder, usable_cores
from tilewright.registry import Family, package_folder
from tilewright.ship.device import device_sources

if TYPE_CHECKING:
    from tilewright.bindings.table import Op

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
    (default: the user's cache folder). Raises Unavailable without cmake or torch, BuildFailed with
    the compiler's first error.
    """
    from tilewright.bindings.torch import generate

    build = (cache or cache_folder("ship")) / _key(families)
    with _locked(build):
        generated = build / "generated"
        generated.mkdir(exist_ok=True)
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
        cmake = _tool("cmake")
        generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}"]
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


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is not installed; a bundle's library is compiled with it: pip install {name}")
    return found


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    lines = (done.stdout + done.stderr).splitlines()
    first = next((line.strip() for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    raise BuildFailed(f"the library of the bundle does not compile: {first}")
