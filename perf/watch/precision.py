"""Whether an error is that of a lower precision than the one declared, although a tolerance lets it pass.

Rounding the inputs to fewer significand bits and computing the rest exactly gives the least error a kernel
can have that works in that type. A kernel whose error is of that size, far above what its own types give,
computes in the lower one: a tolerance that covers it is too wide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.inputs import Inputs, reference_outputs
from tilewright.numerics import compare

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case
    from tilewright.registry import Family

# Significand bits, the hidden one included, of types that kernels are tempted to use, coarsest first.
LOWER = {"fp8": 4, "bf16": 8, "fp16 or tf32": 11, "fp32": 24}
_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
# A share of the lower type's own error that counts as it; errors of two roundings differ less.
_SHARE = 0.5
# A lower type's error is this share of its unit roundoff at least: below, it is not worth computing.
_LEAST = 0.2


def rounded(value: torch.Tensor, significand: int) -> torch.Tensor:
    """fp64 values rounded to nearest with that many significand bits, the exponent unbounded."""
    import torch

    mantissa, exponent = torch.frexp(value.to(torch.float64))
    scale = 2.0**significand
    return torch.ldexp(torch.round(mantissa * scale) / scale, exponent)


def lower_than_declared(
    family: Family, case: Case, inputs: Inputs, rel_err: float, expected: dict[str, torch.Tensor]
) -> str | None:
    """In words, the precision an error betrays; None if it is that of the declared one.

    `expected` are the fp64 outputs for `inputs` (logical ones). Only floating-point inputs are judged.
    """
    floats = {
        k: v for k, v in inputs.logical.items() if v is not None and v.dtype.is_floating_point
    }
    if not floats:
        return None
    own = max(_BITS[str(v.dtype).removeprefix("torch.")] for v in floats.values())
    for name, significand in LOWER.items():
        if significand >= own or rel_err < _LEAST * 2.0**-significand:
            continue
        import torch

        narrowed = {
            k: rounded(v, significand) if k in floats and v is not None else v
            for k, v in inputs.logical.items()
        }
        found = reference_outputs(family, case, Inputs(narrowed, {}))
        errors = [
            compare(found[k].to(torch.float64), want, float("inf")).rel_err
            for k, want in expected.items()
        ]
        floor = max(_rounding(family, case, expected), 2.0**-own)
        if max(errors) > 4 * floor and rel_err >= _SHARE * max(errors):
            return (
                f"declares {case.precision} and has the error of {name} inputs "
                f"({rel_err:.2g}; rounding them gives {max(errors):.2g}, its own types {floor:.2g})"
            )
    return None


def _rounding(family: Family, case: Case, expected: dict[str, torch.Tensor]) -> float:
    """The relative error of rounding exact outputs to the declared type."""
    errors = [0.0]
    for tensor in family.spec.outputs:
        if tensor.name in expected:
            want = expected[tensor.name]
            kept = want.to(family.spec.dtype_of(tensor, case).torch())
            errors.append(compare(kept, want, float("inf")).rel_err)
    return max(errors)
