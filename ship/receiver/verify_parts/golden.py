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
    "I16": torch.int16,
}


class Call(NamedTuple):
    """One stored call: how to make it, what fp64 arithmetic gives, and how close is close enough.

    Outputs in `changed` are arguments that the call changes in place; the others are returned.
    """

    name: str
    op: str
    precision: str
    flags: dict[str, str]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[str, ...]
    expected: tuple[torch.Tensor, ...]
    dtypes: tuple[torch.dtype, ...]
    tolerances: tuple[float, ...]
    units: tuple[float, ...]
    changed: tuple[str, ...] = ()


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
                tuple(o["tolerance"] for o in case["outputs"]),
                tuple(o["unit"] for o in case["outputs"]),
                tuple(o["name"] for o in case["outputs"] if o["inout"]),
            )


def _value(stored: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(stored, dict):
        return stored
    if "dtype" in stored:
        return getattr(torch, stored["dtype"])
    value = tensors[stored["tensor"]]
    if stored["free"] or stored["align"]:
        return placed(value, stored["free"], stored["align"])
    return value


def placed(value: torch.Tensor, free: int, align: int = 0) -> torch.Tensor:
    """The same values as a view into memory larger in `free` leading dims: NaN (77 for integers) around it.

    With `align`, the address and the stride of the first dim are multiples of that many bytes.
    """
    larger = [size + 3 if i < free else size for i, size in enumerate(value.shape)]
    unit = math.lcm(align or 1, value.element_size()) // value.element_size()
    strides = [1] * value.dim()
    for i in reversed(range(value.dim() - 1)):
        strides[i] = strides[i + 1] * max(1, larger[i + 1])
    if strides:
        strides[0] = -(-strides[0] // unit) * unit
    before = sum(strides[:free])
    count = larger[0] * strides[0] if strides else 1
    room = torch.empty(count + unit, dtype=value.dtype)
    room.fill_(math.nan if value.dtype.is_floating_point else 77)
    address = room.data_ptr() + before * value.element_size()
    shift = -address % align // value.element_size() if align else 0
    view = room.as_strided(value.shape, strides, shift + before)
    view.copy_(value)
    return view


def own(value: torch.Tensor) -> torch.Tensor:
    """A copy where it is, with the same strides and the same alignment, for a call that changes it."""
    span = 0
    if value.numel():
        span = 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
    unit = 512 // value.element_size()
    room = torch.empty(span + 2 * unit, dtype=value.dtype, device=value.device)
    wanted = value.data_ptr() % 512
    shift = (wanted - room.data_ptr()) % 512 // value.element_size()
    copy = room.as_strided(value.shape, value.stride(), shift)
    copy.copy_(value)
    return copy
