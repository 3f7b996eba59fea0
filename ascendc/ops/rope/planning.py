"""Tilings of rope: `rope_tiling.h`. Standard library only."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ...soc import find
from .._kv.planning import BLOCK, MAX_WIDTH, VECTOR_CORES, Plan, round_up, share

MAX_REPEATS = 255
MAX_COPY = 65535  # bytes of a block of a copy


@dataclass(frozen=True, slots=True)
class Launch:
    """Sizes, bytes of an element, and elements from one token, head and row of the table to the next."""

    tokens: int
    heads: int
    channels: int
    turned: int
    element: int
    x: tuple[int, int]
    y: tuple[int, int]
    row: int

    @property
    def half(self) -> int:
        return self.turned // 2

    @property
    def rest(self) -> int:
        return self.channels - self.turned


def ub_bytes(launch: Launch, heads: int) -> int:
    """UB that tiles of so many heads take."""
    unit = BLOCK // launch.element
    pitch = round_up(launch.half, unit)
    tile = heads * pitch
    wide = 2 * round_up(4 * tile, BLOCK) if launch.element != 4 else 0
    rest = 2 * round_up(heads * round_up(launch.rest, unit) * launch.element, BLOCK)
    tables = 4 * round_up(4 * pitch, BLOCK)
    return (
        8 * round_up(tile * launch.element, BLOCK)
        + wide
        + 2 * round_up(4 * tile, BLOCK)
        + rest
        + tables
    )


def tile_heads(launch: Launch, wanted: int, cores: int, ub: int) -> int:
    """Heads of a tile: at most `wanted`, as many as fit UB, fewer where there are more cores than tokens."""
    most = min(wanted, launch.heads, MAX_REPEATS)
    most = min(most, -(-launch.heads * launch.tokens // cores))
    while most > 1 and ub_bytes(launch, most) > ub:
        most -= 1
    return max(1, most)


def too_wide(launch: Launch, ub: int) -> str | None:
    """Why a head does not fit, or None."""
    pitch = round_up(launch.half, BLOCK // launch.element)
    if pitch > MAX_WIDTH or launch.rest * launch.element > MAX_COPY or ub_bytes(launch, 1) > ub:
        return (
            f"D={launch.channels} with ROT={launch.turned}; accepted: ROT up to {2 * MAX_WIDTH}, heads that fit "
            f"the {ub} bytes of UB"
        )
    return None


def plan(launch: Launch, precision: str, wanted: int, soc: str, cores: int = 0) -> Plan:
    """A launch on at most `cores` vector cores (0: all); ValueError where a head does not fit."""
    part = find(soc)
    reason = too_wide(launch, part.ub)
    if reason:
        raise ValueError(reason)
    cores = cores or VECTOR_CORES * part.cube_cores
    heads = tile_heads(launch, wanted, cores, part.ub)
    tiles = -(-launch.heads // heads)
    parts = share(launch.tokens, tiles, cores)
    fields = (
        launch.tokens,
        launch.heads,
        launch.half,
        launch.rest,
        *launch.x,
        *launch.y,
        launch.row,
    )
    tiling = struct.pack("<13i", *fields, heads, tiles, *parts)
    return Plan(f"rope_{precision}", parts[0] * parts[1], tiling)
