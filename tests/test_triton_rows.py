"""Triton kernels over rows, interpreted: any shape against the references, bit for bit where codes are."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright import check
from tilewright.aot import compile_config
from tilewright.backends import backend
from tilewright.kernels.hadamard import matrices
from tilewright.kernels.quantize.spec import SCALES
from tilewright.registry import family
from tilewright.targets import target

GPU = target("cuda:sm_80")
PRECISIONS = st.sampled_from(["fp32", "bf16", "fp16"])
SLOW = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def judge(
    name: str, sizes: Mapping[str, int], precision: str, flags: Mapping[str, str], seed: int
) -> None:
    one = family(name)
    config = one.spec.default_config(GPU)
    for memory in ("dense", "padded"):
        case = one.spec.case(sizes, precision, flags, memory)
        row = check.run(check.Job(one, backend("triton"), GPU, case, config, seed))
        assert row.ok and row.state == "interpret", f"{case}: {row.reason}"


@SLOW
@given(t=st.integers(0, 6), d=st.integers(0, 2100), kind=PRECISIONS, residual=st.booleans())
def test_rmsnorm(t: int, d: int, kind: str, residual: bool) -> None:
    judge("rmsnorm", {"T": t, "D": d}, kind, {"residual": "yes" if residual else "no"}, t + d)


@SLOW
@given(t=st.integers(0, 6), half=st.integers(0, 2100), kind=PRECISIONS)
def test_silu_mul(t: int, half: int, kind: str) -> None:
    judge("silu_mul", {"T": t, "W": 2 * half}, kind, {}, t + half)


@pytest.mark.parametrize("scales", SCALES)
@SLOW
@given(t=st.integers(0, 40), d=st.integers(0, 1100), kind=PRECISIONS)
def test_quantize(scales: str, t: int, d: int, kind: str) -> None:
    judge("quantize", {"T": t, "D": d}, kind, {"scales": scales}, t + d)


@SLOW
@given(
    t=st.integers(0, 4),
    m=st.sampled_from(matrices.ORDERS),
    n=st.integers(0, 9),
    kind=PRECISIONS,
)
def test_hadamard(t: int, m: int, n: int, kind: str) -> None:
    judge("hadamard", {"T": t, "D": m << n}, kind, {}, t + n)


@pytest.mark.parametrize("name", ["rmsnorm", "silu_mul", "quantize", "hadamard"])
@pytest.mark.parametrize("where", ["cuda:sm_80", "hip:gfx942"])
def test_the_default_config_spills_nothing(name: str, where: str) -> None:
    one = family(name)
    case = one.spec.sample_case(one.spec.precision("bf16"), {})
    assert case is not None
    config = one.spec.default_config(target(where))
    built = compile_config(one.module("triton"), "bf16", dict(case.flags), config, where)
    assert built.ok and built.spill_bytes == 0
