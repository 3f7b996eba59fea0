"""quantize as torch does it: its maximum, and a product, a rounding and a limit in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from tilewright.errors import Unavailable
from tilewright.peers import Peer

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs

Result = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """Scales by aminmax, codes in fp32."""
    if 0 in case.sizes.values():
        return []
    return [Peer("torch", "aminmax, then mul, round_, clamp_", lambda: _call(case, inputs))]


def _call(case: Case, inputs: Inputs) -> Callable[[], Result]:
    x, scales = inputs.physical["x"], case.flags["scales"]
    given = inputs.physical.get(f"given_{scales.removeprefix('static_')}_scale")
    if x is None:
        raise Unavailable("the case lacks an operand")
    over = -1 if scales.endswith("token") else 0

    def codes(scale: torch.Tensor) -> torch.Tensor:
        r = scale.reciprocal().unsqueeze(over)
        return (x * r).round_().clamp_(-127, 127).to(torch.int8)

    def call() -> Result:
        if given is not None:
            return codes(given)
        low, high = torch.aminmax(x, dim=over)
        scale = torch.maximum(high, low.neg()).float() * (1 / 127)
        scale = torch.where(scale < 2.0**-126, 1.0, scale)
        return codes(scale), scale

    return call
