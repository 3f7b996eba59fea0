"""The compiled parts of the package: where they lie, whether they are there, and how to reach a kernel."""

from __future__ import annotations

import importlib
import importlib.util
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tilewright.errors import Unavailable

if TYPE_CHECKING:
    from tilewright.registry import Family

NAMESPACE = "tilewright"
"""The torch namespace of the built-in ops: `torch.ops.tilewright.<family>`."""

_MODULE = "tilewright._C"
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
    return {key: folder / name for key, name in _FILES.items() if (folder / name).is_file()}


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
    return _host_function(family.name, family.folder, family.built_in, family)


_addresses: dict[tuple[str, Path], int] = {}


def _host_function(name: str, folder: Path, built_in: bool, family: Family) -> int:
    native = module()
    if built_in:
        return int(native.symbol(str(library_paths()["host"]), f"tw_host_{name}"))
    key = (name, folder)
    if key not in _addresses:
        from tilewright.build import build_host_library

        _addresses[key] = int(native.symbol(str(build_host_library(family)), f"tw_host_{name}"))
    return _addresses[key]


def torch_op(family: Family) -> Callable[..., Any]:
    """The torch op of a family: `torch.ops.tilewright.<family>`, or one built from a family elsewhere.

    Raises Unavailable where nothing is built and nothing can be.
    """
    import torch

    if family.built_in:
        _load_built_in()
        namespace = NAMESPACE
    else:
        namespace = _load_external(family)
    op: Callable[..., Any] = getattr(getattr(torch.ops, namespace), family.name)
    return op


@cache
def _load_built_in() -> None:
    from tilewright.bindings.generate import built_in_ops

    path = library_paths().get("ops")
    if path is None:
        raise Unavailable(f"{_FILES['ops']} is not built; run `make setup`")
    load_ops(path, NAMESPACE, built_in_ops())


_external: dict[tuple[str, Path], str] = {}


def _load_external(family: Family) -> str:
    key = (family.name, family.folder)
    if key not in _external:
        from tilewright.bindings.table import op_of
        from tilewright.build import build_torch_ops

        namespace = f"tilewright_{family.name}"
        path = build_torch_ops([family], namespace)
        load_ops(path, namespace, [op_of(family).as_dict()])
        _external[key] = namespace
    return _external[key]


def load_ops(path: Path, namespace: str, table: list[dict[str, Any]]) -> None:
    """Load a library of stable-ABI ops and register the fake implementations of its table."""
    import torch

    from tilewright.bindings.torch import fake

    torch.ops.load_library(str(path))
    fake.register(namespace, table)
