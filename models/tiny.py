"""Small models with seeded random weights, of every architecture the engine runs: for tests of code paths."""

from __future__ import annotations

import dataclasses
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.errors import unknown

from .checkpoint import shapes
from .config import ModelConfig
from .hf_export import write_hf

if TYPE_CHECKING:
    import torch

_PLAIN = ModelConfig(
    name="tiny",
    architecture="llama",
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=96,
    rope_theta=10000.0,
    rms_eps=1e-5,
    vocab=128,
    context=256,
    tied=False,
)
_MIXTURE = dataclasses.replace(_PLAIN, experts=4, experts_used=2, ffn=48)
TINY = {
    "llama": _PLAIN,
    "llama-tied": dataclasses.replace(_PLAIN, tied=True, kv_heads=4),
    "qwen2": dataclasses.replace(_PLAIN, architecture="qwen2", qkv_bias=True, rms_eps=1e-6),
    "qwen3": dataclasses.replace(_PLAIN, architecture="qwen3", qk_norm=True, head_dim=32),
    "mixtral": dataclasses.replace(_MIXTURE, architecture="mixtral"),
    "qwen3_moe": dataclasses.replace(
        _MIXTURE, architecture="qwen3_moe", qk_norm=True, norm_topk=False
    ),
}


def tiny_tensor(config: ModelConfig, name: str, seed: int) -> torch.Tensor:
    """One tensor fp32 of a model, from the seed and its name alone.

    Scaled so that logits spread over a few units: greedy choices are far from ties.
    """
    import torch

    shape = shapes(config)[name]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(name.encode()))
    values: torch.Tensor = torch.randn(shape, generator=generator)
    if name.endswith("norm"):
        return 1.0 + 0.1 * values
    if name == "embed":
        return values
    if name.endswith("bias"):
        return 0.1 * values
    return values * 1.5 / math.sqrt(shape[-1])


def write_tiny(folder: Path, kind: str, seed: int = 0, shards: int = 1) -> Path:
    """Write a tiny model as a Hugging Face folder; raises UsageError naming the kinds there are."""
    if kind not in TINY:
        raise unknown("tiny model", kind, list(TINY))
    config = TINY[kind]
    return write_hf(folder, config, lambda name: tiny_tensor(config, name, seed), shards)
