"""Python values as arguments of a C++ function, by the size and kind the compiler tells of each parameter."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tilewright.errors import UsageError

from .runner import Buffer, Scalar

POINTER, SIGNED, UNSIGNED, FLOAT, HALF, BFLOAT16, BOOL, BYTES = range(8)
_FLOATS = {(4, FLOAT): "<f", (8, FLOAT): "<d", (2, HALF): "<e"}


class ArgInfo(ctypes.Structure):
    """ArgInfo of ``twin/entry.h``."""

    _fields_ = [("bytes", ctypes.c_uint32), ("kind", ctypes.c_uint32)]


class Thunk(ctypes.Structure):
    """Thunk of ``twin/entry.h``."""

    _fields_ = [("args", ctypes.c_void_p), ("result", ctypes.c_long)]


@dataclass(frozen=True, slots=True)
class Bound:
    """Arguments ready to be passed: where each lies, and the buffers among them."""

    addresses: Any
    buffers: list[Buffer | Scalar]
    kept: list[Any] = field(repr=False)


def describe(info: ArgInfo) -> str:
    """The kind of a parameter, for sentences."""
    bits = 8 * int(info.bytes)
    return {
        POINTER: "a pointer",
        SIGNED: f"an int{bits}",
        UNSIGNED: f"a uint{bits}",
        FLOAT: f"an fp{bits}",
        HALF: "an fp16",
        BFLOAT16: "a bf16",
        BOOL: "a bool",
    }.get(info.kind, f"a struct of {info.bytes} bytes")


def to_bf16(value: float) -> int:
    """The bits of the bfloat16 nearest to a float, ties to even."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    if bits & 0x7FFFFFFF > 0x7F800000:
        return bits >> 16 | 0x40
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF


def _number(name: str, info: ArgInfo, value: Any) -> bytes:
    kind, size = int(info.kind), int(info.bytes)
    try:
        if kind in (SIGNED, UNSIGNED, BOOL):
            number = int(value)
            if number != value:
                raise UsageError(f"'{name}' is {describe(info)}; {value} is no integer")
            return number.to_bytes(size, "little", signed=kind == SIGNED)
        if kind == BFLOAT16:
            return to_bf16(float(value)).to_bytes(2, "little")
        return struct.pack(_FLOATS[size, kind], float(value))
    except OverflowError:
        raise UsageError(f"'{name}' is {describe(info)}; {value} does not fit") from None
    except (TypeError, ValueError, KeyError):
        raise UsageError(
            f"'{name}' is {describe(info)}; it takes a number, not {type(value).__name__}"
        ) from None


def _raw(name: str, info: ArgInfo, value: Any) -> bytes:
    try:
        data = bytes(value.tobytes() if hasattr(value, "tobytes") else memoryview(value))
    except TypeError:
        raise UsageError(
            f"'{name}' is {describe(info)}; it takes bytes, not {type(value).__name__}"
        ) from None
    if len(data) != info.bytes:
        raise UsageError(f"'{name}' is {describe(info)}; {len(data)} were given")
    return data


def _buffer(name: str, info: ArgInfo, value: Any) -> Buffer:
    if isinstance(value, Buffer):
        return value
    if isinstance(value, bytes | bytearray):
        return Buffer.of_bytes(name, bytes(value))
    if value is None or hasattr(value, "data_ptr") or hasattr(value, "__array_interface__"):
        if value is not None and not hasattr(value, "data_ptr") and value.ndim == 0:
            raise UsageError(f"'{name}' is a pointer; it takes an array, not the number {value}")
        if getattr(value, "is_cuda", False):
            raise UsageError(f"'{name}' is on a device; the twin takes CPU tensors")
        return Buffer.of(name, value)
    raise UsageError(
        f"'{name}' is {describe(info)}; it takes an array, a tensor, bytes or None, not {value!r}"
    )


def bind(
    entry: str, names: Sequence[str], infos: Sequence[ArgInfo], arguments: Sequence[Any]
) -> Bound:
    """Arguments in the form their parameters have; raises UsageError for one that does not fit."""
    if len(arguments) != len(infos):
        raise UsageError(f"{entry} takes {len(infos)} arguments, {len(arguments)} were given")
    kept: list[Any] = []
    buffers: list[Buffer | Scalar] = []
    addresses = (ctypes.c_void_p * max(len(infos), 1))()
    for i, (name, info, value) in enumerate(zip(names, infos, arguments, strict=True)):
        if info.kind == POINTER:
            buffer = _buffer(name, info, value)
            if buffer.nbytes and buffer.address:
                buffers.append(buffer)
            kept.append(buffer)
            data = buffer.address.to_bytes(8, "little")
        else:
            data = (_raw if info.kind == BYTES else _number)(name, info, value)
        # Room to align it as any type may ask.
        place = ctypes.create_string_buffer(len(data) + 64)
        aligned = ctypes.addressof(place) + -ctypes.addressof(place) % 64
        ctypes.memmove(aligned, data, len(data))
        addresses[i] = aligned
        kept.append(place)
    return Bound(addresses, buffers, kept)
