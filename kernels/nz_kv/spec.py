"""nz_kv, declared once: tokens to and from KV pages in Ascend's fractal NZ layout. Nothing is computed."""

from __future__ import annotations

from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, grid, points
from tilewright.dims import cdiv, dims
from tilewright.dtypes import BF16, FP16, FP32, INT8, INT32, DType
from tilewright.kernels._kv.formats import C0, PAGE, PAGE_ALIGN
from tilewright.numerics import exact
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Layout, Precision, Ref, Tensor

T, HKV, D, P = dims("T HKV D P")


def _precision(element: DType) -> Precision:
    return Precision(
        element.name,
        MappingProxyType({"x": element, "slots": INT32, "pages": element, "y": element}),
        accumulate=FP32,
        sizes=MappingProxyType({"C0": 32 // element.bytes}),
    )


def _bytes(spec: KernelSpec, case: Case) -> float:
    """Every token is read once and written once, its slot read; untouched pages do not move."""
    row = case.sizes["HKV"] * case.sizes["D"] * spec.precision(case.precision).dtypes["pages"].bytes
    return float(case.sizes["T"] * (2 * row + INT32.bytes))


def _no_operations(spec: KernelSpec, case: Case) -> float:
    return 0.0


_GPU = Space(tile_t=(1, 2, 4, 8, 16, 32), num_warps=(1, 2, 4, 8), num_stages=(1, 2))
_GPU_DEFAULT = Config(tile_t=16, num_warps=4, num_stages=1)

SPEC = KernelSpec(
    name="nz_kv",
    summary="x[T,HKV,D] to NZ pages by slots (write), or back to y[T,HKV,D] (read)",
    inputs=(
        Tensor("x", T, HKV, D, when=("direction", ("write",))),
        Tensor("slots", T),
    ),
    outputs=(
        Tensor(
            "pages",
            P,
            PAGE,
            HKV,
            D,
            layouts={
                "nz": Layout((P, HKV, cdiv(D, C0), PAGE, C0), Ref("reference:to_nz"), blocked=4)
            },
            layout_flag="kv_layout",
            inout=True,
            align=PAGE_ALIGN,
        ),
        Tensor("y", T, HKV, D, when=("direction", ("read",))),
    ),
    precisions=tuple(_precision(element) for element in (FP32, BF16, FP16, INT8)),
    flags=(
        Flag("direction", ("write", "read"), "write"),
        Flag("kv_layout", ("nz",), "nz"),
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:nz_kv"),
    make_inputs=Ref("reference:make_inputs"),
    cases=points(
        {"T": 1, "HKV": 1, "D": 64, "P": 1},
        {"T": 7, "HKV": 3, "D": 1, "P": 4},
        {"T": 40, "HKV": 2, "D": 33, "P": 5},
        {"T": 33, "HKV": 3, "D": 80, "P": 3},
        {"T": 100, "HKV": 5, "D": 17, "P": 4},
        {"T": 64, "HKV": 1, "D": 128, "P": 9},
        {"T": 50, "HKV": 8, "D": 96, "P": 6},
    )
    + empty("T", "HKV", "D", "P")
    + points({"T": 600, "HKV": 2, "D": 64, "P": 48}),
    bench_cases=grid(T=(64, 4096), HKV=(8,), D=(128,), P=(512,)),
    tolerance=exact(),
    flops=_no_operations,
    bytes=_bytes,
    space={
        "cpu": Space(stream=(0, 1, 2)),
        "cuda": _GPU,
        "hip": _GPU,
        # tile_blocks: blocks of 32 bytes of each token that are turned at a time; two tiles fill UB at 95.
        "ascend": Space(tile_blocks=(8, 16, 32, 64, 95)),
    },
    default={
        # stream: stores past the caches: 0 never, 1 always, 2 where the batch far exceeds the second cache.
        "cpu": Config(stream=2),
        "cuda": _GPU_DEFAULT,
        "hip": _GPU_DEFAULT,
        "ascend": Config(tile_blocks=64),
    },
)
