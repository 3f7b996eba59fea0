"""Random gemm problems for the host kernels, their float64 answers and error bounds."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from native import host_lib
from native.host_lib import Array

KN, NK, PANEL16 = range(3)
# Half a unit in the last place of each output, relative.
ROUNDING = {"fp32": 2.0**-24, "bf16": 2.0**-8, "fp16": 2.0**-11, "int32": 0.0}
# Smallest spacing of fp16 numbers, and what flushing a bf16 operand or sum can lose.
FLOOR = {"fp32": 1e-37, "bf16": 1e-37, "fp16": 2.0**-25, "int32": 0.0}


@dataclass(frozen=True, slots=True)
class Problem:
    """One gemm launch, but for its data."""

    m: int
    n: int
    k: int
    dtype: str = "fp32"
    out: str = "fp32"
    layout: int = KN
    bias: bool = False
    row_scale: bool = False
    a_steps: tuple[int, int] = (1, 1)
    b_steps: tuple[int, int] = (1, 1)
    c_steps: tuple[int, int] = (1, 1)
    transposed: tuple[bool, bool, bool] = (False, False, False)
    tile_m: int = 32
    tile_n: int = 32
    tile_k: int = 32
    stages: int = 2
    threads: int = 1
    seed: int = 0
    split_k: int = 1
    batch_invariant: bool = False


def strided(
    values: NDArray[np.generic], steps: tuple[int, int], transposed: bool
) -> NDArray[np.generic]:
    """The same values in memory with gaps (|step| > 1), backwards (step < 0) or column-major."""
    rows, cols = values.shape
    gap_r, gap_c = abs(steps[0]), abs(steps[1])
    shape = (rows * gap_r, cols * gap_c)
    big = np.zeros(shape, values.dtype, order="F" if transposed else "C")
    view = big[:: steps[0], :: steps[1]]
    view = view[:rows, :cols]
    view[...] = values
    return view


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[np.generic]:
    """Random values of `dtype`: the whole range for int8, standard normal otherwise."""
    if dtype == "int8":
        return rng.integers(-128, 128, shape).astype(np.int8)
    if dtype == "int32":
        return rng.integers(-(10**6), 10**6, shape).astype(np.int32)
    return host_lib.store(rng.standard_normal(shape), dtype)


@dataclass(frozen=True, slots=True)
class Data:
    a: NDArray[np.generic]
    b: NDArray[np.generic]  # [k, n]
    bias: NDArray[np.generic] | None
    row_scale: NDArray[np.generic] | None
    col_scale: NDArray[np.generic] | None


def bias_dtype(p: Problem) -> str:
    if p.dtype != "int8":
        return p.dtype
    return "int32" if p.out == "int32" else "fp32"


def make_data(p: Problem) -> Data:
    rng = np.random.default_rng(p.seed)
    scaled = p.dtype == "int8" and p.out != "int32"
    return Data(
        draw(rng, (p.m, p.k), p.dtype),
        draw(rng, (p.k, p.n), p.dtype),
        draw(rng, (p.n,), bias_dtype(p)) if p.bias else None,
        (rng.random(p.m) / 64).astype(np.float32) if scaled and p.row_scale else None,
        (rng.random(p.n) / 64).astype(np.float32) if scaled else None,
    )


def reference(p: Problem, data: Data) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The float64 answer and a bound of the error of any summation order."""
    a, b = host_lib.widen(data.a, p.dtype), host_lib.widen(data.b, p.dtype)
    answer, size = a @ b, np.abs(a) @ np.abs(b)
    for scale, axis in ((data.row_scale, 1), (data.col_scale, 0)):
        if scale is not None:
            factor = np.expand_dims(scale.astype(np.float64), axis)
            answer, size = answer * factor, size * factor
    if data.bias is not None:
        bias = host_lib.widen(data.bias, bias_dtype(p))
        answer, size = answer + bias, size + np.abs(bias)
    if p.out == "int32":
        return answer, np.zeros_like(answer)
    # int8 sums are exact: only the scales and the bias round. bf16 dot products flush subnormals.
    terms = 4 if p.dtype == "int8" else p.k + 4
    bound = size * terms * 2.0**-24 + np.abs(answer) * ROUNDING[p.out] * 1.01 + FLOOR[p.out]
    return answer, bound


def launch(
    lib: ctypes.CDLL, p: Problem, data: Data, level: str | None = None
) -> tuple[int, str, NDArray[np.generic]]:
    """Run the problem at `level`: status, error sentence and C with a poisoned start."""
    forced = None if level is None else level.encode()
    assert lib.tw_force_level(forced) == 0, f"level {level} refused"
    a = strided(data.a, p.a_steps, p.transposed[0])
    if p.layout == PANEL16:
        b = host_lib.pack_panel16(data.b, p.dtype)
    else:
        b = strided(data.b if p.layout == KN else data.b.T, p.b_steps, p.transposed[1])
    poison = host_lib.store(np.full((p.m, p.n), 77.0 if p.out == "int32" else np.nan), p.out)
    c = strided(poison, p.c_steps, p.transposed[2])
    tensors: dict[str, Array | None] = {
        "a": Array(a, p.dtype),
        "b": Array(b, p.dtype),
        "bias": None if data.bias is None else Array(data.bias, bias_dtype(p)),
        "row_scale": None if data.row_scale is None else Array(data.row_scale, "fp32"),
        "col_scale": None if data.col_scale is None else Array(data.col_scale, "fp32"),
        "c": Array(c, p.out),
    }
    attrs = {
        "b_layout": p.layout,
        "scale": 0 if data.row_scale is not None else 1,
        "tile_m": p.tile_m,
        "tile_n": p.tile_n,
        "tile_k": p.tile_k,
        "stages": p.stages,
        "split_k": p.split_k,
        "batch_invariant": int(p.batch_invariant),
    }
    try:
        status, error = host_lib.call(lib, tensors, attrs, threads=p.threads)
    finally:
        lib.tw_force_level(None)
    return status, error, c


def check(lib: ctypes.CDLL, p: Problem, level: str | None = None) -> None:
    """Assert that the problem gives the reference's answer within its bound."""
    data = make_data(p)
    status, error, c = launch(lib, p, data, level)
    assert status == 0, f"{p}: {error}"
    answer, bound = reference(p, data)
    got = host_lib.widen(c, p.out)
    if p.out == "fp16":
        overflow = np.abs(answer) > 65519 - bound
        got, answer, bound = got[~overflow], answer[~overflow], bound[~overflow]
    wrong = ~(np.abs(got - answer) <= bound)
    assert not wrong.any(), f"{p} at {level}: {got[wrong][:4]} instead of {answer[wrong][:4]}"
