"""hadamard in plain torch: steps of pairs, then a product with the whole matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.kernels.hadamard.matrices import matrix, parts

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec


def hadamard(x: Tensor) -> Tensor:
    """y [T,D] of x [T,D]: see `spec.py`."""
    t, d = x.shape
    if d == 0:
        return x.clone()
    m, n = parts(d) or (1, 0)
    y = x.reshape(t, m, 1 << n)
    for i in range(n):
        a, b = y.reshape(t, m, 1 << (n - i - 1), 2, 1 << i).unbind(-2)
        y = torch.stack((a + b, a - b), dim=-2).reshape(t, m, 1 << n)
    left = torch.tensor(matrix(m), dtype=x.dtype)
    return (torch.einsum("ac,tcb->tab", left, y) / math.sqrt(d)).reshape(t, d)


def make_inputs(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Normal rows; of every four, one has outliers, one equal values, which end in a single channel."""
    sizes = case.sizes
    dtype = spec.precision(case.precision).dtypes["x"].torch()
    x = torch.randn((sizes["T"], sizes["D"]), generator=generator)
    x[1::4, ::7] *= 100.0
    x[3::4] = x[3::4, :1]
    return {"x": x.to(dtype)}
