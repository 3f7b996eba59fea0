"""silu_mul in Triton: a program takes `block` channels of one row; any strides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, argument
from tilewright.errors import Refused
from tilewright.kernels._triton import rows
from tilewright.kernels._triton.kv import check_power, require

if TYPE_CHECKING:
    import torch

BLOCK = 1024  # where a target's space has no block
_GRID = "T * cdiv(W, {width})"


@triton.jit
def kernel(gate_up, y, W, stride_gate_up, stride_y, stride_xd, stride_yd, BLOCK: tl.constexpr):
    """y[T,W/2] = g / (1 + e^-g) * up, gate_up[T,W] holding the gates first."""
    half = W // 2
    blocks = tl.cdiv(W, 2 * BLOCK)
    token = (tl.program_id(0) // blocks).to(tl.int64)
    channel = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < half
    row = gate_up + token * stride_gate_up
    gate = tl.load(row + channel * stride_xd, mask=inside, other=0).to(tl.float32)
    up = tl.load(row + (channel + half) * stride_xd, mask=inside, other=0).to(tl.float32)
    # The power in two halves, each of which reaches 0 or infinity where the whole does.
    power = tl.exp(gate * -0.5)
    out = gate / (1.0 + power * power) * up
    tl.store(y + token * stride_y + channel * stride_yd, out.to(y.dtype.element_ty), mask=inside)


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `y[T,W/2]` of `gate_up[T,W]`; any strides."""
    x, y = require("silu_mul", tensors, "gate_up", "y")
    block = _block(config)
    tokens, width = x.shape
    if width % 2:
        raise Refused(
            f"triton silu_mul: gate_up has {width} columns; accepted: an even number, half of them the gate's"
        )
    interpreter.launch(
        kernel,
        Grid(_GRID.format(width=2 * block)).evaluate({"T": tokens, "W": width}),
        (x, y, width, x.stride(0), y.stride(0), x.stride(1), y.stride(1)),
        {"BLOCK": block},
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
) -> AotSource:
    """What to compile for a target: channels contiguous.

    `aligned` fixes halves and strides of rows to multiples of 16 bytes, which vector loads need.
    """
    rows.check_precision("silu_mul", precision)
    block = _block(config)
    step = 16 // rows.BYTES[precision] if aligned else 1
    args = (
        rows.pointer("gate_up", precision, aligned),
        rows.pointer("y", precision, aligned),
        argument("W", "int32", "size:gate_up:1", 2 * step if aligned else 1),
        rows.row_stride("gate_up", step),
        rows.row_stride("y", step),
    )
    return rows.source(
        *("silu_mul", kernel, precision, flags, config, target),
        args,
        {"stride_xd": 1, "stride_yd": 1, "BLOCK": block},
        _GRID.format(width=2 * block),
        ("gate_up:1", "y:1"),
    )


def _block(config: Mapping[str, int]) -> int:
    check_power("silu_mul", config, "block", "num_warps")
    return config.get("block", BLOCK)
