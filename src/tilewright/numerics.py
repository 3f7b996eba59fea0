"""Errors and tolerances: relative norms, worst elements, bounds that follow from the dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.dims import Expr, evaluate

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case
    from tilewright.spec import KernelSpec

# One element may be worse than the norm; errors of independent roundings beyond this many standard
# deviations do not occur in outputs of any size we check.
WORST_ELEMENT_FACTOR = 16.0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A bound on the relative error in the Frobenius norm, and why it is that.

    `unit` is what errors of values smaller than it are relative to: 1 for a logarithm, whose absolute
    error is the relative error of what it stands for, however near 0 it comes.
    """

    bound: Callable[[KernelSpec, Case], float]
    why: str
    unit: float = 0.0

    def of(self, spec: KernelSpec, case: Case) -> float:
        return self.bound(spec, case)


def dot_product_error(length: Expr | int) -> Tolerance:
    """Sums of `length` products, accumulated in the precision's accumulator, rounded once to the output.

    Rounding errors of a sum are modelled as independent, so they grow with sqrt(length) (Higham and
    Mary, A new approach to probabilistic rounding error analysis, SISC 2019); the factor 4 covers
    blocked orders and the norm of one draw. The output adds its own unit roundoff. Integers are exact.
    """

    def bound(spec: KernelSpec, case: Case) -> float:
        terms = max(1.0, float(evaluate(length, spec.sizes_of(case))))
        precision = spec.precision(case.precision)
        out = spec.dtype_of(spec.outputs[0], case)
        return (
            out.unit_roundoff
            + 4.0 * math.sqrt(terms) * precision.accumulate.unit_roundoff
            + (0.0 if out.is_integer else 2.0**-24)
        )

    return Tolerance(bound, f"u(output) + 4 sqrt({length}) u(accumulator) + one fp32 rounding")


def exact() -> Tolerance:
    """No error at all: codes, masks and moved bytes."""
    return Tolerance(lambda spec, case: 0.0, "exact")


def rounding_error(roundings: int = 1) -> Tolerance:
    """Elementwise work of a few roundings in the output's type."""

    def bound(spec: KernelSpec, case: Case) -> float:
        out = spec.dtype_of(spec.outputs[0], case)
        return roundings * out.unit_roundoff

    return Tolerance(bound, f"{roundings} x u(output)")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an output differs from the reference.

    `rel_err` is ||out - ref|| / ||ref|| in the Frobenius norm; `worst` the largest elementwise error
    relative to |ref| + rms(ref); `tolerance` bounds the first, WORST_ELEMENT_FACTOR times it the second.
    A unit stands in for rms(ref), and so for the norm, where it is larger.
    """

    ok: bool
    rel_err: float
    max_abs_err: float
    worst: float
    worst_index: tuple[int, ...]
    tolerance: float
    reason: str


def worst(found: Sequence[Comparison]) -> Comparison:
    """Of an op's outputs, one that fails, or else the one that comes nearest to its tolerance."""

    def badness(one: Comparison) -> tuple[bool, float, float]:
        share = one.rel_err / one.tolerance if one.tolerance > 0 else one.rel_err
        return not one.ok, share, one.worst

    return max(found, key=badness)


def compare(
    out: torch.Tensor, ref: torch.Tensor, tolerance: float, unit: float = 0.0
) -> Comparison:
    """Compare an output of any dtype with an fp64 reference of the same shape.

    NaN must stand exactly where the reference has NaN, infinities must agree in place and sign. An
    output on a device is brought to the CPU.
    """
    import torch

    if tuple(out.shape) != tuple(ref.shape):
        reason = f"shape {tuple(out.shape)} instead of {tuple(ref.shape)}"
        return Comparison(False, math.inf, math.inf, math.inf, (), tolerance, reason)
    if out.numel() == 0:
        return Comparison(True, 0.0, 0.0, 0.0, (), tolerance, "")
    # The reference is rounded to what the output type can hold: an overflow to infinity is right.
    got, want = out.detach().cpu().to(torch.float64), ref.detach().cpu().to(torch.float64)
    if out.dtype.is_floating_point:
        limit = torch.finfo(out.dtype).max
        want = torch.where(want.abs() > limit * (1 + 2.0**-12), torch.sign(want) * math.inf, want)
    special = ~torch.isfinite(want)
    same = torch.where(torch.isnan(want), torch.isnan(got), got == want)
    mismatch = (special & ~same) | (~special & ~torch.isfinite(got))
    if bool(mismatch.any()):
        index = tuple(int(i) for i in mismatch.nonzero()[0])
        reason = f"{float(got[index])} at {index} where the reference has {float(want[index])}"
        return Comparison(False, math.inf, math.inf, math.inf, index, tolerance, reason)
    error = torch.where(special, torch.zeros_like(want), (got - want).abs())
    finite = torch.where(special, torch.zeros_like(want), want)
    norm = max(float(finite.norm()), unit * math.sqrt(finite.numel()))
    error_norm = float(error.norm())
    rel = error_norm / norm if norm > 0 else (0.0 if error_norm == 0 else math.inf)
    rms = norm / math.sqrt(finite.numel())
    relative = error / (finite.abs() + rms).clamp_min(1e-300)
    flat = int(relative.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), relative.shape))
    worst = float(relative.flatten()[flat])
    reason = ""
    if rel > tolerance:
        reason = f"relative error {rel:.3g} above {tolerance:.3g}"
    elif worst > WORST_ELEMENT_FACTOR * max(tolerance, 0.0):
        reason = (
            f"element {index} is {float(got[index]):.6g} instead of {float(want[index]):.6g}, "
            f"{worst:.3g} of its scale, above {WORST_ELEMENT_FACTOR * tolerance:.3g}"
        )
    return Comparison(not reason, rel, float(error.max()), worst, index, tolerance, reason)
