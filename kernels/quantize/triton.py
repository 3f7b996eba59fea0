"""quantize in Triton: a program takes tokens, or a block of channels with all their tokens; any strides.

Codes are the same bits as elsewhere: products are kept apart, division rounds correctly. Given scales are
looked at before where they lie on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, argument
from tilewright.errors import Refused, unknown
from tilewright.kernels._triton import rows
from tilewright.kernels._triton.kv import FLAT, check_power, reciprocal, require, rint, scale8
from tilewright.kernels.quantize.spec import SCALES

if TYPE_CHECKING:
    import torch

ELEMENTS = 1024  # a step along tokens: tile_t of them times so many channels
ASCEND_TILE_T = 4  # a tile of one token crashes the lowering
CHANNELS, TOKENS = 64, 16  # of a block, for scales of channels that are found
_GIVEN = {"static_token": "given_token_scale", "static_channel": "given_channel_scale"}
_FOUND = {"token": "token_scale", "channel": "channel_scale"}


@triton.jit
def by_token(
    x, q, scale, first, T, D, stride_x, stride_q, stride_xd, stride_qd, stride_scale,
    MODE: tl.constexpr, TILE_T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Codes of TILE_T tokens from `first` on; `scale` is the tokens' (modes 0 and 2) or the channels' (3)."""
    token = first + tl.arange(0, TILE_T).to(tl.int64)
    held = token < T
    row = x + token * stride_x
    place = q + token * stride_q
    lane = tl.arange(0, BLOCK)
    r = tl.full((TILE_T,), 1.0, tl.float32)
    if MODE == 0:
        most = tl.zeros((TILE_T,), tl.float32)
        for start in range(0, D, BLOCK):
            channel = (start + lane).to(tl.int64)
            move = held[:, None] & (channel < D)[None, :]
            v = tl.load(row[:, None] + (channel * stride_xd)[None, :], mask=move, other=0)
            most = tl.maximum(most, tl.max(tl.abs(v.to(tl.float32)), axis=1))
        found = scale8(most)
        tl.store(scale + token * stride_scale, found, mask=held)
        r = reciprocal(found)
    elif MODE == 2:
        r = reciprocal(tl.load(scale + token * stride_scale, mask=held, other=1.0))
    for start in range(0, D, BLOCK):
        channel = (start + lane).to(tl.int64)
        inside = channel < D
        move = held[:, None] & inside[None, :]
        v = tl.load(row[:, None] + (channel * stride_xd)[None, :], mask=move, other=0)
        if MODE == 3:
            each = reciprocal(tl.load(scale + channel * stride_scale, mask=inside, other=1.0))
            v = v.to(tl.float32) * each[None, :]
        else:
            v = v.to(tl.float32) * r[:, None]
        to = place[:, None] + (channel * stride_qd)[None, :]
        tl.store(to, rint(v, -127.0, 127.0).to(tl.int8), mask=move)


@triton.jit
def by_channel(
    x, q, scale, T, D, stride_x, stride_q, stride_xd, stride_qd, stride_scale,
    CHANNELS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """A block of channels: their scales over all tokens, then their codes."""
    channel = tl.program_id(0).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < D
    each = tl.arange(0, TOKENS)
    most = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, T, TOKENS):
        token = (start + each).to(tl.int64)
        at = x + token[:, None] * stride_x + channel[None, :] * stride_xd
        v = tl.load(at, mask=(token < T)[:, None] & inside[None, :], other=0).to(tl.float32)
        most = tl.maximum(most, tl.max(tl.abs(v), axis=0))
    found = scale8(most)
    tl.store(scale + channel * stride_scale, found, mask=inside)
    r = reciprocal(found)
    for start in range(0, T, TOKENS):
        token = (start + each).to(tl.int64)
        both = (token < T)[:, None] & inside[None, :]
        at = x + token[:, None] * stride_x + channel[None, :] * stride_xd
        v = tl.load(at, mask=both, other=0).to(tl.float32) * r[None, :]
        to = q + token[:, None] * stride_q + channel[None, :] * stride_qd
        tl.store(to, rint(v, -127.0, 127.0).to(tl.int8), mask=both)


