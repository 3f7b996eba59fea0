"""What is timed is what calls in use look like: values that processors take long for are for checks."""

from __future__ import annotations

import pytest
import torch

from tilewright.inputs import draw, draw_typical
from tilewright.registry import families
from tilewright.spec import Precision


@pytest.mark.parametrize("name", families())
def test_no_timed_call_has_subnormal_inputs(name: str) -> None:
    family = families()[name]
    for precision in family.spec.precisions:
        inputs = draw_typical(family, _small(name, precision), 0)
        for tensor, value in inputs.logical.items():
            if value is not None and value.dtype.is_floating_point:
                tiny = torch.finfo(value.dtype).tiny
                subnormal = (value != 0) & (value.abs().double() < tiny)
                # A normal draw in fp16 has a few by chance.
                share = float(subnormal.double().mean()) if value.numel() else 0.0
                assert share < 1e-3, f"{precision.name}: {tensor}"


def _small(name: str, precision: Precision):  # type: ignore[no-untyped-def]
    spec = families()[name].spec
    return min(spec.benchmark_cases(precision), key=spec.bytes_of)


def test_a_check_has_them_and_both_follow_the_seed() -> None:
    family = families()["quantize"]
    case = family.spec.case({"T": 6, "D": 64}, "fp32")
    checked, timed = (f(family, case, 3).logical["x"] for f in (draw, draw_typical))
    again = draw_typical(family, case, 3).logical["x"]
    other = draw_typical(family, case, 4).logical["x"]
    assert checked is not None and timed is not None and again is not None and other is not None
    subnormal = checked[2].abs() < torch.finfo(torch.float32).tiny
    assert subnormal.double().mean() > 0.8
    assert torch.equal(timed, again) and not torch.equal(timed, other)
