"""quantize, declared once: int8 codes of activations, under scales that are found or given.

The code is c8d of `kernels/_kv/formats.py`, every operation in fp32 and rounded once:

- s = fl(amax * fl(1/127)), 1 where that is below 2**-126; amax over a token's channels or a channel's tokens.
- q = clamp(rint(fl(x * fl(1/s))), -127, 127). An element stands for s * q.

`scales` says whose they are: `token` and `channel` are found and returned, `static_token` and
`static_channel` are given, positive and normal. What holds a NaN or an infinity has no code: what stands
for it is unspecified, and where scales are found, for all that share its scale.
"""

from __future__ import annotations

from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, grid, points
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP16, FP32, INT8, DType
from tilewright.numerics import exact
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

T, D = dims("T D")
SCALES = ("token", "channel", "static_token", "static_channel")


def _precision(element: DType) -> Precision:
    dtypes = {"x": element, "given_token_scale": FP32, "given_channel_scale": FP32}
    dtypes |= {"q": INT8, "token_scale": FP32, "channel_scale": FP32}
    return Precision(element.name, MappingProxyType(dtypes), accumulate=FP32)


def _valid(spec: KernelSpec, case: Case) -> str | None:
    if case.flags["scales"] == "channel" and case.flags["batch_invariant"] == "yes":
        return (
            "a channel's scale is found over all tokens, so no row is independent of its batch; "
            "accepted with batch_invariant: token, static_token, static_channel"
        )
    return None


def _flops(spec: KernelSpec, case: Case) -> float:
    """A product and a rounding an element, a comparison where scales are found."""
    each = 2.0 if case.flags["scales"].startswith("static") else 3.0
    return each * case.sizes["T"] * case.sizes["D"]


# tile_t: tokens a program takes.
_GPU = Space(tile_t=(1, 2, 4, 8), num_warps=(1, 2, 4, 8), num_stages=(1,))
_GPU_DEFAULT = Config(tile_t=1, num_warps=4, num_stages=1)

SPEC = KernelSpec(
    name="quantize",
    summary="x[T,D] to int8 q[T,D] and fp32 scales of tokens or channels",
    inputs=(
        Tensor("x", T, D),
        Tensor("given_token_scale", T, when=("scales", ("static_token",)), init="scale"),
        Tensor("given_channel_scale", D, when=("scales", ("static_channel",)), init="scale"),
    ),
    outputs=(
        Tensor("q", T, D),
        Tensor("token_scale", T, when=("scales", ("token",))),
        Tensor("channel_scale", D, when=("scales", ("channel",))),
    ),
    precisions=tuple(_precision(element) for element in (FP32, BF16, FP16)),
    flags=(Flag("scales", SCALES, "token"), Flag.yes_no("batch_invariant")),
    reference=Ref("reference:quantize"),
    make_inputs=Ref("reference:make_inputs"),
    typical=Ref("reference:typical"),
    valid=_valid,
    cases=points(
        {"T": 1, "D": 1},
        {"T": 3, "D": 7},
        {"T": 9, "D": 33},
        {"T": 5, "D": 577},
        {"T": 2, "D": 16384},
        {"T": 33, "D": 1000},
        {"T": 70, "D": 130},
        {"T": 300, "D": 65},
    )
    + empty("T", "D")
    + points({"T": 64, "D": 4096}),
    bench_cases=grid(T=(1, 16, 512, 4096), D=(5120,)),
    tolerance=exact(),
    flops=_flops,
    space={
        "cuda": _GPU,
        "hip": _GPU,
        # tile: elements worked on at a time.
        "ascend": Space(tile=(1024, 2048, 4096, 8192)),
    },
    default={"cuda": _GPU_DEFAULT, "hip": _GPU_DEFAULT, "ascend": Config(tile=8192)},
    peers=Ref("peers:peers"),
)
