"""Weights as host kernels read them, laid out in C++: bit for bit what the families' own functions give."""

from __future__ import annotations

import torch
from torch import Tensor

from tilewright import native

PANEL = 16  # rows of a weight that lie interleaved
# Values of k a 32-bit lane of a panel holds: see kernels/gemm/spec.py.
LANE = {torch.float32: 1, torch.bfloat16: 2, torch.float16: 1, torch.int8: 4}


def panels(w: Tensor, lane: int = 0) -> Tensor:
    """W [N,K] as [ceil(N/16), ceil(K/lane), 16, lane], zero padded; see kernels/gemm/reference.py."""
    lane = lane or LANE[w.dtype]
    n, k = w.shape
    laid = torch.empty((-(-n // PANEL), -(-k // lane), PANEL, lane), dtype=w.dtype)
    native.module().panels(_bytes(w), n, lane * w.element_size(), _bytes(laid))
    return laid


def group_panels(values: Tensor) -> Tensor:
    """[N,G] of 2 or 4 bytes each as [ceil(N/16), G, 16]; see kernels/gemm_w4/formats.py."""
    return panels(values, 1).squeeze(-1)


def code_panels(codes: Tensor) -> Tensor:
    """Codes uint8 [N,K] as [ceil(N/16), ceil(K/32), 4, 16] int32; see kernels/gemm_w4/formats.py."""
    n, k = codes.shape
    laid = torch.empty((-(-n // PANEL), -(-k // 32), 4, PANEL), dtype=torch.int32)
    native.module().pack_codes(_bytes(codes), n, _bytes(laid))
    return laid


def rounded(w: Tensor) -> tuple[Tensor, Tensor]:
    """W [N,K] as int8 codes and one fp32 scale a row, rounded to nearest (RTN): amax is code 127."""
    codes = torch.empty(w.shape, dtype=torch.int8)
    scales = torch.empty(w.shape[0])
    rows = max(1, 2**15 // max(1, w.shape[1]))  # that stay in the cache
    for i in range(0, w.shape[0], rows):
        part = w[i : i + rows].float()
        low, high = part.aminmax(dim=1)
        scale = torch.maximum(-low, high) / 127.0
        scale = torch.where(scale > 2.0**-126, scale, torch.ones_like(scale))
        codes[i : i + rows] = (part / scale[:, None]).round_().clamp_(-127, 127)
        scales[i : i + rows] = scale
    return codes, scales


def finite(value: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    low, high = value.aminmax()  # both are NaN where one element is
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _bytes(value: Tensor) -> object:
    return value.contiguous().flatten().view(torch.uint8).numpy()
