"""kv_write, declared once: new keys and values into a paged cache, quantised on the way.

Keys of 4 bits are quantised a page at a time, so a page is open until its last token comes:

- A call *closes* a page if it writes the page's token 15. The page's keys are then quantised: those of
  this call from `k`, earlier ones from row `open_row` of `k_open`. `k_open` is not written.
- A page that the call writes without closing it stays open: its keys go to `k_open`, token t to row t of
  `k_open[open_row]`. Its codes and scales are not written.
- Values are quantised token by token in any case.
- For 4 bits, tokens of a page are neighbours in the call, in ascending order without gaps, and have one
  `open_row` in [0,NS) (a token whose slot is -1 has none). A row of `k_open` belongs to one page a call:
  a sequence that closes a page begun before, and goes on in the next one, takes two calls. So rows
  are read or written, never both, and a call may be repeated.
"""

from __future__ import annotations

from types import MappingProxyType

from tilewright.cases import Case, Flag, SizeGrid, empty, grid, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, INT32, DType
from tilewright.kernels._kv import formats
from tilewright.kernels._kv.formats import HKV, KV, KV_LAYOUT, PAGE, P
from tilewright.numerics import exact
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

T, DK, DV, NS = dims("T DK DV NS")
_KV4 = ("kv", ("kv4",))


def _precision(compute: DType, kv: str) -> Precision:
    code = formats.code_dtype(compute, kv)
    own = {"k": compute, "v": compute, "slots": INT32, "open_row": INT32}
    own |= {"k_cache": code, "v_cache": code, "k_open": compute}
    own |= formats.dtypes("k_", compute, kv, key=True) | formats.dtypes(
        "v_", compute, kv, key=False
    )
    return formats.kv_precision(compute, kv, own, MappingProxyType({}))


def _valid(spec: KernelSpec, case: Case) -> str | None:
    for name in ("DK", "DV"):
        if case.flags["kv"] == "kv4" and case.sizes[name] % 4:
            return f"{name}={case.sizes[name]} with kv=kv4; accepted: multiples of 4"
    return None


def _bytes(spec: KernelSpec, case: Case) -> float:
    """Rows read, codes and scales of tokens written, slots read; all keys of 4 bits in pages that close."""
    size = case.sizes
    types, kv = spec.precision(case.precision).dtypes, case.flags["kv"]
    elements = size["HKV"] * (size["DK"] + size["DV"])
    code = 0.5 if kv == "kv4" else types["k_cache"].bytes
    moved = size["T"] * (elements * (types["k"].bytes + code) + INT32.bytes)
    if kv == "c8s":
        moved += elements * FP32.bytes
    if kv == "c8d":
        moved += size["T"] * size["HKV"] * 2 * FP32.bytes
    if kv == "kv4":
        by_page = 2 * FP16.bytes * size["DK"] / PAGE
        moved += size["T"] * (INT32.bytes + size["HKV"] * (2 * FP16.bytes + by_page))
    return float(moved)


def _operations(spec: KernelSpec, case: Case) -> float:
    """A multiplication and a rounding for each element quantised, comparisons where a range is searched."""
    each = {"float": 0, "c8s": 2, "c8d": 3, "kv4": 5}[case.flags["kv"]]
    size = case.sizes
    return float(each * size["T"] * size["HKV"] * (size["DK"] + size["DV"]))


def _cases() -> SizeGrid:
    return (
        points(
            {"T": 1, "HKV": 1, "DK": 64, "DV": 64, "P": 1, "NS": 1},
            {"T": 40, "HKV": 3, "DK": 64, "DV": 64, "P": 5, "NS": 4},
            {"T": 33, "HKV": 2, "DK": 36, "DV": 4, "P": 3, "NS": 2},
            {"T": 100, "HKV": 2, "DK": 192, "DV": 128, "P": 9, "NS": 7},
            {"T": 64, "HKV": 8, "DK": 128, "DV": 128, "P": 20, "NS": 16},
            {"T": 50, "HKV": 1, "DK": 100, "DV": 80, "P": 12, "NS": 9},
            {"T": 20, "HKV": 1, "DK": 576, "DV": 0, "P": 6, "NS": 3},
        )
        + empty("T", "HKV", "DK", "P", "NS")
        + points({"T": 600, "HKV": 2, "DK": 64, "DV": 64, "P": 48, "NS": 8})
    )


_GPU = Space(tile_t=(1, 2, 4, 8, 16, 32), num_warps=(1, 2, 4, 8), num_stages=(1, 2))
_GPU_DEFAULT = Config(tile_t=16, num_warps=4, num_stages=1)

SPEC = KernelSpec(
    name="kv_write",
    summary="k[T,HKV,DK], v[T,HKV,DV] into pages of a KV cache by slots, quantised on the way",
    inputs=(
        Tensor("k", T, HKV, DK),
        Tensor("v", T, HKV, DV),
        Tensor("slots", T),
        Tensor("k_channel_scale", HKV, DK, when=("kv", ("c8s",)), init="scale"),
        Tensor("v_channel_scale", HKV, DV, when=("kv", ("c8s",)), init="scale"),
        Tensor("open_row", T, when=_KV4),
    ),
    outputs=(
        formats.pages("k_cache", DK, inout=True),
        formats.pages("v_cache", DV, inout=True),
        Tensor("k_token_scale", P, PAGE, HKV, when=("kv", ("c8d",)), inout=True),
        Tensor("v_token_scale", P, PAGE, HKV, when=("kv", ("c8d", "kv4")), inout=True),
        Tensor("v_token_zero", P, PAGE, HKV, when=_KV4, inout=True),
        Tensor("k_page_scale", P, HKV, DK, when=_KV4, inout=True),
        Tensor("k_page_zero", P, HKV, DK, when=_KV4, inout=True),
        Tensor("k_open", NS, PAGE, HKV, DK, when=_KV4, inout=True),
    ),
    precisions=tuple(_precision(compute, kv) for kv in KV for compute in (FP32, BF16, FP16)),
    flags=(Flag("kv", KV, "float"), KV_LAYOUT, Flag.yes_no("batch_invariant")),
    reference=Ref("reference:kv_write"),
    make_inputs=Ref("reference:make_inputs"),
    cases=_cases(),
    bench_cases=grid(T=(64, 4096), HKV=(8,), DK=(128,), DV=(128,), P=(512,), NS=(64,)),
    tolerance=exact(),
    flops=_operations,
    bytes=_bytes,
    valid=_valid,
    space={
        "cpu": Space(stream=(0, 1, 2)),
        "cuda": _GPU,
        "hip": _GPU,
        "ascend": Space(tile_elements=(2048, 4096, 8192)),
    },
    default={
        # stream: stores past the caches: 0 never, 1 always, 2 where the batch far exceeds the second cache.
        "cpu": Config(stream=2),
        "cuda": _GPU_DEFAULT,
        "hip": _GPU_DEFAULT,
        # tile_elements: of 16 tokens of some heads, one at least, that are worked on at a time.
        "ascend": Config(tile_elements=8192),
    },
)
