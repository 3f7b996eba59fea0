"""Tilings of kv_write: `kv_write_tiling.h`. Standard library only."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ...soc import find
from .._kv.planning import (
    BLOCK,
    MAX_ROWS,
    MAX_WIDTH,
    NOTHING,
    PAGE,
    VECTOR_CORES,
    Move,
    Plan,
    Tile,
    encoder_bytes,
    heads_that_fit,
    most_columns,
    move_parts,
    move_tiles,
    move_tiling,
    page_bytes,
    row_elements,
    share,
)

FORMATS: Mapping[str, int] = {"c8s": 1, "c8d": 2, "kv4": 3}


@dataclass(frozen=True, slots=True)
class Side:
    """Keys or values: channels, elements from token to token and head to head, bytes of the pages."""

    dim: int
    token_stride: int
    head_stride: int
    page_stride: int
    within_stride: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch: tokens, heads, format, the two sides, and bytes of an element."""

    tokens: int
    heads: int
    kv: str
    nz: bool
    element: int
    sides: tuple[Side, Side]


def ub_bytes(tile: Tile, element: int, nz: bool) -> int:
    """UB of a quantising kernel."""
    codes = page_bytes(tile.count)
    spread = 2 * 2 * MAX_ROWS * BLOCK
    return encoder_bytes(tile, element, MAX_ROWS, 2) + (3 if nz else 2) * codes + spread


def heads_of(dim: int, heads: int, kv: str, elements: int) -> int:
    """Heads of a side's tile."""
    return heads_that_fit(heads, row_elements(dim, kv == "kv4"), elements)


def tile_of(dims: tuple[int, int], heads: int, kv: str, elements: int) -> Tile:
    """What both sides' tiles fit in."""
    widths = [heads_of(d, heads, kv, elements) * row_elements(d, kv == "kv4") for d in dims]
    return Tile(PAGE * max(widths), max(widths), MAX_ROWS)


def too_large(
    dims: tuple[int, int], heads: int, kv: str, element: int, elements: int, ub: int
) -> str | None:
    """Why the tiles do not fit UB, or None; `elements` is the config's tile."""
    tile = tile_of(dims, heads, kv, elements)
    if tile.width > MAX_WIDTH or ub_bytes(tile, element, True) > ub:
        return (
            f"DK={dims[0]}, DV={dims[1]} with tiles of {tile.count} elements; accepted with kv={kv}: tiles "
            f"that take up to {ub} bytes of UB, one of 16 tokens of a head at least"
        )
    return None


def columns_of(element: int, elements: int, ub: int) -> int:
    """Blocks of a token in a tile of floats that are only moved."""
    return max(1, min(most_columns(ub), elements * element // (PAGE * BLOCK)))


def plan(launch: Launch, precision: str, elements: int, soc: str, cores: int = 0) -> Plan:
    """A launch for k and v of `precision` on at most `cores` vector cores (0: all).

    `elements` is the tile: of 16 tokens of some heads, one at least. Raises ValueError where that does not fit UB.
    """
    part = find(soc)
    cores = cores or VECTOR_CORES * part.cube_cores
    if launch.kv == "float":
        return _moving(launch, elements, cores, part.ub)
    dims = (launch.sides[0].dim, launch.sides[1].dim)
    reason = too_large(dims, launch.heads, launch.kv, launch.element, elements, part.ub)
    if reason:
        raise ValueError(reason)
    return _quantising(launch, precision, elements, cores)


def _quantising(launch: Launch, precision: str, elements: int, cores: int) -> Plan:
    dims = (launch.sides[0].dim, launch.sides[1].dim)
    tile = tile_of(dims, launch.heads, launch.kv, elements)
    heads = [heads_of(d, launch.heads, launch.kv, elements) for d in dims]
    parts = share(launch.tokens, max(-(-launch.heads // h) for h in heads), cores)
    fields = [launch.tokens, launch.heads, FORMATS[launch.kv], int(launch.nz)]
    fields += [tile.count, tile.width, *parts]
    for side, of in zip(launch.sides, heads, strict=True):
        fields += [side.dim, side.token_stride, side.head_stride]
        fields += [side.page_stride, side.within_stride, of]
    return Plan(f"kv_write_{precision}", parts[0] * parts[1], struct.pack("<20i", *fields))


def _moving(launch: Launch, elements: int, cores: int, ub: int) -> Plan:
    columns = columns_of(launch.element, elements, ub)
    moves = [
        Move(
            launch.tokens,
            launch.heads,
            side.dim * launch.element,
            side.token_stride * launch.element,
            side.head_stride * launch.element,
            side.page_stride,
            side.within_stride,
            launch.nz,
        )
        for side in launch.sides
    ]
    there = [move for move in moves if move.head_bytes]
    parts = move_parts(max(there, key=lambda move: move_tiles(move, columns)), columns, cores)
    tilings = [move_tiling(move, columns, parts) if move.head_bytes else NOTHING for move in moves]
    return Plan("kv_write_float", parts[0] * parts[1], b"".join(tilings))
