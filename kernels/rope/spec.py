"""rope, declared once: pairs of a head's channels turned by an angle of the token's position."""

from __future__ import annotations

from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, grid, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, INT32, DType
from tilewright.numerics import Tolerance
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

T, H, D, MAXPOS, ROT = dims("T H D MAXPOS ROT")


def _precision(element: DType) -> Precision:
    dtypes = {"x": element, "positions": INT32, "cos_sin": FP32, "y": element}
    return Precision(element.name, MappingProxyType(dtypes), accumulate=FP32)


def _valid(spec: KernelSpec, case: Case) -> str | None:
    sizes = case.sizes
    if sizes["ROT"] % 2:
        return f"ROT={sizes['ROT']} is odd; channels are turned in pairs"
    if sizes["ROT"] > sizes["D"]:
        return f"ROT={sizes['ROT']} channels cannot be turned of D={sizes['D']}"
    if sizes["T"] and not sizes["MAXPOS"]:
        return "a token has no position in MAXPOS=0"
    return None


def _error(spec: KernelSpec, case: Case) -> float:
    return spec.dtype_of(spec.outputs[0], case).unit_roundoff + 3.0 * 2.0**-24


def _flops(spec: KernelSpec, case: Case) -> float:
    """Four products and two sums a pair."""
    return 3.0 * case.sizes["T"] * case.sizes["H"] * case.sizes["ROT"]


def _bytes(spec: KernelSpec, case: Case) -> float:
    """x read and y written once; a row of the table is read for each token, or for each position if fewer."""
    sizes = case.sizes
    element = spec.precision(case.precision).dtypes["x"].bytes
    rows = min(sizes["T"], sizes["MAXPOS"])
    table = rows * sizes["ROT"] * FP32.bytes
    return float(
        2 * sizes["T"] * sizes["H"] * sizes["D"] * element + sizes["T"] * INT32.bytes + table
    )


_GPU = Space(tile_t=(1, 2, 4, 8, 16, 32), num_warps=(1, 2, 4, 8), num_stages=(1,))

SPEC = KernelSpec(
    name="rope",
    summary="y[T,H,D]: the first ROT channels of x turned by cos_sin[positions[T]]",
    inputs=(
        Tensor("x", T, H, D),
        Tensor("positions", T),
        Tensor("cos_sin", MAXPOS, ROT),
    ),
    outputs=(Tensor("y", T, H, D),),
    precisions=tuple(_precision(element) for element in (FP32, BF16, FP16)),
    flags=(Flag("style", ("neox", "gptj"), "neox"), Flag.yes_no("batch_invariant")),
    reference=Ref("reference:rope"),
    make_inputs=Ref("reference:make_inputs"),
    valid=_valid,
    cases=points(
        {"T": 1, "H": 1, "D": 64, "MAXPOS": 1, "ROT": 64},
        {"T": 7, "H": 3, "D": 80, "MAXPOS": 50, "ROT": 32},
        {"T": 33, "H": 9, "D": 64, "MAXPOS": 100, "ROT": 64},
        {"T": 5, "H": 2, "D": 33, "MAXPOS": 9, "ROT": 10},
        {"T": 40, "H": 1, "D": 96, "MAXPOS": 4096, "ROT": 96},
        {"T": 19, "H": 5, "D": 128, "MAXPOS": 131072, "ROT": 128},
        {"T": 3, "H": 2, "D": 7, "MAXPOS": 5, "ROT": 0},
    )
    + empty("T", "H")
    + points({"T": 64, "H": 8, "D": 256, "MAXPOS": 300, "ROT": 192}),
    bench_cases=grid(T=(16, 512, 4096), H=(40,), D=(128,), MAXPOS=(8192,), ROT=(128,)),
    tolerance=Tolerance(_error, "u(output) + two products and a sum in fp32"),
    flops=_flops,
    bytes=_bytes,
    space={
        "cuda": _GPU,
        "hip": _GPU,
        # tile_heads is AscendC's, tile_t Triton's.
        "ascend": Space(tile_heads=(1, 4, 8, 16, 32, 64, 128), tile_t=(1, 4, 16)),
    },
    default={
        "cuda": Config(tile_t=4, num_warps=4, num_stages=1),
        "hip": Config(tile_t=4, num_warps=4, num_stages=1),
        "ascend": Config(tile_heads=32, tile_t=4),
    },
    peers=Ref("peers:peers"),
)
