"""Host side of the AscendC gemm: arrays checked and prepared, the kernel launched on the twin.

Empty cases never reach the kernel: M or N of 0 returns at once, K of 0 writes the bias, or zero.

Arrays are numpy arrays, or CPU tensors of torch; bfloat16 travels as uint16.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin import runner
from .planning import (
    B_LAYOUTS,
    DEFAULT_CONFIG,
    PRECISIONS,
    Config,
    Dims,
    Plan,
    Precision,
    illegal,
    plan,
    precision_of,
    refusal,
    tiling,
)

__all__ = [
    "B_LAYOUTS",
    "DEFAULT_CONFIG",
    "PRECISIONS",
    "Config",
    "Dims",
    "Plan",
    "Precision",
    "as_array",
    "as_output",
    "illegal",
    "launch",
    "on_chip_bias",
    "pad_columns",
    "plan",
    "precision_of",
    "refusal",
    "tiling",
    "unbacked",
    "vdeq_scales",
    "widened",
]


def pad_columns(values: np.ndarray) -> np.ndarray:
    """``values[N]`` copied and zero-padded to a multiple of 32, as the kernel reads it."""
    out = np.zeros(max(-(-values.shape[0] // 32), 1) * 32, dtype=values.dtype)
    out[: values.shape[0]] = values
    return out


def on_chip_bias(values: np.ndarray, precision: str) -> np.ndarray:
    """The bias in the type of L0C (bfloat16 bits widened), padded."""
    if PRECISIONS[precision].acc == "int32":
        return pad_columns(values.astype(np.int32, casting="same_kind"))
    return pad_columns(widened(values).astype(np.float32))


def widened(values: np.ndarray) -> np.ndarray:
    """fp32 of bfloat16 bits; others as they are."""
    return (
        (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values
    )


def vdeq_scales(col_scale: np.ndarray) -> np.ndarray:
    """``col_scale[N]`` fp32 as VDEQF16 takes it: one uint64 a column, the float in its low half.

    The hardware keeps 10 mantissa bits, the low 13 are cut: the factor used lies in
    ``(scale * (1 - 2**-10), scale]`` for positive scales.
    Raises ValueError for scales it can not represent.
    """
    scale = np.ascontiguousarray(col_scale, dtype=np.float32)
    bad = ~np.isfinite(scale) | ((scale != 0) & (np.abs(scale) < np.finfo(np.float32).tiny))
    if bad.any():
        column = int(np.argmax(bad))
        raise ValueError(
            f"col_scale[{column}] is {scale[column]}, Fixpipe takes normal finite floats"
        )
    return pad_columns(scale.view(np.uint32).astype(np.uint64))


def as_array(value: Any) -> np.ndarray:
    """A numpy view of an array or CPU tensor; bfloat16 as uint16."""
    if hasattr(value, "detach"):
        tensor = value.detach()
        if str(tensor.dtype) == "torch.bfloat16":
            return np.asarray(tensor.view(_torch_int16(tensor)).numpy()).view(np.uint16)
        return np.asarray(tensor.numpy())
    return np.asarray(value)


def _torch_int16(tensor: Any) -> Any:
    return sys.modules[type(tensor).__module__.partition(".")[0]].int16


def _pitch(name: str, array: np.ndarray, dtype: str) -> int:
    if array.ndim != 2 or array.dtype != np.dtype(dtype):
        raise ValueError(
            f"{name} has {array.ndim} dims of {array.dtype}, it must have 2 of {dtype}"
        )
    item = array.itemsize
    row, column = array.strides
    if array.size == 0:
        return max(int(array.shape[1]), 1)
    if array.shape[1] > 1 and column != item:
        raise ValueError(
            f"{name} has a column stride of {column // item} elements, the kernel takes 1"
        )
    if array.shape[0] == 1:
        return max(int(array.shape[1]), 1)
    if row % item != 0 or row < array.shape[1] * item:
        raise ValueError(
            f"{name} has a row stride of {row} bytes, its rows take {array.shape[1] * item}"
        )
    return int(row) // int(item)


def _span(name: str, array: np.ndarray, pitch: int) -> runner.Buffer:
    rows, columns = array.shape
    nbytes = ((rows - 1) * pitch + columns) * array.itemsize
    return runner.Buffer(name, int(array.__array_interface__["data"][0]), nbytes, array)


def as_output(values: np.ndarray, output: str) -> np.ndarray:
    """fp32 values in the type of C; bfloat16, to the nearest, as its bits."""
    if output != "uint16":
        with np.errstate(over="ignore"):  # to infinity
            return values.astype(output)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype(np.uint16)


def _factors(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The vectors of a scaled gemm, fp32 and dense, those that are there."""
    return {
        name: np.ascontiguousarray(widened(as_array(inputs[name])), dtype=np.float32)
        for name in ("bias", "row_scale", "col_scale")
        if inputs.get(name) is not None
    }


