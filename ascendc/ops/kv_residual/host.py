"""Host side of the AscendC kv_residual: arrays checked, a kernel launched on the twin. Empty cases never reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, as_array, page_strides, span, strides
from .._kv.checks import check_both, check_pages, check_runs
from .._kv.planning import PAGE
from .planning import Problem, plan

_ARGUMENTS = (
    "page_ids",
    "select",
    "channel_scale",
    "used_before",
    "codes",
    "token_scale",
    "token_zero",
    "page_scale",
    "page_zero",
    "mask",
    "rank",
    "pool",
    "pool_scale",
    "fmask",
    "frank",
    "fpool",
    "used_after",
)
_INPUTS = ("page_ids", "select", "channel_scale", "used_before")


def launch(
    tensors: Mapping[str, Any],
    *,
    write: bool,
    kv: str,
    e3m0: bool,
    nz: bool,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Quantise x [N,16,HKV,D] into pages `page_ids`, or read y back; `kernels/kv_residual/spec.py` has the rest.

    `precision` is that of x and y. Raises ValueError for pages, selections and ranks that do not
    exist, and arrays that do not fit together.
    """
    name = "x" if write else "y"
    rows, codes = as_array(tensors[name]), as_array(tensors["codes"])
    pages, _, heads, dim = rows.shape
    problem = Problem(pages, heads, dim, kv, e3m0, nz, write, rows.itemsize)
    _check_codes(problem, codes)
    ids = as_array(tensors["page_ids"])
    check_pages(ids, codes.shape[0])
    pool, fpool = as_array(tensors["pool"]), as_array(tensors["fpool"])
    if write:
        _check_write(tensors)
    else:
        _check_read(tensors, ids, pool.shape[0], fpool.shape[0])
    if pages == 0 or heads == 0 or (dim == 0 and not write):
        if write:
            as_array(tensors["used_after"])[...] = as_array(tensors["used_before"])
        return runner.empty_result(soc)
    dense = Dense(tensors)

    def argument(of: str) -> Buffer:
        if of == "codes":
            return span(of, codes)
        return dense.buffer(of, written=write and of not in _INPUTS)

    result = _run(
        argument,
        span(name, rows),
        problem,
        _three(strides(name, rows)),
        page_strides("codes", codes),
        (pool.shape[0], fpool.shape[0]),
        precision,
        config,
        soc,
        lib_path,
        backed=True,
        **options,
    )
    dense.write_back()
    return result


def _three(values: tuple[int, ...]) -> tuple[int, int, int]:
    page, token, head = values
    return page, token, head


def _check_codes(p: Problem, codes: np.ndarray) -> None:
    lanes, c0 = p.dim // 4 if p.four else p.dim, 32 // codes.itemsize
    expected = (p.heads, -(-lanes // c0), PAGE, c0) if p.nz else (PAGE, p.heads, lanes)
    if codes.shape[1:] != expected:
        raise ValueError(f"codes has pages of {codes.shape[1:]}, they must be {expected}")
    if p.dim % 4:
        raise ValueError(f"D={p.dim}; accepted: multiples of 4")


def _check_write(tensors: Mapping[str, Any]) -> None:
    select, used = as_array(tensors["select"]), as_array(tensors["used_before"])
    if (select > 2).any():
        at = tuple(int(i) for i in np.argwhere(select > 2)[0])
        raise ValueError(f"select{list(at)} is {int(select[at])}; accepted: 0, 1 and 2")
    if (used < 0).any():
        raise ValueError(f"used_before is {used.tolist()}; accepted: 0 and more")


def _check_read(tensors: Mapping[str, Any], ids: np.ndarray, rows: int, frows: int) -> None:
    masks, ranks, fmasks, franks = (
        as_array(tensors[name])[ids] for name in ("mask", "rank", "fmask", "frank")
    )
    check_runs(masks, ranks, rows, ("mask", "rank", "pool"))
    check_runs(fmasks, franks, frows, ("fmask", "frank", "fpool"))
    check_both(masks, fmasks)


def count(
    p: Problem,
    buffers: Callable[[str], Buffer],
    rows: tuple[int, int],
    precision: str,
    *,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Issue a launch's instructions without its data, as if nothing were selected."""
    code = 2 if p.four else 4  # bytes of four channels
    row = p.dim * code // 4
    within = -(-row // 32) * 32 * PAGE if p.nz else p.heads * row
    page = (p.heads if p.nz else PAGE) * within
    width = p.heads * p.dim
    return _run(
        buffers,
        Buffer.unbacked("x" if p.write else "y", p.pages * PAGE * width * p.element),
        p,
        (PAGE * width, width, p.dim),
        (page, within),
        rows,
        precision,
        config,
        soc,
        lib_path,
        backed=False,
        skip_data=True,
        **options,
    )


def _run(
    argument: Callable[[str], Buffer],
    rows: Buffer,
    p: Problem,
    apart: tuple[int, int, int],
    page: tuple[int, int],
    pool_rows: tuple[int, int],
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    *,
    backed: bool,
    **options: Any,
) -> TwinResult:
    elements, cores = config["tile_elements"], config.get("cores", 0)
    chosen = plan(p, apart, page, pool_rows, precision, elements, soc, cores)
    workspace = (
        Buffer.of("workspace", np.zeros(chosen.workspace, dtype=np.int8))
        if backed
        else Buffer.unbacked("workspace", chosen.workspace)
    )
    return runner.run(
        lib_path,
        chosen.kernel,
        chosen.block_dim,
        [rows, *(argument(name) for name in _ARGUMENTS), workspace],
        chosen.tiling,
        soc,
        **options,
    )
