"""gemm_w4: formats against loops, kernels against dequantised weights, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from native import host_lib
from native.host_gemm_w4 import (
    Tensors,
    bits,
    case_of,
    levels,
    multiply,
    operands,
    use_emulated,
    use_native,
    wanted,
)
from tilewright import native
from tilewright.errors import Refused, UsageError
from tilewright.kernels.gemm_w4 import formats
from tilewright.kernels.gemm_w4.reference import dequantised
from tilewright.numerics import compare
from tilewright.registry import family

PRECISIONS = ("fp32", "bf16", "fp16", "int8->fp32", "int8->bf16", "int8->fp16")
LAYOUTS, ZEROS = ("rows", "panel16"), ("sym", "asym", "min")
# Where many rows of floats are multiplied as bytes too.
BYTE_LEVELS = ("avx2vnni", "avx512")


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    use_native(None)
    yield
    use_native(None)


@settings(max_examples=250, deadline=None)
@given(
    m=st.integers(0, 20),
    n=st.integers(0, 90),
    k=st.integers(0, 300),
    precision=st.sampled_from(PRECISIONS),
    layout=st.sampled_from(LAYOUTS),
    group=st.sampled_from(formats.GROUPS),
    zero=st.sampled_from(ZEROS),
    bias=st.sampled_from(("no", "yes")),
    seed=st.integers(0, 1000),
    threads=st.integers(1, 3),
    level=st.integers(0, 9),
    build=st.sampled_from(("native", "emulated")),
)
def test_any_shape_on_any_level(
    m: int,
    n: int,
    k: int,
    precision: str,
    layout: str,
    group: int,
    zero: str,
    bias: str,
    seed: int,
    threads: int,
    level: int,
    build: str,
) -> None:
    if build == "native":
        here = native.module().cpu_levels()
        use_native(here[level % len(here)])
    else:
        use_emulated(host_lib.LEVELS[level % len(host_lib.LEVELS)])
    case = case_of(m, n, k, precision, b_layout=layout, group=group, zero=zero, bias=bias)
    logical, physical = operands(case, seed)
    found = compare(
        multiply(case, physical, threads=threads),
        wanted(case, logical),
        family("gemm_w4").spec.tolerance_of("c", case),
    )
    assert found.ok, found.reason


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("zero", ZEROS)
def test_bits_do_not_depend_on_threads_layouts_or_fused_levels(precision: str, zero: str) -> None:
    """Levels with dot products of bytes agree, but for bf16, whose dot products are an instruction of some."""
    rows = case_of(23, 131, 200, precision, zero=zero, group=64)
    panels = case_of(23, 131, 200, precision, zero=zero, group=64, b_layout="panel16")
    first: dict[str, torch.Tensor] = {}
    for level in levels(emulated=False):
        want = multiply(rows, operands(rows)[1])
        for case in (rows, panels):
            for threads in (1, 2, 5):
                assert torch.equal(
                    bits(multiply(case, operands(case)[1], threads=threads)), bits(want)
                )
        exact = precision.startswith("int8") or (precision != "bf16" and level in BYTE_LEVELS)
        if level != "scalar" and exact:
            assert torch.equal(bits(first.setdefault("fused", want)), bits(want)), level


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rows", [250, 300])
def test_bits_of_many_rows_do_not_depend_on_how_they_are_staged(precision: str, rows: int) -> None:
    """Chunks of rows share panels that a call packs, on tile registers too."""
    flags: dict[str, Any] = {"zero": "min", "bias": "yes", "batch_invariant": "yes"}
    case = case_of(rows, 275, 72, precision, **flags)
    panels = case_of(rows, 275, 72, precision, b_layout="panel16", **flags)
    given = operands(case)[1]
    for level in levels():
        want = multiply(panels, operands(panels)[1])
        for threads in (1, 3):
            assert torch.equal(bits(multiply(case, given, threads=threads)), bits(want)), level
        for part in (slice(0, 64), slice(200, rows), slice(rows - 1, rows)):
            some = {n: v[part] if n in ("a", "row_scale") else v for n, v in given.items()}
            assert torch.equal(bits(multiply(case, some)), bits(want[part])), (level, part)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("zero", ZEROS)
def test_a_row_does_not_depend_on_its_batch(precision: str, zero: str) -> None:
    """With the flag; without it, floats of a few rows do where many take an order of sums of their own."""
    case = case_of(200, 97, 160, precision, zero=zero, b_layout="panel16", batch_invariant="yes")
    _, physical = operands(case, 3)
    for level in levels():
        want = multiply(case, physical, threads=2)
        for part in (slice(0, 1), slice(199, 200), slice(5, 7), slice(190, 195), slice(1, 196)):
            some = {n: v[part] if n in ("a", "row_scale") else v for n, v in physical.items()}
            assert torch.equal(bits(multiply(case, some)), bits(want[part])), (level, part)


@pytest.mark.parametrize("zero", ZEROS)
def test_int8_rows_keep_their_bits_without_the_flag_too(zero: str) -> None:
    case = case_of(40, 97, 200, "int8->fp32", zero=zero, group=64, b_layout="panel16")
    _, physical = operands(case, 5)
    for level in levels():
        want = multiply(case, physical)
        for part in (slice(0, 1), slice(7, 12), slice(20, 40)):
            some = {n: v[part] if n in ("a", "row_scale") else v for n, v in physical.items()}
            assert torch.equal(bits(multiply(case, some)), bits(want[part])), (level, part)


@pytest.mark.parametrize("power", [-110, -60, 0, 60, 110])
@pytest.mark.parametrize("rows", [1, 40])
def test_fp32_activations_are_taken_whole(rows: int, power: int) -> None:
    """Parts of bf16 hold all 24 bits, of small values too: a lone activation times a power of two comes back."""
    case = case_of(rows, 33, 40, "fp32", batch_invariant="yes")
    _, physical = operands(case)
    values = torch.randn(40, generator=torch.Generator().manual_seed(3)) * 2.0**power
    physical["a"] = torch.diag(values)[:rows]
    physical["b"] = formats.codes_to_rows(torch.full((33, 40), 9), {})
    physical["scale"] = torch.full((33, 2), 0.5).half()
    for level in levels():
        want = (values / 2)[:rows, None].expand(rows, 33)
        assert torch.equal(multiply(case, physical), want), level


@pytest.mark.parametrize("zero", ["sym", "asym"])
@pytest.mark.parametrize(
    ("precision", "ratio", "kept"), [("fp32", 2**6, 29), ("fp32", 2**18, 29), ("fp16", 2**11, 21)]
)
def test_a_large_activation_costs_its_group_what_the_readme_says(
    precision: str, ratio: int, kept: int, zero: str
) -> None:
    """Its weights are 0, so that the sums are those of the others."""
    case = case_of(2, 40, 96, precision, zero=zero)
    logical, physical = operands(case)
    a, codes = logical["a"].double(), logical["b"].clone()
    a[:, ::32] = float(a.abs().max()) * ratio
    codes[:, ::32] = logical["zero"].to(codes.dtype) if zero == "asym" else 8
    physical["a"] = logical["a"] = a.to(logical["a"].dtype)
    logical["b"], physical["b"] = codes, formats.codes_to_rows(codes, {})
    weights = dequantised(codes, logical["scale"], logical.get("zero"), None, 32).abs()
    largest, of_group = a.abs().unflatten(1, (3, 32)).amax(2), weights.unflatten(1, (3, 32)).sum(2)
    tolerance = family("gemm_w4").spec.tolerance_of("c", case)
    allowed = 2.0**-kept * largest @ of_group.t() + tolerance * a.abs() @ weights.t()
    for level in levels():
        found = (multiply(case, physical).double() - wanted(case, logical)).abs()
        assert (found <= allowed).all(), level


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("zero", ZEROS)
def test_subnormal_sums_and_mixed_rows(precision: str, zero: str) -> None:
    """Rows of very small values are scaled on their own, beside rows that are not."""
    case = case_of(21, 40, 128, precision, zero=zero, group=64)
    logical, physical = operands(case)
    tiny = 2.0**-14 if precision == "fp16" else 2.0**-105
    physical["a"] = logical["a"] = logical["a"] * torch.where(torch.arange(21) % 2 == 0, 1.0, tiny)[
        :, None
    ].to(logical["a"].dtype)
    tolerance = family("gemm_w4").spec.tolerance_of("c", case)
    for level in levels():
        c, want = multiply(case, physical).double(), wanted(case, logical)
        if precision == "fp16":
            assert compare(c, want, tolerance).ok, level
            continue
        for row in range(21):
            scale = 1.0 if row % 2 == 0 else 2.0**100
            found = compare(c[row] * scale, want[row] * scale, tolerance)
            assert found.ok, (level, row, found.reason)


@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8->fp32"])
def test_single_activations_read_the_dequantised_weights_exactly(precision: str, zero: str) -> None:
    """Rows of the identity: every output is one weight, rounded once to the output."""
    case = case_of(129, 50, 129, precision, zero=zero, group=64, b_layout="panel16")
    logical, physical = operands(case)
    physical["a"] = torch.eye(129).to(physical["a"].dtype)
    if "row_scale" in physical:
        physical["row_scale"] = torch.ones(129)
    weights = dequantised(
        logical["b"], logical["scale"], logical.get("zero"), logical.get("minimum"), 64
    )
    for level in levels():
        c = multiply(case, physical)
        # fp32 first, which minima round to, then the output.
        assert torch.equal(c, weights.t().float().to(c.dtype)), level


def test_blocks_of_a_model_file_are_minima_of_groups_of_32() -> None:
    from tilewright.models import dequant

    rng = np.random.default_rng(0)
    n, groups = 48, 5
    d, m = (rng.standard_normal((n, groups)).astype(np.float16) for _ in range(2))
    packed = rng.integers(0, 256, (n, groups, 16), dtype=np.uint8)
    raw = np.concatenate(
        [d.view(np.uint8).reshape(n, groups, 2), m.view(np.uint8).reshape(n, groups, 2), packed], -1
    )
    want = torch.from_numpy(dequant._q4_1(raw.reshape(n, -1)))
    codes = np.concatenate([packed & 15, packed >> 4], axis=-1).reshape(n, -1)
    case = case_of(groups * 32, n, groups * 32, "fp32", zero="min")
    given = {
        "a": torch.eye(groups * 32),
        "b": formats.codes_to_rows(torch.from_numpy(codes), {}),
        "scale": torch.from_numpy(d),
        "minimum": torch.from_numpy(m),
    }
    assert torch.equal(multiply(case, given).t(), want)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), k=st.integers(1, 70), seed=st.integers(0, 1000))
def test_layouts_say_where_a_code_is(n: int, k: int, seed: int) -> None:
    codes = torch.randint(16, (n, k), generator=torch.Generator().manual_seed(seed))
    rows, panels = formats.codes_to_rows(codes, {}), formats.codes_to_panel16(codes, {})
    assert rows.shape == (n, -(-k // 8)) and panels.shape == (-(-n // 16), -(-k // 32), 4, 16)
    assert torch.equal(formats.from_rows(rows, k).long(), codes)
    for i, j in ((0, 0), (n - 1, k - 1), (n // 2, k // 2), (n // 3, k // 3)):
        word = int(panels[i // 16, j // 32, j % 32 // 8, i % 16]) & 0xFFFFFFFF
        nibble = 2 * (j % 4) + (j % 8 >= 4)
        assert (word >> (4 * nibble)) & 15 == codes[i, j]
        assert (int(rows[i, j // 8]) >> (4 * (j % 8))) & 15 == codes[i, j]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_of_zero_give_zero(precision: str) -> None:
    """No part of a sum is there to cancel another: codes meet activations less their zero."""
    for zero in ("sym", "asym"):
        case = case_of(7, 33, 300, precision, zero=zero, group=128)
        logical, physical = operands(case)
        if zero == "asym":
            physical["zero"] = torch.full_like(physical["zero"], 11)
        codes = torch.full((33, 300), 11 if zero == "asym" else 8)
        physical["b"] = formats.codes_to_rows(codes, {})
        if logical["a"].is_floating_point():
            physical["a"] = logical["a"] * 1000
        for level in levels():
            assert (multiply(case, physical) == 0).all(), (zero, level)


@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("extreme", [-128, 127])
def test_int8_sums_are_exact_at_their_ends(zero: str, extreme: int) -> None:
    """One group, a scale of 1: integers below 2^24 come out as they are."""
    case = case_of(3, 20, 128, "int8->fp32", zero=zero, group=128, b_layout="panel16")
    logical, physical = operands(case)
    codes = torch.full((20, 128), 15) * (torch.arange(20) % 2)[:, None]
    logical["a"] = torch.full((3, 128), extreme, dtype=torch.int8)
    logical["b"], physical["a"] = codes.int(), logical["a"]
    physical["b"] = formats.codes_to_panel16(codes, {})
    logical["scale"], physical["scale"] = torch.ones(20, 1).half(), torch.ones(2, 1, 16).half()
    logical["row_scale"] = physical["row_scale"] = torch.ones(3)
    for level in levels():
        if zero == "min":
            logical["minimum"] = torch.full((20, 1), -3.5).half()
            physical["minimum"] = torch.full((2, 1, 16), -3.5).half()
        assert torch.equal(multiply(case, physical).double(), wanted(case, logical)), level


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_specials_stay_in_their_row_and_large_values_do_not_overflow(precision: str) -> None:
    case = case_of(9, 40, 96, precision)
    _, physical = operands(case)
    clean = multiply(case, physical)
    physical["a"][4, 50], physical["a"][6, 0] = math.nan, math.inf
    c = multiply(case, physical)
    assert c[4].isnan().all() and not c[6].isfinite().any()
    rest = [0, 1, 2, 3, 5, 7, 8]
    assert torch.equal(c[rest], clean[rest])
    physical["a"] = torch.full_like(physical["a"], 60000.0)
    physical["b"] = formats.codes_to_rows(torch.full((40, 96), 9), {})
    physical["scale"] = torch.full((40, 3), 2.0**-10).half()
    want = 60000.0 * 96 / 1024
    assert multiply(case, physical).float().sub(want).abs().max() < want * 2.0**-8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_strides(precision: str) -> None:
    case = case_of(11, 45, 70, precision, zero="asym", bias="yes")
    _, given = operands(case)
    want = multiply(case, given)
    spread: Tensors = {}
    for name, value in given.items():
        room = torch.full((*value.shape[:-1], 3 * value.shape[-1]), 7, dtype=value.dtype)
        room[..., ::3] = value
        spread[name] = room[..., ::3]
    spread["a"] = given["a"].t().contiguous().t()
    room = torch.full((45, 22), math.nan, dtype=want.dtype)
    multiply(case, spread, c=room[:, ::2].t())
    assert torch.equal(bits(room[:, ::2].t()), bits(want)) and room[:, 1::2].isnan().all()


def test_refusals_come_before_memory_is_touched() -> None:
    untouched = torch.full((5, 20), 7.0)

    def refused(
        sentence: str,
        precision: str = "fp32",
        flags: dict[str, str] | None = None,
        c: torch.Tensor = untouched,
        **changed: torch.Tensor | None,
    ) -> None:
        case = case_of(5, 20, 64, precision, **(flags or {}))
        given = {n: v for n, v in {**operands(case)[1], **changed}.items() if v is not None}
        with pytest.raises(Refused, match=sentence):
            multiply(case, given, c=c)
        assert (untouched == 7).all()

    panels = {"b_layout": "panel16"}
    codes = torch.zeros((20, 8), dtype=torch.int32)
    refused('dimension 1 of "b" is 7, expected 8', b=codes[:, :7].contiguous())
    refused('dimension 0 of "b" is 19, expected 20', b=codes[:19].contiguous())
    refused('tensor "b" is uint8, expected int32', b=codes.to(torch.uint8))
    refused('tensor "b" has 2 dimensions, expected 4', flags=panels, b=codes)
    refused('"b" is missing', b=None)
    refused('dimension 1 of "scale" is 3, expected 2', scale=torch.ones(20, 3).half())
    refused('tensor "scale" is fp32, expected fp16', scale=torch.ones(20, 2))
    refused('tensor "zero" is missing', flags={"zero": "asym"}, zero=None)
    refused('tensor "minimum" is missing', flags={"zero": "min"}, minimum=None)
    refused('"zero" is for asymmetric weights', zero=codes.to(torch.uint8))
    refused('"row_scale" is for int8 activations', row_scale=torch.ones(5))
    refused('"row_scale" is missing', "int8->fp32", row_scale=None)
    refused('dimension 0 of "row_scale" is 4', "int8->fp32", row_scale=torch.ones(4))
    refused('tensor "bias" is bf16, expected fp32', bias=torch.ones(20).bfloat16())
    refused('tensor "a" is int32; accepted: fp32', a=torch.ones((5, 64), dtype=torch.int32))
    refused('tensor "c" is fp32, expected bf16', a=torch.ones((5, 64)).bfloat16())
    refused('dimension 0 of "a" is 4, expected 5', a=torch.ones((4, 64)))
    refused('make elements of "c" overlap', c=untouched[:1].expand(5, 20))
    wide = torch.zeros((2, 2, 4, 32), dtype=torch.int32)[..., ::2]
    refused('each panel of "b" must be contiguous', flags=panels, b=wide)


def test_the_spec_refuses_groups_that_do_not_fit() -> None:
    spec = family("gemm_w4").spec
    with pytest.raises(UsageError, match="K=100 has 4 groups of 32, not G=3"):
        spec.case({"M": 1, "N": 1, "K": 100, "G": 3}, "fp32", {"group": "32"})
    with pytest.raises(UsageError, match="group"):
        spec.case({"M": 1, "N": 1, "K": 100, "G": 4}, "fp32", {"group": "16"})


def test_the_torch_op() -> None:
    from tilewright.bindings.torch.ops import torch_op

    op = torch_op(family("gemm_w4"))
    case = case_of(5, 40, 96, "bf16", zero="min")
    _, given = operands(case)
    c = op(given["a"], given["b"], given["scale"], minimum=given["minimum"])
    assert torch.equal(c, multiply(case, given))
