"""Stages that load the library and call its ops. They run in a process of their own."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .golden import Call
from .gpu import gpu_stage
from .host import ISA_VARIABLE
from .loaded import Loaded, Result, first_line, judge
from .schema import same_schema


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
        if not same_schema(schema, facts["schema"]):
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
            args = tuple(_whole(value) for value in call.args)
            kwargs = {name: _whole(value) for name, value in call.kwargs.items()}
            results = torch.library.opcheck(loaded.op(call.op), args, kwargs, raise_exception=False)
            for test, result in results.items():
                if isinstance(result, BaseException):
                    return "failed", f"opcheck of {call.name}: {test}: {first_line(result)}"
    return "passed", (
        f"torch.library.opcheck passed for {len(chosen)} calls: schema, autograd registration, fake tensors, "
        f"AOT dispatch with dynamic sizes."
    )


def _whole(value: Any) -> Any:
    """An empty view of larger memory as an empty tensor: torch's own clone of a strided one fails."""
    empty = isinstance(value, torch.Tensor) and value.numel() == 0
    return value.clone(memory_format=torch.contiguous_format) if empty else value


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
