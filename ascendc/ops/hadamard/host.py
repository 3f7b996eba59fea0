"""Host side of the AscendC hadamard: arrays checked, the kernel launched on the twin. Empty cases never reach it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import as_array, span, strides
from .matrices import WORDS, parts, signs
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
    """y [T,D] from x [T,D]; ValueError for arrays that do not fit together and D that the kernel does not do."""
    x, y = as_array(tensors["x"]), as_array(tensors["y"])
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"x {x.shape} and y {y.shape} do not fit together")
    if x.size == 0:
        return runner.empty_result(soc)
    found = Launch(x.shape[0], x.shape[1], x.itemsize, *strides("x", x), *strides("y", y))
    return _run(span("x", x), span("y", y), found, precision, config, soc, lib_path, **options)


def count(
    found: Launch,
    precision: str,
    *,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Issue the instructions of a dense launch without its data."""
    size = found.rows * found.cols * found.element
    x, y = Buffer.unbacked("x", size), Buffer.unbacked("y", size)
    return _run(x, y, found, precision, config, soc, lib_path, skip_data=True, **options)


def _run(
    x: Buffer,
    y: Buffer,
    found: Launch,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    ready, segments = plan(found, precision, config["tile_t"], soc, config.get("cores", 0))
    m, _ = parts(found.cols) or (1, 0)
    bits = np.array(signs(m, segments // m), dtype=np.uint32)
    minus = bits.reshape(segments, WORDS, 1) >> np.arange(32, dtype=np.uint32) & 1
    # Column by column, each sign as a block of UB.
    columns = 1 - 2 * minus.reshape(segments, -1)[:, :segments].T.astype(np.float32)
    blocks = np.repeat(columns.reshape(-1), 8)
    arguments = [x, Buffer.of("signs", bits.view(np.int32)), Buffer.of("blocks", blocks), y]
    return runner.run(
        lib_path, ready.kernel, ready.block_dim, arguments, ready.tiling, soc, **options
    )
