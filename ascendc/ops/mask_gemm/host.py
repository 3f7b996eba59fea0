"""Host side of the AscendC mask_gemm: tensors checked, the kernel launched on the twin.

Empty cases never reach the kernel: where K is 0 the host writes the bias, or zero, and the counts. A
selected row without resident bf16 weights is refused here under the policy `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import as_array, span, strides
from .._kv.planning import Plan
from ..gemm.host import as_output
from .planning import Config, Launch, plan

_GROUP_ROWS, _BITS, _STEP_WORDS = 64, 64, 2  # as kernels/mask_gemm/selection.py
_VECTORS = (("row_scale", np.float32), ("col_scale", np.float32), ("bias", np.float32))


def selected_rows(words: np.ndarray, layer: int, owner: np.ndarray) -> np.ndarray:
    """Bool [M], whether a row of ``layer`` is selected; ValueError for an owner that is no request."""
    wrong = (owner < -1) | (owner >= _BITS)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"owner[{row}] is {int(owner[row])}; accepted: 0 to {_BITS - 1}, or -1 for none"
        )
    bits = [int(word) & (1 << _BITS) - 1 for word in words]
    rows = np.arange(owner.size)
    groups, requests = (
        np.array([word >> bit & 1 for bit in range(_BITS)] + [0], bool)
        for word in bits[-_STEP_WORDS:]
    )
    whole = bool(bits[layer // _BITS] >> layer % _BITS & 1)
    found: np.ndarray = groups[rows // _GROUP_ROWS] | requests[owner] | whole
    return found


def launch(
    tensors: Mapping[str, Any],
    *,
    layer: int,
    keep: bool,
    config: Config,
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """c [M,N] and counts [3]; ``keep``: selected rows without bf16 weights stay in int8.

    Raises ValueError for tensors that do not fit together, an owner that is no request, and selected
    rows whose weights are missing.
    """
    given = {name: as_array(value) for name, value in tensors.items() if value is not None}
    a8, b8, c = given["a8"], given["b8"], given["c"]
    found = _sizes(given, layer)
    words, owner = (np.ascontiguousarray(given[name]) for name in ("selection", "owner"))
    chosen = selected_rows(words, layer, owner)
    if not found.resident and not keep and chosen.any():
        raise ValueError(
            f"row {int(np.argmax(chosen))} is selected and its bf16 weights are not resident; "
            "accepted: resident=yes, or missing=keep_int8"
        )
    if 0 in (found.m, found.n, found.k):
        _alone(c, given, chosen, found)
        return runner.empty_result(soc)
    vectors = {
        name: np.ascontiguousarray(given[name], dtype) for name, dtype in _VECTORS if name in given
    }
    counts = np.zeros(3, np.int32)
    ready = plan(found, config, soc)
    result = _run(
        [
            span("a8", a8),
            Buffer.of("row_scale", vectors["row_scale"]),
            span("b8", b8),
            Buffer.of("col_scale", vectors["col_scale"]),
            Buffer.of("selection", words),
            Buffer.of("owner", owner),
            *(
                span(name, given[name]) if found.resident else Buffer(name, 0, 0)
                for name in ("a", "b16")
            ),
            Buffer.of("bias", vectors.get("bias")),
            span("c", c),
            Buffer.of("counts", counts),
            Buffer.of("workspace", np.zeros(ready.workspace, np.uint8)),
        ],
        ready,
        soc,
        lib_path,
        **options,
    )
    given["counts"][...] = counts
    return result


def _sizes(given: Mapping[str, np.ndarray], layer: int) -> Launch:
    a8, b8, c = given["a8"], given["b8"], given["c"]
    resident = given.get("a") is not None and given.get("b16") is not None
    (m, k), n = a8.shape, b8.shape[0]
    shapes = {
        "b8": (n, k),
        "c": (m, n),
        "row_scale": (m,),
        "col_scale": (n,),
        "owner": (m,),
        "a": (m, k),
        "b16": (n, k),
        "bias": (n,),
    }
    for name, shape in shapes.items():
        if name in given and given[name].shape != shape:
            raise ValueError(f"{name} has shape {given[name].shape}, it must be {shape}")
    bits = _BITS * (given["selection"].size - _STEP_WORDS)
    if not 0 <= layer < bits:
        raise ValueError(f"layer is {layer}, the selection has a bit for 0..{bits - 1}")
    wide = (*strides("a", given["a"]), *strides("b16", given["b16"])) if resident else (0, 0, 0, 0)
    return Launch(
        m,
        n,
        k,
        layer,
        given["selection"].size,
        resident,
        "bias" in given,
        strides("a8", a8)[0],
        strides("b8", b8)[0],
        wide[0],
        wide[1],
        strides("c", c)[0],
    )


def _alone(
    c: np.ndarray, given: Mapping[str, np.ndarray], chosen: np.ndarray, found: Launch
) -> None:
    """What a product over nothing leaves."""
    bias = given.get("bias")
    c[...] = 0 if bias is None else as_output(bias, "uint16").view(c.dtype)
    count = int(chosen.sum())
    given["counts"][...] = (count, found.m - count, 0) if found.resident else (0, found.m, count)


def count(
    found: Launch, *, selected: int, config: Config, soc: str, lib_path: Any, **options: Any
) -> TwinResult:
    """Issue the instructions of a dense launch of which ``selected`` rows run in bf16, without data.

    All of them: by the layer; some of them: by a request.
    """
    words = np.zeros(found.words, np.uint64)
    if selected == found.m:
        words[found.layer // _BITS] = 1 << found.layer % _BITS
    elif selected:
        words[-1] = 1
    counts = np.array([selected, found.m - selected, 0], np.int32)
    of, (m, n, k) = Buffer.unbacked, (found.m, found.n, found.k)
    ready = plan(found, config, soc)
    arguments = [
        of("a8", m * k),
        of("row_scale", 4 * m),
        of("b8", n * k),
        of("col_scale", 4 * n),
        Buffer.of("selection", words),
        of("owner", 4 * m),
        of("a", 2 * m * k * found.resident),
        of("b16", 2 * n * k * found.resident),
        of("bias", 4 * n * found.bias),
        of("c", 2 * m * n),
        Buffer.of("counts", counts),
        of("workspace", ready.workspace),
    ]
    return _run(arguments, ready, soc, lib_path, skip_data=True, **options)


def _run(
    arguments: list[Buffer], ready: Plan, soc: str, lib_path: Any, **options: Any
) -> TwinResult:
    return runner.run(
        lib_path, ready.kernel, ready.block_dim, arguments, ready.tiling, soc, **options
    )
