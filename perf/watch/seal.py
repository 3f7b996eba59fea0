"""Whether the functions a time rests on are still the ones they were.

Functions of the interpreter, torch and numpy are told by their nature: those used here are built in, so a
Python function in their place is somebody's. Ours are compared with what they were when this was imported,
which is before any kernel is: by identity, code and defaults.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from functools import cache
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

OURS = (
    "tilewright.numerics",
    "tilewright.perf.device.queue",
    "tilewright.perf.device.timer",
    "tilewright.perf.device.trial",
    "tilewright.perf.engine",
    "tilewright.perf.gate",
    "tilewright.perf.statistics",
    "tilewright.perf.stopping",
    "tilewright.perf.timers",
    "tilewright.perf.timing",
    "tilewright.perf.watch.memory",
    "tilewright.perf.watch.outputs",
    "tilewright.perf.watch.precision",
    "tilewright.perf.watch.process",
    "tilewright.perf.watch.scene",
    "tilewright.perf.watch.secret",
    "tilewright.perf.watch.system_clock",
    "tilewright.perf.watch.timer",
    "tilewright.perf.watch.trial",
)
_BUILT_IN: dict[str, tuple[str, ...]] = {
    "time": (
        "perf_counter_ns",
        "perf_counter",
        "monotonic",
        "monotonic_ns",
        "process_time_ns",
        "time",
        "sleep",
    ),
    "gc": ("collect", "disable", "enable", "isenabled"),
    "torch": ("empty", "full", "isnan", "isfinite", "where", "roll", "sign"),
}
_TENSOR = (
    "clone",
    "fill_",
    "copy_",
    "to",
    "view",
    "reshape",
    "numel",
    "data_ptr",
    "abs",
    "any",
    "__getitem__",
)

Print = dict[tuple[str, str], tuple[Any, ...]]


def _functions(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if isinstance(value, FunctionType):
            yield name, value
        elif isinstance(value, type) and value.__module__ == module.__name__:
            for inner, method in vars(value).items():
                if isinstance(method, staticmethod | classmethod):
                    method = method.__func__
                if isinstance(method, FunctionType):
                    yield f"{name}.{inner}", method


def _print() -> Print:
    found: Print = {}
    for module_name in OURS:
        module = sys.modules.get(module_name)
        if module is not None:
            for name, value in _functions(module):
                found[module_name, name] = (value, value.__code__, value.__defaults__)
    return found


def _built_in(value: Any, name: str) -> bool:
    own = getattr(value, "__name__", None)
    return (
        isinstance(value, BuiltinFunctionType | MethodDescriptorType)
        or type(value).__name__ == "wrapper_descriptor"
    ) and own == name


class Seal:
    """The functions as they are now; `broken` names one that is another later."""

    def __init__(self) -> None:
        self._print = _print()

    def broken(self) -> str | None:
        """The dotted name of a function that was replaced; None if none was."""
        for module_name, names in _BUILT_IN.items():
            module = importlib.import_module(module_name)
            for name in names:
                if not _built_in(getattr(module, name), name):
                    return f"{module_name}.{name}"
        import torch

        for name in _TENSOR:
            if not _built_in(getattr(torch.Tensor, name), name):
                return f"torch.Tensor.{name}"
        now = _print()
        for key, before in self._print.items():
            after = now.get(key)
            if after is None or any(a is not b for a, b in zip(before, after, strict=True)):
                return ".".join(key)
        return None


@cache
def seal() -> Seal:
    """The seal of this process, taken when `perf.timing` is imported."""
    return Seal()
