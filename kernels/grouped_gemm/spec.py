"""grouped_gemm, declared once: rows sorted by expert, each group times its expert's weights.

Rows ends[e-1] to ends[e] of `a` belong to expert e, counted from 0 for the first one; any group may be empty.
Rows from ends[E-1] on belong to nobody and come out as 0, without scale or bias.
"""

from __future__ import annotations

import math
from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, grid, points
from tilewright.dims import cdiv, dim, dims
from tilewright.dtypes import BF16, FP16, FP32, INT8, INT32, DType
from tilewright.kernels._triton import rules
from tilewright.kernels.gemm import tiles
from tilewright.kernels.gemm.spec import K_PER_LANE
from tilewright.kernels.grouped_gemm.tiling import tiling
from tilewright.numerics import dot_product_error
from tilewright.space import Config, Rule, Space
from tilewright.spec import KernelSpec, Layout, Precision, Ref, Tensor
from tilewright.targets import Target

T, E, N, K = dims("T E N K")
KR = dim("KR")


def _precision(name: str, operand: DType, out: DType, bias: DType, scale: str) -> Precision:
    dtypes = {
        "a": operand,
        "b": operand,
        "ends": INT32,
        "bias": bias,
        "row_scale": FP32,
        "col_scale": FP32,
        "c": out,
    }
    return Precision(
        name,
        dtypes=MappingProxyType(dtypes),
        accumulate=INT32 if operand is INT8 else FP32,
        sizes=MappingProxyType({"KR": K_PER_LANE[operand]}),
        flags=MappingProxyType({"scale": (scale,)}),
    )


def _float(operand: DType) -> Precision:
    return _precision(operand.name, operand, operand, operand, "none")


def _scaled_int8(out: DType) -> Precision:
    return _precision(f"int8->{out.name}", INT8, out, FP32, "row_col")


def rows_used(rows: int, experts: int) -> int:
    """Rows of a drawn case that belong to an expert: an odd number of rows leaves some of the last over."""
    return 0 if experts == 0 else rows - rows // 8 if rows % 2 else rows


def experts_used(rows: int, experts: int) -> int:
    """Experts of a drawn case with any row: a quarter has none, and no more have than there are rows."""
    return min(rows_used(rows, experts), experts - experts // 4)


def _flops(spec: KernelSpec, case: Case) -> float:
    size = case.sizes
    return 2.0 * rows_used(size["T"], size["E"]) * size["N"] * size["K"]


def _bytes(spec: KernelSpec, case: Case) -> float:
    """Every present tensor once, weights, bias and scales of experts without rows and rows of nobody not at all."""
    size, dtypes = case.sizes, spec.precision(case.precision).dtypes
    used, rows = experts_used(size["T"], size["E"]), rows_used(size["T"], size["E"])
    moved = {"a": rows, "row_scale": rows, **dict.fromkeys(("b", "bias", "col_scale"), used)}
    total = 0
    for tensor in spec.tensors:
        if tensor.present(case):
            first, *rest = (size[str(d)] for d in tensor.dims)
            total += moved.get(tensor.name, first) * math.prod(rest) * dtypes[tensor.name].bytes
    return float(total)


def _fits_ascend(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    from tilewright.ascendc.ops.grouped_gemm import adapter

    return adapter.refuses(case, config, target)


def _size(t: int, e: int, n: int, k: int) -> dict[str, int]:
    return {"T": t, "E": e, "N": n, "K": k}


_GPU = Space(
    tile_m=(16, 32, 64, 128),
    tile_n=(16, 32, 64, 128, 256),
    tile_k=(16, 32, 64, 128),
    num_warps=(1, 2, 4, 8),
    num_stages=(1, 2, 3, 4, 5),
    group_m=(1, 4, 8),
).where(
    Rule("depth of a dot", rules.dot_depth),
    Rule("accumulators", rules.sums_fill_threads),
    Rule("shared memory", rules.operands_fit_shared_memory),
)
_GPU_DEFAULT = Config({**tiles.GPU_BASELINE, "group_m": 8})

SPEC = KernelSpec(
    name="grouped_gemm",
    summary="C[T,N] = A[T,K] @ B[expert of the row][N,K]^T (x row and column scales) (+ bias[E,N]), rows sorted by expert",
    inputs=(
        Tensor("a", T, K),
        Tensor(
            "b",
            E,
            N,
            K,
            layouts={
                "NK": Layout((E, N, K)),
                "panel16": Layout(
                    (E, cdiv(N, 16), cdiv(K, KR), 16, KR),
                    Ref("reference:to_panel16"),
                    ("host",),
                    blocked=3,
                ),
            },
        ),
        Tensor("ends", E),
        Tensor("bias", E, N, when=("bias", ("yes",))),
        Tensor("row_scale", T, when=("scale", ("row_col",)), init="scale"),
        Tensor("col_scale", E, N, when=("scale", ("row_col",)), init="scale"),
    ),
    outputs=(Tensor("c", T, N),),
    precisions=(
        _float(FP32),
        _float(BF16),
        _float(FP16),
        _precision("int8->int32", INT8, INT32, INT32, "none"),
        _scaled_int8(FP32),
        _scaled_int8(BF16),
        _scaled_int8(FP16),
    ),
    flags=(
        Flag("b_layout", ("NK", "panel16"), "NK"),
        Flag.yes_no("bias"),
        Flag("scale", ("none", "row_col"), "none"),
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:grouped_gemm"),
    make_inputs=Ref("reference:make_inputs"),
    cases=points(
        *(_size(1, 1, 17, 1), _size(1, 3, 17, 63), _size(33, 4, 577, 63), _size(34, 4, 17, 576)),
        *(_size(64, 16, 48, 200), _size(7, 20, 33, 129), _size(130, 5, 65, 100)),
    )
    + empty("T", "E", "N", "K")
    + points(_size(0, 0, 0, 0), _size(520, 128, 80, 96), _size(700, 2, 100, 65))
    + points(_size(257, 8, 1536, 576)),
    bench_cases=grid(T=(8, 64, 512, 2048), E=(8,), N=(576, 1536), K=(576, 1536))
    + grid(T=(64, 512), E=(64,), N=(768,), K=(768,)),
    tolerance=dot_product_error(K),
    flops=_flops,
    bytes=_bytes,
    space={
        "cpu": Space(**tiles.HOST),
        "cuda": _GPU,
        "hip": _GPU,
        "ascend": Space(**{**tiles.CUBE, "tile_m": (16, 32, 64, 128)}, unit_flag=(0, 1)).where(
            Rule("what the kernel takes", _fits_ascend)
        ),
    },
    # The baseline, which tuning starts from: 32x32 tiles, double-buffered, as gemm's.
    default={
        "cpu": tiles.HOST_BASELINE,
        "cuda": _GPU_DEFAULT,
        "hip": _GPU_DEFAULT,
        "ascend": Config({**tiles.CUBE_BASELINE, "unit_flag": 0}),
    },
    # What a call gets where nothing is tuned.
    tiling=tiling,
    peers=Ref("peers:peers"),
)
