"""Reading golden vectors: safetensors files and the calls that belong to them. torch only."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}


class Call(NamedTuple):
    """One stored call: how to make it, what fp64 arithmetic gives, and how close is close enough."""

    name: str
    op: str
    precision: str
    flags: dict[str, str]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[str, ...]
    expected: tuple[torch.Tensor, ...]
    dtypes: tuple[torch.dtype, ...]
    tolerance: float


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file: 8 bytes of header length, a JSON header, then the data."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        dtype = _DTYPES[entry["dtype"]]
        if begin == end:
            tensors[name] = torch.empty(entry["shape"], dtype=dtype)
        else:
            tensors[name] = torch.frombuffer(data[begin:end], dtype=dtype).reshape(entry["shape"])
    return tensors


def read_calls(root: Path) -> Iterator[Call]:
    """Every stored call, in the order of golden/cases.json."""
    folder = root / "golden"
    document = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    for family in document["families"]:
        tensors = read_safetensors(folder / family["file"])
        for case in family["cases"]:
            yield Call(
                case["name"],
                case["op"],
                case["precision"],
                case["flags"],
                tuple(_value(a, tensors) for a in case["args"]),
                {k: _value(v, tensors) for k, v in case["kwargs"].items()},
                tuple(o["name"] for o in case["outputs"]),
                tuple(tensors[o["tensor"]] for o in case["outputs"]),
                tuple(getattr(torch, o["dtype"]) for o in case["outputs"]),
                case["tolerance"],
            )


def _value(stored: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(stored, dict):
        return stored
    if "dtype" in stored:
        return getattr(torch, stored["dtype"])
    value = tensors[stored["tensor"]]
    return larger_view(value, stored["free"]) if stored["free"] else value


def larger_view(value: torch.Tensor, free: int) -> torch.Tensor:
    """The same values as a view into memory larger in `free` leading dims: NaN (77 for integers) around it."""
    larger = [size + 3 if i < free else size for i, size in enumerate(value.shape)]
    room = torch.empty(larger, dtype=value.dtype)
    room.fill_(math.nan if value.dtype.is_floating_point else 77)
    view = room[
        tuple(slice(1, 1 + s) if i < free else slice(None) for i, s in enumerate(value.shape))
    ]
    view.copy_(value)
    return view
