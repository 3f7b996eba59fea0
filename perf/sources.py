"""What a kernel is made of, as hashes: the sources of a backend, and what is really called on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.build import sources
from tilewright.registry import package_folder

if TYPE_CHECKING:
    from tilewright.registry import Family


def source_files(family: Family, backend: str) -> Iterator[tuple[str, Path]]:
    """Names and files a backend's kernel is made of, in a fixed order; not the spec, whose space has its own hash.

    What kernels share belongs to them: every family, wherever it lies, is compiled against the package's own.
    """
    if backend == "triton":
        yield from _named(family.folder, sorted(family.folder.glob("triton*.py")))
    elif backend == "ascendc":
        folder, shared = family.ascendc_folder, package_folder("tilewright.ascendc")
        yield from _named(folder, sorted(folder.rglob("*.py")))
        for place in (folder, shared / "include", shared / "twin"):
            yield from _named(place, sources(place))
    elif backend == "host":
        for place in (family.folder, package_folder("tilewright.kernels") / "_host"):
            yield from _named(place, sources(place))
    else:
        yield from _named(family.folder, sorted(family.folder.glob("reference*.py")))


def _named(folder: Path, files: Iterator[Path] | list[Path]) -> Iterator[tuple[str, Path]]:
    for path in files:
        yield path.relative_to(folder).as_posix(), path


def source_hash(family: Family, backend: str) -> str:
    """Identifies the kernel's sources by name and content."""
    digest = hashlib.sha256()
    for name, path in source_files(family, backend):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def kernel_digest(family: Family, backend: str) -> str:
    """Identifies what a measurement calls: the library of a host kernel as it is built, else the sources.

    Raises Unavailable where the library is not built.
    """
    if backend != "host":
        return source_hash(family, backend)
    from tilewright import native
    from tilewright.build import build_host_library

    path = native.library("host") if family.built_in else build_host_library(family)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
