"""The reader proven end to end: a plain forward of the real model predicts real text."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu

from tilewright.models.gguf_reader import GgufFile
from tilewright.models.real_inputs import rotary, text_ids
from tilewright.models.smollm import open_smollm2
from tilewright.models.tokenizer import Tokenizer

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def file() -> GgufFile:
    return open_smollm2()


@pytest.fixture(scope="module")
def weights(file: GgufFile) -> Weights:
    return {name: file.tensor(name) for name in file.tensors}


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def forward(file: GgufFile, weights: Weights, ids: list[int]) -> torch.Tensor:
    """Logits [tokens, vocab] of a Llama decoder in fp32."""
    config = file.config
    x = weights["token_embd.weight"][ids]
    for layer in range(config.layers):
        block = {
            name.removeprefix(f"blk.{layer}.").removesuffix(".weight"): weight
            for name, weight in weights.items()
            if name.startswith(f"blk.{layer}.")
        }
        h = rms_norm(x, block["attn_norm"], config.rms_eps)

        def heads(
            name: str, count: int, h: torch.Tensor = h, block: Weights = block
        ) -> torch.Tensor:
            return (h @ block[name].T).view(len(ids), count, config.head_dim).transpose(0, 1)

        q = rotary(heads("attn_q", config.heads), config.rope_theta)
        k = rotary(heads("attn_k", config.kv_heads), config.rope_theta)
        v = heads("attn_v", config.kv_heads)
        group = config.heads // config.kv_heads
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + mixed.transpose(0, 1).reshape(len(ids), -1) @ block["attn_output"].T
        h = rms_norm(x, block["ffn_norm"], config.rms_eps)
        x = x + (silu(h @ block["ffn_gate"].T) * (h @ block["ffn_up"].T)) @ block["ffn_down"].T
    x = rms_norm(x, weights["output_norm.weight"], config.rms_eps)
    return x @ weights["token_embd.weight"].T


def nll(file: GgufFile, weights: Weights, ids: list[int]) -> float:
    logits = forward(file, weights, ids)
    return float(cross_entropy(logits[:-1], torch.tensor(ids[1:])))


def test_perplexity_of_the_frozen_text(file: GgufFile, weights: Weights) -> None:
    """17.7076 was measured with another implementation (transformers) on the same tokens."""
    ids = text_ids()
    windows = [list(ids[start : start + 512]) for start in range(20000, 22048, 512)]
    mean = sum(nll(file, weights, window) for window in windows) / len(windows)
    assert math.exp(mean) == pytest.approx(17.7076, abs=5e-4)


def test_permuted_rows_would_ruin_the_prediction(file: GgufFile, weights: Weights) -> None:
    window = list(text_ids()[20000:20128])
    stored = {
        name: torch.from_numpy(file.array(name))
        for name in file.tensors
        if name.endswith((".attn_q.weight", ".attn_k.weight"))
    }
    right = nll(file, weights, window)
    wrong = nll(file, weights | stored, window)
    assert wrong > right + 1.0


def test_answers_a_question_greedily(file: GgufFile, weights: Weights) -> None:
    tokenizer = Tokenizer(file.metadata)
    prompt = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    ids = tokenizer.encode(prompt, parse_special=True)
    start = len(ids)
    while len(ids) < start + 12 and ids[-1] != tokenizer.eos:
        ids.append(int(forward(file, weights, ids)[-1].argmax()))
    assert tokenizer.decode(ids[start:]) == "The capital of France is Paris.<|im_end|>"
