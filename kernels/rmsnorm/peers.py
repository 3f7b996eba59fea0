"""rmsnorm as torch does it: its own fused function, and the sum before it."""

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
    """torch.nn.functional.rms_norm, and the formula in fp32 as model code writes it."""
    if 0 in case.sizes.values():
        return []
    return [
        Peer("torch rms_norm", "torch.nn.functional.rms_norm", lambda: _call(case, inputs, True)),
        Peer("torch", "x * rsqrt(mean(x^2) + eps) in fp32", lambda: _call(case, inputs, False)),
    ]


def _call(case: Case, inputs: Inputs, fused: bool) -> Callable[[], Result]:
    x, weight, residual = (
        (inputs.physical[name] for name in ("x", "weight", "residual"))
        if (case.flags["residual"] == "yes")
        else (inputs.physical["x"], inputs.physical["weight"], None)
    )
    if x is None or weight is None:
        raise Unavailable("the case lacks an operand")
    eps = case.number("eps")

    def normalised(h: torch.Tensor) -> torch.Tensor:
        if fused:
            return torch.nn.functional.rms_norm(h, (h.shape[-1],), weight, eps)
        wide = h.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(h.dtype)

    def call() -> Result:
        if residual is None:
            return normalised(x)
        h = x + residual
        return normalised(h), h

    return call
