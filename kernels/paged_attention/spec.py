"""paged_attention, declared once."""

from __future__ import annotations

import math

from tilewright.cases import Case, Flag, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, INT32, DType
from tilewright.kernels._kv.formats import (
    HKV,
    KV,
    KV_LAYOUT,
    PAGE,
    QUANTISED,
    RESIDUAL,
    code_dtype,
    dtypes,
    kv_precision,
    pages,
    residuals,
    scales,
)
from tilewright.kernels._triton.rules import attention_sums_fit
from tilewright.numerics import Tolerance
from tilewright.space import Config, Rule, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor
from tilewright.targets import Target

TQ, HQ, DK, DV, NS, MP = dims("TQ HQ DK DV NS MP")


def _precision(compute: DType, kv: str) -> Precision:
    code = code_dtype(compute, kv)
    own = {"q": compute, "cu_q": INT32, "seq_lens": INT32, "block_table": INT32}
    own |= {"k_cache": code, "v_cache": code, "k_open": compute, "alibi": FP32}
    own |= dtypes("k_", compute, kv, key=True) | dtypes("v_", compute, kv, key=False)
    own |= {"o": compute, "lse": FP32}
    narrowed = {"residual": ("none",)} if kv == "float" else {"values": ("separate",)}
    return kv_precision(compute, kv, own, narrowed)


def _tokens(case: Case) -> float:
    """KV tokens of all sequences as `make_inputs` draws them, on average."""
    sequences, longest = case.sizes["NS"], case.sizes["MP"] * PAGE
    return longest * (1 + (sequences - 1) * 7 / 16) if sequences else 0.0


def _flops(spec: KernelSpec, case: Case) -> float:
    """QK and PV: every query meets every token of its sequence (a window is not subtracted)."""
    s = case.sizes
    per_sequence = s["TQ"] / s["NS"] if s["NS"] else 0.0
    return 2.0 * per_sequence * _tokens(case) * s["HQ"] * (s["DK"] + s["DV"])


def _bytes(spec: KernelSpec, case: Case) -> float:
    """Each cached token of each sequence once, queries and outputs once; pools are not counted."""
    s = case.sizes
    precision = spec.precision(case.precision)
    compute, code = precision.dtypes["q"].bytes, precision.dtypes["k_cache"].bytes
    channels = s["DK"] if case.flags["values"] == "latent" else s["DK"] + s["DV"]
    by_token = channels * code / precision.sizes["PACK"]
    if case.flags["kv"] == "c8d":
        by_token += 8
    elif case.flags["kv"] == "kv4":
        by_token += 4 + 4 * s["DK"] / PAGE
    return _tokens(case) * s["HKV"] * by_token + s["TQ"] * s["HQ"] * (s["DK"] + s["DV"]) * compute


def _valid(spec: KernelSpec, case: Case) -> str | None:
    s = case.sizes
    if s["HKV"] == 0 or s["HQ"] % s["HKV"]:
        return f"HQ={s['HQ']} is not a multiple of HKV={s['HKV']}"
    if case.flags["values"] == "latent" and s["DV"] > s["DK"]:
        return f"values=latent takes the first DV={s['DV']} of DK={s['DK']} channels"
    if (case.flags["kv"] == "kv4" or case.flags["residual"] != "none") and (
        s["DK"] % 4 or s["DV"] % 4
    ):
        return f"4-bit codes need multiples of 4 channels, not DK={s['DK']}, DV={s['DV']}"
    if s["NS"] == 0 and s["TQ"]:
        return f"TQ={s['TQ']} queries of no sequence"
    return None


_WHY = (
    "u(output) + u(compute) of probabilities (+ 3 u(compute) of folded scales, quantised)"
    " + 4 (sqrt(DK) + sqrt(keys)) u(fp32)"
)


def _error(spec: KernelSpec, case: Case) -> float:
    """u(output); u(compute) for probabilities that a matrix unit takes in the compute type; quantised,
    three more for keys, values and queries with scales folded in; fp32 sums over DK and the keys."""
    precision = spec.precision(case.precision)
    compute = precision.dtypes["q"].unit_roundoff
    roundings = 2 if case.flags["kv"] == "float" else 5
    terms = math.sqrt(max(case.sizes["DK"], 1)) + math.sqrt(max(case.sizes["MP"] * PAGE, 1))
    return roundings * compute + (4 * terms + 8) * 2.0**-24


