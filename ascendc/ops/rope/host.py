"""Host side of the AscendC rope: arrays checked, the kernel launched on the twin. Empty cases never reach it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, as_array, span, strides, token_strides
from .planning import Launch, plan


def launch(
    tensors: Mapping[str, Any],
    *,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """y [T,H,D] from x, positions [T] and cos_sin [MAXPOS,ROT], pairs i and i + ROT/2.

    Raises ValueError for positions outside the table and arrays that do not fit together.
    """
    x, positions, table, y = (as_array(tensors[n]) for n in ("x", "positions", "cos_sin", "y"))
    tokens, heads, channels = x.shape
    turned = table.shape[1]
    if y.shape != x.shape or positions.shape != (tokens,) or turned % 2 or turned > channels:
        raise ValueError(
            f"x {x.shape}, positions {positions.shape}, cos_sin {table.shape} and y {y.shape} do not fit together"
        )
    wrong = np.flatnonzero((positions < 0) | (positions >= table.shape[0]))
    if wrong.size:
        raise ValueError(
            f"positions[{wrong[0]}] is {positions[wrong[0]]}; accepted: 0 to {table.shape[0] - 1}"
        )
    if x.size == 0:
        return runner.empty_result(soc)
    row = strides("cos_sin", table)[0] if turned else 0
    found = Launch(
        *(tokens, heads, channels, turned, x.itemsize),
        *(token_strides("x", x), token_strides("y", y), row),
    )
    dense = Dense({"positions": positions})
    arguments = [span("x", x), dense.buffer("positions"), span("cos_sin", table), span("y", y)]
    return _run(arguments, found, precision, config, soc, lib_path, **options)


def count(
    found: Launch,
    rows: int,
    precision: str,
    *,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Issue the instructions of a launch over a table of `rows` without its data."""
    size = found.tokens * found.heads * found.channels * found.element
    arguments = [
        Buffer.unbacked("x", size),
        Buffer.of("positions", np.arange(found.tokens, dtype=np.int32) % max(1, rows)),
        Buffer.unbacked("cos_sin", max(1, rows) * found.turned * 4),
        Buffer.unbacked("y", size),
    ]
    return _run(arguments, found, precision, config, soc, lib_path, skip_data=True, **options)


def _run(
    arguments: list[Buffer],
    found: Launch,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    ready = plan(found, precision, config["tile_heads"], soc, config.get("cores", 0))
    return runner.run(
        lib_path, ready.kernel, ready.block_dim, arguments, ready.tiling, soc, **options
    )
