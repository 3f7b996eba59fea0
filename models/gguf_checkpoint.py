"""A GGUF file as a Checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright import native

from .checkpoint import Q4
from .config import ModelConfig, accept_gguf
from .dequant import NATIVE, Q8_0_BYTES, dequantise
from .errors import BadModelFile, MissingTokenizer, UnknownTensor
from .gguf_reader import GgufFile, unpermute_rope
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_GLOBAL = {"embed": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight"}
_LAYER = {
    "attn_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "ffn_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "router": "ffn_gate_inp.weight",
}
_EXPERT = {"gate": "ffn_gate_exps", "up": "ffn_up_exps", "down": "ffn_down_exps"}


class GgufCheckpoint:
    """See Checkpoint."""

    __slots__ = ("_file",)

    def __init__(self, file: GgufFile) -> None:
        self._file = file

    @classmethod
    def open(cls, path: Path) -> GgufCheckpoint:
        """Open and read the header.

        Raises as GgufFile.open does, and MissingMetadata for an architecture or a variant the engine lacks.
        """
        file = GgufFile.open(path)
        accept_gguf(file.metadata)
        if "rope_freqs.weight" in file.tensors:
            raise BadModelFile(path, "has rope_freqs.weight; accepted: unscaled rotary angles")
        if "blk.0.attn_q.bias" in file.tensors and not file.config.qkv_bias:
            raise BadModelFile(path, "has blk.0.attn_q.bias; accepted: biases of qwen2 models")
        return cls(file)

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def config(self) -> ModelConfig:
        return self._file.config

    def tokenizer(self) -> Tokenizer:
        if "tokenizer.ggml.model" not in self._file.metadata:
            raise MissingTokenizer(self.path)
        return Tokenizer(self._file.metadata)

    def has(self, name: str) -> bool:
        place = _place(name)
        return place is not None and place[0] in self._file.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        stored, expert = self._find(name)
        shape = self._file.info(stored).shape
        return shape if expert is None else shape[1:]

    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def tensor(self, name: str) -> torch.Tensor:
        import torch

        stored, expert = self._find(name)
        raw = self._turned(name, self._rows(stored, expert))
        values = dequantise(raw, self._file.info(stored).encoding)
        return torch.from_numpy(values).reshape(self.shape(name))

    def q4(self, name: str) -> Q4 | None:
        import numpy as np
        import torch

        stored, expert = self._find(name)
        encoding = self._file.info(stored).encoding
        raw = self._turned(name, self._rows(stored, expert))
        if encoding == "Q8_0" and name in _GLOBAL:
            return _nibbles(raw)
        if encoding not in ("Q4_0", "Q4_1"):
            return None
        size, width = NATIVE[encoding]
        count = 1 if encoding == "Q4_0" else 2
        blocks = raw.shape[1] // size
        codes = np.empty((raw.shape[0], blocks * width), np.uint8)
        factors = np.empty((raw.shape[0], blocks, count), np.float16)
        native.module().unpack_q4(raw, count, codes, factors)
        scale = torch.from_numpy(factors[..., 0].copy())
        # -8 d is exact in fp16 unless it overflows, which is then found as what is not finite.
        minimum = scale * -8 if count == 1 else torch.from_numpy(factors[..., 1].copy())
        return Q4(torch.from_numpy(codes), scale, minimum)

    def _find(self, name: str) -> tuple[str, int | None]:
        place = _place(name)
        if place is None:
            raise UnknownTensor(
                name, [*_GLOBAL, *(f"layers.0.{n}" for n in _LAYER)], self.path.name
            )
        return place

    def _rows(self, stored: str, expert: int | None) -> NDArray[np.uint8]:
        raw, shape = self._file.raw(stored), self._file.info(stored).shape
        if expert is None:
            return raw
        if len(shape) != 3 or expert >= shape[0]:
            raise BadModelFile(self.path, f"{stored} is {list(shape)} and holds no expert {expert}")
        return raw[expert * shape[1] : (expert + 1) * shape[1]]

    def _turned(self, name: str, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encoded rows, those of queries and keys of llama models in rotate-half order."""
        kind = name.rpartition(".")[2]
        if self.config.architecture != "llama" or kind not in ("q", "k"):
            return rows
        heads = self.config.heads if kind == "q" else self.config.kv_heads
        if rows.shape[0] % (2 * heads):
            raise BadModelFile(self.path, f"{name} has {rows.shape[0]} rows for {heads} heads")
        return unpermute_rope(rows, heads)


def _nibbles(raw: NDArray[np.uint8]) -> Q4:
    """Rows of Q8_0 blocks as 4-bit ones: d q = 16 d (q >> 4) + d (q & 15), all high halves before the low ones."""
    import numpy as np
    import torch

    blocks = raw.reshape(raw.shape[0], -1, Q8_0_BYTES)
    d = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0]
    q = np.ascontiguousarray(blocks[..., 2:]).reshape(raw.shape[0], -1)
    codes = np.concatenate([(q >> 4) ^ 8, q & 15], axis=1)
    with np.errstate(over="ignore"):  # what is not finite is refused where it is read
        scale, minimum = np.concatenate([d * 16, d], 1), np.concatenate([d * -128, d * 0], 1)
    return Q4(*(torch.from_numpy(x) for x in (codes, scale, minimum)))


def _place(name: str) -> tuple[str, int | None] | None:
    """The tensor a name is stored in, and which expert of it."""
    if name in _GLOBAL:
        return _GLOBAL[name], None
    found = re.fullmatch(r"layers\.(\d+)\.(?:experts\.(\d+)\.)?(\w+)", name)
    if found is None:
        return None
    layer, expert, kind = found.groups()
    if expert is not None:
        return (f"blk.{layer}.{_EXPERT[kind]}.weight", int(expert)) if kind in _EXPERT else None
    return (f"blk.{layer}.{_LAYER[kind]}", None) if kind in _LAYER else None
