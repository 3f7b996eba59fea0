"""Walks a GGUF header: every length is checked against the file before it is believed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from mmap import mmap
from pathlib import Path

from .errors import BadModelFile
from .packages import require

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMS = 4
_DEFAULT_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
# GGUF value type number to struct code; 7 is a bool of one byte.
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))

Value = bool | int | float | str | list["Value"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the file.

    Attributes:
        name: as in the file.
        shape: row-major, so a linear's weight is (N, K).
        encoding: ggml's name of the block format, e.g. "Q4_1".
        offset: bytes from the start of the file.
        nbytes: encoded size.
        row_bytes: encoded size of one row of shape[-1] elements.
    """

    name: str
    shape: tuple[int, ...]
    encoding: str
    offset: int
    nbytes: int
    row_bytes: int


class _Cursor:
    """Reads forward through the mapping; a read past the end is a typed error."""

    __slots__ = ("at", "data", "path", "size")

    def __init__(self, data: mmap, path: Path, at: int = 0) -> None:
        self.data, self.path, self.at, self.size = data, path, at, len(data)

    def skip(self, count: int, what: str) -> int:
        """Advance by `count` bytes and return where they start."""
        start, end = self.at, self.at + count
        if end > self.size:
            raise BadModelFile(
                self.path,
                f"cut off: {what} at byte {start} needs {count} bytes, the file has {self.size}",
            )
        self.at = end
        return start

    def number(self, code: str, what: str) -> int:
        start = self.skip(struct.calcsize(f"<{code}"), what)
        return int(struct.unpack_from(f"<{code}", self.data, start)[0])

    def string(self, what: str) -> str:
        length = self.number("Q", what)
        start = self.skip(length, what)
        try:
            return str(self.data[start : start + length], "utf-8")
        except UnicodeDecodeError as error:
            raise BadModelFile(self.path, f"{what} at byte {start} is not UTF-8") from error

    def strings(self, count: int, what: str) -> Iterator[tuple[int, int]]:
        """Where each string of an array starts and ends; vocabularies have 100,000, so the loop is tight."""
        at, size, data, length = self.at, self.size, self.data, struct.Struct("<Q").unpack_from
        for _ in range(count):
            start = at + 8
            if start <= size:
                at = start + length(data, at)[0]
            if start > size or at > size:
                detail = (
                    f"cut off: {what} at byte {start} ends behind it, the file has {size} bytes"
                )
                raise BadModelFile(self.path, detail)
            yield start, at
        self.at = at

    def skip_value(self, kind: int, what: str) -> None:
        if kind == _STRING:
            self.skip(self.number("Q", what), what)
        elif kind == _ARRAY:
            inner, count = self.number("I", what), self.number("Q", what)
            if inner in _SCALARS:
                self.skip(count * struct.calcsize(f"<{_SCALARS[inner]}"), what)
            elif inner == _STRING:
                for _ in self.strings(count, what):
                    pass
            else:
                raise BadModelFile(self.path, f"{what} is an array of type {inner}; not accepted")
        elif kind in _SCALARS:
            self.skip(struct.calcsize(f"<{_SCALARS[kind]}"), what)
        else:
            raise BadModelFile(self.path, f"{what} has the unknown value type {kind}")

    def value(self, kind: int, what: str) -> Value:
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            inner, count = self.number("I", what), self.number("Q", what)
            if inner == _STRING:
                places = list(self.strings(count, what))
                try:
                    return [str(self.data[start:end], "utf-8") for start, end in places]
                except UnicodeDecodeError as error:
                    raise BadModelFile(self.path, f"{what} holds what is not UTF-8") from error
            code = f"<{count}{_SCALARS[inner]}"
            return list(struct.unpack_from(code, self.data, self.skip(struct.calcsize(code), what)))
        code = f"<{_SCALARS[kind]}"
        start = self.skip(struct.calcsize(code), what)
        scalar: Value = struct.unpack_from(code, self.data, start)[0]
        return scalar


