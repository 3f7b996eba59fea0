"""Tiles of the quantising kernels: shapes in UB and the bytes they take, as `encode.h` has them."""

from __future__ import annotations

from dataclasses import dataclass

from .arrays import BLOCK, PAGE

MAX_ROWS = 128  # of a tile: a vector and its head each
MAX_WIDTH = 2040  # fp32 elements of a token: strides of a repeat count at most 255 blocks
_FLOATS, _WORDS, _LANES, _EIGHT = 64, 128, 16, 8


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
