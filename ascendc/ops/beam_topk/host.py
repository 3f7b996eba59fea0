"""Host side of the AscendC beam_topk: arrays checked, the kernel launched on the twin. Empty cases never reach it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, as_array, span, strides
from .._kv.planning import Plan
from .planning import Launch, plan, survivors


def launch(
    tensors: Mapping[str, Any],
    *,
    temperature: float,
    whole_row: bool,
    invariant: bool,
    coded: bool,
    eos: int | None,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """ids and probs [B,K] of logits [B,V], of codes with row_max [B]; with eos, a beam step.

    A beam step writes next_beam, next_id and next_score [G,K] of scores and finished [G,W]. `coded`: floats are
    ranked by codes first. Raises ValueError for arrays that do not fit together, and for more results than logits.
    """
    logits = as_array(tensors["logits"])
    outputs = ("ids", "probs") if eos is None else ("next_beam", "next_score", "next_id")
    found = {name: as_array(tensors[name]) for name in outputs}
    first = found[outputs[0]]
    if logits.ndim != 2 or first.ndim != 2 or {a.shape for a in found.values()} != {first.shape}:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in found.items())
        raise ValueError(f"logits {logits.shape}, {shapes} do not fit together")
    rows, columns = logits.shape
    results = first.shape[1]
    beams = 0 if eos is None else _beams(tensors, rows, first.shape[0])
    groups = rows // beams if beams else rows
    if first.shape[0] != groups:
        raise ValueError(
            f"logits {logits.shape} and {outputs[0]} {first.shape} do not fit together"
        )
    most = columns * max(beams, 1)
    if results > most and rows:
        raise ValueError(
            f"{outputs[0]} has {results} results of {most} logits; accepted: up to {most}"
        )
    if eos is not None and rows and not 0 <= eos < columns:
        raise ValueError(f"eos={eos}; accepted: a token of the {columns} logits of a row")
    given = tensors.get("row_max")
    if (precision == "int8") != (given is not None):
        raise ValueError("row_max goes with logits of int8 codes, and they with it")
    if given is not None and as_array(given).shape != (rows,):
        raise ValueError(f"row_max has shape {as_array(given).shape}; accepted: ({rows},)")
    if rows == 0 or results == 0:
        return runner.empty_result(soc)
    k = min(results, columns)
    kept = survivors(results, columns) if coded else k
    step = (beams, results, eos) if eos is not None else (0, 0, 0)
    work = Launch(
        *(rows, columns, k, kept, strides("logits", logits)[0], logits.itemsize),
        temperature,
        whole_row,
        invariant,
        coded,
        *step,
    )
    ready = plan(work, precision, config["tile_v"], soc, config.get("cores", 0))
    inputs = ("row_max", "scores", "finished")
    dense = Dense({name: tensors.get(name) for name in (*inputs, *outputs)})
    arguments = [
        span("logits", logits),
        *(dense.buffer(name) for name in inputs),
        *(dense.buffer(name, written=True) for name in outputs),
        *([Buffer("tokens", 0, 0)] if eos is None else []),
    ]
    workspace = (
        Buffer.of("workspace", np.zeros(ready.workspace, np.int8)) if ready.workspace else None
    )
    result = _run(arguments, workspace, ready, soc, lib_path, **options)
    dense.write_back()
    return result


def _beams(tensors: Mapping[str, Any], rows: int, groups: int) -> int:
    """Beams of a group."""
    scores, finished = as_array(tensors["scores"]), as_array(tensors["finished"])
    if scores.ndim != 2 or scores.shape != finished.shape or scores.size != rows:
        raise ValueError(
            f"scores {scores.shape} and finished {finished.shape} are not of the {rows} rows of logits"
        )
    if scores.shape[0] != groups:
        raise ValueError(f"scores has {scores.shape[0]} groups, next_beam has {groups}")
    return int(scores.shape[1])


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
    groups = found.rows // found.beams if found.beams else 0
    results = (groups * found.results if found.beams else found.rows * found.k) * 4
    given = np.zeros(found.rows, np.float32)
    return [
        Buffer.unbacked("logits", found.rows * found.row * found.element),
        Buffer.of("row_max", given if found.element == 1 else None),
        Buffer.of("scores", given if found.beams else None),
        Buffer.of("finished", given.astype(np.int8) if found.beams else None),
        Buffer.unbacked("ids", results),
        Buffer.unbacked("probs", results),
        Buffer.unbacked("tokens", results if found.beams else 0),
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
