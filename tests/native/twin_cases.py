"""Gemm cases for the twin: inputs, an output of poison with guard columns, and a float64 answer."""

from __future__ import annotations

import dataclasses

import numpy as np
import twin_build
from twin_build import host, runner

Config = host.Config


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs, an output full of NaN (or -1) bytes with guard columns, and what must come out."""

    inputs: dict[str, np.ndarray]
    out: np.ndarray
    reference: np.ndarray  # float64; exact for integers and for int8->fp16
    bound: np.ndarray  # largest error allowed, elementwise


def to_bf16(x: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.uint32) << 16).view(np.float32)


def pitched(x: np.ndarray, extra: int) -> np.ndarray:
    """``x`` as the left part of rows ``extra`` elements longer, the rest all ones bits."""
    wide = np.full((x.shape[0], x.shape[1] + extra), 0, x.dtype)
    wide.view(np.uint8)[...] = 0xFF
    wide[:, : x.shape[1]] = x
    return wide[:, : x.shape[1]]


def make(
    m: int,
    n: int,
    k: int,
    precision: str,
    b_layout: str,
    *,
    bias: bool = False,
    row_scale: bool = False,
    extra: int = 0,
    seed: int = 0,
) -> Case:
    rng = np.random.default_rng(seed)
    kind = host.precision_of(precision, bias=bias, row_scale=row_scale)
    inputs: dict[str, np.ndarray] = {}
    if kind.inputs == "int8":
        a, b = (rng.integers(-128, 128, s, dtype=np.int8) for s in ((m, k), (k, n)))
        exact_a, exact_b = a.astype(np.float64), b.astype(np.float64)
    else:
        a, b = (rng.standard_normal(s, dtype=np.float32) for s in ((m, k), (k, n)))
        if precision == "bf16":
            a, b = to_bf16(a), to_bf16(b)
            exact_a, exact_b = from_bf16(a).astype(np.float64), from_bf16(b).astype(np.float64)
        else:
            a, b = a.astype(kind.inputs), b.astype(kind.inputs)
            exact_a, exact_b = a.astype(np.float64), b.astype(np.float64)
    reference = exact_a @ exact_b
    # fp32 sums of k terms, each at most sum|a||b|, then one rounding to the output.
    magnitude = np.abs(exact_a) @ np.abs(exact_b)
    if bias and kind.acc == "int32" and not kind.mix:
        inputs["bias"] = rng.integers(-(10**6), 10**6, n).astype(np.int32)
        reference = reference + inputs["bias"]
    elif bias and not kind.mix:
        values = rng.standard_normal(n).astype(np.float32)
        inputs["bias"] = to_bf16(values) if precision == "bf16" else values.astype(kind.output)
        widened = from_bf16(inputs["bias"]) if precision == "bf16" else inputs["bias"]
        reference = reference + widened.astype(np.float64)
        magnitude = magnitude + np.abs(widened)
    bound = np.zeros_like(reference)
    if kind.mix:
        reference, bound = scaled(rng, inputs, reference, kind.output, bias, row_scale)
    elif precision == "int8->fp16":
        scale = ((rng.random(n) + 0.5) * 1e-3).astype(np.float32)
        inputs["col_scale"] = scale
        used = (scale.view(np.uint32) & ~np.uint32(0x1FFF)).view(np.float32)
        reference = (reference.astype(np.float32) * used).astype(np.float16).astype(np.float64)
    elif kind.acc == "float32":
        step = {"fp32": 0.0, "fp16->fp32": 0.0, "fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
        bound = magnitude * (k + 2) * 2.0**-24 + np.abs(reference) * step + 1e-7
    inputs["a"] = pitched(a, extra)
    inputs["b"] = pitched(b if b_layout == "KN" else np.ascontiguousarray(b.T), 2 * extra)
    out = np.empty((m, n), kind.output)
    out.view(np.uint8)[...] = 0xFF
    return Case(inputs, pitched(out, 3 * extra), reference, bound)


def scaled(
    rng: np.random.Generator,
    inputs: dict[str, np.ndarray],
    sums: np.ndarray,
    output: str,
    bias: bool,
    row_scale: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Factors for exact sums into ``inputs``; the answer and its bound: fp32 steps, then C's type."""
    m, n = sums.shape
    inputs["col_scale"] = ((rng.random(n) + 0.5) * 1e-2).astype(np.float32)
    answer = sums * inputs["col_scale"]
    if row_scale:
        inputs["row_scale"] = ((rng.random(m) + 0.5) * 1e-2).astype(np.float32)
        answer = answer * inputs["row_scale"][:, None]
    bound = np.abs(answer) * 3 * 2.0**-24
    if bias:
        inputs["bias"] = rng.standard_normal(n).astype(np.float32)
        answer = answer + inputs["bias"]
        bound = bound + (np.abs(answer) + bound) * 2.0**-24
    step = {"float32": 0.0, "float16": 2.0**-11, "uint16": 2.0**-8}[output]
    return answer, bound + (np.abs(answer) + bound) * step + 1e-7


def run(
    case: Case, precision: str, b_layout: str, config: object = None, **options: object
) -> runner.TwinResult:
    return host.launch(
        case.inputs,
        case.out,
        precision,
        b_layout=b_layout,
        config=config,
        lib_path=twin_build.twin(),
        **options,
    )


def check(
    case: Case, precision: str, b_layout: str, config: object = None, **options: object
) -> runner.TwinResult:
    result = run(case, precision, b_layout, config, **options)
    assert result.ok, "\n".join(map(str, result.findings))
    got = from_bf16(case.out) if case.out.dtype == np.uint16 else case.out
    worst = np.abs(got.astype(np.float64) - case.reference) - case.bound
    assert (worst <= 0).all(), (
        f"off by {worst.max()} at {np.unravel_index(np.argmax(worst), worst.shape)}"
    )
    if case.out.base is not None and case.out.base.shape != case.out.shape:
        assert (case.out.base[:, case.out.shape[1] :].view(np.uint8) == 0xFF).all(), (
            "wrote beside C"
        )
    return result
