"""Build a launcher library and the fake drivers, run launches, compute what must arrive."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilewright import dtypes
from tilewright.ship.launcher.entries import Arg, DispatchEntry
from tilewright.ship.launcher.generate import launcher_sources, table_source

FAKES = Path(__file__).resolve().parent
ROOT = FAKES.parent.parent
TARGETS = ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942")
FLAGS = [
    "-std=c++20",
    "-O1",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-I",
    str(ROOT / "kernels"),
    "-I",
    str(ROOT / "ship"),
]


def compiled(command: Sequence[str]) -> None:
    """Run a compiler; its complaint becomes the test's failure."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def build_objects(folder: Path) -> list[str]:
    """The launcher's own objects, which every table links with."""
    objects = []
    for source in launcher_sources():
        objects.append(str(folder / f"{source.stem}.o"))
        compiled(["g++", *FLAGS, "-c", str(source), "-o", objects[-1]])
    return objects


def build_fake(folder: Path, name: str) -> Path:
    """`libcuda` or `libamdhip64`, recording."""
    path = folder / f"{name}.so"
    flags = [flag for flag in FLAGS if flag != "-fvisibility=hidden"]
    compiled(["g++", *flags, "-shared", str(FAKES / f"fake_{name}.cpp"), "-o", str(path)])
    return path


def build_library(
    folder: Path,
    objects: Sequence[str],
    entries: Sequence[DispatchEntry],
    images: Mapping[str, bytes] | None = None,
) -> Path:
    """The launcher with a table of these entries."""
    folder.mkdir(parents=True, exist_ok=True)
    table, library = folder / "table.cpp", folder / "liblauncher.so"
    table.write_text(table_source(entries, images), encoding="utf-8")
    compiled(["g++", *FLAGS, "-shared", str(table), *objects, "-o", str(library), "-ldl"])
    return library


@dataclass(frozen=True, slots=True)
class Built:
    """A launcher library with its binaries in place, and the fakes."""

    library: Path
    folder: Path
    entries: Mapping[str, DispatchEntry]
    rows: list[dict[str, Any]]
    objects: list[str]
    drivers: Mapping[str, str]

    def environment(self, arch: str = "", **more: str) -> dict[str, str]:
        return {**self.drivers, **({"TILEWRIGHT_FAKE_ARCH": arch} if arch else {}), **more}


@dataclass(frozen=True, slots=True)
class Ran:
    """Answers of the launcher and the lines a fake driver wrote."""

    answers: list[dict[str, Any]]
    log: list[dict[str, Any]] = field(default_factory=list)

    def calls(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["call"] == name]


def drive(
    library: Path,
    calls: Sequence[Mapping[str, Any]],
    tmp: Path,
    environment: Mapping[str, str],
    directory: Path | None = None,
    **more: Any,
) -> Ran:
    """Run calls in a fresh process with these variables set; `more` goes into the request."""
    log = tmp / "driver.jsonl"
    log.unlink(missing_ok=True)
    request = {
        "library": str(library),
        "directory": str(directory or ""),
        "calls": list(calls),
        **more,
    }
    base = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("TILEWRIGHT_FAKE", "TILEWRIGHT_LIB"))
    }
    done = subprocess.run(
        [sys.executable, "-S", str(FAKES / "drive_gpu.py")],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**base, "TILEWRIGHT_FAKE_LOG": str(log), **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return Ran(json.loads(done.stdout), [json.loads(line) for line in lines])


def call_for(
    entry: DispatchEntry,
    sizes: Mapping[str, int],
    attrs: Mapping[str, int] | None = None,
    /,
    **changes: Any,
) -> dict[str, Any]:
    """A call that fits an entry: dense tensors at made-up addresses; `changes` go on top."""
    tensors: list[dict[str, Any] | None] = []
    for number, tensor in enumerate(entry.tensors):
        if tensor.presence == "absent":
            tensors.append(None)
            continue
        shape = [sizes[d] if isinstance(d, str) else d or 1 for d in tensor.dims]
        stride = [1] * len(shape)
        for axis in reversed(range(len(shape) - 1)):
            stride[axis] = stride[axis + 1] * shape[axis + 1]
        code = dtypes.dtype(tensor.dtype).code
        tensors.append(
            {
                "data": 0x7F0000000000 + 0x10000 * number,
                "dtype": code,
                "shape": shape,
                "stride": stride,
            }
        )
    return {
        "family": entry.family,
        "tensors": tensors,
        "attrs": {**entry.flags, **(attrs or {})},
        **changes,
    }


def expected_parameters(
    entry: DispatchEntry, call: Mapping[str, Any], scratch: int = 0
) -> list[str]:
    """Hex of each parameter as the kernel must receive it, hidden ones included."""
    names = [tensor.name for tensor in entry.tensors]
    sizes: dict[str, int] = {}
    for decl, tensor in zip(entry.tensors, call["tensors"], strict=True):
        if tensor is not None:
            sizes.update(
                {
                    d: s
                    for d, s in zip(decl.dims, tensor["shape"], strict=True)
                    if isinstance(d, str)
                }
            )

    def packed(arg: Arg) -> list[str]:
        if arg.kind == "scratch":
            return [struct.pack("<Q", scratch).hex(), "00" * 8]
        tensor = (
            call["tensors"][names.index(arg.name)] if arg.kind in ("tensor", "stride") else None
        )
        if arg.kind == "tensor":
            return [struct.pack("<Q", tensor["data"] if tensor else 0).hex()]
        if arg.kind == "const" and arg.ctype == "fp32":
            return [struct.pack("<f", arg.value).hex()]
        value = {
            "dim": lambda: sizes[arg.name],
            "stride": lambda: tensor["stride"][arg.dim] if tensor else 0,
            "attr": lambda: call["attrs"].get(arg.name, 0),
            "const": lambda: int(arg.value),
        }[arg.kind]()
        return [struct.pack("<q", value)[: 8 if arg.ctype == "i64" else 4].hex()]

    return [text for arg in entry.args for text in packed(arg)]
