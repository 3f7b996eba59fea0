"""compare() accepts rounding and refuses everything that is not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.numerics import compare
from tilewright.registry import family


def reference(seed: int = 0, shape: tuple[int, ...] = (17, 33)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("dtype", "roundoff"),
    [(torch.float32, 2**-24), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)],
)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_one_rounding_is_within_the_unit_roundoff(
    dtype: torch.dtype, roundoff: float, seed: int
) -> None:
    ref = reference(seed)
    assert compare(ref.to(dtype), ref, roundoff).ok
    assert not compare(ref.to(dtype), ref, roundoff / 100).ok


@given(seed=st.integers(0, 2**31), row=st.integers(0, 16), col=st.integers(0, 32))
@settings(max_examples=30, deadline=None)
def test_one_wrong_element_is_found(seed: int, row: int, col: int) -> None:
    ref = reference(seed)
    out = ref.to(torch.float32)
    out[row, col] += 0.01
    verdict = compare(out, ref, 1e-5)
    assert not verdict.ok
    assert verdict.worst_index == (row, col)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_unwritten_or_overflowed_element_is_refused(bad: float) -> None:
    ref = reference()
    out = ref.clone()
    out[3, 4] = bad
    verdict = compare(out, ref, 1.0)
    assert not verdict.ok
    assert verdict.worst_index == (3, 4)


def test_nan_and_infinity_must_stand_where_the_reference_has_them() -> None:
    ref = reference()
    ref[0, 0], ref[1, 1] = math.nan, -math.inf
    assert compare(ref.to(torch.float32), ref, 1e-6).ok
    flipped = ref.clone()
    flipped[1, 1] = math.inf
    assert not compare(flipped, ref, 1e-6).ok
    filled = ref.clone()
    filled[0, 0] = 0.0
    assert not compare(filled, ref, 1e-6).ok


def test_overflow_of_the_output_type_is_what_the_type_can_say() -> None:
    ref = torch.tensor([1e6, -1e6, 1.0], dtype=torch.float64)
    assert compare(ref.to(torch.float16), ref, 1e-3).ok
    assert not compare(torch.tensor([65504.0, -65504.0, 1.0]).half(), ref, 1e-3).ok


def test_integers_are_exact() -> None:
    ref = torch.tensor([[2**31 - 1, -5]], dtype=torch.float64)
    assert compare(torch.tensor([[2**31 - 1, -5]], dtype=torch.int32), ref, 0.0).ok
    assert not compare(torch.tensor([[2**31 - 2, -5]], dtype=torch.int32), ref, 0.0).ok


def test_wrong_shape_and_empty() -> None:
    assert not compare(torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.float64), 1.0).ok
    assert compare(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.float64), 0.0).ok


def test_all_zero_reference_allows_no_error() -> None:
    ref = torch.zeros(4, 4, dtype=torch.float64)
    assert compare(torch.zeros(4, 4), ref, 1e-3).ok
    assert not compare(torch.full((4, 4), 1e-30), ref, 1e-3).ok


def test_near_zero_a_unit_is_what_errors_are_relative_to() -> None:
    """A log-sum-exp of 1e-3 that is 1e-6 off is a sum that is 1e-6 off, not 1e-3."""
    ref = torch.tensor([1e-3, 0.0], dtype=torch.float64)
    assert not compare(ref + 1e-6, ref, 1e-5).ok
    assert compare(ref + 1e-6, ref, 1e-5, unit=1.0).ok
    assert not compare(ref + 1e-6, ref, 1e-7, unit=1.0).ok
    far = ref + 1e3
    assert compare(far + 1e-4, far, 1e-6) == compare(far + 1e-4, far, 1e-6, unit=1.0)


def test_dot_product_tolerance_follows_from_dtype_and_length() -> None:
    spec = family("gemm").spec
    sizes = {"M": 4, "N": 4, "K": 576}
    bound = {p.name: spec.tolerance.of(spec, spec.case(sizes, p.name)) for p in spec.precisions}
    assert bound["int8->int32"] == 0.0
    assert bound["fp32"] < 1e-5 < bound["fp16"] < bound["bf16"] < 1e-2
    longer = spec.tolerance.of(spec, spec.case({"M": 4, "N": 4, "K": 57600}, "fp32"))
    assert longer > 5 * bound["fp32"]
