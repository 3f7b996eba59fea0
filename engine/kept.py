"""Tensors that were made of a model's files, kept for the next time, which reads them in one piece.

A file holds what one format of weights needs: 24 bytes (magic, checksum of all behind them, length of the
index), an index in JSON, and each tensor at a multiple of 64 bytes. It is written beside its place and moved
there whole. One that is cut off, damaged or of other code is made again. Tensors lie in huge pages, whether
they were found or made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tilewright import __version__, models, native
from tilewright.engine.memory import huge_pages, placed
from tilewright.machine import cache_folder

_MAGIC = b"twkept01"
_HEAD = struct.Struct("<8sQQ")
_ALIGN = 64
_ENDS = 1 << 16  # bytes of either end of a file that tell it from others
_NEW, _LEFT_S = ".new-", 3600.0  # what is being written; after so long nobody writes it any more
SMALLEST = 1 << 24  # bytes; less is as quickly made again
ROOM = 4 << 30  # bytes kept in all; the files not used for longest go, but never the newest
_CODE = ("kept", "layout", "linear", "build", "calibrate", "transformer", "kv_cache")

Parts = dict[str, Tensor]


class Kept:
    """What was kept of a set of files, or the place to keep it; nothing is read or written for no files."""

    def __init__(
        self,
        files: Sequence[Path],
        *choices: object,
        folder: str = "weights",
        smallest: int | None = None,
    ) -> None:
        """`choices`: everything else that the tensors depend on, by its repr; `smallest`: bytes worth keeping."""
        self._path = _place(files, choices, folder) if files else None
        self._smallest = SMALLEST if smallest is None else smallest
        self.hits = 0
        self._made: dict[str, Parts] = {}
        self._found: dict[str, Parts] = {}
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, struct.error):
                self._found = _read(self._path)

    def parts(self, name: str, make: Callable[[], Parts]) -> Parts:
        """The tensors under a name: those kept, or what `make` gives."""
        found = self._found.get(name)
        if found is not None:
            self.hits += 1
            return found
        made = self._made[name] = make()
        return made

    def save(self) -> None:
        """Keep what was made. That there is no room, or no right to write, is no failure."""
        tensors = [t for parts in self._made.values() for t in parts.values()]
        size = sum(_up(t.nbytes) for t in tensors)
        if size < self._smallest:
            return
        if self._path is not None:
            with contextlib.suppress(OSError):
                _write(self._path, self._found | self._made)
                _prune(self._path.parent)
        room, at = huge_pages(size), 0
        for tensor in tensors:
            place = placed(room, at, tensor.dtype, tensor.shape)
            place.copy_(tensor)
            tensor.data = place  # whoever holds the tensor reads it there from now on
            at += _up(tensor.nbytes)


def _place(files: Sequence[Path], choices: Sequence[object], folder: str) -> Path:
    here = Path(__file__).parent
    sources = [here / f"{name}.py" for name in _CODE]
    sources += sorted(Path(str(models.__file__)).parent.glob("*.py"))
    stamp = Path(str(native.module().__file__)).stat()
    text = [__version__, *map(repr, choices), f"{stamp.st_size} {stamp.st_mtime_ns}"]
    digest = hashlib.sha256("\n".join(text).encode())
    for source in sources:
        digest.update(source.read_bytes())
    for file in files:
        found = file.stat()
        times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
        digest.update(f"{file.resolve()} {found.st_size} {times}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_ENDS))
            stream.seek(max(0, found.st_size - _ENDS))
            digest.update(stream.read(_ENDS))
    return cache_folder(folder, digest.hexdigest()[:32])


def _read(path: Path) -> dict[str, Parts]:
    """Raises OSError or ValueError for what is not whole."""
    with path.open("rb") as stream:
        memory = huge_pages(os.fstat(stream.fileno()).st_size)
        stream.readinto(memory.numpy().data)
    magic, checksum, length = _HEAD.unpack_from(memory.numpy().data)
    body = memory[_HEAD.size :].numpy()
    if magic != _MAGIC or native.module().checksum(body) != checksum:
        raise ValueError("is not whole")
    os.utime(path)
    index = json.loads(body[:length].tobytes())
    return {
        name: {
            part: placed(memory, offset, getattr(torch, dtype), torch.Size(shape))
            for part, (dtype, shape, offset) in parts.items()
        }
        for name, parts in index.items()
    }


def _write(path: Path, made: dict[str, Parts]) -> None:
    flat = [(name, part, t) for name, parts in made.items() for part, t in parts.items()]
    # The index says where tensors lie, which depends on its length: room for it is set aside first.
    room = _up(_HEAD.size + sum(len(n) + len(p) + 100 for n, p, _ in flat) + 2)
    index: dict[str, dict[str, tuple[str, list[int], int]]] = {}
    at = room
    for name, part, tensor in flat:
        kind = str(tensor.dtype).removeprefix("torch.")
        index.setdefault(name, {})[part] = (kind, list(tensor.shape), at)
        at = _up(at + tensor.nbytes)
    text = json.dumps(index).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    number, aside = tempfile.mkstemp(dir=path.parent, prefix=_NEW)
    try:
        with open(number, "w+b") as stream:
            stream.seek(_HEAD.size)
            stream.write(text)
            for name, part, tensor in flat:
                stream.seek(index[name][part][2])
                stream.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
            stream.truncate(at)
            stream.flush()
            with (
                mmap.mmap(number, at, access=mmap.ACCESS_READ) as memory,
                memoryview(memory) as all_of,
            ):
                checksum = native.module().checksum(all_of[_HEAD.size :])
            stream.seek(0)
            stream.write(_HEAD.pack(_MAGIC, checksum, len(text)))
        os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


def _up(at: int) -> int:
    return -(-at // _ALIGN) * _ALIGN


def _prune(folder: Path) -> None:
    for left in folder.glob(f"{_NEW}*"):  # of a process that was killed
        if time.time() - left.stat().st_mtime > _LEFT_S:
            left.unlink(missing_ok=True)
    files = [(f.stat(), f) for f in folder.glob("[0-9a-f]*")]
    files.sort(key=lambda pair: pair[0].st_mtime_ns)
    total = sum(found.st_size for found, _ in files)
    for found, file in files[:-1]:
        if total <= ROOM:
            return
        file.unlink(missing_ok=True)
        total -= found.st_size
