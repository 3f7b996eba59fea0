"""hadamard in Triton: a program transforms one row, block by block of 2^n channels; any strides.

The signs of H_m are computed from the squares modulo its prime, as `matrices.py` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource
from tilewright.errors import Refused
from tilewright.kernels._triton import rows
from tilewright.kernels._triton.kv import check_power, require
from tilewright.kernels.hadamard.matrices import LARGEST, PRIMES, parts, squares

if TYPE_CHECKING:
    import torch

# A binary is for one D.
FIXED_SIZES: tuple[Mapping[str, int], ...] = ({"D": 128}, {"D": 4096}, {"D": 5120})
_GRID = "T"


@triton.jit
def character(i, j, PRIME: tl.constexpr, SQUARES: tl.constexpr):
    """1 where i - j is a square modulo PRIME, -1 otherwise."""
    return ((SQUARES >> ((i - j + PRIME) % PRIME)) & 1) * 2 - 1


@triton.jit
def signs(i, j, PRIME: tl.constexpr, SQUARES: tl.constexpr):
    """Entries (i, j) of H_m; PRIME 0 stands for H_1. See `matrices.py`."""
    if PRIME == 0:
        s = i * 0 + 1
    elif PRIME % 4 == 3:
        s = character(i, j, PRIME, SQUARES)
        s = tl.where(j == 0, -1, s)
        s = tl.where((i == 0) | (i == j), 1, s)
    else:
        a = i // 2
        b = j // 2
        odd = i % 2 + j % 2
        s = character(a, b, PRIME, SQUARES)
        s = tl.where((a == 0) | (b == 0), 1, s)
        s = tl.where(odd == 2, -s, s)
        s = tl.where(a == b, tl.where(odd > 0, -1, 1), s)
    return s.to(tl.float32)


@triton.jit
def sylvester(v, N: tl.constexpr, POWER: tl.constexpr):
    """Sums and differences of channels 1, 2, 4, ... apart."""
    for step in tl.static_range(N):
        pairs = tl.reshape(v, (POWER // (2 << step), 2, 1 << step))
        a, b = tl.split(tl.permute(pairs, (0, 2, 1)))
        v = tl.reshape(tl.permute(tl.join(a + b, a - b), (0, 2, 1)), (POWER,))
    return v


@triton.jit
def kernel(
    x,
    y,
    stride_x,
    stride_y,
    stride_xd,
    stride_yd,
    M: tl.constexpr,
    ROWS: tl.constexpr,
    N: tl.constexpr,
    POWER: tl.constexpr,
    PRIME: tl.constexpr,
    SQUARES: tl.constexpr,
    FACTOR: tl.constexpr,
):
    """y[T,D] = (H_M kron H_2^N) x * FACTOR, D = M * POWER; ROWS is M, padded to a power of two."""
    token = tl.program_id(0).to(tl.int64)
    x += token * stride_x
    y += token * stride_y
    lane = tl.arange(0, POWER)
    row = tl.arange(0, ROWS)
    sums = tl.zeros((ROWS, POWER), tl.float32)
    for block in range(M):
        v = tl.load(x + (block * POWER + lane).to(tl.int64) * stride_xd).to(tl.float32)
        v = sylvester(v, N, POWER)
        sums += signs(row, block, PRIME, SQUARES)[:, None] * v[None, :]
    channel = (row[:, None] * POWER + lane[None, :]).to(tl.int64)
    inside = (row < M)[:, None] & (lane < POWER)[None, :]
    tl.store(y + channel * stride_yd, (sums * FACTOR).to(y.dtype.element_ty), mask=inside)


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `y` of `x[T,D]`, any strides. Raises Refused for a D that has no such matrix."""
    x, y = require("hadamard", tensors, "x", "y")
    check_power("hadamard", config, "num_warps")
    tokens, d = x.shape
    if d == 0:
        return
    constexprs = _constexprs(d)
    interpreter.launch(
        kernel,
        Grid(_GRID).evaluate({"T": tokens}),
        (x, y, x.stride(0), y.stride(0), x.stride(1), y.stride(1)),
        constexprs,
        rows.options(config),
        interpret=interpret,
    )


def aot(
    precision: str,
    flags: Mapping[str, str],
    config: Mapping[str, int],
    target: str,
    *,
    aligned: bool = True,
    sizes: Mapping[str, int] = FIXED_SIZES[0],
) -> AotSource:
    """What to compile for a target: one D, channels contiguous.

    `aligned` fixes strides of rows to multiples of 16 bytes, which vector loads need.
    """
    rows.check_precision("hadamard", precision)
    check_power("hadamard", config, "num_warps")
    step = 16 // rows.BYTES[precision] if aligned else 1
    args = (
        rows.pointer("x", precision, aligned),
        rows.pointer("y", precision, aligned),
        rows.row_stride("x", step),
        rows.row_stride("y", step),
    )
    return rows.source(
        *("hadamard", kernel, precision, flags, config, target),
        args,
        {"stride_xd": 1, "stride_yd": 1} | _constexprs(sizes["D"]),
        _GRID,
        ("x:1", "y:1"),
        sizes=dict(sizes),
    )


def _constexprs(d: int) -> dict[str, Any]:
    found = parts(d)
    if found is None:
        raise Refused(
            f"triton hadamard: rows of {d} channels; accepted: 0 and m * 2^n up to {LARGEST} with m 1, 12, 20, 28 or 36"
        )
    m, n = found
    prime = PRIMES.get(m, 0)
    return {
        "M": m,
        "ROWS": triton.next_power_of_2(m),
        "N": n,
        "POWER": 1 << n,
        "PRIME": prime,
        "SQUARES": squares(prime) if prime else 0,
        "FACTOR": 1.0 / math.sqrt(d),
    }
