"""rope as model code in torch writes it: halves or neighbours exchanged, products with gathered rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.errors import Unavailable
from tilewright.peers import Peer

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs

Call = Callable[[], Tensor]


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """torch's way in fp32, with tables of cosines and sines as wide as a head, which are made once."""
    if 0 in case.sizes.values():
        return []
    return [Peer("torch", "x * cos + rotated(x) * sin in fp32", lambda: _torch(case, inputs))]


def _torch(case: Case, inputs: Inputs) -> Call:
    x, positions, table = (inputs.physical[name] for name in ("x", "positions", "cos_sin"))
    if x is None or positions is None or table is None:
        raise Unavailable("the case lacks an operand")
    rot, neox = case.sizes["ROT"], case.flags["style"] == "neox"
    wide: Callable[[Tensor], Tensor] = (
        (lambda half: torch.cat((half, half), dim=-1))
        if neox
        else (lambda half: half.repeat_interleave(2, dim=-1))
    )
    cos, sin = (wide(half) for half in table.chunk(2, dim=-1))

    def rotated(v: Tensor) -> Tensor:
        if neox:
            first, second = v.chunk(2, dim=-1)
            return torch.cat((-second, first), dim=-1)
        return torch.stack((-v[..., 1::2], v[..., ::2]), dim=-1).flatten(-2)

    def call() -> Tensor:
        turned = x[..., :rot].float()
        c, s = cos[positions][:, None, :], sin[positions][:, None, :]
        y = (turned * c + rotated(turned) * s).to(x.dtype)
        return y if rot == x.shape[-1] else torch.cat((y, x[..., rot:]), dim=-1)

    return call
