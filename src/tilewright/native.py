"""The compiled parts of the package: where they lie, whether they are there, and how to reach a kernel."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tilewright.errors import Unavailable

if TYPE_CHECKING:
    from tilewright.registry import Family

_MODULE = "tilewright._C"
HOST_VARIABLE = "TILEWRIGHT_HOST_LIBRARY"
"""Environment variable that names a library of host kernels to call instead of the installed one."""
_FILES = {"host": "libtilewright_host.so", "twin": "libtilewright_twin.so", "ops": "_ops.abi3.so"}


@cache
def _folder() -> Path | None:
    """The folder of the compiled files; None when they are not installed."""
    found = importlib.util.find_spec(_MODULE)
    if found is not None and found.origin is not None and Path(found.origin).is_file():
        return Path(found.origin).parent
    # A view of the sources (PYTHONPATH, mypy) has no compiled files; an installed copy beside it may.
    name = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    installed = Path(sysconfig.get_path("platlib")) / "tilewright"
    return installed if (installed / name).is_file() else None


def library_paths() -> dict[str, Path]:
    """The compiled libraries that are present: `host` (kernels), `twin`, `ops` (torch)."""
    folder = _folder()
    if folder is None:
        return {}
    return {key: folder / file for key, file in _FILES.items() if (folder / file).is_file()}


def library(kind: str) -> Path:
    """The path of one of them; raises Unavailable when it is not built."""
    found = library_paths().get(kind)
    if found is None:
        raise Unavailable(f"{_FILES[kind]} is not built; run `make setup`")
    return found


def why_missing() -> str | None:
    """One sentence when the host kernels cannot be called here, else None. Looks at files only."""
    folder = _folder()
    if folder is None:
        return "the native module tilewright._C is not built; run `make setup`"
    if not (folder / _FILES["host"]).is_file():
        return f"{_FILES['host']} is not built; run `make setup`"
    return None


@cache
def module() -> ModuleType:
    """`tilewright._C`; raises Unavailable with the sentence of `why_missing`."""
    reason = why_missing()
    if reason:
        raise Unavailable(reason)
    if importlib.util.find_spec(_MODULE) is not None:
        return importlib.import_module(_MODULE)
    folder = _folder()
    path = Path(str(folder)) / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise Unavailable(f"{path} cannot be imported; run `make setup`")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def host_function(family: Family) -> int:
    """Address of `tw_host_<family>`: built in, or built from the family's folder when first asked for.

    Raises Unavailable without the native module or a compiler, BuildFailed when its sources do not compile.
    """
    key = (family.name, family.folder)
    if key not in _addresses:
        if family.built_in:
            path = Path(os.environ.get(HOST_VARIABLE) or library("host"))
        else:
            from tilewright.build import build_host_library

            path = build_host_library(family)
        _addresses[key] = int(module().symbol(str(path), f"tw_host_{family.name}"))
    return _addresses[key]


_addresses: dict[tuple[str, Path], int] = {}
