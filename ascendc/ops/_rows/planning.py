"""Tiles of a matrix's rows, as `rows.h` takes them. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .._kv.planning import BLOCK, round_up

MAX_ROWS = 248  # of a tile: repeats of an instruction, whole groups of eight
MAX_COLS = 8192  # of a tile: repeats over a row


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of a tile at most, and elements from one row to the next in UB."""

    rows: int
    cols: int
    pitch: int


def tile(
    rows: int, cols: int, wanted: int, ub: int, fits: Callable[[Tile], int], cores: int = 1
) -> Tile | None:
    """The largest tile of at most `wanted` elements that takes at most `ub` bytes by `fits`, or None.

    Whole rows, few enough that every core has some; pieces of a row where one is longer.
    """
    size = max(BLOCK, min(wanted, MAX_COLS))
    while size >= BLOCK:
        pitch = min(round_up(cols, BLOCK), size)
        most = max(1, min(size // pitch, MAX_ROWS, rows, -(-rows // cores)))
        found = Tile(most, min(cols, pitch), pitch)
        if fits(found) <= ub:
            return found
        size //= 2
    return None
