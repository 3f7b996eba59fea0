"""Host side of the AscendC grouped_gemm: arrays and ends checked, the kernel launched on the twin.

Cases with a size of 0 never reach the kernel: without columns or rows there is nothing to write, without experts
zeros, without depth the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, span, strides
from .._kv.planning import Plan
from ..gemm.host import as_array, as_output, on_chip_bias, widened
from .planning import Dims, Kind, padded, plan

_SCALES = ("row_scale", "col_scale")


def launch(
    tensors: Mapping[str, Any],
    kind: Kind,
    *,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """c [T,N] of a [T,K], b [E,N,K] and ends [E]; bias [E,N], row_scale [T] and col_scale [E,N] where there are.

    Raises ValueError for arrays that do not fit together, ends that fall or leave the rows, and configs that
    do not run.
    """
    a, b, c, ends = (as_array(tensors[name]) for name in ("a", "b", "c", "ends"))
    bias = None if tensors.get("bias") is None else as_array(tensors["bias"])
    rows, experts, n, k = _sizes(a, b, c, ends, bias, tensors, kind)
    _check_ends(ends, rows)
    if rows == 0 or n == 0:
        return runner.empty_result(soc)
    if experts == 0 or k == 0:
        c[...] = 0
        _fill_bias(c, ends, None if bias is None else widened(bias), kind)
        return runner.empty_result(soc)
    b_step, ldb = strides("b", b)
    dims = Dims(rows, experts, n, k, strides("a", a)[0], ldb, strides("c", c)[0], b_step)
    ready = plan(dims, kind, config, soc)
    dense = Dense({"ends": ends, **{name: tensors.get(name) for name in _SCALES}})
    if bias is not None:
        bias = np.ascontiguousarray(bias) if kind.scaled else _cube_bias(bias, kind)
    arguments = [
        *(span("a", a), span("b", b), dense.buffer("ends"), Buffer.of("bias", bias)),
        *(dense.buffer(name) for name in _SCALES),
        *(span("c", c), Buffer.of("workspace", np.zeros(ready.workspace, np.int8))),
    ]
    return _run(arguments, ready, soc, lib_path, **options)


def _sizes(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    ends: np.ndarray,
    bias: np.ndarray | None,
    tensors: Mapping[str, Any],
    kind: Kind,
) -> tuple[int, int, int, int]:
    found = f"a {a.shape}, b {b.shape}, ends {ends.shape} and c {c.shape}"
    if a.ndim != 2 or b.ndim != 3 or c.ndim != 2 or ends.ndim != 1:
        raise ValueError(f"{found} do not have 2, 3, 1 and 2 dims")
    (rows, k), (experts, n, depth) = a.shape, b.shape
    if depth != k or c.shape != (rows, n) or ends.shape != (experts,):
        raise ValueError(f"{found} do not fit together")
    wanted = {"bias": (experts, n), "row_scale": (rows,), "col_scale": (experts, n)}
    given = {name: tensors.get(name) for name in _SCALES} | {"bias": bias}
    for name, value in given.items():
        if value is not None and as_array(value).shape != wanted[name]:
            raise ValueError(f"{name} has shape {as_array(value).shape}, it must be {wanted[name]}")
    if any((given[name] is not None) != kind.scaled for name in _SCALES):
        raise ValueError("row_scale and col_scale are given together with scale=row_col, else not")
    if (bias is not None) != kind.bias:
        raise ValueError(f"bias is {'not ' if bias is None else ''}given, the flag says otherwise")
    return rows, experts, n, k


def _check_ends(ends: np.ndarray, rows: int) -> None:
    before = 0
    for expert, end in enumerate(ends.tolist()):
        if not before <= end <= rows:
            raise ValueError(
                f"ends[{expert}] is {end}; accepted: from the end before it, {before}, to the {rows} rows of a"
            )
        before = end


def _fill_bias(c: np.ndarray, ends: np.ndarray, bias: np.ndarray | None, kind: Kind) -> None:
    if bias is None:
        return
    begin = 0
    for expert, end in enumerate(ends.tolist()):
        c[begin:end] = as_output(bias[expert], kind.gemm.output)
        begin = end


def _cube_bias(bias: np.ndarray, kind: Kind) -> np.ndarray:
    """Rows in the type of L0C, padded as the cube reads them."""
    return np.stack([on_chip_bias(row, kind.precision) for row in bias])


def count(
    dims: Dims,
    kind: Kind,
    ends: np.ndarray,
    *,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Issue the instructions of a dense launch without its data; `ends` says which tiles there are."""
    ready = plan(dims, kind, config, soc)
    of = Buffer.unbacked
    shared = dims.experts * dims.n * 4
    bias = shared if kind.scaled else dims.experts * padded(dims.n) * 4
    size = kind.gemm.input_bytes
    arguments = [
        *(of("a", dims.rows * dims.k * size), of("b", dims.experts * dims.n * dims.k * size)),
        *(Buffer.of("ends", ends), of("bias", bias * kind.bias)),
        *(of("row_scale", 4 * dims.rows * kind.scaled), of("col_scale", shared * kind.scaled)),
        *(of("c", dims.rows * dims.n * kind.gemm.output_bytes), of("workspace", ready.workspace)),
    ]
    return _run(arguments, ready, soc, lib_path, skip_data=True, **options)


def _run(
    arguments: list[Buffer], ready: Plan, soc: str, lib_path: Any, **options: Any
) -> TwinResult:
    return runner.run(
        lib_path, ready.kernel, ready.block_dim, arguments, ready.tiling, soc, **options
    )
