"""gemm, declared once."""

from __future__ import annotations

from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, grid
from tilewright.dims import cdiv, dim, dims
from tilewright.dtypes import BF16, FP16, FP32, INT8, INT32, DType
from tilewright.kernels._triton import rules
from tilewright.kernels.gemm import tiles
from tilewright.numerics import dot_product_error
from tilewright.space import Config, Rule, Space
from tilewright.spec import KernelSpec, Layout, Precision, Ref, Tensor
from tilewright.targets import Target

from .tiling import tiling

# Outputs whose partial sums, of columns in panels of 16, take more occupy every core without a split. The host kernel has the same bound.
_MOST_PARTIAL_BYTES = 256 << 20
M, N, K = dims("M N K")
KR = dim("KR")

# Values of k that lie together in a panel16 row: one 32-bit lane's worth, and 1 for fp16, which has
# no dot-product instruction on the levels we compile for.
K_PER_LANE = {FP32: 1, BF16: 2, FP16: 1, INT8: 4}


def _precision(
    name: str, operand: DType, out: DType, bias: DType, scales: tuple[str, ...]
) -> Precision:
    return Precision(
        name,
        dtypes=MappingProxyType(
            {
                "a": operand,
                "b": operand,
                "bias": bias,
                "row_scale": FP32,
                "col_scale": FP32,
                "c": out,
            }
        ),
        accumulate=INT32 if operand is INT8 else FP32,
        sizes=MappingProxyType({"KR": K_PER_LANE[operand]}),
        flags=MappingProxyType({"scale": scales}),
    )


def _float(operand: DType) -> Precision:
    return _precision(operand.name, operand, operand, operand, ("none",))


def _scaled_int8(out: DType) -> Precision:
    return _precision(f"int8->{out.name}", INT8, out, FP32, ("row_col", "col"))


def _fits_ascend(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    from tilewright.ascendc.ops.gemm import adapter

    return adapter.refuses(case, config, target)


def _split(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    split = config.get("split_k", 1)
    sums = split * case.sizes["M"] * -(-case.sizes["N"] // 16) * 16 * 4
    if split > 1 and sums > _MOST_PARTIAL_BYTES:
        return f"split_k={split} takes {sums} bytes of partial sums of {_MOST_PARTIAL_BYTES}"
    if split > 1 and case.flags["batch_invariant"] == "yes":
        return f"split_k={split} may follow from M, and with it the bits of a row; accepted: 1"
    return None


_GPU = Space(
    tile_m=(16, 32, 64, 128, 256),
    tile_n=(16, 32, 64, 128, 256),
    tile_k=(16, 32, 64, 128),
    num_warps=(1, 2, 4, 8),
    num_stages=(1, 2, 3, 4, 5),
    group_m=(1, 4, 8),
    split_k=(1, 2, 4, 8),
).where(
    Rule("depth of a dot", rules.dot_depth),
    Rule("accumulators", rules.sums_fill_threads),
    Rule("shared memory", rules.operands_fit_shared_memory),
    Rule("split of K", _split),
)

_GPU_BASELINE = Config({**tiles.GPU_BASELINE, "group_m": 8, "split_k": 1})

SPEC = KernelSpec(
    name="gemm",
    summary="C[M,N] = A[M,K] @ B[K,N] (x row and column scales) (+ bias[N])",
    inputs=(
        Tensor("a", M, K),
        Tensor(
            "b",
            K,
            N,
            layouts={
                "KN": Layout((K, N)),
                "NK": Layout((N, K), Ref("reference:to_nk")),
                "panel16": Layout(
                    (cdiv(N, 16), cdiv(K, KR), 16, KR),
                    Ref("reference:to_panel16"),
                    ("host",),
                    blocked=3,
                ),
            },
        ),
        Tensor("bias", N, when=("bias", ("yes",))),
        Tensor("row_scale", M, when=("scale", ("row_col",)), init="scale"),
        Tensor("col_scale", N, when=("scale", ("row_col", "col")), init="scale"),
    ),
    outputs=(Tensor("c", M, N),),
    precisions=(
        _float(FP32),
        _float(BF16),
        _float(FP16),
        _precision("int8->int32", INT8, INT32, INT32, ("none",)),
        _scaled_int8(FP32),
        _scaled_int8(BF16),
        _scaled_int8(FP16),
    ),
    flags=(
        Flag("b_layout", ("KN", "NK", "panel16"), "NK"),
        Flag.yes_no("bias"),
        Flag("scale", ("none", "row_col", "col"), "none"),
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:gemm"),
    cases=grid(M=(1, 33), N=(17, 577), K=(1, 63, 576))
    + empty("M", "N", "K")
    + grid(M=(256,), N=(1536,), K=(576,)),
    bench_cases=grid(M=(1, 16, 64, 256, 1024), N=(576, 1536), K=(576, 1536)),
    tolerance=dot_product_error(K),
    flops=2 * M * N * K,
    space={
        "cpu": Space(**tiles.HOST, split_k=(1, 2, 4, 8)).where(Rule("split of K", _split)),
        "cuda": _GPU,
        "hip": _GPU,
        "ascend": Space(
            **{**tiles.CUBE, "tile_k": (16, *tiles.CUBE["tile_k"])},
            grid_m=(0, 1, 2, 4, 6),
            grid_n=(0, 1, 4, 6, 12),
            unit_flag=(0, 1),
            l2_split_m=(1, 2),
        ).where(Rule("what the kernel takes", _fits_ascend)),
    },
    # The baseline: 32x32 tiles, double-buffered, on every backend; what tuning starts from.
    default={
        "cpu": Config({**tiles.HOST_BASELINE, "split_k": 1}),
        "cuda": _GPU_BASELINE,
        "hip": _GPU_BASELINE,
        "ascend": Config(
            {**tiles.CUBE_BASELINE, "grid_m": 0, "grid_n": 0, "unit_flag": 0, "l2_split_m": 1}
        ),
    },
    # What a call gets where nothing is tuned.
    tiling=tiling,
    peers=Ref("peers:peers"),
)
