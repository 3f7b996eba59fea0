"""The bundle's ops, loaded: its Python module, its library, its stored calls, and what judges their results."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .golden import Call, own, read_calls

Result = tuple[str, str]
# Written into the bundle from the core's own source, so no file of that name stands beside this one.
compare = importlib.import_module(f"{__package__}.compare").compare


class Loaded:
    """The bundle's Python module, its ops, its golden calls and its library as ctypes sees it."""

    def __init__(self, root: Path, manifest: dict[str, Any]) -> None:
        self.root = root
        self.manifest = manifest
        self.library_path = root / manifest["library"]["path"]
        self.module = import_variant(self.library_path.parent, manifest["id"])
        self.namespace = getattr(torch.ops, manifest["namespace"])
        self.library = ctypes.CDLL(str(self.library_path))
        self.calls = list(read_calls(root))

    def op(self, name: str) -> Any:
        return getattr(self.namespace, name).default

    def call(self, call: Call) -> tuple[torch.Tensor, ...]:
        names = [a.name for a in self.op(call.op)._schema.arguments]
        given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
        given |= {name: own(given[name]) for name in call.changed}
        result = getattr(self.module, call.op)(**given)
        returned = result if isinstance(result, tuple) else () if result is None else (result,)
        made = [
            t["name"] for t in self.manifest["ops"][call.op]["tensors"] if t["role"] == "output"
        ]
        given |= zip(made, returned, strict=True)
        # An output that was not asked for comes back empty and is not among these.
        return tuple(given[name] for name in call.outputs)


def import_variant(folder: Path, name: str) -> ModuleType:
    """Import a variant's package the way the `kernels` client does."""
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} has no __init__.py that can be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # As in verify.py: bytecode was not hashed, so none is looked for.
    before = sys.pycache_prefix
    sys.pycache_prefix = os.devnull
    try:
        spec.loader.exec_module(module)
    finally:
        sys.pycache_prefix = before
    return module


def judge(call: Call, outputs: tuple[torch.Tensor, ...]) -> tuple[float, str]:
    """The share of the tolerance that was used, and what is wrong ("" if nothing)."""
    share = 0.0
    wanted = zip(outputs, call.expected, call.dtypes, call.tolerances, call.units, strict=True)
    for out, want, dtype, tolerance, unit in wanted:
        if out.dtype != dtype:
            return 0.0, f"the output is {out.dtype} instead of {dtype}"
        verdict = compare(out.cpu(), want, tolerance, unit)
        if not verdict.ok:
            return 0.0, verdict.reason
        share = max(share, verdict.rel_err / tolerance if tolerance else 0.0)
    return share, ""


def first_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:400] if lines else type(error).__name__
