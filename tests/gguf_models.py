"""Tiny models as GGUF files, written by the package gguf under its own names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import MODEL_TENSOR, GGMLQuantizationType

from tilewright.models.checkpoint import shapes
from tilewright.models.config import ModelConfig

ARCHITECTURES = {"mixtral": "llama", "qwen3_moe": "qwen3moe"}
_NAMES = {
    "embed": MODEL_TENSOR.TOKEN_EMBD,
    "norm": MODEL_TENSOR.OUTPUT_NORM,
    "head": MODEL_TENSOR.OUTPUT,
    "attn_norm": MODEL_TENSOR.ATTN_NORM,
    "q": MODEL_TENSOR.ATTN_Q,
    "k": MODEL_TENSOR.ATTN_K,
    "v": MODEL_TENSOR.ATTN_V,
    "o": MODEL_TENSOR.ATTN_OUT,
    "q_norm": MODEL_TENSOR.ATTN_Q_NORM,
    "k_norm": MODEL_TENSOR.ATTN_K_NORM,
    "ffn_norm": MODEL_TENSOR.FFN_NORM,
    "gate": MODEL_TENSOR.FFN_GATE,
    "up": MODEL_TENSOR.FFN_UP,
    "down": MODEL_TENSOR.FFN_DOWN,
    "router": MODEL_TENSOR.FFN_GATE_INP,
}
_EXPERTS = {
    "gate": MODEL_TENSOR.FFN_GATE_EXP,
    "up": MODEL_TENSOR.FFN_UP_EXP,
    "down": MODEL_TENSOR.FFN_DOWN_EXP,
}


def write_gguf(
    path: Path,
    config: ModelConfig,
    tensor: Callable[[str], torch.Tensor],
    encoding: str = "F32",
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write a model with its matrices in `encoding` (F32 where blocks do not divide a row)."""
    arch = ARCHITECTURES.get(config.architecture, config.architecture)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(config.name)
    writer.add_block_count(config.layers)
    writer.add_embedding_length(config.hidden)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_eps)
    writer.add_vocab_size(config.vocab)
    writer.add_context_length(config.context)
    if config.experts:
        writer.add_expert_count(config.experts)
        writer.add_expert_used_count(config.experts_used)
        if arch == "qwen3moe":
            writer.add_expert_feed_forward_length(config.ffn)
    for key, value in (more or {}).items():
        add = {str: writer.add_string, int: writer.add_uint32, list: writer.add_array}
        add[type(value)](key, value)
    for name, values in _stored(config, tensor, arch).items():
        _add(writer, name, values, encoding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def encoded(values: np.ndarray, encoding: str) -> np.ndarray:
    """What a tensor is after it was stored, fp32."""
    kind = _kind(values, encoding)
    raw = gguf.quants.quantize(np.ascontiguousarray(values), kind)
    return gguf.quants.dequantize(raw, kind).reshape(values.shape).astype(np.float32)


def _kind(values: np.ndarray, encoding: str) -> GGMLQuantizationType:
    kind = GGMLQuantizationType[encoding]
    fits = values.ndim > 1 and values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
    return kind if fits else GGMLQuantizationType.F32


def _stored(
    config: ModelConfig, tensor: Callable[[str], torch.Tensor], arch: str
) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name in shapes(config):
        *where, kind = name.split(".")
        values = tensor(name).numpy()
        if "experts" in where:
            if where[-1] == "0":
                all_of = [
                    tensor(".".join([*where[:-1], str(e), kind])).numpy()
                    for e in range(config.experts)
                ]
                stored = gguf.TENSOR_NAMES[_EXPERTS[kind]].format(bid=where[1])
                found[stored + ".weight"] = np.stack(all_of)
            continue
        suffix = "bias" if kind.endswith("_bias") else "weight"
        place = _NAMES[kind.removesuffix("_bias")]
        stored = gguf.TENSOR_NAMES[place].format(bid=where[1] if where else 0)
        heads = {"q": config.heads, "k": config.kv_heads}.get(kind, 0)
        if arch == "llama" and heads and values.shape[0] % (2 * heads) == 0:
            values = permuted(values, heads)
        found[f"{stored}.{suffix}"] = values
    return found


def permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter stores queries and keys of llama models."""
    rows, width = values.shape
    return values.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, encoding: str) -> None:
    kind = _kind(values, encoding)
    values = np.ascontiguousarray(values)
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        plain = np.float32 if kind == GGMLQuantizationType.F32 else np.float16
        writer.add_tensor(name, values.astype(plain))
    else:
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
