"""attention, declared once: prefill over keys and values that lie as they were made, [B,S,H,D]."""

from __future__ import annotations

import math
from types import MappingProxyType

from tilewright.cases import Case, Flag, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, INT8, INT32, DType
from tilewright.kernels._triton.rules import attention_sums_fit
from tilewright.numerics import Tolerance
from tilewright.space import Config, Rule, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor
from tilewright.targets import Target

B, SQ, SK, HQ, HKV, DK, DV, NS1 = dims("B SQ SK HQ HKV DK DV NS1")

# Rounding to one of 255 levels spread over +-5 standard deviations, as a standard deviation: the largest
# of a block of some thousand normal values lies near 4, and the error of a step is step / sqrt(12).
_INT8_STEP = 5.0 / 127.0 / math.sqrt(12.0)


def score_scale(case: Case) -> float:
    """What q.k is multiplied by: the flag `scale`, 1/sqrt(DK) where that is 0."""
    given = case.number("scale")
    return given if given != 0 else 1.0 / math.sqrt(max(1, case.sizes["DK"]))


def _int8_error(case: Case) -> float:
    """What int8 adds for normal inputs: scores (both factors), weights in 1/255 of the largest, values."""
    deviation = abs(score_scale(case)) * math.sqrt(case.sizes["DK"])
    scores = math.sqrt(2.0) * _INT8_STEP * deviation
    # Weights of normal scores have an rms near 0.06 of the largest at a thousand keys.
    weights = 1.0 / 255.0 / math.sqrt(12.0) / 0.06
    return scores + weights + _INT8_STEP


def _fp32_error(case: Case) -> float:
    return 4.0 * (math.sqrt(case.sizes["DK"]) + math.sqrt(max(1, case.sizes["SK"]))) * 2.0**-24


def _output_error(spec: KernelSpec, case: Case) -> float:
    rounding = spec.dtype_of(spec.outputs[0], case).unit_roundoff
    coarse = _int8_error(case) if case.flags["compute"] == "int8" else 0.0
    return 2.0 * rounding + _fp32_error(case) + coarse


def _lse_error(spec: KernelSpec, case: Case) -> float:
    coarse = _int8_error(case) if case.flags["compute"] == "int8" else 0.0
    return _fp32_error(case) + coarse


def visible_pairs(queries: int, keys: int, causal: bool, window: int) -> int:
    """(query, key) pairs that one head of one sequence computes; see the family's README for the mask."""
    count = 0
    for i in range(queries):
        place = keys - queries + i
        first, last = 0, keys - 1
        if causal:
            last = min(last, place)
        if window:
            first = max(first, place - window + 1)
            last = min(last, place + window - 1)
        count += max(0, last - first + 1)
    return count


def _computes(spec: KernelSpec, case: Case) -> DType:
    return INT8 if case.flags["compute"] == "int8" else spec.dtype_of(spec.inputs[0], case)


