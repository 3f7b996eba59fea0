"""Compiling a pool of configs in several processes; each imports the family's module for itself."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tilewright import registry
from tilewright.aot.source import TritonModule
from tilewright.errors import UsageError

if TYPE_CHECKING:
    from tilewright.aot.compile import CompiledKernel

_settings: dict[str, Any] = {}


def spread(
    module: TritonModule,
    precision: str,
    flags: Mapping[str, str],
    jobs: Sequence[tuple[Mapping[str, int], str]],
    aligned: bool,
    sizes: Mapping[str, int] | None,
    workers: int,
    cache_dir: Path | None,
) -> Iterator[CompiledKernel]:
    """The rows of `jobs` in their order, compiled by `workers` processes."""
    name, path = getattr(module, "__name__", ""), getattr(module, "__file__", None)
    if not name or not path:
        raise UsageError("compiling in several processes needs a module with a file; use workers=1")
    settings = {
        "name": name,
        "path": path,
        "search": list(sys.path),
        "precision": precision,
        "flags": dict(flags),
        "aligned": aligned,
        "sizes": None if sizes is None else dict(sizes),
        "cache_dir": cache_dir,
    }
    # Spawned, not forked: a fork would inherit the locks of torch's and LLVM's threads.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(settings,))
    try:
        yield from executor.map(_compile, [(dict(config), target) for config, target in jobs])
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start(settings: dict[str, Any]) -> None:
    sys.path[:] = settings["search"]
    _settings.update(settings, module=_load(settings["name"], settings["path"]))


def _load(name: str, path: str) -> TritonModule:
    try:
        return cast(TritonModule, importlib.import_module(name))
    except ModuleNotFoundError:
        pass
    # Families outside the package become importable by being discovered.
    registry.families()
    try:
        return cast(TritonModule, importlib.import_module(name))
    except ModuleNotFoundError:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return cast(TritonModule, module)


def _compile(job: tuple[dict[str, int], str]) -> CompiledKernel:
    from tilewright.aot.compile import compile_config

    config, target = job
    return compile_config(
        _settings["module"],
        _settings["precision"],
        _settings["flags"],
        config,
        target,
        aligned=_settings["aligned"],
        sizes=_settings["sizes"],
        cache_dir=_settings["cache_dir"],
    )
