"""Tilings of quantize: `quantize_tiling.h`. Standard library only."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ...soc import find
from .._kv.planning import BLOCK, VECTOR_CORES, Plan, round_up, share
from .._rows.planning import MAX_COLS, MAX_ROWS

_REPEAT = 64
_BURST = 128  # columns of a tile of channels at least, where there are as many


@dataclass(frozen=True, slots=True)
class Launch:
    """Sizes, bytes of an element, elements from one row to the next, the scales' axis and whether they are found."""

    rows: int
    cols: int
    element: int
    x_row: int
    q_row: int
    token: bool
    found: bool


def _coder_bytes(launch: Launch, count: int) -> int:
    return count * (2 * launch.element + 2 + 2)


def token_bytes(launch: Launch, rows: int, piece: int, pieces: int) -> int:
    """UB that tiles of tokens take."""
    count, groups = rows * piece, round_up(rows, _REPEAT)
    numbers = groups * (2 * BLOCK + 2 * 4) + round_up(groups // 8, BLOCK)
    return _coder_bytes(launch, count) + 4 * count * pieces + 2 * 4 * count + numbers


def channel_bytes(launch: Launch, rows: int, piece: int) -> int:
    """UB that tiles of channels take."""
    count, wide = rows * piece, round_up(piece, _REPEAT)
    return _coder_bytes(launch, count) + 2 * 4 * count + 2 * 4 * wide + round_up(wide // 8, BLOCK)


def token_tile(launch: Launch, wanted: int, cores: int, ub: int) -> tuple[int, int, int] | None:
    """(rows, columns of a piece, pieces) of about `wanted` elements, else pieces of one row; None if none fit."""
    pitch = round_up(launch.cols, BLOCK)
    rows = min(max(1, wanted // pitch), MAX_ROWS, max(1, -(-launch.rows // cores)))
    while rows and pitch <= MAX_COLS:
        if token_bytes(launch, rows, pitch, 1) <= ub:
            return rows, pitch, 1
        rows //= 2
    piece = MAX_COLS
    while piece >= _REPEAT:
        pieces = -(-launch.cols // piece)
        if token_bytes(launch, 1, piece, pieces) <= ub:
            return 1, piece, pieces
        piece //= 2
    return None


def channel_tile(launch: Launch, wanted: int, cores: int, ub: int) -> tuple[int, int, int]:
    """(rows, columns of a tile, tiles along the columns) of at most `wanted` elements."""
    piece = min(
        max(_BURST, round_up(-(-launch.cols // cores), BLOCK)), round_up(launch.cols, BLOCK)
    )
    piece = min(piece, 4 * _BURST)
    rows = max(1, min(wanted // piece, MAX_ROWS, launch.rows))
    while channel_bytes(launch, rows, piece) > ub:
        rows = max(1, rows // 2)
    return rows, piece, -(-launch.cols // piece)


def too_wide(launch: Launch, ub: int) -> str | None:
    """Why a row does not fit, or None."""
    if launch.token and launch.cols and token_tile(launch, 1, 1, ub) is None:
        return f"D={launch.cols}; accepted: rows that fit the {ub} bytes of UB as fp32"
    return None


def plan(launch: Launch, precision: str, wanted: int, soc: str, cores: int = 0) -> Plan:
    """A launch on at most `cores` vector cores (0: all); ValueError where a row does not fit."""
    part = find(soc)
    cores = cores or VECTOR_CORES * part.cube_cores
    if launch.token:
        found = token_tile(launch, wanted, cores, part.ub)
        if found is None:
            raise ValueError(too_wide(launch, part.ub))
        parts = min(cores, -(-launch.rows // found[0])), 1
    else:
        found = channel_tile(launch, wanted, cores, part.ub)
        # A channel's scale is found by one core.
        tiles = 1 if launch.found else -(-launch.rows // found[0])
        cols, rows = share(found[2], tiles, cores)
        parts = rows, cols
    tiling = struct.pack(
        "<10i",
        *(launch.rows, launch.cols, launch.x_row, launch.q_row, int(launch.found)),
        *(*found, *parts),
    )
    axis = "token" if launch.token else "channel"
    return Plan(f"quantize_{axis}_{precision}", parts[0] * parts[1], tiling)