def _whole_tiles(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    tokens = config["split_pages"] * PAGE
    if tokens % config["tile_n"]:
        return f"a split of {tokens} tokens is no multiple of tile_n={config['tile_n']}"
    return None


_GPU = Space(
    tile_m=(16, 32, 64, 128),
    tile_n=(16, 32, 64, 128),
    split_pages=(0, 8, 16, 32, 64, 128, 256),
    num_warps=(1, 2, 4, 8),
    num_stages=(1, 2, 3, 4),
).where(Rule("whole tiles", _whole_tiles), Rule("sums", attention_sums_fit))
_GPU_DEFAULT = Config(tile_m=16, tile_n=32, split_pages=32, num_warps=4, num_stages=2)


def _fits_ascend(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    from tilewright.ascendc.ops.paged_attention import adapter

    return adapter.refuses(case, config, target)


_SMALL = {
    "TQ": 5,
    "HQ": 6,
    "HKV": 2,
    "DK": 64,
    "DV": 64,
    "NS": 3,
    "MP": 4,
    "P": 14,
    "R": 60,
    "F": 14,
}

SPEC = KernelSpec(
    name="paged_attention",
    summary="o[TQ,HQ,DV] = softmax(scale q kT) v over each sequence's pages of 16 tokens",
    inputs=(
        Tensor("q", TQ, HQ, DK),
        Tensor("cu_q", NS + 1),
        Tensor("seq_lens", NS),
        Tensor("block_table", NS, MP),
        pages("k_cache", DK),
        pages("v_cache", DV, when=("values", ("separate",))),
        *scales("k_", DK, key=True),
        *scales("v_", DV, key=False),
        Tensor("k_open", NS, PAGE, HKV, DK, when=("kv", ("kv4",))),
        *residuals("k_", DK),
        *residuals("v_", DV),
        Tensor("alibi", HQ, when=("alibi", ("yes",))),
    ),
    outputs=(
        Tensor("o", TQ, HQ, DV),
        Tensor("lse", TQ, HQ, when=("lse", ("yes",)), tolerance=Tolerance(_error, _WHY, unit=1.0)),
    ),
    precisions=tuple(
        _precision(compute, kv) for kv in ("float", *QUANTISED) for compute in (BF16, FP16, FP32)
    ),
    flags=(
        KV_LAYOUT,
        Flag("values", ("separate", "latent"), "separate"),
        Flag("kv", KV, "float"),
        Flag("residual", RESIDUAL, "none"),
        Flag.yes_no("lse"),
        Flag.yes_no("alibi"),
        Flag.number("scale", ("0", "0.2"), "0"),
        Flag.number("softcap", ("0", "30"), "0"),
        Flag.number("window", ("0", "37"), "0"),
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:paged_attention"),
    make_inputs=Ref("inputs:make_inputs"),
    cases=points(
        _SMALL,
        {**_SMALL, "TQ": 3, "HQ": 9, "HKV": 3, "MP": 9, "P": 30},
        {**_SMALL, "TQ": 1, "HQ": 4, "HKV": 4, "DK": 128, "DV": 128, "NS": 1, "P": 4},
        {**_SMALL, "TQ": 16, "HQ": 8, "HKV": 1, "DK": 96, "DV": 80, "NS": 1, "MP": 3, "P": 3},
        {**_SMALL, "TQ": 2, "HQ": 16, "HKV": 1, "DK": 576, "DV": 512, "NS": 2, "P": 9},
        {**_SMALL, "TQ": 35, "HQ": 2, "HKV": 2, "DK": 20, "DV": 12, "NS": 4, "MP": 5, "P": 12},
        {**_SMALL, "TQ": 4, "HQ": 4, "HKV": 1, "DK": 128, "DV": 128, "NS": 2, "MP": 40, "P": 80},
        {**_SMALL, "MP": 0},
        {**_SMALL, "TQ": 0},
        {**_SMALL, "TQ": 0, "NS": 0, "P": 0},
        {**_SMALL, "TQ": 1, "NS": 1, "MP": 1, "P": 1, "R": 0, "F": 0},
    ),
    bench_cases=points(
        *(
            {"TQ": 1, "HQ": q, "HKV": k, "DK": d, "DV": d, "NS": 1, "MP": mp, "P": mp}
            | {"R": k * mp, "F": k * mp // 8}
            for q, k, d in ((9, 3, 64), (16, 16, 128), (32, 8, 128))
            for mp in (256, 1024)
        )
    ),
    valid=_valid,
    tolerance=Tolerance(_error, _WHY),
    flops=_flops,
    bytes=_bytes,
    # split_pages: pages of one split, 0 chooses by the threads; batch_invariant chooses itself.
    # prefetch_kib: how far ahead of what is computed on memory is asked for.
    space={
        "cpu": Space(split_pages=(0, 8, 16, 32, 64, 128, 256), prefetch_kib=(0, 4, 8, 16, 32, 64)),
        "cuda": _GPU,
        "hip": _GPU,
        "ascend": Space(
            tile_pages=(1, 2, 4, 8, 16),
            step_pages=(4, 8, 12, 16, 32),
            tile_heads=(0, 1, 2, 4, 8),
            split_pages=(0, 16, 32, 64),
            cores=(0,),
        ).where(Rule("what the kernel takes", _fits_ascend)),
    },
    # On a GPU splits have split_pages pages, 0: one split and no merge.
    default={
        "cpu": Config(split_pages=0, prefetch_kib=16),
        "cuda": _GPU_DEFAULT,
        # With two stages ptxas stops at 128 registers there and spills a scalar.
        "cuda:sm_100": Config({**_GPU_DEFAULT, "num_stages": 3}),
        "hip": _GPU_DEFAULT,
        # Tiles of 32 tokens of one kv head, steps of 64; 0 cores are all of them.
        "ascend": Config(tile_pages=2, step_pages=4, tile_heads=1, split_pages=0, cores=0),
    },
    peers=Ref("peers:peers"),
)
