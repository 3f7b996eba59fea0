"""hadamard, declared once: the normalised Walsh-Hadamard transform of each row.

y = (H_m kron H_2^n) x / sqrt(D) with D = m * 2^n: channel a * 2^n + b is row a of H_m (`matrices.py`) and
row b of Sylvester's matrix, whose entry (b, c) is -1 to the number of bits that b and c share.
"""

from __future__ import annotations

from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, grid, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, DType
from tilewright.kernels.hadamard.matrices import LARGEST, parts
from tilewright.numerics import Tolerance
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

T, D = dims("T D")


def _precision(element: DType) -> Precision:
    return Precision(element.name, MappingProxyType({"x": element, "y": element}), accumulate=FP32)


def _valid(spec: KernelSpec, case: Case) -> str | None:
    d = case.sizes["D"]
    if d and parts(d) is None:
        return f"D={d}; accepted: 0 and m * 2^n up to {LARGEST} with m 1, 12, 20, 28 or 36"
    return None


def _steps(case: Case) -> int:
    """Sums behind each output."""
    m, n = parts(case.sizes["D"]) or (1, 0)
    return n + m - 1


def _error(spec: KernelSpec, case: Case) -> float:
    """Each step errs by u of the norm, which it keeps but for the final factor."""
    return spec.dtype_of(spec.outputs[0], case).unit_roundoff + (_steps(case) + 2) * 2.0**-24


def _flops(spec: KernelSpec, case: Case) -> float:
    """A sum for each step, and the factor."""
    return float(case.sizes["T"] * case.sizes["D"] * (_steps(case) + 1))


_GPU = Space(num_warps=(1, 2, 4, 8, 16), num_stages=(1,))
_GPU_DEFAULT = Config(num_warps=8, num_stages=1)

SPEC = KernelSpec(
    name="hadamard",
    summary="y[T,D] = (H_m kron H_2^n) x / sqrt(D), D = m * 2^n, m 1, 12, 20, 28 or 36",
    inputs=(Tensor("x", T, D),),
    outputs=(Tensor("y", T, D),),
    precisions=tuple(_precision(element) for element in (FP32, BF16, FP16)),
    flags=(Flag.yes_no("batch_invariant"),),
    reference=Ref("reference:hadamard"),
    make_inputs=Ref("reference:make_inputs"),
    valid=_valid,
    cases=points(
        {"T": 1, "D": 1},
        {"T": 3, "D": 8},
        {"T": 5, "D": 12},
        {"T": 9, "D": 64},
        {"T": 4, "D": 40},
        {"T": 3, "D": 7168},
        {"T": 33, "D": 576},
        {"T": 2, "D": 32768},
        {"T": 7, "D": 768},
        {"T": 6, "D": 36},
    )
    + empty("T", "D")
    + points({"T": 64, "D": 1024}),
    bench_cases=grid(T=(16, 512, 4096), D=(128, 4096, 5120)),
    tolerance=Tolerance(_error, "u(output) + (n + m + 1) u(fp32)"),
    flops=_flops,
    space={
        "cuda": _GPU,
        "hip": _GPU,
        # tile_t: rows worked on at a time, where they fit.
        "ascend": Space(tile_t=(1, 2, 4, 8, 16, 32)),
    },
    default={"cuda": _GPU_DEFAULT, "hip": _GPU_DEFAULT, "ascend": Config(tile_t=32)},
    peers=Ref("peers:peers"),
)
