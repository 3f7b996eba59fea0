"""A mixture of experts in place of a feed-forward block (Mixtral, Qwen3-MoE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tilewright.engine.calls import empty
from tilewright.engine.linear import Linear, Weight
from tilewright.engine.ops import Ops, name_of


class Stacked:
    """The same linear of every expert: [E,N,K], each row taken by the expert it belongs to."""

    def __init__(self, ops: Ops, weights: Sequence[Tensor]) -> None:
        made = [Weight.of(ops, "grouped_gemm", w) for w in weights]
        self.experts, self.n, self.k = len(made), made[0].n, made[0].k
        self._layout, self._laid = made[0].layout, torch.stack([w.parts["b"] for w in made])

    @property
    def bytes(self) -> int:
        """Bytes of the weights of all experts."""
        return self._laid.numel() * self._laid.element_size()

    def __call__(self, ops: Ops, x: Tensor, ends: Tensor) -> Tensor:
        """y[T,N] of x[T,K] sorted by expert; rows up to ends[e] (int32 [E]) are of expert e or before."""
        y = empty(x, x.shape[0], self.n)
        ops.call(
            "grouped_gemm",
            name_of(x),
            {"b_layout": self._layout, "bias": "no", "scale": "none"},
            {"T": x.shape[0], "E": self.experts, "N": self.n, "K": self.k},
            {"a": x, "b": self._laid, "ends": ends},
            {"c": y},
        )
        return y


class Experts:
    """Each token goes to the `used` experts its router rates highest; their results are added by rating."""

    def __init__(
        self, router: Linear, gate_up: Stacked, down: Stacked, used: int, normed: bool
    ) -> None:
        self._router, self._gate_up, self._down = router, gate_up, down
        self._used, self._normed = used, normed

    @property
    def bytes(self) -> int:
        """Bytes of the weights of all experts."""
        return self._gate_up.bytes + self._down.bytes

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """y[T,hidden] of x[T,hidden]; the order of sums is that of a token's ratings, whatever the batch."""
        ids, gates = ops.topk(
            self._router(ops, x), self._used, softmax="survivors" if self._normed else "row"
        )
        used, experts = self._used, self._gate_up.experts
        order = torch.empty(ids.numel(), dtype=torch.int64)
        ends = torch.empty(experts, dtype=torch.int32)
        rows, y = empty(x, ids.numel(), x.shape[1]), empty(x, *x.shape)

        def sort() -> None:
            chosen = ids.flatten().long()
            order.copy_(chosen.argsort(stable=True))
            ends.copy_(chosen.bincount(minlength=experts).cumsum(0))
            torch.index_select(x, 0, order // used, out=rows)

        ops.between(sort)
        found = self._down(ops, ops.silu_mul(self._gate_up(ops, rows, ends)), ends)

        def add() -> None:
            rows[order] = found
            torch.sum(rows.view(len(x), used, -1) * gates[:, :, None].to(x.dtype), 1, out=y)

        ops.between(add)
        return y
