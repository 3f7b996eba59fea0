"""Host side of the AscendC rmsnorm: arrays checked, the kernel launched on the twin. Empty cases never reach it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, as_array, span, strides
from .planning import Launch, plan

_ROWS = ("x", "residual", "y", "h")


def launch(
    tensors: Mapping[str, Any],
    *,
    eps: float,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """y [T,D] from x [T,D] and weight [D]; of a residual [T,D] also h [T,D].

    Raises ValueError for arrays that do not fit together.
    """
    arrays = {n: as_array(tensors[n]) for n in _ROWS if tensors.get(n) is not None}
    x, weight = arrays["x"], as_array(tensors["weight"])
    shapes = {n: a.shape for n, a in arrays.items()}
    if x.ndim != 2 or set(shapes.values()) != {x.shape} or weight.shape != (x.shape[1],):
        raise ValueError(f"{shapes} and weight {weight.shape} do not fit together")
    if ("residual" in arrays) != ("h" in arrays):
        raise ValueError("residual and h are given together or not at all")
    if x.size == 0:
        return runner.empty_result(soc)
    rows = {n: strides(n, arrays[n])[0] if n in arrays else 0 for n in _ROWS}
    found = Launch(
        *(x.shape[0], x.shape[1], x.itemsize, "h" in arrays, eps),
        *(rows["x"], rows["residual"], rows["y"], rows["h"]),
    )
    dense = Dense({"weight": weight})
    spans = {n: span(n, arrays[n]) if n in arrays else Buffer(n, 0, 0) for n in _ROWS}
    arguments = [
        *(spans["x"], dense.buffer("weight"), spans["residual"]),
        *(spans["y"], spans["h"]),
    ]
    return _run(arguments, found, precision, config, soc, lib_path, **options)


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
    row = found.cols * found.element
    size = found.rows * row
    more = size if found.residual else 0
    arguments = [
        *(Buffer.unbacked("x", size), Buffer.unbacked("weight", row)),
        *(Buffer.unbacked("residual", more), Buffer.unbacked("y", size)),
        Buffer.unbacked("h", more),
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
    ready = plan(found, precision, config["tile_t"], soc, config.get("cores", 0))
    return runner.run(
        lib_path, ready.kernel, ready.block_dim, arguments, ready.tiling, soc, **options
    )
