"""A family that changes a tensor in place: rows of x, times a factor, go into slots of a paged cache."""

from tilewright.cases import Flag, empty, grid
from tilewright.dims import cdiv, dim, dims
from tilewright.dtypes import BF16, FP32, INT16, INT32
from tilewright.numerics import dot_product_error, exact, rounding_error
from tilewright.spec import KernelSpec, Layout, Precision, Ref, Tensor

T, P, H, L = dims("T P H L")
C0 = dim("C0")


def _precision(kind):
    dtypes = {"x": kind, "slots": INT32, "note": INT32, "cache": kind, "seen": INT16, "total": FP32}
    return Precision(kind.name, dtypes, FP32, sizes={"C0": 32 // kind.bytes})


SPEC = KernelSpec(
    name="put_rows",
    summary="cache[slots[t]] = factor * x[t]",
    inputs=(
        Tensor("x", T, H, L),
        Tensor("slots", T),
        Tensor("note", dim("W"), when=("noted", ("yes",))),
    ),
    outputs=(
        Tensor(
            "cache",
            P,
            4,
            H,
            L,
            layouts={
                "nd": Layout((P, 4, H, L), blocked=3),
                "nz": Layout((P, H, cdiv(L, C0), 4, C0), Ref("reference:to_nz"), blocked=4),
            },
            layout_flag="kv_layout",
            inout=True,
            align=512,
        ),
        Tensor("seen", P, inout=True, tolerance=exact()),
        Tensor("total", when=("sum", ("yes",)), tolerance=dot_product_error(T * H * L)),
    ),
    precisions=(_precision(FP32), _precision(BF16)),
    flags=(
        Flag("kv_layout", ("nd", "nz"), "nd"),
        Flag.yes_no("noted"),
        Flag.yes_no("sum"),
        Flag.number("factor", ("1", "0.5"), "1"),
    ),
    reference=Ref("reference:put_rows"),
    make_inputs=Ref("reference:draw"),
    cases=grid(T=(1, 5), P=(3,), H=(1, 3), L=(6, 32), W=(2,)) + empty("T"),
    tolerance=rounding_error(1),
    flops=lambda spec, case: float(case.sizes["T"] * case.sizes["H"] * case.sizes["L"]),
    bytes=lambda spec, case: 8.0 * case.sizes["T"] * case.sizes["H"] * case.sizes["L"],
    valid=lambda spec, case: (
        f"T={case.sizes['T']} rows do not fit {4 * case.sizes['P']} slots"
        if case.sizes["T"] > 4 * case.sizes["P"]
        else None
    ),
    space={},
    default={},
)
