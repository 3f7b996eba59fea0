"""The tiling of an nz_kv launch: `../_kv/move_tiling.h`. Standard library only."""

from __future__ import annotations

from ...soc import find
from .._kv.planning import VECTOR_CORES, Move, Plan, most_columns, move_parts, move_tiling

__all__ = ["Move", "Plan", "plan"]


def plan(move: Move, write: bool, tile_blocks: int, soc: str, cores: int = 0) -> Plan:
    """A launch that writes pages from rows, or reads rows from pages, on at most `cores` vector cores (0: all).

    A tile is `tile_blocks` blocks of 32 bytes of each of 16 tokens. Raises ValueError where two do not fit UB.
    """
    part = find(soc)
    most = most_columns(part.ub)
    if not 1 <= tile_blocks <= most:
        raise ValueError(f"tile_blocks={tile_blocks}; accepted: 1..{most}, two tiles must fit UB")
    parts = move_parts(move, tile_blocks, cores or VECTOR_CORES * part.cube_cores)
    name = "nz_kv_write" if write else "nz_kv_read"
    return Plan(name, parts[0] * parts[1], move_tiling(move, tile_blocks, parts))
