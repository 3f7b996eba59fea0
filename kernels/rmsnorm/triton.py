"""rmsnorm in Triton: a program normalises one row, in two trips along it; any strides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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

BLOCK = 1024  # channels a step
_GRID = "T"


@triton.jit
def kernel(
    x,
    weight,
    residual,
    y,
    h,
    D,
    eps,
    stride_x,
    stride_residual,
    stride_y,
    stride_h,
    stride_xd,
    stride_weight,
    stride_residuald,
    stride_yd,
    stride_hd,
    RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y[T,D] = h * rsqrt(mean(h^2) + eps) * weight[D]; h is x, or x + residual rounded and stored."""
    token = tl.program_id(0).to(tl.int64)
    x += token * stride_x
    y += token * stride_y
    kind = y.dtype.element_ty
    if RESIDUAL:
        residual += token * stride_residual
        h += token * stride_h
    lane = tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, D, BLOCK):
        channel = (start + lane).to(tl.int64)
        inside = channel < D
        v = tl.load(x + channel * stride_xd, mask=inside, other=0).to(tl.float32)
        if RESIDUAL:
            v += tl.load(residual + channel * stride_residuald, mask=inside, other=0).to(tl.float32)
            rounded = v.to(kind)
            tl.store(h + channel * stride_hd, rounded, mask=inside)
            v = rounded.to(tl.float32)
        sums += v * v
    by = 1.0 / tl.sqrt(tl.sum(sums, axis=0) / D + eps)
    for start in range(0, D, BLOCK):
        channel = (start + lane).to(tl.int64)
        inside = channel < D
        # The sum is made again, not read back: another thread may have stored it.
        v = tl.load(x + channel * stride_xd, mask=inside, other=0).to(tl.float32)
        if RESIDUAL:
            v += tl.load(residual + channel * stride_residuald, mask=inside, other=0).to(tl.float32)
            v = v.to(kind).to(tl.float32)
        w = tl.load(weight + channel * stride_weight, mask=inside, other=0).to(tl.float32)
        tl.store(y + channel * stride_yd, (v * by * w).to(kind), mask=inside)


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `y`, and with a residual `h`, of rows with any strides; outputs must not be inputs."""
    adds = flags.get("residual", "no") == "yes"
    x, weight, y = require("rmsnorm", tensors, "x", "weight", "y")
    residual, h = require("rmsnorm", tensors, "residual", "h") if adds else (None, None)
    check_power("rmsnorm", config, "num_warps")
    eps = float(flags.get("eps", "1e-06"))
    if not eps >= 0:
        raise Refused(f"triton rmsnorm: eps is {eps}; accepted: 0 or more")
    steps = [t.stride() if t is not None else (0, 0) for t in (x, residual, y, h)]
    (x0, x1), (residual0, residual1), (y0, y1), (h0, h1) = steps
    interpreter.launch(
        kernel,
        Grid(_GRID).evaluate({"T": x.shape[0]}),
        (
            *(x, weight, residual, y, h, x.shape[1], eps, x0, residual0, y0, h0),
            *(x1, weight.stride(0), residual1, y1, h1),
        ),
        _constexprs(adds),
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

    `aligned` fixes D and strides of rows to multiples of 16 bytes, which vector loads need.
    """
    rows.check_precision("rmsnorm", precision)
    check_power("rmsnorm", config, "num_warps")
    adds = flags.get("residual", "no") == "yes"
    step = 16 // rows.BYTES[precision] if aligned else 1
    both = ("x", "residual", "y", "h") if adds else ("x", "y")
    names = ("x", "weight", "residual", "y", "h") if adds else ("x", "weight", "y")
    args = (
        *(rows.pointer(name, precision, aligned) for name in names),
        argument("D", "int32", "size:x:1", step),
        argument("eps", "fp32", "number:eps"),
        *(rows.row_stride(name, step) for name in both),
    )
    fixed: dict[str, Any] = dict.fromkeys(
        ("stride_xd", "stride_weight", "stride_residuald", "stride_yd", "stride_hd"), 1
    )
    if not adds:
        fixed |= {"residual": None, "h": None, "stride_residual": 0, "stride_h": 0}
    return rows.source(
        *("rmsnorm", kernel, precision, flags, config, target),
        args,
        fixed | _constexprs(adds),
        _GRID,
        ("weight:0", *(f"{name}:1" for name in both)),
    )


def _constexprs(adds: bool) -> dict[str, Any]:
    return {"RESIDUAL": adds, "BLOCK": BLOCK}
