"""quantize in plain torch: the encoder of `kernels/_kv`, along either dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.kernels._kv.reference import quantise8, token_scale8

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec


def quantize(
    x: Tensor,
    given_token_scale: Tensor | None = None,
    given_channel_scale: Tensor | None = None,
    *,
    case: Case,
) -> Tensor | tuple[Tensor, Tensor]:
    """q [T,D] int8 of x [T,D]; where scales are found, also [T] or [D] fp32."""
    if given_token_scale is not None:
        return quantise8(x, given_token_scale[:, None])
    if given_channel_scale is not None:
        return quantise8(x, given_channel_scale)
    if case.flags["scales"] == "token":
        scale = token_scale8(x)
        return quantise8(x, scale[:, None]), scale
    scale = token_scale8(x.t())
    return quantise8(x, scale), scale


def typical(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal values with channels that stand out, as activations have them."""
    return _inputs(spec, case, generator, special=False)


def make_inputs(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal values with zero rows, subnormal ones, ties between codes, and channels that stand out."""
    return _inputs(spec, case, generator, special=True)


def _inputs(
    spec: KernelSpec, case: Case, generator: torch.Generator, special: bool
) -> dict[str, Tensor]:
    sizes = case.sizes
    types = spec.precision(case.precision).dtypes
    x = torch.randn((sizes["T"], sizes["D"]), generator=generator)
    x[:, 5::16] *= 50.0
    if special:
        x[1::5] = 0.0
        x[2::5] *= 2.0**-130
        x[3::5] = torch.round(x[3::5] * 20) / 2
    found = {"x": x.to(types["x"].torch())}
    for name, size in (("token", sizes["T"]), ("channel", sizes["D"])):
        if case.flags["scales"] == f"static_{name}":
            found[f"given_{name}_scale"] = torch.rand((size,), generator=generator) * 0.1 + 1e-3
    return found
