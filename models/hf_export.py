"""A model as a Hugging Face folder: what transformers and others read, and what HfDirectory does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import shapes
from .config import ModelConfig
from .hf_directory import stored_names

if TYPE_CHECKING:
    import torch

# Architectures of GGUF files by the model type that transformers has for them.
_TYPES = {"qwen3moe": "qwen3_moe"}
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}


def hf_type(config: ModelConfig) -> str:
    """The model type transformers has for a config: GGUF calls Mixtral a llama with experts."""
    if config.architecture == "llama" and config.experts:
        return "mixtral"
    return _TYPES.get(config.architecture, config.architecture)


def hf_config(config: ModelConfig) -> dict[str, object]:
    """What config.json says of a model."""
    kind = hf_type(config)
    found: dict[str, object] = {
        "model_type": kind,
        "architectures": [_CLASSES[kind]],
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "eos_token_id": list(config.ends),
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }
    if kind == "mixtral":
        found |= {"num_local_experts": config.experts, "num_experts_per_tok": config.experts_used}
        found |= {"sliding_window": None}
    if kind == "qwen3_moe":
        found |= {"num_experts": config.experts, "num_experts_per_tok": config.experts_used}
        found |= {"moe_intermediate_size": config.ffn, "norm_topk_prob": config.norm_topk}
        found |= {"decoder_sparse_step": 1, "mlp_only_layers": []}
    return found


def write_hf(
    folder: Path,
    config: ModelConfig,
    tensor: Callable[[str], torch.Tensor],
    shards: int = 1,
) -> Path:
    """Write config.json and safetensors, in `shards` files with an index if there are several.

    `tensor` gives each tensor of `checkpoint.shapes` by name. The folder is complete once config.json is
    there, which is written last.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    kind = hf_type(config)
    names = list(shapes(config))
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        mine = names[shard::shards]
        file = (
            f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            if shards > 1
            else "model.safetensors"
        )
        stored = {_stored(name, kind): tensor(name).contiguous().clone() for name in mine}
        save_file(stored, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(stored, file)
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(hf_config(config), indent=1), encoding="utf-8")
    return folder


def _stored(name: str, kind: str) -> str:
    names = stored_names(name)
    return names[-1] if kind == "mixtral" else names[0]
