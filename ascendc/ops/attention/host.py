"""Host side of the AscendC attention: tensors checked, the kernel launched on the twin.

Arrays are numpy arrays, or CPU tensors of torch; bfloat16 travels as uint16.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from ...twin import runner
from ..gemm.host import as_array
from .planning import BYTES, Config, Layout, Plan, Problem, Strides, plan

_TYPES = {"fp16": "float16", "bf16": "uint16"}


@dataclass(frozen=True, slots=True)
class Options:
    """What a case asks of the kernel beyond its tensors; see ``planning.Problem``."""

    causal: bool = True
    scale: float = 0.0
    softcap: float = 0.0
    window: int = 0


def _strides(name: str, array: np.ndarray) -> Strides:
    """Elements between sequences, tokens and heads. Raises ValueError for lanes with gaps."""
    item = array.itemsize
    if array.size == 0:
        return (0, 1, 0)
    # Where there is one of something, the way to the next is that of a dense tensor.
    dense_steps = [item * math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]
    steps = [
        given if n > 1 else own
        for given, own, n in zip(array.strides, dense_steps, array.shape, strict=True)
    ]
    if any(s < 0 or s % item for s in steps):
        raise ValueError(
            f"{name} has strides of {array.strides} bytes, the kernel takes whole ones"
        )
    if array.ndim == 4 and steps[3] != item:
        raise ValueError(
            f"{name} has {steps[3] // item} elements from lane to lane, the kernel takes 1"
        )
    return (steps[0] // item, steps[1] // item, steps[2] // item)


def _span(name: str, array: np.ndarray) -> runner.Buffer:
    """The bytes from the first to the last element of a view."""
    if array.size == 0:
        return runner.Buffer(name, 0, 0, array)
    last = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
    address = int(array.__array_interface__["data"][0])
    return runner.Buffer(name, address, last + array.itemsize, array)


def lengths(name: str, ends: np.ndarray, tokens: int) -> list[int]:
    """Tokens of each sequence. Raises ValueError for ends that do not cut ``tokens`` into sequences."""
    if ends.dtype != np.int32 or ends.ndim != 1:
        raise ValueError(f"{name} has {ends.ndim} dims of {ends.dtype}, it must have 1 of int32")
    if ends.size == 0 or ends[0] != 0 or ends[-1] != tokens:
        shown = "nothing" if ends.size == 0 else f"{ends[0]}..{ends[-1]}"
        raise ValueError(f"{name} goes over {shown}, it must go from 0 to {tokens}")
    steps = np.diff(ends.astype(np.int64))
    if (steps < 0).any():
        at = int(np.argmax(steps < 0)) + 1
        raise ValueError(f"{name}[{at}] is {ends[at]}, less than the one before it, {ends[at - 1]}")
    return [int(n) for n in steps]


def _four(name: str, value: Any, dtype: str) -> np.ndarray:
    array = as_array(value)
    if array.ndim != 4 or array.dtype != np.dtype(dtype):
        raise ValueError(
            f"{name} has {array.ndim} dims of {array.dtype}, it must have 4 of {dtype}"
        )
    return array


def launch(
    tensors: Mapping[str, Any],
    precision: str,
    options: Options,
    *,
    config: Config,
    soc: str = "910b1",
    lib_path: Any,
    kernel_library: Any = None,
    threads: int = 0,
    trace: Any = None,
) -> runner.TwinResult:
    """Run attention on the twin: ``tensors`` holds q, k, v and o, and where there are any cu_q, cu_k,
    alibi and lse; o and lse are written.

    Raises ValueError for illegal configs and tensors that do not fit together; TwinError where the
    twin itself refuses.
    """
    q, k, v, o = (_four(name, tensors[name], _TYPES[precision]) for name in ("q", "k", "v", "o"))
    batch, sq, hq, dk = q.shape
    _, sk, hkv, dv = v.shape
    if k.shape != (batch, sk, hkv, dk) or v.shape[0] != batch or o.shape != (batch, sq, hq, dv):
        raise ValueError(
            f"q {q.shape}, k {k.shape}, v {v.shape} and o {o.shape} do not fit together"
        )
    given = {
        name: as_array(tensors[name])
        for name in ("cu_q", "cu_k", "alibi", "lse")
        if tensors.get(name) is not None
    }
    ragged = "cu_q" in given
    if ragged:
        queries = lengths("cu_q", given["cu_q"], sq)
        keys = lengths("cu_k", given["cu_k"], sk)
        if len(queries) != len(keys):
            raise ValueError(f"cu_q has {len(queries)} sequences and cu_k {len(keys)}")
        if batch != 1:
            raise ValueError(f"q has {batch} batches, sequences of any length lie in one")
    else:
        queries, keys = [sq] * batch, [sk] * batch
    alibi, lse = given.get("alibi"), given.get("lse")
    if alibi is not None and (alibi.shape != (hq,) or alibi.dtype != np.float32):
        raise ValueError(f"alibi is {alibi.dtype} of {alibi.shape}, it must be float32 of ({hq},)")
    if lse is not None and (lse.shape != (batch, sq, hq) or lse.dtype != np.float32):
        raise ValueError(
            f"lse is {lse.dtype} of {lse.shape}, it must be float32 of {(batch, sq, hq)}"
        )
    if 0 in (batch, sq, hq, dv):
        return runner.empty_result(soc)
    problem = Problem(
        queries,
        keys,
        hq,
        hkv,
        dk,
        dv,
        ragged=ragged,
        causal=options.causal,
        scale=options.scale,
        softcap=options.softcap,
        window=options.window,
        alibi=alibi is not None,
        lse=lse is not None,
    )
    layout = Layout(
        _strides("q", q),
        _strides("k", k),
        _strides("v", v),
        _strides("o", o),
        _strides("lse", lse) if lse is not None else (0, 1, 0),
    )
    ready = plan(problem, layout, precision, config, soc)
    workspace = np.empty(ready.workspace_bytes, np.uint8)
    buffers = [
        *(_span(name, array) for name, array in (("q", q), ("k", k), ("v", v))),
        *(runner.Buffer.of(name, _dense(given.get(name))) for name in ("cu_q", "cu_k", "alibi")),
        _span("o", o),
        runner.Buffer("lse", 0, 0) if lse is None else _span("lse", lse),
        runner.Buffer.of("workspace", workspace),
    ]
    return run(ready, buffers, soc, lib_path, kernel_library, threads, trace)


def _dense(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else np.ascontiguousarray(array)


def run(
    ready: Plan,
    buffers: list[runner.Buffer],
    soc: str,
    lib_path: Any,
    kernel_library: Any,
    threads: int,
    trace: Any,
    skip_data: bool = False,
) -> runner.TwinResult:
    """Launch what ``plan`` made ready."""
    return runner.run(
        lib_path,
        ready.kernel,
        ready.block_dim,
        buffers,
        ready.tiling,
        soc,
        threads=threads,
        skip_data=skip_data,
        trace=trace,
        kernel_library=kernel_library,
    )


def unbacked(problem: Problem, workspace_bytes: int) -> list[runner.Buffer]:
    """The kernel's arguments without data, but for what the walk over the sequences reads."""
    p = problem
    queries, keys = sum(p.queries), sum(p.keys)

    def ends(name: str, lengths: Sequence[int]) -> runner.Buffer:
        cuts = struct.pack(f"<{len(lengths) + 1}i", 0, *accumulate(lengths))
        return runner.Buffer.of_bytes(name, cuts) if p.ragged else runner.Buffer(name, 0, 0)

    def of(name: str, elements: int, size: int = BYTES) -> runner.Buffer:
        return runner.Buffer.unbacked(name, elements * size)

    return [
        of("q", queries * p.hq * p.dk),
        of("k", keys * p.hkv * p.dk),
        of("v", keys * p.hkv * p.dv),
        ends("cu_q", p.queries),
        ends("cu_k", p.keys),
        of("alibi", p.hq * p.alibi, 4),
        of("o", queries * p.hq * p.dv),
        of("lse", queries * p.hq * p.lse, 4),
        of("workspace", workspace_bytes, 1),
    ]
