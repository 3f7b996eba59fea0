"""nz_kv in Triton: a program moves one head of `tile_t` tokens between rows and fractal blocks.

Nothing is computed, so every type travels as it is. Slots on a device are not looked at before: one outside
the pages moves nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, Requirement, argument
from tilewright.errors import unknown
from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._triton.kv import (
    block_lanes,
    check_power,
    check_slots,
    lane_offsets,
    page_sources,
    page_strides,
    require,
)

if TYPE_CHECKING:
    import torch

PRECISIONS = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
BLOCK = 64  # channels a step
TILE_T = 16  # where a target's space has no tile_t
_GRID = "cdiv(T, {tile_t}) * HKV"


@triton.jit
def kernel(
    rows,
    slots,
    pages,
    T,
    HKV,
    D,
    P,
    stride_t,
    stride_h,
    stride_d,
    stride_slots,
    stride_page,
    stride_token,
    stride_head,
    stride_block,
    stride_lane,
    WRITE: tl.constexpr,
    C0: tl.constexpr,
    PAGE: tl.constexpr,
    TILE_T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """rows [T,HKV,D] to the tokens of nz pages that slots name, or back (0 where a slot is -1)."""
    program = tl.program_id(0)
    head = (program % HKV).to(tl.int64)
    token = (program // HKV) * TILE_T + tl.arange(0, TILE_T)
    there = token < T
    slot = tl.load(slots + token.to(tl.int64) * stride_slots, mask=there, other=-1)
    held = (slot >= 0) & (slot < P * PAGE)
    place = pages + head * stride_head + (slot // PAGE).to(tl.int64) * stride_page
    place += (slot % PAGE).to(tl.int64) * stride_token
    row = rows + token.to(tl.int64) * stride_t + head * stride_h
    for start in range(0, D, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        inside = (channel < D)[None, :]
        lane = lane_offsets(channel, stride_block, stride_lane, C0)
        if WRITE:
            move = held[:, None] & inside
            value = tl.load(row[:, None] + channel[None, :] * stride_d, mask=move, other=0)
            tl.store(place[:, None] + lane[None, :], value, mask=move)
        else:
            value = tl.load(place[:, None] + lane[None, :], mask=held[:, None] & inside, other=0)
            tl.store(
                row[:, None] + channel[None, :] * stride_d, value, mask=there[:, None] & inside
            )


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Write `x` into `pages`, or read `y` from them, by `slots`; any strides.

    Raises Refused for slots on the CPU that are out of range, or stand twice in a write.
    """
    write = _writes(flags)
    rows, slots, pages = require("nz_kv", tensors, "x" if write else "y", "slots", "pages")
    check_power("nz_kv", config, "tile_t", "num_warps")
    check_slots("nz_kv", slots, pages.shape[0], PAGE, distinct=write)
    tokens, heads, channels = rows.shape
    interpreter.launch(
        kernel,
        Grid(_GRID.format(tile_t=config.get("tile_t", TILE_T))).evaluate(
            {"T": tokens, "HKV": heads}
        ),
        (
            *(rows, slots, pages, tokens, heads, channels, pages.shape[0]),
            *(*rows.stride(), slots.stride(0), *page_strides(pages, nz=True)),
        ),
        _constexprs(write, config, pages.element_size()),
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
    """What to compile for a target: channels, lanes and slots contiguous.

    `aligned` fixes D and row strides to multiples of 16 bytes, which vector loads need; without it any are taken.
    """
    if precision not in PRECISIONS:
        raise unknown("precision of triton nz_kv", precision, list(PRECISIONS))
    check_power("nz_kv", config, "tile_t", "num_warps")
    write = _writes(flags)
    rows = "x" if write else "y"
    width = PRECISIONS[precision]
    step, address = (16 // width, 16) if aligned else (1, 1)
    names = ("stride_page", "stride_token", "stride_head", "stride_block")
    args = (
        argument("rows", f"*{precision}", f"data:{rows}", address),
        argument("slots", "*int32", "data:slots", 4),
        argument("pages", f"*{precision}", "data:pages", 16),
        argument("T", "int32", "size:slots:0"),
        argument("HKV", "int32", f"size:{rows}:1"),
        argument("D", "int32", f"size:{rows}:2", step),
        argument("P", "int32", "size:pages:0"),
        argument("stride_t", "int64", f"stride:{rows}:0", step),
        argument("stride_h", "int64", f"stride:{rows}:1", step),
        *(
            argument(name, "int64", source, 16 // width)
            for name, source in zip(names, page_sources("pages", nz=True), strict=True)
        ),
    )
    options = {} if target.startswith("ascend:") else _options(config)
    contiguous = (f"{rows}:2", "slots:0", "pages:4")
    return AotSource(
        family="nz_kv",
        fn=kernel,
        precision=precision,
        flags=dict(flags),
        config=dict(config),
        target=target,
        args=args,
        constexprs=dict.fromkeys(("stride_d", "stride_slots", "stride_lane"), 1)
        | _constexprs(write, config, width),
        options=options,
        grid=Grid(_GRID.format(tile_t=config.get("tile_t", TILE_T))),
        requirements=tuple(Requirement(f"stride:{axis}", "equals", 1) for axis in contiguous),
    )


def _options(config: Mapping[str, int]) -> dict[str, int]:
    return {name: config[name] for name in ("num_warps", "num_stages")}


def _writes(flags: Mapping[str, str]) -> bool:
    direction = flags.get("direction", "write")
    if direction not in ("write", "read"):
        raise unknown("direction", direction, ["write", "read"])
    return direction == "write"


def _constexprs(write: bool, config: Mapping[str, int], width: int) -> dict[str, Any]:
    return {
        "WRITE": write,
        "C0": block_lanes(width, nz=True),
        "PAGE": PAGE,
        "TILE_T": config.get("tile_t", TILE_T),
        "BLOCK": BLOCK,
    }