def launch(
    inputs: Mapping[str, Any],
    out: Any,
    precision: str,
    *,
    b_layout: str = "KN",
    config: Config | Mapping[str, int] | None = None,
    invariant: bool = False,
    soc: str = "910b1",
    lib_path: Any,
    kernel_library: Any = None,
    threads: int = 0,
    trace: Any = None,
) -> runner.TwinResult:
    """Run gemm on the twin: ``inputs`` holds a, b and optionally bias, row_scale and col_scale.

    ``out`` [M,N] is written; with ``invariant``, bits of a row do not depend on M. Raises ValueError
    for refused cases, illegal configs and arrays that do not fit together; TwinError where the twin
    itself refuses.
    """
    bias, scale, row_scale = (inputs.get(name) for name in ("bias", "col_scale", "row_scale"))
    why = refusal(
        precision,
        b_layout=b_layout,
        bias=bias is not None,
        row_scale=row_scale is not None,
        col_scale=scale is not None,
    )
    if why is not None:
        raise ValueError(why)
    kind = precision_of(precision, bias=bias is not None, row_scale=row_scale is not None)
    a, b, c = as_array(inputs["a"]), as_array(inputs["b"]), as_array(out)
    lda, ldb, ldc = (
        _pitch("a", a, kind.inputs),
        _pitch("b", b, kind.inputs),
        _pitch("c", c, kind.output),
    )
    m, k = a.shape
    kb, n = b.shape if b_layout == "KN" else b.shape[::-1]
    if kb != k or c.shape != (m, n):
        raise ValueError(
            f"a {a.shape}, b {b.shape} as {b_layout} and c {c.shape} do not fit together"
        )
    for name, vector, size in (
        ("bias", bias, n),
        ("col_scale", scale, n),
        ("row_scale", row_scale, m),
    ):
        if vector is not None and as_array(vector).shape != (size,):
            raise ValueError(f"{name} has shape {as_array(vector).shape}, it must be ({size},)")
    chosen = config if isinstance(config, Config) else Config.of(config)
    if m == 0 or n == 0:
        return runner.empty_result(soc)
    if k == 0:
        c[...] = 0 if bias is None else as_output(widened(as_array(bias)), kind.output)
        return runner.empty_result(soc)
    ready = plan(
        Dims(m, n, k, lda, ldb, ldc),
        precision,
        b_layout,
        chosen,
        soc,
        bias=bias is not None,
        row_scale=row_scale is not None,
        invariant=invariant,
    )
    ends = (_span("a", a, lda), _span("b", b, ldb), _span("c", c, ldc))
    return runner.run(
        lib_path,
        ready.kernel,
        ready.block_dim,
        _scaled_arguments(ends, inputs, ready)
        if ready.mix
        else _arguments(ends, inputs, precision),
        ready.tiling,
        soc,
        threads=threads,
        trace=trace,
        kernel_library=kernel_library,
    )


_Matrices = tuple[runner.Buffer, runner.Buffer, runner.Buffer]


def _arguments(
    matrices: _Matrices, inputs: Mapping[str, Any], precision: str
) -> list[runner.Buffer | runner.Scalar]:
    bias, scale = inputs.get("bias"), inputs.get("col_scale")
    a, b, c = matrices
    return [
        a,
        b,
        runner.Buffer.of(
            "bias", on_chip_bias(as_array(bias), precision) if bias is not None else None
        ),
        runner.Buffer.of("scale", vdeq_scales(as_array(scale)) if scale is not None else None),
        c,
        runner.Buffer("workspace", 0, 0),
    ]


def _scaled_arguments(
    matrices: _Matrices, inputs: Mapping[str, Any], ready: Plan
) -> list[runner.Buffer | runner.Scalar]:
    factors = _factors(inputs)
    a, b, c = matrices
    return [
        a,
        b,
        *(runner.Buffer.of(name, factors.get(name)) for name in ("bias", "row_scale", "col_scale")),
        c,
        runner.Buffer.of("workspace", np.zeros(ready.workspace, np.uint8)),
    ]


def unbacked(
    m: int,
    n: int,
    k: int,
    kind: Precision,
    ready: Plan,
    *,
    bias: bool = False,
    row_scale: bool = False,
) -> list[runner.Buffer | runner.Scalar]:
    """The kernel's arguments without memory behind them."""
    of = runner.Buffer.unbacked
    columns = -(-n // 32) * 32
    ends = of("a", m * k * kind.input_bytes), of("b", k * n * kind.input_bytes)
    c = of("c", m * n * kind.output_bytes)
    if kind.mix:
        factors = (
            of("bias", 4 * n * bias),
            of("row_scale", 4 * m * row_scale),
            of("col_scale", 4 * n),
        )
        return [*ends, *factors, c, of("workspace", ready.workspace)]
    vectors = of("bias", 4 * columns * bias), of("scale", 8 * columns * kind.per_column_scale)
    return [*ends, *vectors, c, runner.Buffer("workspace", 0, 0)]
