"""gemm_w4, declared once: activations times 4-bit weights with scales by groups of k."""

from __future__ import annotations

import math
from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, points
from tilewright.dims import cdiv, dims
from tilewright.dtypes import BF16, FP16, FP32, INT8, INT32, UINT8, DType
from tilewright.numerics import Tolerance
from tilewright.spec import KernelSpec, Layout, Precision, Ref, Tensor

M, N, K, G = dims("M N K G")


def _precision(name: str, operand: DType, out: DType, bias: DType) -> Precision:
    dtypes = {
        "a": operand,
        "b": INT32,
        "scale": FP16,
        "zero": UINT8,
        "minimum": FP16,
        "row_scale": FP32,
        "bias": bias,
        "c": out,
    }
    activations = "int8" if operand is INT8 else "float"
    return Precision(
        name,
        MappingProxyType(dtypes),
        accumulate=FP32,
        flags=MappingProxyType({"activations": (activations,)}),
    )


def _float(operand: DType) -> Precision:
    return _precision(operand.name, operand, operand, operand)


def _int8(out: DType) -> Precision:
    return _precision(f"int8->{out.name}", INT8, out, FP32)


def _valid(spec: KernelSpec, case: Case) -> str | None:
    group, k, g = int(case.flags["group"]), case.sizes["K"], case.sizes["G"]
    if g == -(-k // group):
        return None
    return f"K={k} has {-(-k // group)} groups of {group}, not G={g}"


def _error(spec: KernelSpec, case: Case) -> float:
    """Sums of K products in fp32, as a plain product's; two sums of about twice the size with minima."""
    out = spec.dtype_of(spec.outputs[0], case).unit_roundoff
    sums = 4.0 * math.sqrt(max(1, case.sizes["K"])) * FP32.unit_roundoff
    return out + sums * (4.0 if case.flags["zero"] == "min" else 1.0) + 3.0 * FP32.unit_roundoff


def _bytes(spec: KernelSpec, case: Case) -> float:
    """Half a byte a weight; everything else once."""
    sizes, dtypes = case.sizes, spec.precision(case.precision).dtypes
    total = (
        sizes["M"] * sizes["K"] * dtypes["a"].bytes + sizes["M"] * sizes["N"] * dtypes["c"].bytes
    )
    total += sizes["N"] * -(-sizes["K"] // 2)
    for tensor in spec.inputs[2:]:
        if tensor.present(case):
            count = math.prod(int(sizes[str(d)]) for d in tensor.dims)
            total += count * dtypes[tensor.name].bytes
    return float(total)


def _by_group(name: str, when: str | None = None) -> Tensor:
    return Tensor(
        name,
        N,
        G,
        layouts={
            "rows": Layout((N, G)),
            "panel16": Layout(
                (cdiv(N, 16), G, 16), Ref("formats:groups_to_panel16"), ("host",), blocked=2
            ),
        },
        layout_flag="b_layout",
        when=("zero", (when,)) if when else None,
    )


def _size(m: int, n: int, k: int, g: int) -> dict[str, int]:
    return {"M": m, "N": n, "K": k, "G": g}


SPEC = KernelSpec(
    name="gemm_w4",
    summary="C[M,N] = A[M,K] @ W[N,K]^T, W of 4-bit codes with scales by groups of k (+ bias[N])",
    inputs=(
        Tensor("a", M, K),
        Tensor(
            "b",
            N,
            K,
            layouts={
                "rows": Layout((N, cdiv(K, 8)), Ref("formats:codes_to_rows")),
                "panel16": Layout(
                    (cdiv(N, 16), cdiv(K, 32), 4, 16),
                    Ref("formats:codes_to_panel16"),
                    ("host",),
                    blocked=3,
                ),
            },
        ),
        _by_group("scale"),
        _by_group("zero", "asym"),
        _by_group("minimum", "min"),
        Tensor("row_scale", M, when=("activations", ("int8",)), init="scale"),
        Tensor("bias", N, when=("bias", ("yes",))),
    ),
    outputs=(Tensor("c", M, N),),
    precisions=(
        _float(FP32),
        _float(BF16),
        _float(FP16),
        _int8(FP32),
        _int8(BF16),
        _int8(FP16),
    ),
    flags=(
        Flag("b_layout", ("rows", "panel16"), "rows"),
        Flag("group", ("32", "64", "128"), "32"),
        Flag("zero", ("sym", "asym", "min"), "sym"),
        Flag.yes_no("bias"),
        Flag("activations", ("float", "int8"), "float"),
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:gemm_w4"),
    make_inputs=Ref("reference:make_inputs"),
    valid=_valid,
    cases=points(
        *(_size(1, 17, 1, 1), _size(1, 1, 64, 2), _size(1, 33, 64, 1), _size(7, 577, 576, 18)),
        *(_size(7, 577, 576, 9), _size(3, 100, 576, 5), _size(33, 48, 200, 7)),
        *(_size(33, 48, 200, 4), _size(33, 48, 200, 2), _size(1, 530, 1000, 32)),
        *(_size(2, 530, 1000, 16), _size(5, 530, 1000, 8), _size(6, 15, 129, 5)),
        *(_size(13, 65, 129, 3), _size(29, 80, 129, 2), _size(64, 257, 512, 16)),
        *(_size(64, 257, 512, 8), _size(16, 512, 1536, 12)),
    )
    + empty("M", "N")
    + points(_size(3, 20, 0, 0), _size(0, 0, 0, 0), _size(1, 16, 128, 1))
    + points(_size(16, 576, 1536, 48), _size(16, 1536, 576, 9), _size(70, 576, 1536, 12)),
    bench_cases=points(
        *(_size(m, n, n, n // 32) for n in (576, 2048, 4096) for m in (1, 4, 16, 64))
    ),
    tolerance=Tolerance(
        _error, "u(output) + 4 sqrt(K) u(fp32), four times that with minima, + three fp32 roundings"
    ),
    flops=2 * M * N * K,
    bytes=_bytes,
    space={},
    default={},
    peers=Ref("peers:peers"),
)
