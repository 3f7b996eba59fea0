"""A decoder in plain torch over a Checkpoint: no kernels, no pages, one sequence; for comparing and for hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# y[T,N] of a linear's name, its input x[T,K], its weight [N,K] and bias.
LinearHook = Callable[[str, "Tensor", "Tensor", "Tensor | None"], "Tensor"]


def plain_linear(name: str, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T (+ bias)."""
    y = x @ w.T
    return y if bias is None else y + bias


class PlainForward:
    """Weights are read once, as `dtype`; `linear` sees the input of every linear and gives its output."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype | None = None,
        linear: LinearHook = plain_linear,
    ) -> None:
        import torch

        self.config, self._from, self._linear = checkpoint.config, checkpoint, linear
        self._dtype = dtype or torch.float32
        self._read: dict[str, Tensor] = {}

    def __call__(self, ids: Sequence[int]) -> Tensor:
        """Logits [T,vocab] of every token."""
        config = self.config
        x = self._weight("embed")[list(ids)]
        for i in range(config.layers):
            at = f"layers.{i}."
            x = x + self._attention(at, self._norm(at + "attn_norm", x))
            y = self._norm(at + "ffn_norm", x)
            x = x + (self._experts(at, y) if config.experts else self._feed(at, y))
        return self._apply(
            "embed" if config.tied else "head", self._norm("norm", x), as_name="head"
        )

    def _attention(self, at: str, x: Tensor) -> Tensor:
        from torch.nn.functional import scaled_dot_product_attention

        from .real_inputs import rotary

        config = self.config

        def heads(kind: str, count: int) -> Tensor:
            y = self._apply(at + kind, x).view(len(x), count, config.head_dim)
            if config.qk_norm and kind != "v":
                y = self._norm(f"{at}{kind}_norm", y)
            return y.transpose(0, 1)

        q = rotary(heads("q", config.heads), config.rope_theta)
        k = rotary(heads("k", config.kv_heads), config.rope_theta)
        group = config.heads // config.kv_heads
        k, v = (t.repeat_interleave(group, 0) for t in (k, heads("v", config.kv_heads)))
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._apply(at + "o", mixed.transpose(0, 1).reshape(len(x), -1))

    def _feed(self, at: str, x: Tensor) -> Tensor:
        from torch.nn.functional import silu

        return self._apply(
            at + "down", silu(self._apply(at + "gate", x)) * self._apply(at + "up", x)
        )

    def _experts(self, at: str, x: Tensor) -> Tensor:
        import torch

        config = self.config
        gates, chosen = self._apply(at + "router", x).softmax(-1).topk(config.experts_used, -1)
        if config.norm_topk:
            gates = gates / gates.sum(-1, keepdim=True)
        y = torch.zeros_like(x)
        for e in range(config.experts):
            rows, place = (chosen == e).nonzero(as_tuple=True)
            if len(rows):
                y[rows] += self._feed(f"{at}experts.{e}.", x[rows]) * gates[rows, place, None]
        return y

    def _apply(self, name: str, x: Tensor, as_name: str = "") -> Tensor:
        bias = self._weight(f"{name}_bias") if self._from.has(f"{name}_bias") else None
        return self._linear(as_name or name, x, self._weight(name), bias)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        import torch

        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.config.rms_eps)
        return x * scale * self._weight(name)

    def _weight(self, name: str) -> Tensor:
        if name not in self._read:
            self._read[name] = self._from.tensor(name).to(self._dtype)
        return self._read[name]
