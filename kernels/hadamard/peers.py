"""hadamard as torch does it: steps of pairs, or products with whole matrices, which short rows like better."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from tilewright.errors import Unavailable
from tilewright.kernels.hadamard.matrices import matrix, parts
from tilewright.peers import Peer

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs

_LARGEST_PRODUCT = 64


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """Kronecker factors of at most 64 channels as products of matrices in fp32."""
    if 0 in case.sizes.values():
        return []
    return [Peer("torch", "products with Kronecker factors in fp32", lambda: _call(case, inputs))]


def _factors(d: int) -> list[torch.Tensor]:
    m, n = parts(d) or (1, 0)
    found = [torch.tensor(matrix(m), dtype=torch.float32)] if m > 1 else []
    while n:
        step = min(n, int(math.log2(_LARGEST_PRODUCT)))
        one = torch.ones((1, 1))
        for _ in range(step):
            one = torch.kron(one, torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        found.append(one)
        n -= step
    if found:
        found[0] = found[0] / math.sqrt(d)
    return found


def _call(case: Case, inputs: Inputs) -> Callable[[], torch.Tensor]:
    x = inputs.physical["x"]
    if x is None:
        raise Unavailable("the case lacks an operand")
    factors, (t, d) = _factors(case.sizes["D"]), x.shape

    def call() -> torch.Tensor:
        y = x.float()
        left = 1
        for one in factors:
            size = one.shape[0]
            # Matrices of order m are not symmetric.
            y = torch.matmul(one, y.reshape(t * left, size, d // left // size))
            left *= size
        return y.reshape(t, d).to(x.dtype)

    return call
