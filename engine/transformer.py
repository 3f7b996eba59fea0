"""A decoder-only model over a batch of pages: one forward pass, ops only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewright.engine.batch import Batch
from tilewright.engine.experts import Experts
from tilewright.engine.kv_cache import KvCache
from tilewright.engine.linear import Linear
from tilewright.engine.ops import Ops
from tilewright.kernels.rope.tables import cos_sin
from tilewright.models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Feed:
    """Gated SiLU; `gate_up` gives the gate's columns first."""

    gate_up: Linear
    down: Linear

    @property
    def bytes(self) -> int:
        """Bytes of weights that a call reads."""
        return self.gate_up.bytes + self.down.bytes

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """y[T,hidden] of x[T,hidden]."""
        return self.down(ops, ops.silu_mul(self.gate_up(ops, x)))


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of a decoder layer; `qkv` gives queries, keys and values behind each other.

    With `q_norm` and `k_norm` [D], each head of queries and keys is normed before it is turned.
    """

    attn_norm: Tensor
    qkv: Linear
    o: Linear
    ffn_norm: Tensor
    feed: Feed | Experts
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None


class Transformer:
    """Llama's decoder: RMSNorm, rotary attention over pages, gated SiLU. `form`: of its weights, see `build`."""

    def __init__(
        self,
        config: ModelConfig,
        embedding: Tensor,
        layers: Sequence[Layer],
        norm: Tensor,
        head: Linear,
        form: str,
    ) -> None:
        self.config, self.layers, self.form = config, tuple(layers), form
        self._embedding, self._norm, self.head = embedding, norm, head
        self._angles = cos_sin(config.head_dim, config.context, config.rope_theta)

    @property
    def dtype(self) -> torch.dtype:
        """The type of activations."""
        return self._embedding.dtype

    def forward(self, ops: Ops, cache: KvCache, batch: Batch) -> Tensor:
        """Logits [R,vocab] of the batch's rows; keys and values go to the cache."""
        x = self.embed(batch.tokens)
        y = self.decode(ops, cache, batch, x)
        return self.head(ops, y[batch.rows])

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows [T,hidden] of the embedding."""
        return self._embedding[tokens.long()]

    def decode(self, ops: Ops, cache: KvCache, batch: Batch, x: Tensor) -> Tensor:
        """The last layer's output [T,hidden], normed."""
        cache.begin(batch)
        eps = self.config.rms_eps
        ops.owner = batch.owner
        norms = [layer.ffn_norm for layer in self.layers]
        after = [layer.attn_norm for layer in self.layers[1:]] + [self._norm]
        y, residual = ops.rmsnorm(x, self.layers[0].attn_norm, eps), x
        for i, layer in enumerate(self.layers):
            mixed = self._attention(ops, cache, batch, i, y)
            y, residual = ops.add_rmsnorm(mixed, residual, norms[i], eps)
            fed = layer.feed(ops, y)
            y, residual = ops.add_rmsnorm(fed, residual, after[i], eps)
        return y

    def _attention(self, ops: Ops, cache: KvCache, batch: Batch, index: int, y: Tensor) -> Tensor:
        config, layer = self.config, self.layers[index]
        heads, kv, width = config.heads, config.kv_heads, config.head_dim
        parts = layer.qkv(ops, y).view(y.shape[0], heads + 2 * kv, width)
        q, k = self._turn(ops, layer, parts, batch.positions)
        cache.write(ops, index, k, parts[:, heads + kv :], batch)
        o = cache.attend(ops, index, q, batch, width**-0.5)
        return layer.o(ops, o.view(y.shape[0], heads * width))

    def _turn(
        self, ops: Ops, layer: Layer, parts: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys, the first heads of `parts` [T,H+2HKV,D], normed and turned."""
        heads, kv = self.config.heads, self.config.kv_heads
        if layer.q_norm is None or layer.k_norm is None:
            turned = ops.rope(parts[:, : heads + kv], positions, self._angles)
            return turned[:, :heads], turned[:, heads:]
        # All heads are normed as the rows they are, in one call: fewer would have no even stride.
        rows, eps = parts.reshape(-1, self.config.head_dim), self.config.rms_eps
        q, k = (ops.rmsnorm(rows, w, eps).view_as(parts) for w in (layer.q_norm, layer.k_norm))
        turn = (q[:, :heads], k[:, heads : heads + kv])
        return tuple(ops.rope(x, positions, self._angles) for x in turn)  # type: ignore[return-value]
