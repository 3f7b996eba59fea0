"""Tilings of kv_residual: `kv_residual_tiling.h`, and the UB that its two kernels take. Standard library only."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ...soc import find
from .._kv.planning import (
    BLOCK,
    MAX_ROWS,
    MAX_WIDTH,
    PAGE,
    VECTOR_CORES,
    Plan,
    Tile,
    encoder_bytes,
    heads_that_fit,
    page_bytes,
    round_up,
)

FORMATS: Mapping[str, int] = {"c8s": 1, "c8d": 2, "kv4_value": 3, "kv4_key": 4}
_MASK_HEADS = 32  # of a tile, in the workspace
_LANES = 16
_BATCH_ROWS, _BATCH_ELEMENTS = 16, 2048  # selected vectors worked on at once, at most


@dataclass(frozen=True, slots=True)
class Problem:
    """One launch: pages, heads, channels, format, and bytes of an element of x or y."""

    pages: int
    heads: int
    dim: int
    kv: str
    e3m0: bool
    nz: bool
    write: bool
    element: int

    @property
    def four(self) -> bool:
        return self.kv.startswith("kv4")

    @property
    def row(self) -> int:
        """fp32 elements of a head's row in UB."""
        if self.dim % BLOCK == 0:
            return self.dim
        return 4 * round_up(self.dim // 4, _LANES if self.four else BLOCK)

    @property
    def lanes(self) -> int:
        """Lanes of a vector's nibbles, padded."""
        return round_up(self.dim // 4, _LANES)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Heads of a tile, tiles in UB, selected vectors of a batch, and blocks launched."""

    tile_heads: int
    slots: int
    batch: int
    blocks: int
    tiles: int


def ub_bytes(p: Problem, heads: int, slots: int, batch: int) -> int:
    """UB of a launch with tiles of `heads` heads."""
    rows, width = PAGE * heads, heads * p.row
    tile = Tile(PAGE * width, width, rows)
    return _write_bytes(p, tile, slots, batch) if p.write else _read_bytes(p, tile, slots, batch)


def _write_bytes(p: Problem, tile: Tile, slots: int, batch: int) -> int:
    codes = page_bytes(tile.count)
    total = encoder_bytes(tile, p.element, tile.rows, slots)
    total += 4 * tile.count if p.element == 4 else 0
    total += 2 * max(tile.count, 4 * tile.rows * p.lanes) + (codes if p.nz else 0)
    total += slots * (codes + 2 * tile.rows * BLOCK + 4 * tile.width + 6 * 2 * _MASK_HEADS)
    return total + batch * (p.row * (1 + p.element) + 2 * p.lanes) + 2 * 4 * MAX_ROWS + 4 * BLOCK


def _read_bytes(p: Problem, tile: Tile, slots: int, batch: int) -> int:
    codes, numbers = page_bytes(tile.count), PAGE * round_up(tile.rows // PAGE, _LANES)
    total = slots * (codes + tile.count * p.element + 8 * tile.width + 8 * numbers)
    total += (codes if p.nz else 0) + 4 * tile.count + 2 * max(tile.count, 4 * tile.rows * p.lanes)
    total += 8 * max(tile.width, numbers) + 2 * BLOCK * numbers
    return total + batch * (10 * p.lanes + p.row * (4 + p.element)) + 4 * BLOCK


def batch_of(p: Problem, heads: int) -> int:
    """Vectors of a batch: two batches fit in a tile."""
    return max(1, min(_BATCH_ROWS, _BATCH_ELEMENTS // max(p.row, 1), PAGE * heads // 2))


def tiles_of(p: Problem, elements: int, ub: int, cores: int) -> Tiles | str:
    """The tiles of a launch, or why there are none; `elements` is the config's tile."""
    for heads in range(heads_that_fit(p.heads, p.row, elements), 0, -1):
        for slots in (2, 1) if heads == 1 else (2,):
            batch = batch_of(p, heads)
            if heads * p.row <= MAX_WIDTH and ub_bytes(p, heads, slots, batch) <= ub:
                tiles = -(-p.heads // heads)
                return Tiles(heads, slots, batch, max(1, min(cores, p.pages * tiles)), tiles)
    need = ub_bytes(p, 1, 1, 1)
    return f"D={p.dim}: 16 tokens of a head take {need} bytes of UB, which has {ub}"


def workspace_bytes(p: Problem, chosen: Tiles) -> int:
    """Masks and sums, and a dense tile of codes a core."""
    masks = 4 * (p.pages * chosen.tiles * 2 * _MASK_HEADS + chosen.blocks * 8)
    return masks + chosen.blocks * round_up(PAGE * chosen.tile_heads * p.dim, BLOCK)


def plan(
    p: Problem,
    strides: tuple[int, int, int],
    page_strides: tuple[int, int],
    rows: tuple[int, int],
    precision: str,
    elements: int,
    soc: str,
    cores: int = 0,
) -> Plan:
    """A launch for x or y of `precision` on at most `cores` vector cores (0: all).

    `strides`: elements between pages, tokens and heads of x or y; `page_strides`: bytes between pages, and
    within one along its first dim; `rows` of pool and fpool; `elements` is the tile. Raises ValueError
    where 16 tokens of a head do not fit UB.
    """
    part = find(soc)
    chosen = tiles_of(p, elements, part.ub, cores or VECTOR_CORES * part.cube_cores)
    if isinstance(chosen, str):
        raise ValueError(chosen)
    fields = [p.pages, p.heads, p.dim, FORMATS[p.kv], int(p.e3m0), int(p.nz)]
    fields += [*strides, *page_strides, *rows]
    fields += [chosen.tile_heads, chosen.slots, chosen.batch, chosen.blocks]
    name = f"kv_residual_{'write' if p.write else 'read'}_{precision}"
    return Plan(name, chosen.blocks, struct.pack("<17i", *fields), workspace_bytes(p, chosen))
