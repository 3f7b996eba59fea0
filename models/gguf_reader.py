"""A GGUF file, memory-mapped: metadata and tensors are decoded when asked for.

The header is walked here, because `gguf.GGUFReader` makes a numpy view for each of the 100,000
strings of a vocabulary (6 s for SmolLM2-135M, against 0.1 s). Type numbers and block sizes come
from `gguf.constants`. Source: the GGUF specification (ggml, docs/gguf.md), versions 2 and 3.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from .config import ModelConfig
from .dequant import dequantise
from .errors import BadModelFile, MissingModel, UnknownTensor
from .gguf_header import Header, TensorInfo, read_header

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Element = TypeVar("Element", bound=np.generic)

__all__ = ["GgufFile", "TensorInfo", "unpermute_rope"]


@dataclass(frozen=True, slots=True)
class _Mapped:
    path: Path
    view: mmap.mmap
    header: Header


class GgufFile:
    """An open GGUF file. Tensors come back in row-major order: a linear's weight is [N, K].

    The mapping lives as long as this object or any array from `raw`.
    """

    __slots__ = ("_config", "_mapped", "_sha256")

    def __init__(self, mapped: _Mapped) -> None:
        self._mapped = mapped
        self._config: ModelConfig | None = None
        self._sha256: str | None = None

    @classmethod
    def open(cls, path: Path | str) -> GgufFile:
        """Map the file and read its header.

        Raises:
            MissingModel: there is no such file.
            MissingPackage: the package gguf is not installed.
            BadModelFile: not a GGUF file, cut off, big-endian, or inconsistent.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingModel(path)
        if path.stat().st_size == 0:
            raise BadModelFile(path, "is empty; a GGUF file starts with the bytes 'GGUF'")
        try:
            with path.open("rb") as stream:
                view = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise BadModelFile(path, f"cannot be read: {error.strerror}") from error
        return cls(_Mapped(path, view, read_header(view, path)))

    @property
    def path(self) -> Path:
        return self._mapped.path

    @property
    def metadata(self) -> Mapping[str, object]:
        """Key to bool, int, float, str or list of these; an array is decoded at each access."""
        return self._mapped.header.metadata

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name to shape, encoding and place, in the file's order."""
        return MappingProxyType(self._mapped.header.tensors)

    @property
    def config(self) -> ModelConfig:
        """The model's sizes.

        Raises:
            MissingMetadata: a needed key is absent or has another type.
        """
        if self._config is None:
            tied = "output.weight" not in self.tensors
            self._config = ModelConfig.from_metadata(self.metadata, tied=tied)
        return self._config

    @property
    def sha256(self) -> str:
        """Hash of the whole file in hexadecimal, computed once."""
        if self._sha256 is None:
            self._sha256 = hashlib.sha256(self._mapped.view).hexdigest()
        return self._sha256

    def info(self, name: str) -> TensorInfo:
        """Where and what a tensor is.

        Raises:
            UnknownTensor: no tensor has that name; the message has the nearest ones.
        """
        found = self.tensors.get(name)
        if found is None:
            raise UnknownTensor(name, self.tensors, self.path.name)
        return found

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The encoded bytes, uint8 [rows, bytes per row], read-only, not copied.

        Raises:
            UnknownTensor: no tensor has that name.
        """
        import numpy as np

        info = self.info(name)
        flat = np.frombuffer(self._mapped.view, np.uint8, count=info.nbytes, offset=info.offset)
        return flat.reshape(prod(info.shape[:-1]), info.row_bytes)

    def array(self, name: str, rows: Sequence[int] | None = None) -> NDArray[np.float32]:
        """A tensor as fp32, in the file's own row order (see `tensor` for the RoPE rows).

        Args:
            name: e.g. "blk.0.attn_q.weight".
            rows: indices along the flattened leading dimensions; only these are read.

        Returns:
            fp32 of the tensor's shape, or [len(rows), K]. Always a fresh array.

        Raises:
            UnknownTensor: no tensor has that name.
            UnsupportedEncoding: no dequantiser for its block format.
        """
        raw = self.raw(name)
        info = self.info(name)
        if rows is not None:
            return dequantise(raw[list(rows)], info.encoding)
        return dequantise(raw, info.encoding).reshape(info.shape)

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor as fp32 torch; `attn_q` and `attn_k` rows in rotate-half order.

        Raises:
            UnknownTensor: no tensor has that name.
            UnsupportedEncoding: no dequantiser for its block format.
        """
        import torch

        array = self.array(name)
        config = self.config
        if config.architecture == "llama":
            if name.endswith(".attn_q.weight"):
                array = unpermute_rope(array, config.heads)
            elif name.endswith(".attn_k.weight"):
                array = unpermute_rope(array, config.kv_heads)
        return torch.from_numpy(array)


def unpermute_rope(weight: NDArray[Element], heads: int) -> NDArray[Element]:
    """Undo llama.cpp's row order of `attn_q` and `attn_k`.

    llama.cpp rotates neighbouring rows (2i, 2i+1) of a head; rotate-half rotates (i, i + d/2).

    Args:
        weight: [heads * d, K] with d even, K values or the bytes that encode them.
        heads: query heads for `attn_q`, key/value heads for `attn_k`.

    Returns:
        [heads * d, K], a contiguous copy, rows in rotate-half order.
    """
    import numpy as np

    rows, width = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, width)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, width)
