"""Building, loading and finding torch ops: the built-in library, and one for each family elsewhere."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tilewright import native
from tilewright.bindings.table import op_of
from tilewright.bindings.torch.generate import source
from tilewright.build import build, digest, sources
from tilewright.document import write_text
from tilewright.errors import Unavailable
from tilewright.machine import cache_folder
from tilewright.registry import Family, families, package_folder
from tilewright.tables import Entry

NAMESPACE = "tilewright"
"""The torch namespace of the built-in ops: `torch.ops.tilewright.<family>`."""


def torch_op(family: Family) -> Callable[..., Any]:
    """`torch.ops.tilewright.<family>`, or the op built from a family elsewhere when first asked for.

    Raises Unavailable where nothing is built and nothing can be, BuildFailed when its sources do not compile.
    """
    import torch

    namespace = NAMESPACE
    if family.built_in:
        _load_built_in()
    else:
        namespace = _load_external(family)
    op: Callable[..., Any] = getattr(getattr(torch.ops, namespace), family.name)
    return op


@cache
def _load_built_in() -> None:
    path = native.library("ops")
    load_ops(path, NAMESPACE, [op_of(f).as_dict() for f in families().values() if _compiled_in(f)])


def _compiled_in(family: Family) -> bool:
    return family.built_in and family.has("host.cpp")


_external: dict[tuple[str, Path], str] = {}


def _load_external(family: Family) -> str:
    key = (family.name, family.folder)
    if key not in _external:
        namespace = f"tilewright_{family.name}"
        load_ops(build_torch_ops([family], namespace), namespace, [op_of(family).as_dict()])
        _external[key] = namespace
    return _external[key]


def load_ops(path: Path, namespace: str, table: list[dict[str, Any]]) -> None:
    """Load a library of stable-ABI ops and register the fake implementations of its table."""
    import torch

    from tilewright.bindings.torch import fake

    torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    fake.register(namespace, table)


def build_torch_ops(
    families: Sequence[Family],
    namespace: str,
    out: Path | None = None,
    extra_sources: Sequence[Path] = (),
    tuned: Mapping[str, Iterable[Entry]] | None = None,
) -> Path:
    """One library of stable-ABI ops, `torch.ops.<namespace>.<family>`, that stands alone.

    The file is `<namespace>.abi3.so` with `PyInit_<namespace>`; `out` is where a copy goes (a file, or a
    folder that exists), None leaves it in the cache. `tuned` holds the configs each family applies by
    itself; `extra_sources` are C++ files compiled in. Raises Unavailable or BuildFailed.
    """
    kernels, bindings = package_folder("tilewright.kernels"), package_folder("tilewright.bindings")
    text = source([op_of(f, (tuned or {}).get(f.name, ())) for f in families], namespace, namespace)
    torch_folder = _torch_folder()
    version = (torch_folder / "version.py").read_text(encoding="utf-8")
    key = digest(
        *(sources(f.folder) for f in families),
        sources(kernels / "_host"),
        sources(bindings),
        [Path(p) for p in extra_sources],
        words=[namespace, text, version, *(f.name for f in families)],
    )
    built = cache_folder("build", f"ops-{namespace}-{key}", f"{namespace}.abi3.so")
    if not built.exists():
        generated = cache_folder("build", f"ops-{namespace}-{key}", "generated.cpp")
        write_text(generated, text)  # whole: another process may be compiling it
        options = {
            "TW_NAMESPACE": namespace,
            "TW_FAMILY_DIRS": ";".join(f"{f.name}={f.folder}" for f in families),
            "TW_OPS_SOURCE": str(generated),
            "TW_EXTRA_SOURCES": ";".join(str(Path(p).resolve()) for p in extra_sources),
            "TORCH_FOLDER": str(torch_folder),
            "TW_KERNELS": str(kernels),
            "Python_EXECUTABLE": sys.executable,
        }
        what = f"the torch ops of {', '.join(f.name for f in families)}"
        build(bindings / "torch", options, built, what)
    if out is None:
        return built
    target = out / built.name if out.is_dir() else out
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(built, target)
    return target


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("building torch ops needs torch; pip install torch")
    return Path(spec.submodule_search_locations[0])
