"""Host side of the AscendC nz_kv: arrays checked, the kernel launched on the twin. Empty cases never reach it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, as_array, page_strides, span, token_strides
from .._kv.checks import check_slots
from .._kv.planning import PAGE, Move
from .planning import plan


def launch(
    tensors: Mapping[str, Any],
    *,
    write: bool,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Move x [T,HKV,D] to pages [P,HKV,ceil(D/C0),16,C0] by slots [T], or read y back.

    Raises ValueError for slots that do not exist or stand twice, and arrays that do not fit together.
    """
    name = "x" if write else "y"
    rows, pages, slots = (as_array(tensors[n]) for n in (name, "pages", "slots"))
    tokens, heads, dim = rows.shape
    lanes = 32 // rows.itemsize
    if pages.shape[1:] != (heads, -(-dim // lanes), PAGE, lanes) or slots.shape != (tokens,):
        raise ValueError(
            f"{name} {rows.shape}, slots {slots.shape} and pages {pages.shape} do not fit together"
        )
    check_slots(slots, pages.shape[0], unique=write)
    page, head = page_strides("pages", pages)
    if rows.size == 0:
        return runner.empty_result(soc)
    if pages.size == 0 and not write:
        rows[...] = 0
    if pages.size == 0:
        return runner.empty_result(soc)
    size = rows.itemsize
    row, row_head = token_strides(name, rows)
    move = Move(tokens, heads, dim * size, row * size, row_head * size, page, head, True)
    dense = Dense({"slots": slots})
    arguments = [span(name, rows), dense.buffer("slots"), span("pages", pages)]
    return _run(arguments, move, write, config, soc, lib_path, **options)


def count(
    move: Move,
    pages: int,
    slots: Any,
    *,
    write: bool,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Issue the instructions of a move by `slots` without its data."""
    arguments = [
        Buffer.unbacked("x" if write else "y", move.tokens * move.row_stride),
        Buffer.of("slots", slots),
        Buffer.unbacked("pages", pages * move.page_stride),
    ]
    return _run(arguments, move, write, config, soc, lib_path, skip_data=True, **options)


def _run(
    arguments: list[Buffer],
    move: Move,
    write: bool,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    ready = plan(move, write, config["tile_blocks"], soc, config.get("cores", 0))
    return runner.run(
        lib_path, ready.kernel, ready.block_dim, arguments, ready.tiling, soc, **options
    )
