"""Tiles and tilings that the KV kernels share: moves between rows and pages, and what an Encoder takes of UB.

Standard library only: a bundle carries this module beside the kernels.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

PAGE = 16  # tokens
PAGE_ALIGN = 512  # bytes
BLOCK = 32  # bytes of a block of UB
VECTOR_CORES = 2  # of each cube core
MAX_ROWS = 128  # of a tile: a vector and its head each
MAX_WIDTH = 2040  # fp32 elements of a token: strides of a repeat count at most 255 blocks
NOTHING = bytes(12 * 4)  # the tiling of a side without channels
_FLOATS, _WORDS, _LANES, _EIGHT = 64, 128, 16, 8


@dataclass(frozen=True, slots=True)
class Plan:
    """A launch: the kernel's name, its blocks, its tiling bytes, and bytes of workspace it needs."""

    kernel: str
    block_dim: int
    tiling: bytes
    workspace: int = 0


def share(units: int, tiles: int, cores: int) -> tuple[int, int]:
    """How many cores work on different `units`, and how many on different `tiles` of the same ones."""
    parts = max(1, min(cores, units))
    return parts, max(1, min(tiles, cores // parts))


def round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def row_elements(dim: int, four: bool) -> int:
    """fp32 elements of a head's row: whole where 32 divides it, else padded, quarter by quarter for 4 bits."""
    if dim % BLOCK == 0 or not four:
        return round_up(dim, BLOCK)
    return 4 * round_up(dim // 4, _LANES)


@dataclass(frozen=True, slots=True)
class Tile:
    """Elements of a tile and of one token of it, and its rows."""

    count: int
    width: int
    rows: int


def encoder_bytes(tile: Tile, element: int, rows: int, slots: int) -> int:
    """UB of an Encoder of floats of `element` bytes for `rows` rows at most."""
    wide = round_up(tile.width, _WORDS)
    most = max(MAX_ROWS, wide)
    eights = round_up(rows, _EIGHT) * _EIGHT * 4
    total = slots * tile.count * element + 4 * max(tile.count, rows * _FLOATS)
    total += 4 * tile.count if element != 4 else 0
    total += slots * (4 * MAX_ROWS + 2 * 2 * most)
    spread = 2 * round_up(tile.count // 2, BLOCK)  # a block for each 64 elements
    return total + 2 * 4 * most + 3 * eights + spread + 4 * wide + round_up(most // 8, BLOCK)


def page_bytes(count: int) -> int:
    """Codes of a tile, rows an odd number of blocks apart."""
    return count + PAGE * BLOCK


def heads_that_fit(heads: int, row: int, elements: int) -> int:
    """Heads of a tile of 16 tokens: as many as `elements` and a tile's limits allow, but one."""
    if row == 0:
        return max(1, min(heads, MAX_ROWS // PAGE))
    most = min(heads, MAX_ROWS // PAGE, MAX_WIDTH // row, elements // (PAGE * row))
    return max(1, most)


@dataclass(frozen=True, slots=True)
class Move:
    """Sizes in bytes, strides from one to the next: rows' tokens and heads, pages, and within a page."""

    tokens: int
    heads: int
    head_bytes: int
    row_stride: int
    head_stride: int
    page_stride: int
    within_stride: int
    nz: bool

    @property
    def head_blocks(self) -> int:
        return -(-self.head_bytes // BLOCK)


def move_bytes(columns: int) -> int:
    """Of a tile of so many blocks a token: rows an odd number of blocks apart, and fractals, twice."""
    return 2 * PAGE * BLOCK * ((columns | 1) + columns)


def most_columns(ub: int) -> int:
    """The widest tile that fits a UB of so many bytes."""
    columns = ub // (4 * PAGE * BLOCK)
    return columns if move_bytes(columns) <= ub else columns - 1


def move_tile(move: Move, columns: int) -> tuple[int, int]:
    """(heads, blocks of each) of a tile of at most `columns` blocks a token."""
    if move.head_blocks > columns:
        return 1, columns
    return min(move.heads, columns // move.head_blocks), move.head_blocks


def move_tiles(move: Move, columns: int) -> int:
    """Tiles of a token's row."""
    heads, blocks = move_tile(move, columns)
    if move.head_blocks > blocks:
        return move.heads * -(-move.head_blocks // blocks)
    return -(-move.heads // heads)


def move_tiling(move: Move, columns: int, parts: tuple[int, int]) -> bytes:
    """The struct of a launch on parts[0] x parts[1] cores."""
    *sizes, nz = astuple(move)
    return struct.pack("<12i", *sizes, int(nz), *move_tile(move, columns), *parts)


def move_parts(move: Move, columns: int, cores: int) -> tuple[int, int]:
    """Cores along the tokens, and along the tiles of a row."""
    return share(move.tokens, move_tiles(move, columns), cores)
