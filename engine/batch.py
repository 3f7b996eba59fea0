"""What one forward pass computes: tokens of several requests behind each other, and where their KV lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewright.kernels._kv.formats import PAGE


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of NS requests, all int32 but for `rows`.

    `tokens`, `positions` [T]; `slots` [T]: page * 16 + offset of where a token's key and value go, -1:
    nowhere; `owner` [T]: the selection slot of a token's request, -1 for none.
    `cu_q` [NS+1]: where each request's tokens start; `seq_lens` [NS]: its tokens in the cache after
    this pass; `block_table` [NS,MP]: its pages. `rows` int64: the tokens whose logits are wanted.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    owner: Tensor
    cu_q: Tensor
    seq_lens: Tensor
    block_table: Tensor
    rows: Tensor


def alone(ids: Sequence[int]) -> Batch:
    """One request in the first pages, the logits of all its tokens wanted."""
    count = len(ids)
    places = torch.arange(count, dtype=torch.int32)
    return Batch(
        tokens=torch.tensor(ids, dtype=torch.int32),
        positions=places,
        slots=places.clone(),
        owner=torch.full((count,), -1, dtype=torch.int32),
        cu_q=torch.tensor([0, count], dtype=torch.int32),
        seq_lens=torch.tensor([count], dtype=torch.int32),
        block_table=torch.arange(-(-count // PAGE), dtype=torch.int32)[None],
        rows=torch.arange(count),
    )
