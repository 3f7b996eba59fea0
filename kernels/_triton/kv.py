# A @triton.jit function is source for another compiler; its parameters have no Python types.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""What Triton kernels of a KV cache share: addresses of its pages, and the arithmetic of its formats.

The formats are those of `kernels/_kv/formats.py`. Their codes are the same bits on every backend, so each
operation rounds once: kernels that use these functions are compiled with `FLAT`, which keeps
products and sums apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from tilewright.errors import Refused

if TYPE_CHECKING:
    import torch

# Compiler options of kernels whose codes must be exact.
FLAT: Mapping[str, int] = MappingProxyType({"enable_fp_fusion": 0})
LANE_BYTES = 32  # of one block of an nz page

ROUNDER = tl.constexpr(12582912.0)  # 1.5 * 2**23
INVERSE_127 = tl.constexpr(1.0 / 127)
INVERSE_15 = tl.constexpr(1.0 / 15)
TINY = tl.constexpr(2.0**-126)


@triton.jit
def lane_offsets(lane, stride_block, stride_lane, C0: tl.constexpr):
    """Where lanes of a head lie, from its first one; C0 lanes a block of an nz page, 1 for nd."""
    return (lane // C0) * stride_block + (lane % C0) * stride_lane


@triton.jit
def rint(v, low, high):
    """clamp(round to nearest even(v), low, high) for whole bounds below 2**22 in size."""
    v = tl.minimum(tl.maximum(v, low), high)
    return (v + ROUNDER) - ROUNDER


@triton.jit
def reciprocal(s):
    """fl(1 / s)."""
    return tl.div_rn(1.0, s)


@triton.jit
def scale8(largest):
    """The c8d scale of a vector from its largest magnitude."""
    s = largest * INVERSE_127
    return tl.where(s < TINY, 1.0, s)


@triton.jit
def range4(low, high):
    """kv4 scale and zero as fp32 values that fp16 holds."""
    zero = low.to(tl.float16).to(tl.float32)
    s = ((high - low) * INVERSE_15).to(tl.float16).to(tl.float32)
    return tl.where(s == 0, 1.0, s), zero


@triton.jit
def quantise4(x, scale, zero):
    """Codes 0..15 as int32."""
    return rint((x - zero) * reciprocal(scale), 0.0, 15.0).to(tl.int32)


@triton.jit
def token_range(row, held, D, TOKENS: tl.constexpr, BLOCK: tl.constexpr):
    """The least and the largest of each row of D elements, rows beginning at `row`; +-infinity where there is none."""
    low = tl.full((TOKENS,), float("inf"), tl.float32)
    high = tl.full((TOKENS,), float("-inf"), tl.float32)
    for start in range(0, D, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        move = held[:, None] & (channel < D)[None, :]
        x = tl.load(row[:, None] + channel[None, :], mask=move, other=0).to(tl.float32)
        low = tl.minimum(low, tl.min(tl.where(move, x, float("inf")), axis=1))
        high = tl.maximum(high, tl.max(tl.where(move, x, float("-inf")), axis=1))
    return low, high


def page_strides(cache: torch.Tensor, nz: bool) -> tuple[int, int, int, int, int]:
    """Strides of page, token, head, block of lanes and lane, in elements; an nd page has blocks of one lane."""
    s = cache.stride()
    return (s[0], s[3], s[1], s[2], s[4]) if nz else (s[0], s[1], s[2], s[3], 1)


def page_sources(name: str, nz: bool) -> tuple[str, str, str, str]:
    """Where a launcher finds the first four of `page_strides`."""
    order = (0, 3, 1, 2) if nz else (0, 1, 2, 3)
    return tuple(f"stride:{name}:{i}" for i in order)  # type: ignore[return-value]


def block_lanes(element_bytes: int, nz: bool) -> int:
    """Lanes a block: C0."""
    return LANE_BYTES // element_bytes if nz else 1


def require(
    family: str, tensors: Mapping[str, torch.Tensor | None], *names: str
) -> tuple[torch.Tensor, ...]:
    """Tensors that must be there; Refused names a missing one."""
    found = []
    for name in names:
        tensor = tensors.get(name)
        if tensor is None:
            raise Refused(f"triton {family} needs tensor '{name}'; given: {', '.join(tensors)}")
        found.append(tensor)
    return tuple(found)


def check_slots(family: str, slots: torch.Tensor, pages: int, page: int, distinct: bool) -> None:
    """Refuse slots out of range, or one that stands twice; slots on a device are not looked at."""
    if slots.device.type != "cpu" or slots.numel() == 0:
        return
    wrong = ((slots < -1) | (slots >= pages * page)).nonzero().flatten()
    if wrong.numel():
        at = int(wrong[0])
        raise Refused(
            f"triton {family}: slots[{at}] is {int(slots[at])}; accepted: -1 (skipped) or 0 to "
            f"{pages * page - 1} for {pages} pages"
        )
    if distinct:
        twice = first_twice(slots[slots >= 0])
        if twice is not None:
            raise Refused(f"triton {family}: slot {twice} stands twice; each may be written once")


def first_twice(values: torch.Tensor) -> int | None:
    """The least number that stands more than once; None where there is none."""
    ordered = values.sort().values
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    return int(again[0]) if again.numel() else None


def check_power(family: str, config: Mapping[str, int], *names: str) -> None:
    """Refuse a tile that is no power of two."""
    for name in names:
        value = config.get(name, 1)
        if value < 1 or value & (value - 1):
            raise Refused(f"triton {family} takes powers of two for {name}, not {value}")
