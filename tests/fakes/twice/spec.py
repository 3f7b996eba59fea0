"""twice: y[N] = 2 * x[N] (+ shift[N]); a family outside of tilewright whose only kernel is written in AscendC."""

from __future__ import annotations

from tilewright.cases import Flag, empty, grid
from tilewright.dims import dims
from tilewright.dtypes import FP32
from tilewright.numerics import rounding_error
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

(N,) = dims("N")

SPEC = KernelSpec(
    name="twice",
    summary="y[N] = 2 * x[N] (+ shift[N])",
    inputs=(Tensor("x", N), Tensor("shift", N, when=("shift", ("yes",)))),
    outputs=(Tensor("y", N),),
    precisions=(Precision("fp32", {"x": FP32, "shift": FP32, "y": FP32}, accumulate=FP32),),
    flags=(Flag.yes_no("shift"),),
    reference=Ref("reference:twice"),
    cases=grid(N=(1, 33, 1000)) + empty("N"),
    tolerance=rounding_error(2),
    flops=2 * N,
    space={"ascend": Space(tile=(64, 256))},
    default={"ascend": Config(tile=64)},
)
