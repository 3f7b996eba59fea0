"""row_scale: y[R,C] = x[R,C] * scale[R]."""

from __future__ import annotations

from tilewright.cases import empty, grid
from tilewright.dims import dims
from tilewright.dtypes import BF16, FP32
from tilewright.numerics import rounding_error
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

R, C = dims("R C")

SPEC = KernelSpec(
    name="row_scale",
    summary="y[R,C] = x[R,C] * scale[R]",
    inputs=(Tensor("x", R, C), Tensor("scale", R, init="scale")),
    outputs=(Tensor("y", R, C),),
    precisions=(
        Precision("fp32", {"x": FP32, "scale": FP32, "y": FP32}, accumulate=FP32),
        Precision("bf16->fp32", {"x": BF16, "scale": FP32, "y": FP32}, accumulate=FP32),
    ),
    reference=Ref("reference:row_scale"),
    cases=grid(R=(1, 7, 64), C=(1, 33, 1000)) + empty("R", "C"),
    tolerance=rounding_error(),
    flops=R * C,
    space={"cpu": Space(unroll=(1, 4, 8))},
    default={"cpu": Config(unroll=4)},
)
