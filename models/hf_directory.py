"""A Hugging Face folder as a Checkpoint: config.json, safetensors (sharded or not), tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import Q4
from .config import ModelConfig
from .errors import BadModelFile, MissingModel, UnknownTensor
from .json_file import read_object
from .packages import require

if TYPE_CHECKING:
    import torch

    from .tokenizer import Tokenizer

_GLOBAL = {
    "embed": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
}
_LAYER = {
    "attn_norm": ("input_layernorm.weight",),
    "q": ("self_attn.q_proj.weight",),
    "k": ("self_attn.k_proj.weight",),
    "v": ("self_attn.v_proj.weight",),
    "o": ("self_attn.o_proj.weight",),
    "q_bias": ("self_attn.q_proj.bias",),
    "k_bias": ("self_attn.k_proj.bias",),
    "v_bias": ("self_attn.v_proj.bias",),
    "q_norm": ("self_attn.q_norm.weight",),
    "k_norm": ("self_attn.k_norm.weight",),
    "ffn_norm": ("post_attention_layernorm.weight",),
    "gate": ("mlp.gate_proj.weight",),
    "up": ("mlp.up_proj.weight",),
    "down": ("mlp.down_proj.weight",),
    "router": ("mlp.gate.weight", "block_sparse_moe.gate.weight"),
}
# Qwen's words, and Mixtral's.
_EXPERT = {
    "gate": ("mlp.experts.{}.gate_proj.weight", "block_sparse_moe.experts.{}.w1.weight"),
    "up": ("mlp.experts.{}.up_proj.weight", "block_sparse_moe.experts.{}.w3.weight"),
    "down": ("mlp.experts.{}.down_proj.weight", "block_sparse_moe.experts.{}.w2.weight"),
}
_TYPES = ("F32", "F16", "BF16")
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class _Stored:
    file: Path
    shape: tuple[int, ...]


class HfDirectory:
    """See Checkpoint."""

    __slots__ = ("_config", "_path", "_stored")

    def __init__(self, path: Path, config: ModelConfig, stored: Mapping[str, _Stored]) -> None:
        self._path, self._config, self._stored = path, config, stored

    @classmethod
    def open(cls, path: Path) -> HfDirectory:
        """Read config.json and the headers of all files.

        Raises MissingModel without config.json or weights, MissingMetadata for a config that lacks
        something, BadModelFile for a file that is cut off, not safetensors, or of other element types.
        """
        source = path / "config.json"
        if not source.is_file():
            raise MissingModel(source, "the model's config.json is")
        config = ModelConfig.from_hf(read_object(source), path.name)
        stored: dict[str, _Stored] = {}
        for file in _shards(path):
            stored |= _header(file)
        return cls(path, config, stored)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def config(self) -> ModelConfig:
        return self._config

    def tokenizer(self) -> Tokenizer:
        from .tokenizer import Tokenizer

        return Tokenizer.from_directory(self._path)

    def has(self, name: str) -> bool:
        return any(one in self._stored for one in stored_names(name))

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name)[1].shape

    def files(self) -> tuple[Path, ...]:
        return (self._path / "config.json", *sorted({s.file for s in self._stored.values()}))

    def tensor(self, name: str) -> torch.Tensor:
        from safetensors import safe_open

        key, stored = self._find(name)
        with safe_open(stored.file, framework="pt") as file:
            value: torch.Tensor = file.get_tensor(key)
        return value

    def _find(self, name: str) -> tuple[str, _Stored]:
        for key in stored_names(name):
            if key in self._stored:
                return key, self._stored[key]
        raise UnknownTensor(name, self._stored, self._path.name)

    def q4(self, name: str) -> Q4 | None:
        return None


def stored_names(name: str) -> tuple[str, ...]:
    """The names under which a folder may have a tensor."""
    if name in _GLOBAL:
        return (_GLOBAL[name],)
    found = re.fullmatch(r"layers\.(\d+)\.(?:experts\.(\d+)\.)?(\w+)", name)
    if found is None:
        return ()
    layer, expert, kind = found.groups()
    known = _LAYER.get(kind, ()) if expert is None else _EXPERT.get(kind, ())
    return tuple(f"model.layers.{layer}.{one.format(expert)}" for one in known)


def _shards(path: Path) -> list[Path]:
    index = path / _INDEX
    if index.is_file():
        names = read_object(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
            raise BadModelFile(index, "has no weight_map from tensors to files")
        files = [path / name for name in sorted(set(names.values()))]
    else:
        files = sorted(path.glob("*.safetensors"))
    if not files:
        raise MissingModel(path / "model.safetensors", "weights in safetensors are")
    for file in files:
        if not file.is_file():
            raise MissingModel(file, "a shard that the index names is")
    return files


def _header(file: Path) -> dict[str, _Stored]:
    require("safetensors", "reading Hugging Face weights")
    from safetensors import SafetensorError, safe_open

    found: dict[str, _Stored] = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                place = opened.get_slice(key)
                if place.get_dtype() not in _TYPES:
                    detail = f"{key} is {place.get_dtype()}; accepted: {', '.join(_TYPES)}"
                    raise BadModelFile(file, detail)
                found[key] = _Stored(file, tuple(place.get_shape()))
    except (SafetensorError, OSError) as error:
        raise BadModelFile(file, f"is cut off or not safetensors: {error}") from error
    return found
