"""Stages that load the library and call its ops. They run in a process of their own."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .golden import Call, read_calls
from .host import ISA_VARIABLE

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

    def call(self, call: Call, device: str = "cpu") -> tuple[torch.Tensor, ...]:
        args = tuple(_on(device, a) for a in call.args)
        kwargs = {k: _on(device, v) for k, v in call.kwargs.items()}
        result = getattr(self.module, call.op)(*args, **kwargs)
        return result if isinstance(result, tuple) else (result,)


def import_variant(folder: Path, name: str) -> ModuleType:
    """Import a variant's package the way the `kernels` client does."""
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} has no __init__.py that can be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # As in verify.py: only what was hashed is run.
    before = sys.pycache_prefix
    sys.pycache_prefix = os.path.join(tempfile.gettempdir(), f"tilewright-verify-{os.getpid()}")
    try:
        spec.loader.exec_module(module)
    finally:
        sys.pycache_prefix = before
    return module


def stages(root: Path, manifest: dict[str, Any], quick: bool) -> Iterator[tuple[str, Result]]:
    """Yield (stage, (state, sentence)); an exception inside a stage is its failure."""
    started = time.monotonic()
    try:
        loaded = Loaded(root, manifest)
    except (OSError, ImportError, RuntimeError, AttributeError, KeyError, ValueError) as error:
        text = f"The library does not load in torch {torch.__version__}: {first_line(error)}"
        yield "load", ("failed", text)
        for stage in ("opcheck", "golden", "gpu"):
            yield stage, ("not run", "Not run: the library did not load.")
        return
    yield "load", load_stage(loaded, time.monotonic() - started)
    todo: list[tuple[str, Callable[[], Result]]] = [
        ("opcheck", lambda: opcheck_stage(loaded, quick)),
        ("golden", lambda: golden_stage(loaded)),
        ("gpu", lambda: gpu_stage(loaded)),
    ]
    for stage, run in todo:
        try:
            yield stage, run()
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            yield stage, ("failed", f"{type(error).__name__}: {first_line(error)}")


def load_stage(loaded: Loaded, seconds: float) -> Result:
    missing = [name for name in loaded.manifest["ops"] if not hasattr(loaded.namespace, name)]
    if missing:
        return "failed", f"The library loaded but did not register op {', '.join(missing)}."
    for name, facts in loaded.manifest["ops"].items():
        schema = str(loaded.op(name)._schema)
        if facts["schema"] not in schema:
            return "failed", f"Op {name} registered as {schema}, not as {facts['schema']}."
    levels = loaded.module.levels()
    return "passed", (
        f"Loaded in {seconds:.1f} s with torch {torch.__version__}: "
        f"{', '.join(sorted(loaded.manifest['ops']))} in torch.ops.{loaded.manifest['namespace']}; the library "
        f"itself finds levels {', '.join(levels['available'])} and uses {levels['current']}."
    )


def opcheck_stage(loaded: Loaded, quick: bool) -> Result:
    chosen: dict[tuple[str, ...], Call] = {}
    for call in loaded.calls:
        empty = any(e.numel() == 0 for e in call.expected)
        key = (
            (call.op,) if quick else (call.op, call.precision) if not empty else (call.op, "empty")
        )
        chosen.setdefault(key, call)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in chosen.values():
            results = torch.library.opcheck(
                loaded.op(call.op), call.args, call.kwargs, raise_exception=False
            )
            for test, result in results.items():
                if isinstance(result, BaseException):
                    return "failed", f"opcheck of {call.name}: {test}: {first_line(result)}"
    return "passed", (
        f"torch.library.opcheck passed for {len(chosen)} calls: schema, autograd registration, fake tensors, "
        f"AOT dispatch with dynamic sizes."
    )


def golden_stage(loaded: Loaded) -> Result:
    names = loaded.module.levels()["available"]
    force = getattr(loaded.library, "tw_force_level", None)
    levels: list[str | None] = (
        [None] if os.environ.get(ISA_VARIABLE) or force is None else list(names)
    )
    worst, where = 0.0, ""
    for level in levels:
        if level is not None and force is not None and force(level.encode()) != 0:
            return "failed", f"Level {level} cannot be forced, though the library lists it."
        for call in loaded.calls:
            share, reason = judge(call, loaded.call(call))
            if reason:
                return "failed", f"{call.name}{f' at level {level}' if level else ''}: {reason}."
            if share > worst:
                worst, where = share, call.name
    if force is not None:
        force(None)
    text = ", ".join(level or loaded.module.levels()["current"] for level in levels)
    return "passed", (
        f"{len(loaded.calls)} stored calls at {len(levels)} levels ({text}) agree with fp64 arithmetic; the "
        f"worst used {worst:.0%} of its tolerance ({where})."
    )


def judge(call: Call, outputs: tuple[torch.Tensor, ...]) -> tuple[float, str]:
    """The share of the tolerance that was used, and what is wrong ("" if nothing)."""
    share = 0.0
    for out, want, dtype in zip(outputs, call.expected, call.dtypes, strict=True):
        if out.dtype != dtype:
            return 0.0, f"the output is {out.dtype} instead of {dtype}"
        verdict = compare(out.cpu(), want, call.tolerance)
        if not verdict.ok:
            return 0.0, verdict.reason
        share = max(share, verdict.rel_err / call.tolerance if call.tolerance else 0.0)
    return share, ""


def gpu_stage(loaded: Loaded) -> Result:
    folder = loaded.library_path.parent
    document = json.loads((folder / "dispatch.json").read_text(encoding="utf-8"))
    entries = document["entries"]
    if not entries:
        return "passed", "The bundle has no GPU binaries."
    for entry in entries:
        data = (folder / entry["binary"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            return "failed", f"{entry['binary']} does not have the sha256 that dispatch.json gives."
        if data[:4] != b"\x7fELF":
            return "failed", f"{entry['binary']} is not an ELF file."
    targets = ", ".join(sorted({e["target"] for e in entries}))
    binaries = len({e["binary"] for e in entries})
    facts = f"{len(entries)} launch entries for {targets} name {binaries} binaries with the right sha256"
    library = loaded.library
    if hasattr(library, "tw_gpu_entry_count"):
        library.tw_gpu_entry_id.restype = ctypes.c_char_p
        count = library.tw_gpu_entry_count()
        built_in = [(library.tw_gpu_entry_id(i) or b"").decode() for i in range(count)]
        if built_in != [e["id"] for e in entries]:
            return "failed", "The launcher's built-in table is not the one of dispatch.json."
        facts += ", and the launcher's built-in table is the same"
    if not torch.cuda.is_available():
        return "passed", f"{facts}; launch not run: no device."
    ran = 0
    for call in loaded.calls:
        if not call.gpu:
            continue
        _, reason = judge(call, loaded.call(call, "cuda"))
        if reason:
            return "failed", f"{call.name} on {torch.cuda.get_device_name()}: {reason}."
        ran += 1
    return "passed", f"{facts}; {ran} stored calls agree on {torch.cuda.get_device_name()}."


def first_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:400] if lines else type(error).__name__


def _on(device: str, value: Any) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value
