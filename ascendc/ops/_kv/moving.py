"""The tiling of moves between rows and pages: `move_tiling.h`."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from .arrays import BLOCK, PAGE, share

NOTHING = bytes(12 * 4)  # of a side without channels


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


def ub_bytes(columns: int) -> int:
    """Of a tile of so many blocks a token: rows an odd number of blocks apart, and fractals, twice."""
    return 2 * PAGE * BLOCK * ((columns | 1) + columns)


def most_columns(ub: int) -> int:
    """The widest tile that fits a UB of so many bytes."""
    columns = ub // (4 * PAGE * BLOCK)
    return columns if ub_bytes(columns) <= ub else columns - 1


def tile_of(move: Move, columns: int) -> tuple[int, int]:
    """(heads, blocks of each) of a tile of at most `columns` blocks a token."""
    if move.head_blocks > columns:
        return 1, columns
    return min(move.heads, columns // move.head_blocks), move.head_blocks


def tiles_of(move: Move, columns: int) -> int:
    """Tiles of a token's row."""
    heads, blocks = tile_of(move, columns)
    if move.head_blocks > blocks:
        return move.heads * -(-move.head_blocks // blocks)
    return -(-move.heads // heads)


def tiling(move: Move, columns: int, parts: tuple[int, int]) -> bytes:
    """The struct of a launch on parts[0] x parts[1] cores."""
    *sizes, nz = astuple(move)
    return struct.pack("<12i", *sizes, int(nz), *tile_of(move, columns), *parts)


def parts_of(move: Move, columns: int, cores: int) -> tuple[int, int]:
    """Cores along the tokens, and along the tiles of a row."""
    return share(move.tokens, tiles_of(move, columns), cores)
