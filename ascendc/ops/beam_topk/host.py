"""Host side of the AscendC beam_topk: arrays checked, the kernel launched on the twin. Empty cases never reach it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, as_array, span, strides
from .._kv.planning import Plan
from .planning import Launch, plan


def launch(
    tensors: Mapping[str, Any],
    *,
    temperature: float,
    whole_row: bool,
    invariant: bool,
    kept: int | None,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """ids and probs [B,K] of logits [B,V], of codes with row_max [B].

    `kept`: how many survive by codes of floats, None where floats are ranked as they are.
    Raises ValueError for arrays that do not fit together, and for more results than logits.
    """
    logits, ids, probs = (as_array(tensors[name]) for name in ("logits", "ids", "probs"))
    if (
        logits.ndim != 2
        or ids.ndim != 2
        or ids.shape[0] != logits.shape[0]
        or ids.shape != probs.shape
    ):
        raise ValueError(
            f"logits {logits.shape}, ids {ids.shape} and probs {probs.shape} do not fit together"
        )
    rows, columns = logits.shape
    k = ids.shape[1]
    if k > columns:
        raise ValueError(
            f"ids has {k} results of a row of {columns} logits; accepted: up to {columns}"
        )
    given = tensors.get("row_max")
    if (precision == "int8") != (given is not None):
        raise ValueError("row_max goes with logits of int8 codes, and they with it")
    if given is not None and as_array(given).shape != (rows,):
        raise ValueError(f"row_max has shape {as_array(given).shape}; accepted: ({rows},)")
    if rows == 0 or k == 0:
        return runner.empty_result(soc)
    found = Launch(
        *(rows, columns, k, k if kept is None else kept),
        *(strides("logits", logits)[0], logits.itemsize),
        *(temperature, whole_row),
        invariant,
        coded=kept is not None,
    )
    ready = plan(found, precision, config["tile_v"], soc, config.get("cores", 0))
    dense = Dense({"row_max": given, "ids": tensors["ids"], "probs": tensors["probs"]})
    arguments = [
        span("logits", logits),
        dense.buffer("row_max"),
        dense.buffer("ids", written=True),
        dense.buffer("probs", written=True),
    ]
    workspace = (
        Buffer.of("workspace", np.zeros(ready.workspace, np.int8)) if ready.workspace else None
    )
    result = _run(arguments, workspace, ready, soc, lib_path, **options)
    dense.write_back()
    return result


def count(
    found: Launch,
    precision: str,
    *,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Issue the instructions of a launch without its data."""
    ready = plan(found, precision, config["tile_v"], soc, config.get("cores", 0))
    workspace = Buffer.unbacked("workspace", ready.workspace) if ready.workspace else None
    return _run(unbacked(found), workspace, ready, soc, lib_path, skip_data=True, **options)


def unbacked(found: Launch) -> list[Buffer]:
    """The arguments of a launch but the workspace, without data."""
    results = found.rows * found.k * 4
    return [
        Buffer.unbacked("logits", found.rows * found.row * found.element),
        Buffer.of("row_max", np.zeros(found.rows, np.float32) if found.element == 1 else None),
        Buffer.unbacked("ids", results),
        Buffer.unbacked("probs", results),
    ]


def _run(
    arguments: list[Buffer],
    workspace: Buffer | None,
    ready: Plan,
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    return runner.run(
        lib_path,
        ready.kernel,
        ready.block_dim,
        [*arguments, workspace or Buffer("workspace", 0, 0)],
        ready.tiling,
        soc,
        **options,
    )
