"""silu_mul, declared once: one half of a row, through SiLU, times the other."""

from __future__ import annotations

from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, grid, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, DType
from tilewright.numerics import Tolerance
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

T, W = dims("T W")


def _precision(element: DType) -> Precision:
    return Precision(
        element.name, MappingProxyType({"gate_up": element, "y": element}), accumulate=FP32
    )


def _error(spec: KernelSpec, case: Case) -> float:
    """e^-g errs by |g| u, as its argument is rounded: 16 of that for gates down to -16, and eight roundings."""
    return spec.dtype_of(spec.outputs[0], case).unit_roundoff + 24.0 * 2.0**-24


def _valid(spec: KernelSpec, case: Case) -> str | None:
    if case.sizes["W"] % 2:
        return f"W={case.sizes['W']} is odd; accepted: even widths, half for the gate"
    return None


_GPU = Space(block=(256, 512, 1024, 2048), num_warps=(1, 2, 4, 8), num_stages=(1,))
_GPU_DEFAULT = Config(block=1024, num_warps=4, num_stages=1)

SPEC = KernelSpec(
    name="silu_mul",
    summary="y[T,W/2] = silu(gate) * up, gate_up[T,W] holds the gate's columns first",
    inputs=(Tensor("gate_up", T, W),),
    outputs=(Tensor("y", T, W // 2),),
    precisions=tuple(_precision(element) for element in (FP32, BF16, FP16)),
    flags=(Flag.yes_no("batch_invariant"),),
    reference=Ref("reference:silu_mul"),
    make_inputs=Ref("reference:make_inputs"),
    typical=Ref("reference:typical"),
    valid=_valid,
    cases=points(
        {"T": 1, "W": 2},
        {"T": 3, "W": 14},
        {"T": 9, "W": 66},
        {"T": 5, "W": 1154},
        {"T": 2, "W": 55296},
        {"T": 33, "W": 2000},
        {"T": 70, "W": 260},
    )
    + empty("T", "W")
    + points({"T": 64, "W": 8192}),
    bench_cases=grid(T=(1, 16, 512, 4096), W=(27648,)),
    tolerance=Tolerance(
        _error, "u(output) + 24 u(fp32), of which 16 are the exponential's argument"
    ),
    # Three products, a sum, a quotient and an exponential counted as three.
    flops=4 * T * W,
    space={
        "cuda": _GPU,
        "hip": _GPU,
        # tile: elements worked on at a time.
        "ascend": Space(tile=(1024, 2048, 4096, 8192)),
    },
    default={"cuda": _GPU_DEFAULT, "hip": _GPU_DEFAULT, "ascend": Config(tile=4096)},
    peers=Ref("peers:peers"),
)
