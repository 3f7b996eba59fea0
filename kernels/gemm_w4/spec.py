"""gemm_w4, declared once: activations times 4-bit weights with scales by groups of k."""

from __future__ import annotations

import math
from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, points
from tilewright.dims import cdiv, dims
from tilewright.dtypes import BF16, FP16, FP32, INT8, INT32, UINT8, DType
from tilewright.numerics import Tolerance
from tilewright.space import Config, Rule, Space
from tilewright.spec import KernelSpec, Layout, Precision, Ref, Tensor
from tilewright.targets import Target

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


def _fits_ascend(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    from tilewright.ascendc.ops.gemm_w4 import adapter

    return adapter.refuses(case, config, target)


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


def _within_group(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    if config["tile_k"] > int(case.flags["group"]):
        return f"tile_k={config['tile_k']} is above the group of {case.flags['group']} that shares a scale"
    return None


def _sums_fit(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    """A tile's sums and the step's own, and its weights on their way to the matrix unit."""
    threads = config["num_warps"] * target.limit("warp_size")
    each = config["tile_n"] * (2 * config["tile_m"] + config["tile_k"]) // threads
    return f"{each} values per thread, above 192: they would spill" if each > 192 else None


def _fits_shared(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    """Activations and packed weights on their way, and one step's weights as they are multiplied.

    On hip packed weights go through registers, and with minima nothing is kept for later steps.
    """
    operand = spec.precision(case.precision).dtypes["a"].bytes
    stages = max(1, config["num_stages"] - 1)
    x = config["tile_m"] * config["tile_k"] * operand
    w = config["tile_n"] * config["tile_k"]
    # fp32 is multiplied as parts of bf16.
    multiplied = w * min(operand, BF16.bytes)
    if target.kind != "hip":
        need = stages * (x + w // 2) + multiplied
    elif case.flags["zero"] == "min":
        need = max(x, multiplied)
    else:
        need = stages * x + multiplied
    limit = target.limit("shared_bytes")
    return f"needs {need} bytes of shared memory of {limit}" if need > limit else None


_GPU = Space(
    tile_m=(16, 32, 64, 128),
    tile_n=(32, 64, 128),
    tile_k=(32, 64, 128),
    num_warps=(2, 4, 8),
    num_stages=(1, 2, 3, 4, 5),
).where(
    Rule("one scale a step", _within_group),
    Rule("sums", _sums_fit),
    Rule("shared memory", _fits_shared),
)
_GPU_DEFAULT = Config(tile_m=16, tile_n=64, tile_k=32, num_warps=4, num_stages=4)
_ASCEND = Space(
    tile_m=(16, 32, 64, 128, 256),
    tile_n=tuple(range(16, 257, 16)),
    tile_k=(32, 64, 128),
    step_k=(1, 2, 4, 8),
    chunk=(128, 256, 512, 1024),
    slots=(2, 3, 4),
).where(Rule("what the kernel takes", _fits_ascend))
# Small, for Triton's lowering too: there unpacked codes and their copies for the cube fill the unified buffer.
_ASCEND_DEFAULT = Config(tile_m=16, tile_n=16, tile_k=32, step_k=4, chunk=256, slots=2)


def _tiling(spec: KernelSpec, case: Case, target: Target) -> Config | None:
    """On Ascend, tiles that give the busiest core least to do."""
    if target.kind != "ascend":
        return None
    from tilewright.ascendc.ops.gemm_w4 import adapter

    return adapter.tiling(case, target)


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
    space={"cuda": _GPU, "hip": _GPU, "ascend": _ASCEND},
    default={"cuda": _GPU_DEFAULT, "hip": _GPU_DEFAULT, "ascend": _ASCEND_DEFAULT},
    # What a call gets where nothing is tuned.
    tiling=_tiling,
    peers=Ref("peers:peers"),
)
