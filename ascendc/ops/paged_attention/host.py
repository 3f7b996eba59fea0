"""Host side of the AscendC paged_attention: arrays checked, the kernel launched on the twin.

Nothing is launched before everything that the kernel takes as an address or a length has been checked.
Arrays are numpy arrays or CPU tensors of torch; bfloat16 travels as uint16. Caches may have gaps between
pages; whatever else does not lie densely is copied first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...twin import runner
from ..gemm.host import as_array
from .dealing import Plan, plan
from .planning import PAGE, Config, Problem

ALIGN = 512  # bytes, of a cache and of its pages
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "uint16"}
_RESIDUALS = ("mask", "rank", "pool", "fmask", "frank", "fpool")


def _need(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)


def _array(
    tensors: Mapping[str, Any], name: str, dtype: str, shape: Sequence[int | None]
) -> np.ndarray:
    """The named array. None in `shape` is any size."""
    _need(tensors.get(name) is not None, f"{name} is missing")
    array = as_array(tensors[name])
    wanted = np.dtype(dtype)
    _need(array.dtype == wanted, f"{name} is of {array.dtype}, it must be of {wanted}")
    fits = len(array.shape) == len(shape) and all(
        w is None or w == s for w, s in zip(shape, array.shape, strict=True)
    )
    sizes = ", ".join("any" if w is None else str(w) for w in shape)
    _need(fits, f"{name} has shape {array.shape}, it must be ({sizes})")
    return array


def _cache(
    tensors: Mapping[str, Any], name: str, problem: Problem, d: int, pages: int | None
) -> tuple[np.ndarray, int]:
    """A cache and the elements from page to page."""
    dtype = "int8" if problem.codes else _DTYPES[problem.compute]
    lanes = 32 // np.dtype(dtype).itemsize
    shape = (
        (pages, problem.kv_heads, d // lanes, PAGE, lanes)
        if problem.nz
        else (pages, PAGE, problem.kv_heads, d)
    )
    array = _array(tensors, name, dtype, shape)
    if array.size == 0:
        return array, PAGE * problem.kv_heads * d
    dense = np.empty((1, *array.shape[1:]), array.dtype).strides[1:]
    inner = all(
        s == w or n == 1 for s, w, n in zip(array.strides[1:], dense, array.shape[1:], strict=True)
    )
    _need(inner, f"{name}: a page must lie densely, its strides are {array.strides[1:]} bytes")
    page = PAGE * problem.kv_heads * d
    stride = array.strides[0] // array.itemsize if array.shape[0] > 1 else page
    _need(stride >= page, f"{name}: pages of {page} elements lie {stride} apart and overlap")
    address = int(array.__array_interface__["data"][0])
    bytes_ = stride * array.itemsize
    _need(
        address % ALIGN == 0 and (bytes_ % ALIGN == 0 or array.shape[0] == 1),
        f"{name}: address {address:#x} and page stride {bytes_} must be multiples of {ALIGN} bytes",
    )
    return array, stride


def _span(name: str, array: np.ndarray, stride: int) -> runner.Buffer:
    """A buffer over all pages and what lies between them."""
    if array.size == 0:
        return runner.Buffer(name, 0, 0)
    elements = (array.shape[0] - 1) * stride + math.prod(array.shape[1:])
    return runner.Buffer(
        name, int(array.__array_interface__["data"][0]), elements * array.itemsize, array
    )


def check_sequences(
    cu_q: np.ndarray, seq_lens: np.ndarray, block_table: np.ndarray, queries: int, pages: int
) -> None:
    """Raises ValueError for starts, lengths or pages that the kernel must not see."""
    width = block_table.shape[1]
    _need(int(cu_q[0]) == 0, f"cu_q[0] is {cu_q[0]}, it must be 0")
    falls = np.flatnonzero(np.diff(cu_q) < 0)
    _need(
        falls.size == 0, f"cu_q falls after entry {falls[0] if falls.size else 0}, it must not fall"
    )
    _need(int(cu_q[-1]) == queries, f"cu_q ends at {cu_q[-1]}, q has {queries} rows")
    wrong = np.flatnonzero((seq_lens < 0) | (seq_lens > width * PAGE))
    if wrong.size:
        raise ValueError(
            f"seq_lens[{wrong[0]}] is {seq_lens[wrong[0]]}, allowed are 0..{width * PAGE}"
        )
    used = np.arange(width)[None, :] < -(-seq_lens // PAGE)[:, None]
    bad = np.argwhere(used & ((block_table < 0) | (block_table >= pages)))
    if bad.size:
        i, j = bad[0]
        raise ValueError(f"block_table[{i}, {j}] is {block_table[i, j]}, there are {pages} pages")


def check_residuals(
    prefix: str, parts: Mapping[str, np.ndarray], used: np.ndarray, pages: int
) -> None:
    """Raises ValueError for masks of used pages that claim one token twice or rows beyond a pool."""
    mask, fmask = parts["mask"].view(np.uint16), parts["fmask"].view(np.uint16)
    both = np.argwhere((mask & fmask)[used] != 0)
    if both.size:
        raise ValueError(f"{prefix}mask and {prefix}fmask of page {used[both[0][0]]} share a token")
    for bits, rank, pool in ((mask, "rank", "pool"), (fmask, "frank", "fpool")):
        rows = np.unpackbits(bits[..., None].view(np.uint8), axis=-1).sum(-1)[used].astype(np.int64)
        first = parts[rank][used].astype(np.int64)
        wrong = np.argwhere((rows > 0) & ((first < 0) | (first + rows > parts[pool].shape[0])))
        if wrong.size:
            i, head = wrong[0]
            raise ValueError(
                f"{prefix}{rank}[{used[i]}, {head}] is {first[i, head]} with {rows[i, head]} rows,"
                f" {prefix}{pool} has {parts[pool].shape[0]}"
            )


def _dense(name: str, array: np.ndarray | None) -> runner.Buffer:
    return runner.Buffer.of(name, None if array is None else np.ascontiguousarray(array))


def _formats(
    tensors: Mapping[str, Any], problem: Problem, prefix: str, pages: int, used: np.ndarray
) -> list[runner.Buffer]:
    """Scales and residuals of one cache, in the kernel's order: the scale, then `_RESIDUALS`."""
    d = problem.dk if prefix == "k_" else problem.dv
    scale = None
    if problem.kind == "c8s":
        scale = _array(tensors, f"{prefix}channel_scale", "float32", (problem.kv_heads, d))
    elif problem.kind == "c8d":
        scale = _array(tensors, f"{prefix}token_scale", "float32", (pages, PAGE, problem.kv_heads))
    found = [_dense(f"{prefix}scale", scale)]
    if not problem.residual:
        return found + [runner.Buffer(prefix + name, 0, 0) for name in _RESIDUALS]
    by_page = (pages, problem.kv_heads)
    parts = {
        "mask": _array(tensors, f"{prefix}mask", "int16", by_page),
        "rank": _array(tensors, f"{prefix}rank", "int32", by_page),
        "pool": _array(tensors, f"{prefix}pool", "int16", (None, d // 4)),
        "fmask": _array(tensors, f"{prefix}fmask", "int16", by_page),
        "frank": _array(tensors, f"{prefix}frank", "int32", by_page),
        "fpool": _array(tensors, f"{prefix}fpool", _DTYPES[problem.compute], (None, d)),
    }
    check_residuals(prefix, parts, used, pages)
    return found + [_dense(prefix + name, parts[name]) for name in _RESIDUALS]


def _output(array: np.ndarray) -> np.ndarray:
    return array if array.flags.c_contiguous else np.empty(array.shape, array.dtype)


def launch(
    tensors: Mapping[str, Any],
    problem: Problem,
    *,
    config: Config | Mapping[str, int] | None = None,
    soc: str = "910b1",
    lib_path: Any,
    kernel_library: Any = None,
    threads: int = 0,
    trace: Any = None,
) -> runner.TwinResult:
    """Run on the twin; ``tensors`` holds inputs by name and the outputs ``o`` and, where asked for, ``lse``.

    Page strides of ``problem`` are those of the caches given. Raises ValueError for arrays that do not fit
    together, tables that lead out of the caches, and configs that can not run; TwinError where the twin
    itself refuses.
    """
    compute = _DTYPES[problem.compute]
    q = _array(tensors, "q", compute, (None, problem.heads, problem.dk))
    cu_q = _array(tensors, "cu_q", "int32", (None,))
    sequences = cu_q.shape[0] - 1
    _need(sequences >= 0, "cu_q has no entry, it must have one more than there are sequences")
    seq_lens = _array(tensors, "seq_lens", "int32", (sequences,))
    table = _array(tensors, "block_table", "int32", (sequences, problem.table_width))
    k, k_page = _cache(tensors, "k_cache", problem, problem.dk, None)
    pages = k.shape[0]
    v, v_page = _cache(tensors, "v_cache", problem, problem.dv, pages)
    o = _array(tensors, "o", compute, (q.shape[0], problem.heads, problem.dv))
    lse = None
    if problem.lse:
        lse = _array(tensors, "lse", "float32", (q.shape[0], problem.heads))
    alibi = _array(tensors, "alibi", "float32", (problem.heads,)) if problem.alibi else None
    check_sequences(cu_q, seq_lens, table, q.shape[0], pages)
    used = np.unique(table[np.arange(problem.table_width)[None, :] < -(-seq_lens // PAGE)[:, None]])
    keys, values = (_formats(tensors, problem, p, pages, used) for p in ("k_", "v_"))
    if q.shape[0] == 0:
        return runner.empty_result(soc)
    chosen = config if isinstance(config, Config) else Config.of(config)
    ready = plan(
        replace(problem, k_page=k_page, v_page=v_page),
        cu_q.tolist(),
        seq_lens.tolist(),
        chosen,
        soc,
    )
    out, lse_out = _output(o), None if lse is None else _output(lse)
    result = _run(
        ready,
        [_dense("q", q), _dense("block_table", table)],
        [_span("k_cache", k, k_page), _span("v_cache", v, v_page), keys[0], values[0]],
        [*keys[1:], *values[1:], _dense("alibi", alibi)],
        [runner.Buffer.of("o", out), runner.Buffer.of("lse", lse_out)],
        soc,
        lib_path=lib_path,
        kernel_library=kernel_library,
        threads=threads,
        trace=trace,
    )
    for mine, theirs in ((out, o), (lse_out, lse)):
        if mine is not None and theirs is not None and mine is not theirs:
            theirs[...] = mine
    return result


def _run(
    ready: Plan,
    head: list[runner.Buffer],
    caches: list[runner.Buffer],
    rest: list[runner.Buffer],
    outputs: list[runner.Buffer],
    soc: str,
    *,
    lib_path: Any,
    skip_data: bool = False,
    **options: Any,
) -> runner.TwinResult:
    words = runner.Buffer.of_bytes("plan", ready.words())
    workspace = runner.Buffer.unbacked("workspace", ready.workspace)
    if not skip_data:
        workspace = runner.Buffer.of("workspace", np.empty(ready.workspace, np.uint8))
    args = [*head, words, *caches, *rest, *outputs, workspace]
    return runner.run(
        lib_path,
        ready.kernel,
        ready.block_dim,
        args,
        ready.tiling,
        soc,
        skip_data=skip_data,
        **options,
    )


def _counted_formats(
    problem: Problem, prefix: str, pages: int, selected: float
) -> list[runner.Buffer]:
    """Scales and residuals of a cache of which only masks and ranks hold anything."""
    none = runner.Buffer.unbacked
    d = problem.dk if prefix == "k_" else problem.dv
    scales = {"float": 0, "c8s": problem.kv_heads * d, "c8d": pages * PAGE * problem.kv_heads}
    found = [none(f"{prefix}scale", 4 * scales[problem.kind])]
    if not problem.residual:
        return found + [none(prefix + name, 0) for name in _RESIDUALS]
    shape = (pages, problem.kv_heads)
    bits = np.random.default_rng(0).random((*shape, PAGE)) < selected
    mask = np.packbits(bits, axis=-1, bitorder="little").view(np.int16)[..., 0]
    counts = bits.sum(-1)
    rank = (np.cumsum(counts) - counts.ravel()).reshape(shape).astype(np.int32)
    return [
        *found,
        runner.Buffer.of(prefix + "mask", np.ascontiguousarray(mask)),
        runner.Buffer.of(prefix + "rank", rank),
        none(prefix + "pool", int(counts.sum()) * d // 2),
        runner.Buffer.of(prefix + "fmask", np.zeros(shape, np.int16)),
        none(prefix + "frank", 4 * pages * problem.kv_heads),
        none(prefix + "fpool", 0),
    ]


def count(
    problem: Problem,
    cu_q: Sequence[int],
    seq_lens: Sequence[int],
    *,
    config: Config,
    soc: str,
    lib_path: Any,
    selected: float = 0.05,
    **options: Any,
) -> runner.TwinResult:
    """The instructions of a launch without data. Every sequence has pages of its own, one in `selected`
    vectors a residual. Raises ValueError for configs that can not run."""
    counts = [-(-n // PAGE) for n in seq_lens]
    width, pages = max(problem.table_width, 1), max(sum(counts), 1)
    table = np.zeros((len(counts), width), np.int32)
    first = 0
    for row, used in zip(table, counts, strict=True):
        row[:used] = np.arange(first, first + used)
        first += used
    page = [PAGE * problem.kv_heads * d for d in (problem.dk, problem.dv)]
    ready = plan(replace(problem, k_page=page[0], v_page=page[1]), cu_q, seq_lens, config, soc)
    item, rows = 1 if problem.codes else problem.item, cu_q[-1] * problem.heads
    none = runner.Buffer.unbacked
    keys, values = (_counted_formats(problem, p, pages, selected) for p in ("k_", "v_"))
    return _run(
        ready,
        [none("q", rows * problem.dk * problem.item), runner.Buffer.of("block_table", table)],
        [
            none("k_cache", pages * page[0] * item),
            none("v_cache", pages * page[1] * item),
            keys[0],
            values[0],
        ],
        [*keys[1:], *values[1:], none("alibi", 4 * problem.heads * problem.alibi)],
        [none("o", rows * problem.dv * problem.item), none("lse", 4 * rows * problem.lse)],
        soc,
        lib_path=lib_path,
        skip_data=True,
        **options,
    )
