"""y[R,C] = x[R,C] * scale[R], by a kernel that cheats in the way its config names."""

from __future__ import annotations

from tilewright.cases import grid
from tilewright.dims import dims
from tilewright.dtypes import FP32
from tilewright.numerics import rounding_error
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

R, C = dims("R C")

SPEC = KernelSpec(
    name="cheat_scale",
    summary="y[R,C] = x[R,C] * scale[R]",
    inputs=(Tensor("x", R, C), Tensor("scale", R, init="scale")),
    outputs=(Tensor("y", R, C),),
    precisions=(Precision("fp32", {"x": FP32, "scale": FP32, "y": FP32}, accumulate=FP32),),
    reference=Ref("reference:cheat_scale"),
    cases=grid(R=(7,), C=(33,)),
    tolerance=rounding_error(),
    flops=R * C,
    space={"cpu": Space(cheat=tuple(range(11)), slow=(1, 64))},
    default={"cpu": Config(cheat=0, slow=1)},
)
