"""Host side of the AscendC quantize: arrays checked, the kernel launched on the twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, as_array, span, strides
from .planning import Launch, plan

# scales: the tensor that holds them.
SCALES = {
    "token": "token_scale",
    "channel": "channel_scale",
    "static_token": "given_token_scale",
    "static_channel": "given_channel_scale",
}
_LEAST, _MOST = np.float32(2.0**-126), np.float32(2.0**126)


def launch(
    tensors: Mapping[str, Any],
    *,
    scales: str,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """q [T,D] int8 from x [T,D] under scales [T] or [D], which are written where they are found.

    Raises ValueError for arrays that do not fit together and given scales outside 2**-126 to 2**126.
    """
    name = SCALES[scales]
    x, q, scale = (as_array(tensors[n]) for n in ("x", "q", name))
    token, found = scales.endswith("token"), not scales.startswith("static")
    if x.ndim != 2 or q.shape != x.shape or scale.shape != (x.shape[0 if token else 1],):
        raise ValueError(f"x {x.shape}, q {q.shape} and {name} {scale.shape} do not fit together")
    if not found:
        _check(name, scale)
    if x.size == 0:
        if found:  # of nothing
            scale.fill(1.0)
        return runner.empty_result(soc)
    of = Launch(
        x.shape[0], x.shape[1], x.itemsize, strides("x", x)[0], strides("q", q)[0], token, found
    )
    dense = Dense({name: scale})
    arguments = [span("x", x), dense.buffer(name, written=found), span("q", q)]
    result = _run(arguments, of, precision, config, soc, lib_path, **options)
    dense.write_back()
    return result


def count(
    of: Launch,
    precision: str,
    *,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Issue the instructions of a dense launch without its data."""
    size = of.rows * of.cols
    arguments = [
        Buffer.unbacked("x", size * of.element),
        Buffer.unbacked("scale", 4 * (of.rows if of.token else of.cols)),
        Buffer.unbacked("q", size),
    ]
    return _run(arguments, of, precision, config, soc, lib_path, skip_data=True, **options)


def _check(name: str, scale: np.ndarray) -> None:
    wrong = np.flatnonzero(~((scale >= _LEAST) & (scale <= _MOST)))
    if wrong.size:
        raise ValueError(f"{name}[{wrong[0]}] is {scale[wrong[0]]}; accepted: 2**-126 to 2**126")


def _run(
    arguments: list[Buffer],
    of: Launch,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    ready = plan(of, precision, config["tile"], soc, config.get("cores", 0))
    return runner.run(
        lib_path, ready.kernel, ready.block_dim, arguments, ready.tiling, soc, **options
    )