@triton.jit
def kernel(
    x, q, scale, T, D, stride_x, stride_q, stride_xd, stride_qd, stride_scale,
    MODE: tl.constexpr, BLOCK: tl.constexpr, TILE_T: tl.constexpr, CHANNELS: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    """x[T,D] to q[T,D]; MODE 0 token, 1 channel, 2 static_token, 3 static_channel. See `spec.py`."""
    if MODE == 1:
        by_channel(
            x, q, scale, T, D, stride_x, stride_q, stride_xd, stride_qd, stride_scale,
            CHANNELS, TOKENS,
        )  # fmt: skip
    else:
        by_token(
            x, q, scale, tl.program_id(0) * TILE_T, T, D, stride_x, stride_q, stride_xd,
            stride_qd, stride_scale, MODE, TILE_T, BLOCK,
        )  # fmt: skip


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `q` and, where they are found, scales, of `x[T,D]`; any strides.

    Raises Refused for given scales on the CPU that are not in 2**-126 to 2**126.
    """
    scales = _scales(flags)
    name = (_GIVEN | _FOUND)[scales]
    x, q, scale = require("quantize", tensors, "x", "q", name)
    check_power("quantize", config, "num_warps", "tile_t")
    tile_t = config.get("tile_t", 1)
    if scales in _GIVEN and scale.device.type == "cpu":
        wrong = ~((scale >= 2.0**-126) & (scale <= 2.0**126))
        if bool(wrong.any()):
            at = int(wrong.nonzero()[0])
            raise Refused(
                f"triton quantize: {name}[{at}] is {float(scale[at]):g}; accepted: 2^-126 to 2^126"
            )
    tokens, channels = x.shape
    interpreter.launch(
        kernel,
        Grid(_grid(scales, tile_t)).evaluate({"T": tokens, "D": channels}),
        (
            *(x, q, scale, tokens, channels, x.stride(0), q.stride(0)),
            *(x.stride(1), q.stride(1), scale.stride(0)),
        ),
        _constexprs(scales, tile_t),
        rows.options(config) | dict(FLAT),
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
    """What to compile for a target: channels and scales contiguous.

    `aligned` fixes D and strides of rows to multiples of 16 elements, which vector loads and stores need.
    """
    rows.check_precision("quantize", precision)
    check_power("quantize", config, "num_warps", "tile_t")
    tile_t = ASCEND_TILE_T if target.startswith("ascend:") else config.get("tile_t", 1)
    scales = _scales(flags)
    name = (_GIVEN | _FOUND)[scales]
    step = 16 if aligned else 1
    args = (
        rows.pointer("x", precision, aligned),
        rows.pointer("q", "int8", aligned),
        argument("scale", "*fp32", f"data:{name}", 4),
        argument("T", "int32", "size:x:0"),
        argument("D", "int32", "size:x:1", step),
        rows.row_stride("x", step),
        rows.row_stride("q", step),
    )
    return rows.source(
        *("quantize", kernel, precision, flags, config, target),
        args,
        dict.fromkeys(("stride_xd", "stride_qd", "stride_scale"), 1) | _constexprs(scales, tile_t),
        _grid(scales, tile_t),
        ("x:1", "q:1", f"{name}:0"),
        compiler=FLAT,
    )


def _scales(flags: Mapping[str, str]) -> str:
    scales = flags.get("scales", SCALES[0])
    if scales not in SCALES:
        raise unknown("scales", scales, list(SCALES))
    if scales == "channel" and flags.get("batch_invariant", "no") == "yes":
        raise Refused(
            "triton quantize: a channel's scale is found over all tokens, so no row is independent of its batch; "
            "accepted with batch_invariant: token, static_token, static_channel"
        )
    return scales


def _grid(scales: str, tile_t: int) -> str:
    return f"cdiv(D, {CHANNELS})" if scales == "channel" else f"cdiv(T, {tile_t})"


def _constexprs(scales: str, tile_t: int) -> dict[str, Any]:
    return {
        "MODE": SCALES.index(scales),
        "BLOCK": max(1, ELEMENTS // tile_t),
        "TILE_T": tile_t,
        "CHANNELS": CHANNELS,
        "TOKENS": TOKENS,
    }
