"""Tilings of hadamard: `hadamard_tiling.h`. Standard library only."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from ...soc import find
from .._kv.planning import BLOCK, VECTOR_CORES, Plan
from .._rows.planning import MAX_ROWS
from .matrices import parts

LEAST = 16  # elements of a segment: half of them fill whole blocks
_MAX_STRIDE = (
    2040  # fp32 elements of a row of several: strides of a repeat count at most 255 blocks
)
_LOAD = 1024  # elements of a row loaded at a time, where it does not fit at once
_MAX_OUTER = 64


@dataclass(frozen=True, slots=True)
class Launch:
    """Sizes, bytes of an element, and elements from one row to the next."""

    rows: int
    cols: int
    element: int
    x_row: int
    y_row: int


@dataclass(frozen=True, slots=True)
class Way:
    """Segments of a row, and whether their inner transform comes first; bits of a row follow from it."""

    outer: int
    inner_first: bool


def ub_bytes(launch: Launch, way: Way, rows: int, load: int) -> int:
    """UB that tiles of so many rows take."""
    whole = rows * launch.cols
    part = whole if way.inner_first else whole // way.outer
    buffers = (2 if way.inner_first else 3) * part + whole
    signs = BLOCK * way.outer**2 if way.inner_first and way.outer > 1 else 0
    return 2 * (load + part) * launch.element + 4 * buffers + 8 * BLOCK + signs


def way(launch: Launch, ub: int) -> Way | None:
    """How rows are done: whole where one fits, else in the fewest segments that fit; None if none do."""
    found = parts(launch.cols)
    if found is None:
        return None
    m, n = found
    load = min(launch.cols, _LOAD)
    whole = Way(m, True)
    inner = launch.cols // m
    if (
        inner >= LEAST
        and (m == 1 or inner <= _MAX_STRIDE)
        and ub_bytes(launch, whole, 1, load) <= ub
    ):
        return whole
    for more in range(n + 1):
        pieces = Way(m << more, False)
        if pieces.outer > _MAX_OUTER or launch.cols // pieces.outer < LEAST:
            return None
        if pieces.outer > 1 and ub_bytes(launch, pieces, 1, load) <= ub:
            return pieces
    return None


def tile_rows(launch: Launch, of: Way, wanted: int, cores: int, ub: int) -> int:
    """Rows of a tile: at most `wanted`, as many as fit, fewer where there are more cores than rows."""
    if not of.inner_first:
        return 1
    rows = min(wanted, MAX_ROWS, max(1, -(-launch.rows // cores)))
    while rows > 1 and ub_bytes(launch, of, rows, rows * launch.cols) > ub:
        rows -= 1
    return rows


def refused(launch: Launch, ub: int) -> str | None:
    """Why the kernel does not do such rows, or None."""
    if way(launch, ub) is None:
        return (
            f"D={launch.cols}; accepted: m * 2^n with m 1, 12, 20, 28 or 36, n from 4 on, that fit the {ub} "
            "bytes of UB as fp32"
        )
    return None


def plan(launch: Launch, precision: str, wanted: int, soc: str, cores: int = 0) -> tuple[Plan, int]:
    """A launch on at most `cores` vector cores (0: all), and segments of a row; ValueError where none is done."""
    part = find(soc)
    of = way(launch, part.ub)
    if of is None:
        raise ValueError(refused(launch, part.ub))
    cores = cores or VECTOR_CORES * part.cube_cores
    rows = tile_rows(launch, of, wanted, cores, part.ub)
    whole = ub_bytes(launch, of, rows, rows * launch.cols) <= part.ub
    load = rows * launch.cols if whole else min(launch.cols, _LOAD)
    inner = launch.cols // of.outer
    tiling = struct.pack(
        "<10if",
        *(launch.rows, launch.cols, launch.x_row, launch.y_row),
        *(of.outer, inner, inner.bit_length() - 1, rows, load, int(of.inner_first)),
        1.0 / math.sqrt(launch.cols),
    )
    blocks = min(cores, -(-launch.rows // rows))
    return Plan(f"hadamard_{precision}", blocks, tiling), of.outer
