"""silu_mul as torch does it: two calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from tilewright.errors import Unavailable
from tilewright.peers import Peer

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """silu in the tensor's type, multiplied in place."""
    if 0 in case.sizes.values():
        return []
    return [Peer("torch", "silu(gate).mul_(up)", lambda: _call(inputs))]


def _call(inputs: Inputs) -> Callable[[], torch.Tensor]:
    x = inputs.physical["gate_up"]
    if x is None:
        raise Unavailable("the case lacks an operand")
    gate, up = x.chunk(2, dim=-1)
    return lambda: torch.nn.functional.silu(gate).mul_(up)
