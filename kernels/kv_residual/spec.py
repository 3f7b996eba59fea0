"""kv_residual, declared once: whole pages of keys or values to quantised codes with residuals, and back.

One tensor, keys or values. The formats are those of `kernels/_kv/formats.py`; `kv4_key` has a scale and
zero per page and channel, `kv4_value` per token. `select` says of each vector (page, token, head) whether
it gets a residual (1), is kept in float (2) or neither (0).

A page and head's residuals are a run of neighbouring rows of `pool`. A run starts at `used_before[0]` plus the
lengths of all runs of earlier pages of the call and of earlier heads of its page; a run that ends
beyond the pool is left out: its mask and rank are 0 and its vectors are plain base codes. So the first run
left out ends the filling, and places are a prefix sum. Float vectors are placed in `fpool` alike, from
`used_before[1]`. `used_after` are the rows in use then; what earlier contents of the pages used is not
given back here.
"""

from __future__ import annotations

from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, INT8, INT32, UINT8, DType
from tilewright.kernels._kv import formats
from tilewright.kernels._kv.formats import HKV, KV_LAYOUT, PAGE, P
from tilewright.numerics import Tolerance, exact
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

N, D, R, F = dims("N D R F")
_WRITE = ("direction", ("write",))


def _precision(compute: DType, kv: str) -> Precision:
    own = {"x": compute, "y": compute, "select": UINT8, "page_ids": INT32}
    own |= {"used_before": INT32, "used_after": INT32}
    own |= {"codes": formats.code_dtype(compute, kv)}
    own |= formats.dtypes("", compute, kv, key=True) | formats.dtypes("", compute, kv, key=False)
    values = ("kv4_key", "kv4_value") if kv == "kv4" else (kv,)
    return formats.kv_precision(compute, kv, own, MappingProxyType({"kv": values}))


def _valid(spec: KernelSpec, case: Case) -> str | None:
    size = case.sizes
    if size["D"] % 4:
        return f"D={size['D']}; accepted: multiples of 4, four channels share a lane"
    if size["N"] > size["P"]:
        return f"N={size['N']} pages of P={size['P']}; accepted: N up to P, no page twice"
    return None


def _bytes(spec: KernelSpec, case: Case) -> float:
    """Floats, codes, scales, masks and ranks of N pages; residuals are counted by what is selected: not here."""
    size, kv = case.sizes, case.flags["kv"]
    vectors = size["N"] * PAGE * size["HKV"]
    compute = spec.precision(case.precision).dtypes["x"].bytes
    code = 0.5 if kv.startswith("kv4") else INT8.bytes
    moved = vectors * size["D"] * (compute + code)
    scale = {"c8s": 0, "c8d": FP32.bytes, "kv4_key": 0, "kv4_value": 2 * FP16.bytes}[kv]
    moved += vectors * scale
    if kv == "kv4_key":
        moved += size["N"] * size["HKV"] * size["D"] * 2 * FP16.bytes
    moved += size["N"] * (size["HKV"] * 2 * (2 + INT32.bytes) + INT32.bytes)
    if case.flags["direction"] == "write":
        moved += vectors
    return float(moved)


def _operations(spec: KernelSpec, case: Case) -> float:
    """Two operations an element to dequantise; to quantise, as many and the search of the range."""
    size = case.sizes
    each = 2 if case.flags["direction"] == "read" else 4
    return float(each * size["N"] * PAGE * size["HKV"] * size["D"])


def _read_error() -> Tolerance:
    def bound(spec: KernelSpec, case: Case) -> float:
        return spec.precision(case.precision).dtypes["y"].unit_roundoff + 3 * 2.0**-24

    return Tolerance(bound, "u(output) + 3 fp32 roundings: scale, zero, residual")


_GPU = Space(num_warps=(1, 2, 4, 8), num_stages=(1, 2))
_GPU_DEFAULT = Config(num_warps=4, num_stages=1)

SPEC = KernelSpec(
    name="kv_residual",
    summary="pages x[N,16,HKV,D] to codes with residuals (write), or back to y[N,16,HKV,D] (read)",
    inputs=(
        Tensor("x", N, PAGE, HKV, D, when=_WRITE),
        Tensor("page_ids", N),
        Tensor("select", N, PAGE, HKV, when=_WRITE),
        Tensor("channel_scale", HKV, D, when=("kv", ("c8s",)), init="scale"),
        Tensor("used_before", 2, when=_WRITE),
    ),
    outputs=(
        formats.pages("codes", D, inout=True),
        Tensor("token_scale", P, PAGE, HKV, when=("kv", ("c8d", "kv4_value")), inout=True),
        Tensor("token_zero", P, PAGE, HKV, when=("kv", ("kv4_value",)), inout=True),
        Tensor("page_scale", P, HKV, D, when=("kv", ("kv4_key",)), inout=True),
        Tensor("page_zero", P, HKV, D, when=("kv", ("kv4_key",)), inout=True),
        *formats.residuals("", D, inout=True, always=True),
        Tensor("used_after", 2, when=_WRITE),
        Tensor("y", N, PAGE, HKV, D, when=("direction", ("read",)), tolerance=_read_error()),
    ),
    precisions=tuple(_precision(c, kv) for kv in formats.QUANTISED for c in (FP32, BF16, FP16)),
    flags=(
        Flag("direction", ("write", "read"), "write"),
        Flag("kv", ("c8s", "c8d", "kv4_key", "kv4_value"), "c8s"),
        Flag("residual", ("nested", "e3m0"), "nested"),
        KV_LAYOUT,
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:kv_residual"),
    make_inputs=Ref("reference:make_inputs"),
    cases=points(
        {"N": 1, "HKV": 1, "D": 64, "P": 1, "R": 16, "F": 16},
        {"N": 3, "HKV": 3, "D": 4, "P": 4, "R": 20, "F": 5},
        {"N": 2, "HKV": 2, "D": 36, "P": 5, "R": 64, "F": 64},
        {"N": 4, "HKV": 2, "D": 128, "P": 7, "R": 40, "F": 3},
        {"N": 2, "HKV": 8, "D": 100, "P": 2, "R": 90, "F": 20},
        {"N": 2, "HKV": 1, "D": 576, "P": 3, "R": 9, "F": 9},
    )
    + empty("N", "HKV", "D", "R", "F")
    + points({"N": 6, "HKV": 3, "D": 80, "P": 9, "R": 80, "F": 30}),
    bench_cases=points(
        *({"N": n, "HKV": 8, "D": 128, "P": 512, "R": 4096, "F": 512} for n in (4, 256))
    ),
    tolerance=exact(),
    flops=_operations,
    bytes=_bytes,
    valid=_valid,
    space={
        "cuda": _GPU,
        "hip": _GPU,
        # tile_elements: of 16 tokens of some heads, one at least, that are worked on at a time.
        "ascend": Space(tile_elements=(2048, 4096, 8192)),
    },
    default={
        "cuda": _GPU_DEFAULT,
        "hip": _GPU_DEFAULT,
        "ascend": Config(tile_elements=8192),
    },
)