def _flops(spec: KernelSpec, case: Case) -> float:
    """Two operations a multiply-add over visible pairs; ragged sequences count as equally long ones."""
    sizes = case.sizes
    ragged = case.flags["lengths"] == "ragged"
    sequences = max(1, sizes["NS1"] - 1) if ragged else sizes["B"]
    parts = sequences if ragged else 1
    causal, window = case.flags["mask"] == "causal", int(case.number("window"))
    pairs = visible_pairs(sizes["SQ"] // parts, sizes["SK"] // parts, causal, window)
    return 2.0 * sequences * pairs * sizes["HQ"] * (sizes["DK"] + sizes["DV"])


def _valid(spec: KernelSpec, case: Case) -> str | None:
    sizes, ragged = case.sizes, case.flags["lengths"] == "ragged"
    if sizes["HQ"] and (sizes["HKV"] == 0 or sizes["HQ"] % sizes["HKV"]):
        return f"HQ={sizes['HQ']} is not a multiple of HKV={sizes['HKV']}"
    if ragged and sizes["B"] != 1:
        return f"B={sizes['B']} with lengths=ragged, which takes one batch of all tokens, B=1"
    if ragged and sizes["NS1"] < 2 and sizes["SQ"] + sizes["SK"] > 0:
        return f"NS1={sizes['NS1']} leaves {sizes['SQ']} queries and {sizes['SK']} keys no sequence"
    window = case.number("window")
    if window < 0 or window != int(window):
        return f"window={case.flags['window']} is not a number of keys; 0 is no window"
    softcap = case.number("softcap")
    if not 0 <= softcap < math.inf:
        return f"softcap={case.flags['softcap']} is not a positive number; 0 is no cap"
    if not math.isfinite(case.number("scale")):
        return f"scale={case.flags['scale']} is not finite; 0 is 1/sqrt(DK)"
    return None


def _fits_ascend(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    from tilewright.ascendc.ops.attention import adapter

    return adapter.refuses(case, config, target)


def _precision(dtype: DType) -> Precision:
    floats = dict.fromkeys(("q", "k", "v", "o"), dtype)
    rest = {"cu_q": INT32, "cu_k": INT32, "alibi": FP32, "lse": FP32}
    return Precision(dtype.name, MappingProxyType({**floats, **rest}), accumulate=FP32)


def _size(
    sq: int, sk: int, heads: tuple[int, int], dk: int, dv: int = 0, sequences: int = 3, b: int = 1
) -> dict[str, int]:
    heads_q, heads_kv = heads
    return {
        "B": b,
        "SQ": sq,
        "SK": sk,
        "HQ": heads_q,
        "HKV": heads_kv,
        "DK": dk,
        "DV": dv or dk,
        "NS1": sequences + 1,
    }


def _floats_only(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    if case.flags["compute"] == "int8":
        return "triton attention computes in float"
    return None


def _fits_shared_memory(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    row = (case.sizes["DK"] + case.sizes["DV"]) * spec.precision(case.precision).dtypes["k"].bytes
    need = max(1, config["num_stages"] - 1) * config["tile_n"] * row
    limit = target.limit("shared_bytes")
    return f"needs {need} bytes of shared memory of {limit}" if need > limit else None


_GPU = Space(
    tile_m=(16, 32, 64, 128),
    tile_n=(16, 32, 64, 128),
    num_warps=(1, 2, 4, 8),
    num_stages=(1, 2, 3, 4),
).where(
    Rule("compute", _floats_only),
    Rule("sums", attention_sums_fit),
    Rule("shared memory", _fits_shared_memory),
)

SPEC = KernelSpec(
    name="attention",
    summary="o[B,SQ,HQ,DV] = softmax(scale * q[B,SQ,HQ,DK] k[B,SK,HKV,DK]) v[B,SK,HKV,DV] (, log-sum-exp)",
    inputs=(
        Tensor("q", B, SQ, HQ, DK),
        Tensor("k", B, SK, HKV, DK),
        Tensor("v", B, SK, HKV, DV),
        Tensor("cu_q", NS1, when=("lengths", ("ragged",))),
        Tensor("cu_k", NS1, when=("lengths", ("ragged",))),
        Tensor("alibi", HQ, when=("alibi", ("yes",))),
    ),
    outputs=(
        Tensor("o", B, SQ, HQ, DV),
        Tensor(
            "lse",
            B,
            SQ,
            HQ,
            when=("lse", ("yes",)),
            tolerance=Tolerance(
                _lse_error, "4 (sqrt(DK) + sqrt(SK)) u(fp32), and what int8 adds", unit=1.0
            ),
        ),
    ),
    precisions=(_precision(FP32), _precision(BF16), _precision(FP16)),
    default_precision="bf16",
    flags=(
        Flag("mask", ("causal", "full"), "causal"),
        Flag("lengths", ("equal", "ragged"), "equal"),
        Flag.number("window", ("0", "24"), "0"),
        Flag.number("softcap", ("0", "2"), "0"),
        Flag.yes_no("alibi"),
        Flag.number("scale", ("0", "0.2"), "0"),
        Flag.yes_no("lse"),
        Flag("compute", ("float", "int8"), "float"),
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:attention"),
    make_inputs=Ref("reference:make_inputs"),
    valid=_valid,
    cases=points(
        _size(1, 1, (1, 1), 32, sequences=1),
        _size(33, 33, (4, 2), 64, b=2),
        _size(17, 100, (3, 1), 80),
        _size(65, 64, (2, 2), 96),
        _size(40, 70, (2, 2), 192, 128),
        _size(31, 65, (2, 1), 256, sequences=4),
        _size(1, 129, (6, 2), 64, sequences=1),
        _size(130, 257, (4, 2), 128, sequences=5),
        _size(100, 50, (4, 4), 64),
        _size(0, 20, (4, 2), 64),
        _size(20, 0, (4, 2), 64),
        _size(192, 192, (8, 2), 128, sequences=4),
    ),
    bench_cases=points(
        _size(512, 512, (9, 9), 64),
        _size(2048, 2048, (9, 3), 64),
        _size(512, 512, (16, 16), 128),
        _size(2048, 2048, (16, 16), 128),
    ),
    tolerance=Tolerance(
        _output_error,
        "u(output) + u(weights) + 4 (sqrt(DK) + sqrt(SK)) u(fp32), and what int8 adds",
    ),
    flops=_flops,
    computes=_computes,
    space={
        "cpu": Space(tile_m=(16, 32, 64, 128, 256), tile_n=(32, 64, 128, 256, 512, 1024)),
        "cuda": _GPU,
        "hip": _GPU,
        "ascend": Space(
            tile_m=(32, 64, 128),
            tile_n=(32, 64, 128, 256, 512),
            preload=(1, 2, 3),
            stagger=(0, 1),
        ).where(Rule("what the kernel takes", _fits_ascend)),
    },
    default={
        "cpu": Config(tile_m=32, tile_n=128),
        # Warp-group and tensor-memory instructions (sm_90, sm_100) take 64 rows or more.
        "cuda": Config(tile_m=64, tile_n=32, num_warps=4, num_stages=2),
        "cuda:sm_80": Config(tile_m=32, tile_n=32, num_warps=4, num_stages=2),
        "hip": Config(tile_m=32, tile_n=32, num_warps=4, num_stages=2),
        "ascend": Config(tile_m=32, tile_n=32, preload=1, stagger=0),
    },
    peers=Ref("peers:peers"),
)
