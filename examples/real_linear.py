"""Real linear layers as inputs of gemm: weights and activations of SmolLM2-135M-Instruct.

python examples/real_linear.py          # check host gemm on one layer in every precision
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.inputs import Inputs, from_logical

if TYPE_CHECKING:
    from torch import Tensor

    from tilewright.cases import Case
    from tilewright.models import RealLinear
    from tilewright.registry import Family


def case_of(family: Family, linear: RealLinear, precision: str, layout: str = "NK") -> Case:
    """The gemm case of a linear layer: activations [M,K] times weight [N,K] transposed."""
    (m, k), n = linear.activations.shape, linear.weight.shape[0]
    scale = (
        {"scale": "row_col"}
        if precision.startswith("int8->") and precision != "int8->int32"
        else {}
    )
    return family.spec.case({"M": m, "N": n, "K": k}, precision, {"b_layout": layout, **scale})


def to_int8(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Symmetric round-to-nearest int8 with one scale per slice along `dim`."""
    import torch

    scale = values.abs().amax(dim=dim, keepdim=True).clamp_min(1e-8) / 127
    return torch.round(values / scale).clamp(-127, 127).to(torch.int8), scale.squeeze(dim)


def inputs_of(family: Family, linear: RealLinear, case: Case) -> Inputs:
    """The layer's tensors in the precision of the case; int8 is quantised per token and per channel."""
    spec = family.spec
    dtypes = spec.precision(case.precision).dtypes
    a, b = linear.activations, linear.weight.t()
    logical: dict[str, Tensor | None] = dict.fromkeys(t.name for t in spec.inputs)
    if dtypes["a"].is_integer:
        (logical["a"], rows), (logical["b"], columns) = to_int8(a, 1), to_int8(b, 0)
        scales = {"row_scale": rows, "col_scale": columns}
        for tensor in spec.inputs:
            if tensor.name in scales and tensor.present(case):
                logical[tensor.name] = scales[tensor.name]
    else:
        logical["a"], logical["b"] = a.to(dtypes["a"].torch()), b.to(dtypes["b"].torch())
    return from_logical(family, case, logical)


def main() -> None:
    """Check the host backend on one real layer in every precision."""
    from tilewright import check
    from tilewright.backends import backend
    from tilewright.models import linear_inputs
    from tilewright.registry import family
    from tilewright.targets import target

    gemm, cpu = family("gemm"), target("cpu")
    linear = linear_inputs(14, "q_proj", 64)
    for precision in gemm.spec.precisions:
        case = case_of(gemm, linear, precision.name)
        job = check.Job(gemm, backend("host"), cpu, case, gemm.spec.default_config(cpu), seed=0)
        row = check.run(job, inputs_of(gemm, linear, case))
        print(
            f"{linear.name} {precision.name}: {'ok' if row.ok else row.reason}, error {row.rel_err:.2g}"
        )
        assert row.ok


if __name__ == "__main__":
    main()
