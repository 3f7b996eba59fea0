"""beam_topk, declared once: the K largest of each row with probabilities, or the next K of a group of beams."""

from __future__ import annotations

import math
from types import MappingProxyType

from tilewright.cases import Case, Flag, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, INT8, INT32, DType
from tilewright.numerics import Tolerance, exact
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

B, V, K, G, W = dims("B V K G W")

# The most results a row or a group has.
MOST = 64
# What int8 spreads over its codes below the largest logit of a row, and codes a unit: 255 / 16.
WINDOW = 16.0
CODES_A_UNIT = 15.9375


def survivors(k: int, v: int) -> int:
    """How many of V logits are kept by their code, to be ranked in float, for K results."""
    return min(v, 2 * k)


def _precision(element: DType) -> Precision:
    dtypes = {
        "logits": element,
        "row_max": FP32,
        "scores": FP32,
        "finished": INT8,
        "ids": INT32,
        "probs": FP32,
        "next_beam": INT32,
        "next_id": INT32,
        "next_score": FP32,
    }
    given = ("yes",) if element.is_integer else ("no",)
    flags = {"row_max": given, **({"int8": ("yes",)} if element.is_integer else {})}
    return Precision(
        element.name, MappingProxyType(dtypes), accumulate=FP32, flags=MappingProxyType(flags)
    )


def _valid(spec: KernelSpec, case: Case) -> str | None:
    sizes = case.sizes
    step = case.flags["step"] == "yes"
    if sizes["K"] > MOST:
        return f"K={sizes['K']} is above {MOST}"
    if not 1e-4 <= case.number("temperature") <= 1e4:
        return f"temperature={case.flags['temperature']} is not from 0.0001 to 10000"
    if not step:
        if sizes["B"] and sizes["K"] > sizes["V"]:
            return f"K={sizes['K']} results cannot be had of V={sizes['V']} logits"
        return None
    if sizes["B"] != sizes["G"] * sizes["W"]:
        return f"B={sizes['B']} is not G={sizes['G']} groups of W={sizes['W']} beams"
    if case.flags["softmax"] != "row":
        return "step=yes adds log-probabilities over the whole row: it goes with softmax=row only"
    if sizes["G"] and sizes["K"] > sizes["W"] * sizes["V"]:
        return (
            f"K={sizes['K']} results cannot be had of {sizes['W']} beams of V={sizes['V']} logits"
        )
    eos = case.number("eos")
    if sizes["B"] and (eos != int(eos) or not 0 <= eos < sizes["V"]):
        return f"eos={case.flags['eos']} is no token of V={sizes['V']}"
    return None


def _sum_error(spec: KernelSpec, case: Case) -> float:
    terms = case.sizes["V"] if case.flags["softmax"] == "row" else case.sizes["K"]
    return (8.0 + 4.0 * math.sqrt(max(1, terms))) * 2.0**-24


_WHY = "two exponentials, a product and a quotient in fp32, and a sum of V (or K) terms: (8 + 4 sqrt(V)) u(fp32)"


def _flops(spec: KernelSpec, case: Case) -> float:
    """A comparison a logit; a subtraction, a product and an exponential more where the row is summed."""
    each = 4.0 if case.flags["softmax"] == "row" else 1.0
    return each * case.sizes["B"] * case.sizes["V"]


def _size(b: int, v: int, k: int, w: int = 1) -> dict[str, int]:
    """B rows in groups of W."""
    return {"B": b, "V": v, "K": k, "G": b // w, "W": w}


_GPU = Space(block=(256, 512, 1024, 2048, 4096), num_warps=(1, 2, 4, 8), num_stages=(1, 2))
_GPU_DEFAULT = Config(block=4096, num_warps=8, num_stages=1)

SPEC = KernelSpec(
    name="beam_topk",
    summary="ids, probs [B,K]: the K largest of logits[B,V]; or the next K of G groups of W beams with scores",
    inputs=(
        Tensor("logits", B, V),
        Tensor("row_max", B, when=("row_max", ("yes",))),
        Tensor("scores", G, W, when=("step", ("yes",))),
        Tensor("finished", G, W, when=("step", ("yes",))),
    ),
    outputs=(
        Tensor("ids", B, K, when=("step", ("no",)), tolerance=exact()),
        Tensor("probs", B, K, when=("step", ("no",))),
        Tensor("next_beam", G, K, when=("step", ("yes",)), tolerance=exact()),
        Tensor("next_id", G, K, when=("step", ("yes",)), tolerance=exact()),
        Tensor(
            "next_score",
            G,
            K,
            when=("step", ("yes",)),
            tolerance=Tolerance(_sum_error, _WHY, unit=1.0),
        ),
    ),
    precisions=tuple(_precision(element) for element in (FP32, BF16, FP16, INT8)),
    flags=(
        Flag("softmax", ("survivors", "row"), "row"),
        Flag.number("temperature", ("1", "0.7"), "1"),
        Flag.yes_no("int8"),
        Flag.yes_no("row_max"),
        Flag.yes_no("step"),
        Flag.number("eos", ("0", "2"), "0"),
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:beam_topk"),
    make_inputs=Ref("reference:make_inputs"),
    report=Ref("reference:report"),
    valid=_valid,
    cases=points(
        _size(1, 1, 1),
        _size(3, 7, 7),
        _size(2, 100, 1, 2),
        _size(4, 49, 4, 2),
        _size(5, 1000, 64, 5),
        _size(16, 257, 8, 4),
        _size(1, 5003, 33),
        _size(4, 4099, 5, 4),
        _size(9, 64, 64, 3),
        _size(8, 513, 16, 8),
        _size(2, 262144, 4, 2),
        _size(4, 300, 0, 2),
        {"B": 0, "V": 300, "K": 4, "G": 0, "W": 2},
        _size(4, 49152, 8, 4),
    ),
    bench_cases=points(
        *(_size(4, v, k, 4) for v in (49152, 151936) for k in (4, 8)),
    ),
    tolerance=Tolerance(_sum_error, _WHY),
    flops=_flops,
    peers=Ref("peers:peers"),
    space={"cuda": _GPU, "hip": _GPU, "ascend": Space(tile_v=(1024, 2048, 4096, 8192))},
    default={"cuda": _GPU_DEFAULT, "hip": _GPU_DEFAULT, "ascend": Config(tile_v=8192)},
    unlowered="AscendNPU-IR sorts floats of 16 and 32 bits alone, and ranks with ties are keys of 64 bits",
)
