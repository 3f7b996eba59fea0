"""rmsnorm, declared once: rows divided by their root mean square, after a residual was added or not."""

from __future__ import annotations

import math
from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, grid, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, DType
from tilewright.numerics import Tolerance, exact
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

T, D = dims("T D")
_RESIDUAL = ("residual", ("yes",))


def _precision(element: DType) -> Precision:
    names = ("x", "weight", "residual", "y", "h")
    return Precision(element.name, MappingProxyType(dict.fromkeys(names, element)), accumulate=FP32)


def _valid(spec: KernelSpec, case: Case) -> str | None:
    if case.number("eps") < 0:
        return f"eps={case.flags['eps']} is negative; accepted: 0 or more"
    return None


def _error(spec: KernelSpec, case: Case) -> float:
    """A sum of D squares errs by 4 sqrt(D) u, of which the root leaves half; six more roundings."""
    rounded = 2.0 * math.sqrt(max(1, case.sizes["D"])) + 6.0
    return spec.dtype_of(spec.outputs[0], case).unit_roundoff + rounded * 2.0**-24


def _flops(spec: KernelSpec, case: Case) -> float:
    """A square and its sum, two products an element; the residual's sum."""
    each = 5.0 if case.flags["residual"] == "yes" else 4.0
    return each * case.sizes["T"] * case.sizes["D"]


_GPU = Space(num_warps=(1, 2, 4, 8, 16), num_stages=(1,))
_GPU_DEFAULT = Config(num_warps=4, num_stages=1)

SPEC = KernelSpec(
    name="rmsnorm",
    summary="y[T,D] = h * rsqrt(mean(h^2) + eps) * weight[D], h = x or x + residual",
    inputs=(Tensor("x", T, D), Tensor("weight", D), Tensor("residual", T, D, when=_RESIDUAL)),
    outputs=(
        Tensor("y", T, D),
        # fp32 sum, then rounded to the type: one value everywhere.
        Tensor("h", T, D, when=_RESIDUAL, tolerance=exact()),
    ),
    precisions=tuple(_precision(element) for element in (FP32, BF16, FP16)),
    flags=(
        Flag.yes_no("residual"),
        Flag.number("eps", ("1e-06", "1e-05"), "1e-06"),
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:rmsnorm"),
    make_inputs=Ref("reference:make_inputs"),
    valid=_valid,
    cases=points(
        {"T": 1, "D": 1},
        {"T": 3, "D": 7},
        {"T": 9, "D": 33},
        {"T": 5, "D": 577},
        {"T": 2, "D": 16384},
        {"T": 33, "D": 1000},
        {"T": 70, "D": 130},
    )
    + empty("T", "D")
    + points({"T": 64, "D": 4096}),
    bench_cases=grid(T=(1, 16, 512, 4096), D=(5120,)),
    tolerance=Tolerance(_error, "u(output) + (2 sqrt(D) + 6) u(fp32)"),
    flops=_flops,
    space={
        "cuda": _GPU,
        "hip": _GPU,
        # tile_t: rows worked on at a time, where they fit.
        "ascend": Space(tile_t=(1, 2, 4, 8, 16)),
    },
    default={"cuda": _GPU_DEFAULT, "hip": _GPU_DEFAULT, "ascend": Config(tile_t=4)},
    peers=Ref("peers:peers"),
)
