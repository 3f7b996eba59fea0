"""Host side of the AscendC gemm_w4: arrays checked, the kernel launched on the twin.

M or N of 0 never reach the kernel; K of 0 writes the bias, or zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, as_array, span, strides
from .._kv.planning import Plan
from .planning import BYTES, Config, Dims, Kind, plan

_NAMES = ("a", "b", "scale", "zero", "minimum", "c")


def launch(
    tensors: Mapping[str, Any],
    kind: Kind,
    *,
    config: Config,
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """c [M,N] of a [M,K], words b [N, ceil(K/8)] and scale, zero or minimum [N,G]; bias [N] optional.

    Raises ValueError for arrays that do not fit together and configs that do not run.
    """
    arrays = {n: as_array(tensors[n]) for n in _NAMES if tensors.get(n) is not None}
    bias = None if tensors.get("bias") is None else as_array(tensors["bias"])
    m, n, k = _sizes(arrays, kind, bias)
    if m == 0 or n == 0:
        return runner.empty_result(soc)
    if k == 0:
        arrays["c"][...] = 0 if bias is None else bias
        return runner.empty_result(soc)
    rows = {name: strides(name, arrays[name])[0] if name in arrays else 0 for name in _NAMES}
    dims = Dims(
        *(m, n, k, rows["a"], rows["b"], rows["c"], rows["scale"], rows["zero"], rows["minimum"])
    )
    ready = plan(dims, kind, config, soc)
    dense = Dense({"bias": tensors.get("bias")})
    spans = {
        name: span(name, arrays[name]) if name in arrays else Buffer(name, 0, 0) for name in _NAMES
    }
    workspace = np.zeros(ready.workspace, np.int8)
    arguments = [
        *(spans[name] for name in _NAMES[:-1]),
        *(dense.buffer("bias"), spans["c"], Buffer.of("workspace", workspace)),
    ]
    return _run(arguments, ready, soc, lib_path, **options)


def _sizes(
    arrays: Mapping[str, np.ndarray], kind: Kind, bias: np.ndarray | None
) -> tuple[int, int, int]:
    wanted = {"sym": set(), "asym": {"zero"}, "min": {"minimum"}}[kind.zero]
    given = set(arrays) & {"zero", "minimum"}
    if given != wanted:
        raise ValueError(
            f"zero={kind.zero} takes {', '.join(wanted) or 'neither zero nor minimum'}, given: "
            f"{', '.join(sorted(given)) or 'none'}"
        )
    a, b, c = arrays["a"], arrays["b"], arrays["c"]
    shapes = {name: array.shape for name, array in arrays.items()}
    if any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"{shapes} do not have two dims each")
    (m, k), n = a.shape, b.shape[0]
    groups = {array.shape for name, array in arrays.items() if name not in ("a", "b", "c")}
    good = b.shape[1] == -(-k // 8) and c.shape == (m, n) and groups == {(n, -(-k // kind.group))}
    if not good or (bias is not None and bias.shape != (n,)):
        raise ValueError(f"{shapes} with groups of {kind.group} do not fit together")
    return m, n, k


def count(
    dims: Dims, kind: Kind, *, config: Config, soc: str, lib_path: Any, **options: Any
) -> TwinResult:
    """Issue the instructions of a dense launch without its data."""
    ready = plan(dims, kind, config, soc)
    shared = dims.n * -(-dims.k // kind.group)
    sizes = {
        "a": dims.m * dims.k * BYTES,
        "b": dims.n * -(-dims.k // 8) * 4,
        "scale": shared * 2,
        "zero": shared if kind.zero == "asym" else 0,
        "minimum": shared * 2 if kind.zero == "min" else 0,
        "bias": dims.n * BYTES if kind.bias else 0,
        "c": dims.m * dims.n * BYTES,
        "workspace": ready.workspace,
    }
    arguments = [Buffer.unbacked(name, size) for name, size in sizes.items()]
    return _run(arguments, ready, soc, lib_path, skip_data=True, **options)


def _run(
    arguments: list[Buffer], ready: Plan, soc: str, lib_path: Any, **options: Any
) -> TwinResult:
    return runner.run(
        lib_path, ready.kernel, ready.block_dim, arguments, ready.tiling, soc, **options
    )
