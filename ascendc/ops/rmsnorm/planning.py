"""Tilings of rmsnorm: `rmsnorm_tiling.h`. Standard library only."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ...soc import find
from .._kv.planning import BLOCK, VECTOR_CORES, Plan, round_up
from .._rows.planning import MAX_COLS, MAX_ROWS

_EIGHT, _REPEAT = 8, 64


@dataclass(frozen=True, slots=True)
class Launch:
    """Sizes, bytes of an element, and elements from one row to the next."""

    rows: int
    cols: int
    element: int
    residual: bool
    eps: float
    x_row: int
    residual_row: int
    y_row: int
    h_row: int


def ub_bytes(launch: Launch, rows: int, piece: int, pieces: int) -> int:
    """UB that tiles of so many rows in so many pieces take."""
    buffers = 8 if launch.residual else 4
    groups = round_up(rows, _EIGHT)
    numbers = 2 * 4 * round_up(groups, _REPEAT) + 2 * BLOCK * groups
    row = 4 * (rows + 1) * piece * pieces
    return rows * piece * (buffers * launch.element + 2 * 4) + row + numbers


def tile(launch: Launch, wanted: int, cores: int, ub: int) -> tuple[int, int, int] | None:
    """(rows, columns of a piece, pieces): at most `wanted` whole rows, else pieces of one; None if none fit."""
    pitch = round_up(launch.cols, BLOCK)
    rows = min(wanted, MAX_ROWS, max(1, -(-launch.rows // cores)))
    while rows and pitch <= MAX_COLS:
        if ub_bytes(launch, rows, pitch, 1) <= ub:
            return rows, pitch, 1
        rows //= 2
    piece = MAX_COLS
    while piece >= BLOCK:
        pieces = -(-launch.cols // piece)
        if ub_bytes(launch, 1, piece, pieces) <= ub:
            return 1, piece, pieces
        piece //= 2
    return None


def too_wide(launch: Launch, ub: int) -> str | None:
    """Why a row does not fit, or None."""
    if tile(launch, 1, 1, ub) is None:
        return f"D={launch.cols}; accepted: rows that fit the {ub} bytes of UB as fp32, with the weights"
    return None


def plan(launch: Launch, precision: str, wanted: int, soc: str, cores: int = 0) -> Plan:
    """A launch on at most `cores` vector cores (0: all); ValueError where a row does not fit."""
    part = find(soc)
    cores = cores or VECTOR_CORES * part.cube_cores
    found = tile(launch, wanted, cores, part.ub)
    if found is None:
        raise ValueError(too_wide(launch, part.ub))
    strides = (launch.x_row, launch.residual_row, launch.y_row, launch.h_row)
    tiling = struct.pack(
        "<10i2f",
        *(launch.rows, launch.cols, *strides, int(launch.residual), *found),
        *(launch.eps, 1.0 / launch.cols),
    )
    return Plan(f"rmsnorm_{precision}", min(cores, -(-launch.rows // found[0])), tiling)
