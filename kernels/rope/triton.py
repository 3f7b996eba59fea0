"""rope in Triton: a program turns one head of `tile_t` tokens; any strides along tokens and heads.

Positions are not known to the host when tensors lie on a device: there a position outside the table
gives NaN; tensors on the CPU are looked at before, and refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, Requirement, argument
from tilewright.errors import Refused, unknown

if TYPE_CHECKING:
    import torch

STYLES = ("neox", "gptj")
PRECISIONS = {"fp32": 4, "bf16": 2, "fp16": 2}
# Pairs, or channels that are copied, a step.
BLOCK = 64
_GRID = "cdiv(T, {tile_t}) * H"


@triton.jit
def kernel(
    x,
    positions,
    cos_sin,
    y,
    T,
    H,
    D,
    MAXPOS,
    ROT,
    stride_xt,
    stride_xh,
    stride_xd,
    stride_positions,
    stride_row,
    stride_col,
    stride_yt,
    stride_yh,
    stride_yd,
    NEOX: tl.constexpr,
    TILE_T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y[T,H,D] = x with its first ROT channels turned by cos_sin[positions[T]]; strides in elements."""
    program = tl.program_id(0)
    head = (program % H).to(tl.int64)
    tokens = (program // H) * TILE_T + tl.arange(0, TILE_T)
    there = tokens < T
    # 64-bit offsets: a tensor may hold more than 2**31 elements.
    tokens64 = tokens.to(tl.int64)
    at = tl.load(positions + tokens64 * stride_positions, mask=there, other=0)
    known = there & (at >= 0) & (at < MAXPOS)
    rows = cos_sin + at.to(tl.int64) * stride_row
    x_rows = x + tokens64 * stride_xt + head * stride_xh
    y_rows = y + tokens64 * stride_yt + head * stride_yh
    half = ROT // 2
    lane = tl.arange(0, BLOCK)
    for start in range(0, half, BLOCK):
        pair = start + lane
        inside = pair < half
        take = there[:, None] & inside[None, :]
        turn = known[:, None] & inside[None, :]
        if NEOX:
            first = pair
            second = pair + half
        else:
            first = pair * 2
            second = pair * 2 + 1
        cos = tl.load(rows[:, None] + pair[None, :] * stride_col, mask=turn, other=float("nan"))
        sin = tl.load(
            rows[:, None] + (pair + half)[None, :] * stride_col, mask=turn, other=float("nan")
        )
        a = tl.load(x_rows[:, None] + first[None, :] * stride_xd, mask=take, other=0).to(tl.float32)
        b = tl.load(x_rows[:, None] + second[None, :] * stride_xd, mask=take, other=0).to(
            tl.float32
        )
        kind = y.dtype.element_ty
        tl.store(
            y_rows[:, None] + first[None, :] * stride_yd, (a * cos - b * sin).to(kind), mask=take
        )
        tl.store(
            y_rows[:, None] + second[None, :] * stride_yd, (b * cos + a * sin).to(kind), mask=take
        )
    for start in range(ROT, D, BLOCK):
        channel = start + lane
        take = there[:, None] & (channel < D)[None, :]
        rest = tl.load(x_rows[:, None] + channel[None, :] * stride_xd, mask=take, other=0)
        tl.store(y_rows[:, None] + channel[None, :] * stride_yd, rest, mask=take)


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `y` from `x[T,H,D]`, `positions[T]` and `cos_sin[MAXPOS,ROT]`; any strides.

    Raises Refused for a position outside the table where the positions lie on the CPU.
    """
    x, positions, table, y = (_tensor(tensors, n) for n in ("x", "positions", "cos_sin", "y"))
    tokens, heads, channels = x.shape
    most, turned = table.shape
    _check_tile(config)
    if turned % 2 or turned > channels:
        raise Refused(
            f"triton rope: cos_sin turns {turned} of {channels} channels; accepted: an even number, at most all"
        )
    if positions.device.type == "cpu" and positions.numel():
        low, high = int(positions.min()), int(positions.max())
        if low < 0 or high >= most:
            raise Refused(
                f"triton rope: position {low if low < 0 else high}; accepted: 0 to {most - 1}"
            )
    interpreter.launch(
        kernel,
        Grid(_GRID.format(tile_t=config["tile_t"])).evaluate({"T": tokens, "H": heads}),
        (
            *(x, positions, table, y, tokens, heads, channels, most, turned),
            *(*x.stride(), positions.stride(0), *table.stride(), *y.stride()),
        ),
        _constexprs(flags, config),
        {name: config[name] for name in ("num_warps", "num_stages")},
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
    """What to compile for a target: channels and rows of the table contiguous.

    `aligned` fixes D, ROT and strides to multiples of 16 bytes, which vector loads need; without it any are taken.
    """
    if precision not in PRECISIONS:
        raise unknown("precision of triton rope", precision, list(PRECISIONS))
    _check_tile(config)
    step = 16 // PRECISIONS[precision] if aligned else 1
    row, address = (4, 16) if aligned else (1, 1)
    args = (
        argument("x", f"*{precision}", "data:x", address),
        argument("positions", "*int32", "data:positions", 4),
        argument("cos_sin", "*fp32", "data:cos_sin", address),
        argument("y", f"*{precision}", "data:y", address),
        argument("T", "int32", "size:x:0"),
        argument("H", "int32", "size:x:1"),
        argument("D", "int32", "size:x:2", step),
        argument("MAXPOS", "int32", "size:cos_sin:0"),
        argument("ROT", "int32", "size:cos_sin:1", 2 * step),
        argument("stride_xt", "int64", "stride:x:0", step),
        argument("stride_xh", "int64", "stride:x:1", step),
        argument("stride_row", "int64", "stride:cos_sin:0", row),
        argument("stride_yt", "int64", "stride:y:0", step),
        argument("stride_yh", "int64", "stride:y:1", step),
    )
    unit = ("stride_xd", "stride_positions", "stride_col", "stride_yd")
    contiguous = ("x:2", "positions:0", "cos_sin:1", "y:2")
    on_ascend = target.startswith("ascend:")
    return AotSource(
        family="rope",
        fn=kernel,
        precision=precision,
        flags=dict(flags),
        config=dict(config),
        target=target,
        args=args,
        constexprs=dict.fromkeys(unit, 1) | _constexprs(flags, config),
        options={} if on_ascend else {name: config[name] for name in ("num_warps", "num_stages")},
        grid=Grid(_GRID.format(tile_t=config["tile_t"])),
        requirements=tuple(Requirement(f"stride:{axis}", "equals", 1) for axis in contiguous),
    )


def _constexprs(flags: Mapping[str, str], config: Mapping[str, int]) -> dict[str, Any]:
    style = flags.get("style", STYLES[0])
    if style not in STYLES:
        raise unknown("style", style, list(STYLES))
    return {"NEOX": style == "neox", "TILE_T": config["tile_t"], "BLOCK": BLOCK}


def _tensor(tensors: Mapping[str, torch.Tensor | None], name: str) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise Refused(f"triton rope needs tensor '{name}'; given: {', '.join(tensors)}")
    return tensor


def _check_tile(config: Mapping[str, int]) -> None:
    for name in ("tile_t", "num_warps"):
        value = config.get(name, 1)
        if value < 1 or value & (value - 1):
            raise Refused(f"triton rope takes powers of two for {name}, not {value}")