class Metadata(Mapping[str, Value]):
    """Key to value, decoded at each access; long arrays cost nothing until then."""

    __slots__ = ("_data", "_path", "_places")

    def __init__(self, data: mmap, path: Path, places: Mapping[str, tuple[int, int]]) -> None:
        self._data, self._path, self._places = data, path, dict(places)

    def __getitem__(self, key: str) -> Value:
        kind, start = self._places[key]
        return _Cursor(self._data, self._path, start).value(kind, f"metadata '{key}'")

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the tensor data."""

    version: int
    metadata: Metadata
    tensors: dict[str, TensorInfo]


def read_header(data: mmap, path: Path) -> Header:
    """Read the header and check that all tensors lie inside the file.

    Raises:
        MissingPackage: the package gguf, which knows the block sizes, is not installed.
        BadModelFile: not GGUF, another version, cut off, or inconsistent.
    """
    cursor = _Cursor(data, path)
    start = cursor.skip(4, "the magic number")
    magic = data[start : start + 4]
    if magic != _MAGIC:
        raise BadModelFile(path, f"starts with {magic!r}, a GGUF file starts with {_MAGIC!r}")
    version = cursor.number("I", "the version")
    if version not in _VERSIONS:
        hint = " (a big-endian file)" if version & 0xFFFF == 0 else ""
        raise BadModelFile(path, f"is GGUF version {version}{hint}; accepted: 2, 3, little-endian")
    tensor_count = cursor.number("Q", "the tensor count")
    key_count = cursor.number("Q", "the key count")

    places: dict[str, tuple[int, int]] = {}
    for _ in range(key_count):
        key = cursor.string("a metadata key")
        kind = cursor.number("I", f"the type of metadata '{key}'")
        if key in places:
            raise BadModelFile(path, f"has the metadata key '{key}' twice")
        places[key] = (kind, cursor.at)
        cursor.skip_value(kind, f"metadata '{key}'")
    metadata = Metadata(data, path, places)

    found = [_read_tensor(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise BadModelFile(path, f"has alignment {alignment!r}; a power of two is needed")
    base = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in found:
        if name in tensors:
            raise BadModelFile(path, f"has the tensor '{name}' twice")
        tensors[name] = _place(path, name, shape, kind, base + offset, len(data))
    return Header(version, metadata, tensors)


def _read_tensor(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string("a tensor name")
    what = f"tensor '{name}'"
    dims = cursor.number("I", what)
    if not 1 <= dims <= _MAX_DIMS:
        raise BadModelFile(cursor.path, f"{what} has {dims} dimensions; accepted: 1 to {_MAX_DIMS}")
    # GGUF lists the fastest dimension first.
    shape = tuple(reversed([cursor.number("Q", what) for _ in range(dims)]))
    if 0 in shape:
        raise BadModelFile(cursor.path, f"{what} has the shape {shape}; no dimension may be 0")
    return name, shape, cursor.number("I", what), cursor.number("Q", what)


def _place(
    path: Path, name: str, shape: tuple[int, ...], kind: int, offset: int, size: int
) -> TensorInfo:
    require("gguf", "reading a GGUF file")
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        encoding = GGMLQuantizationType(kind)
    except ValueError as error:
        raise BadModelFile(path, f"tensor '{name}' has the unknown encoding {kind}") from error
    block, block_bytes = GGML_QUANT_SIZES[encoding]
    if shape[-1] % block:
        raise BadModelFile(
            path,
            f"tensor '{name}': {shape[-1]} columns, not a multiple of {block} ({encoding.name})",
        )
    row_bytes = shape[-1] // block * block_bytes
    nbytes = prod(shape[:-1]) * row_bytes
    if offset + nbytes > size:
        raise BadModelFile(
            path,
            f"cut off: tensor '{name}' ends at byte {offset + nbytes}, the file has {size} bytes",
        )
    return TensorInfo(name, shape, encoding.name, offset, nbytes, row_bytes)
