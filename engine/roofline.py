"""The least time a forward pass can take on this machine: weights and KV over its bandwidth, products over its peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilewright.engine.loop import Engine
    from tilewright.models.config import ModelConfig
    from tilewright.perf.ceilings import Ceilings

# Operand types whose peak bounds the products of a format. Codes of 4 bits may be multiplied in either: activations of
# fp32 are exact sums of bf16 parts.
_KINDS = {"fp32": ("fp32",), "bf16": ("bf16",), "w8a8": ("int8",), "q4_1": ("fp32", "bf16")}
_KINDS["w4a8"] = ("int8",)


@dataclass(frozen=True, slots=True)
class Floor:
    """ms of a step or a prefill, and what sets it: `memory` or `compute`."""

    ms: float
    bound_by: str


def floor(
    engine: Engine,
    form: str,
    batch: int,
    prompt: int,
    steps: int,
    threads: int,
    ceilings: Ceilings,
) -> Floor:
    """Of a decode step in the middle of `steps`, or of the prefill of `batch` prompts where there are none.

    Weights are read once, keys and values of all earlier tokens once a request; both at the bandwidth of
    the place they fit in. Operations are those of linears and attention.
    """
    config = engine.model.config
    seen = prompt + steps / 2 if steps else prompt / 2  # tokens a query sees, on average
    queries = batch * (1 if steps else prompt)
    kv = 2 * config.layers * config.kv_heads * config.head_dim * engine.model.dtype.itemsize
    moved = weight_bytes(engine) + kv * batch * (seen if steps else prompt)
    attention = 4 * config.layers * config.heads * config.head_dim * seen
    work = queries * (2 * parameters(config) + attention) + 2 * batch * config.vocab * config.hidden
    peak = max(
        ceilings.peak_gops(kind, threads) or 0.0
        for kind in _KINDS.get(form.partition(":")[0], ("bf16",))
    )
    memory = moved / (ceilings.bandwidth(moved, threads) * 1e6)
    compute = work / (peak * 1e6) if peak else 0.0
    return Floor(max(memory, compute), "compute" if compute > memory else "memory")


def parameters(config: ModelConfig) -> int:
    """Weights of linears that one token meets, without the output projection."""
    width, hidden = config.head_dim, config.hidden
    each = hidden * width * (2 * config.heads + 2 * config.kv_heads)
    each += 3 * hidden * config.ffn * (config.experts_used or 1) + hidden * config.experts
    return config.layers * each


def weight_bytes(engine: Engine) -> int:
    """Bytes of weights that a pass reads at least, the rows of the embedding aside: of experts, one token's."""
    layers, config = engine.model.layers, engine.model.config
    used = config.experts_used / config.experts if config.experts else 1.0
    feeds = sum(x.feed.bytes for x in layers) * used
    return engine.model.head.bytes + sum(x.qkv.bytes + x.o.bytes for x in layers) + int(feeds)
