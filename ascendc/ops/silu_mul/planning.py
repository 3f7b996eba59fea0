"""Tilings of silu_mul: `silu_mul_tiling.h`. Standard library only."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ...soc import find
from .._kv.planning import VECTOR_CORES, Plan, share
from .._rows.planning import Tile, tile


@dataclass(frozen=True, slots=True)
class Launch:
    """Sizes, bytes of an element, and elements from one row to the next."""

    rows: int
    cols: int
    element: int
    x_row: int
    y_row: int


def ub_bytes(element: int, of: Tile) -> int:
    """Bytes of UB that a tile takes."""
    wide = 4 if element == 4 else 12
    return of.rows * of.pitch * (6 * element + wide)


def plan(launch: Launch, precision: str, wanted: int, soc: str, cores: int = 0) -> Plan:
    """A launch on at most `cores` vector cores (0: all) in tiles of at most `wanted` elements."""
    part = find(soc)
    cores = cores or VECTOR_CORES * part.cube_cores
    found = tile(
        launch.rows,
        launch.cols,
        wanted,
        part.ub,
        lambda of: ub_bytes(launch.element, of),
        cores,
    )
    assert found is not None, "a tile of one block fits"
    parts = share(-(-launch.rows // found.rows), -(-launch.cols // found.cols), cores)
    tiling = struct.pack(
        "<9i",
        *(launch.rows, launch.cols, launch.x_row, launch.y_row),
        *(found.rows, found.cols, found.pitch, *parts),
    )
    return Plan(f"silu_mul_{precision}", parts[0] * parts[1], tiling)
