"""Host side of the AscendC silu_mul: arrays checked, the kernel launched on the twin. Empty cases never reach it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import as_array, span, strides
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
    """y [T,W/2] from gate_up [T,W]; ValueError for arrays that do not fit together."""
    x, y = as_array(tensors["gate_up"]), as_array(tensors["y"])
    if x.ndim != 2 or y.ndim != 2 or x.shape != (y.shape[0], 2 * y.shape[1]):
        raise ValueError(f"gate_up {x.shape} and y {y.shape} do not fit together")
    if y.size == 0:
        return runner.empty_result(soc)
    found = Launch(y.shape[0], y.shape[1], y.itemsize, *strides("gate_up", x), *strides("y", y))
    return _run(
        [span("gate_up", x), span("y", y)], found, precision, config, soc, lib_path, **options
    )


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
    arguments = [Buffer.unbacked("gate_up", 2 * size), Buffer.unbacked("y", size)]
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
    ready = plan(found, precision, config["tile"], soc, config.get("cores", 0))
    return runner.run(
        lib_path, ready.kernel, ready.block_dim, arguments, ready.tiling, soc, **options
    )
