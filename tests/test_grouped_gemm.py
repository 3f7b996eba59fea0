"""grouped_gemm on the host: groups of any sizes against products in fp64, on every level, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright import native
from tilewright.backends.host import attributes, view
from tilewright.errors import Refused, UsageError
from tilewright.inputs import draw, from_logical
from tilewright.kernels.gemm import reference as gemm
from tilewright.kernels.grouped_gemm import reference
from tilewright.kernels.grouped_gemm.spec import experts_used, rows_used
from tilewright.numerics import compare
from tilewright.registry import family
from tilewright.targets import target

PRECISIONS = ("fp32", "bf16", "fp16", "int8->int32", "int8->fp32", "int8->bf16", "int8->fp16")
FLOATS = PRECISIONS[:3]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    yield
    native.module().force_level(None)


def case_of(t: int, e: int, n: int, k: int, precision: str, **flags: str) -> Any:
    sizes = {"T": t, "E": e, "N": n, "K": k}
    return family("grouped_gemm").spec.case(sizes, precision, flags)


def operands(
    case: Any, ends: Sequence[int] | None = None, seed: int = 0
) -> tuple[Tensors, Tensors]:
    """Logical and physical inputs of a case; `ends` instead of drawn ones."""
    one = family("grouped_gemm")
    logical = {n: v for n, v in draw(one, case, seed).logical.items() if v is not None}
    if ends is not None:
        logical["ends"] = torch.tensor(list(ends), dtype=torch.int32)
    physical = from_logical(one, case, logical).physical
    return logical, {n: v for n, v in physical.items() if v is not None}


def multiply(
    case: Any, given: Tensors, c: torch.Tensor | None = None, threads: int = 1, **config: int
) -> torch.Tensor:
    """One call of the host kernel."""
    spec = family("grouped_gemm").spec
    if c is None:
        dtype = spec.dtype_of(spec.outputs[0], case).torch()
        poison = math.nan if dtype.is_floating_point else -77
        c = torch.full((given["a"].shape[0], case.sizes["N"]), poison, dtype=dtype)
    views = [view(t.name, given[t.name]) for t in spec.inputs if t.name in given]
    chosen = {**spec.config_for(case, target("cpu")), **config}
    address = native.host_function(family("grouped_gemm"))
    native.module().prepare(
        address, [*views, view("c", c)], attributes(spec, case, chosen), threads
    ).run()
    return c


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.uint8)


def flags_of(precision: str, layout: str, bias: str) -> dict[str, str]:
    scale = "row_col" if precision in PRECISIONS[4:] else "none"
    return {"b_layout": layout, "bias": bias, "scale": scale}


ENDS = st.lists(st.integers(0, 12), min_size=0, max_size=9)


@settings(max_examples=150, deadline=None)
@given(
    counts=ENDS,
    rest=st.integers(0, 5),
    n=st.integers(0, 90),
    k=st.integers(0, 150),
    precision=st.sampled_from(PRECISIONS),
    layout=st.sampled_from(("NK", "panel16")),
    bias=st.sampled_from(("no", "yes")),
    seed=st.integers(0, 1000),
    threads=st.integers(1, 4),
    level=st.integers(0, 9),
    tile_m=st.sampled_from((8, 32, 64)),
)
def test_any_groups_on_any_level(
    counts: list[int],
    rest: int,
    n: int,
    k: int,
    precision: str,
    layout: str,
    bias: str,
    seed: int,
    threads: int,
    level: int,
    tile_m: int,
) -> None:
    levels = native.module().cpu_levels()
    native.module().force_level(levels[level % len(levels)])
    rows = sum(counts) + rest
    case = case_of(rows, len(counts), n, k, precision, **flags_of(precision, layout, bias))
    ends = torch.tensor(counts, dtype=torch.int64).cumsum(0).tolist()
    logical, physical = operands(case, ends, seed)
    c = multiply(case, physical, threads=threads, tile_m=tile_m)
    tolerance = family("grouped_gemm").spec.tolerance_of("c", case)
    found = compare(c, reference.grouped_gemm(**logical), tolerance)
    assert found.ok, found.reason
    assert (c[rows - rest :] == 0).all()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", ["NK", "panel16"])
def test_bits_do_not_depend_on_threads(precision: str, layout: str) -> None:
    """Large enough that threads share panels, bands of rows and groups."""
    case = case_of(1500, 5, 150, 130, precision, **flags_of(precision, layout, "yes"))
    _, physical = operands(case, (3, 3, 1300, 1301, 1490))
    want = multiply(case, physical)
    for threads in (2, 3, 7, 16):
        assert torch.equal(bits(multiply(case, physical, threads=threads)), bits(want)), threads


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", ["NK", "panel16"])
def test_a_row_does_not_depend_on_its_mates(precision: str, layout: str) -> None:
    """With the flag: neither on how many rows its expert has, nor on its place, nor on other groups."""
    flags = {**flags_of(precision, layout, "yes"), "batch_invariant": "yes"}
    case = case_of(700, 3, 97, 160, precision, **flags)
    _, physical = operands(case, (40, 640, 700))
    weights = [n for n in ("b", "bias", "col_scale") if n in physical]
    for level in native.module().cpu_levels():
        native.module().force_level(level)
        want = multiply(case, physical, threads=2)
        for first, last in (
            (0, 1),
            (0, 40),
            (40, 41),
            (41, 60),
            (300, 640),
            (639, 650),
            (690, 700),
        ):
            some = {n: physical[n][first:last] for n in ("a", "row_scale") if n in physical}
            some |= {n: physical[n] for n in weights}
            ends = physical["ends"].clamp(first, last) - first
            sizes = (last - first, 3, 97, 160)
            c = multiply(case_of(*sizes, precision, **flags), {**some, "ends": ends})
            assert torch.equal(bits(c), bits(want[first:last])), (level, first, last)


@pytest.mark.parametrize("precision", FLOATS)
def test_experts_of_a_split_layer_add_up_to_it(precision: str) -> None:
    """A feed-forward layer cut into 8 experts of 24: every token through all of them is the whole layer."""
    tokens, hidden, experts, width = 13, 96, 8, 24
    generator = torch.Generator().manual_seed(5)
    dtype = getattr(torch, {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[precision])
    x = torch.randn(tokens, hidden, generator=generator).to(dtype)
    down = (torch.randn(hidden, experts * width, generator=generator) / 8).to(dtype)
    up = (torch.randn(experts * width, hidden, generator=generator) / 8).to(dtype)
    ends = (torch.arange(1, experts + 1) * tokens).int()
    case = case_of(experts * tokens, experts, width, hidden, precision)
    b = up.view(experts, width, hidden)
    middle = multiply(case, {"a": x.repeat(experts, 1), "b": b, "ends": ends})
    back = case_of(experts * tokens, experts, hidden, width, precision)
    parts = down.view(hidden, experts, width).transpose(0, 1)
    y = multiply(back, {"a": middle, "b": parts, "ends": ends}).double()
    got = y.view(experts, tokens, hidden).sum(0)
    want = (x.double() @ up.double().t()).to(dtype).double() @ down.double().t()
    # The rows of the middle go through two products, and the parts add up in fp64.
    spec = family("grouped_gemm").spec
    bound = spec.tolerance_of("c", case) + spec.tolerance_of("c", back)
    assert (got - want).norm() <= bound * want.norm()


def test_weights_of_experts_without_rows_are_not_read() -> None:
    case = case_of(9, 4, 40, 50, "fp32", bias="yes")
    logical, physical = operands(case, (0, 4, 4, 9))
    for expert in (0, 2):
        for name in ("b", "bias"):
            physical[name][expert] = math.nan
    c = multiply(case, physical)
    bound = family("grouped_gemm").spec.tolerance_of("c", case)
    assert compare(c, reference.grouped_gemm(**logical), bound).ok


@given(
    e=st.integers(0, 4),
    n=st.integers(0, 40),
    k=st.integers(0, 40),
    kr=st.sampled_from((1, 2, 4)),
)
@settings(deadline=None)
def test_panels_are_gemms_expert_by_expert(e: int, n: int, k: int, kr: int) -> None:
    b = torch.randint(-9, 9, (e, n, k))
    found = reference.to_panel16(b, {"KR": kr})
    assert found.shape == (e, -(-n // 16), -(-k // kr), 16, kr)
    for expert in range(e):
        assert torch.equal(found[expert], gemm.to_panel16(b[expert].t(), {"KR": kr}))


@pytest.mark.parametrize("precision", FLOATS)
def test_specials_stay_in_their_row(precision: str) -> None:
    case = case_of(11, 3, 40, 96, precision)
    _, physical = operands(case, (4, 8, 11))
    clean = multiply(case, physical)
    physical["a"][5, 50], physical["a"][9, 0] = math.nan, math.inf
    c = multiply(case, physical)
    assert c[5].isnan().all() and not c[9].isfinite().any()
    rest = [0, 1, 2, 3, 4, 6, 7, 8, 10]
    assert torch.equal(c[rest], clean[rest])


def test_rows_of_nobody_are_zero_whatever_they_hold() -> None:
    flags = flags_of("int8->fp32", "NK", "yes")
    case = case_of(6, 2, 33, 20, "int8->fp32", **flags)
    _, physical = operands(case, (1, 2))
    physical["row_scale"][2:] = math.nan
    assert torch.equal(multiply(case, physical)[2:], torch.zeros(4, 33))
    case = case_of(6, 0, 33, 20, "fp32")
    a, b = torch.full((6, 20), math.nan), torch.empty(0, 33, 20)
    given = {"a": a, "b": b, "ends": torch.empty(0, dtype=torch.int32)}
    assert torch.equal(multiply(case, given), torch.zeros(6, 33))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_int8_is_exact_at_its_ends_and_any_strides_are_taken(precision: str) -> None:
    flags = flags_of(precision, "NK", "yes")
    case = case_of(23, 3, 45, 70, precision, **flags)
    _, given = operands(case, (10, 11, 20))
    if precision.startswith("int8"):
        given["a"][:5], given["b"][0] = -128, -128
    want = multiply(case, given)
    spread: Tensors = {}
    for name, value in given.items():
        room = torch.full((*value.shape[:-1], 3 * value.shape[-1]), 7, dtype=value.dtype)
        room[..., ::3] = value
        spread[name] = room[..., ::3]
    spread["a"] = given["a"].t().contiguous().t()
    poison = math.nan if want.dtype.is_floating_point else -77
    room = torch.full((45, 46), poison, dtype=want.dtype)
    c = multiply(case, spread, c=room[:, ::2].t())
    tolerance = family("grouped_gemm").spec.tolerance_of("c", case)
    assert compare(c, want.double(), tolerance).ok
    assert room[:, 1::2].isnan().all() if poison != -77 else (room[:, 1::2] == -77).all()


@settings(max_examples=60, deadline=None)
@given(t=st.integers(0, 300), e=st.integers(0, 140), seed=st.integers(0, 99))
def test_drawn_groups_are_as_the_spec_counts_them(t: int, e: int, seed: int) -> None:
    ends = reference.draw_ends(t, e, torch.Generator().manual_seed(seed)).tolist()
    counts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    assert len(counts) == e and min(counts, default=0) >= 0
    assert sum(counts) == rows_used(t, e)
    assert sum(count > 0 for count in counts) == experts_used(t, e)


def test_costs_count_what_is_used() -> None:
    spec = family("grouped_gemm").spec
    case = case_of(9, 4, 10, 20, "bf16", bias="yes")
    assert rows_used(9, 4) == 8 and experts_used(9, 4) == 3
    assert spec.flops_of(case) == 2 * 8 * 10 * 20
    assert spec.bytes_of(case) == 2 * (8 * 20 + 3 * 10 * 20 + 3 * 10 + 9 * 10) + 4 * 4


@pytest.mark.parametrize("split", [2, 65])
def test_groups_are_parts_enough(split: int) -> None:
    case = case_of(6, 2, 33, 300, "fp32")
    _, given = operands(case, (4, 6))
    assert torch.equal(multiply(case, given, split_k=split), multiply(case, given))


def test_refusals_come_before_memory_is_touched() -> None:
    untouched = torch.full((6, 20), 7.0)

    def refused(
        sentence: str,
        precision: str = "fp32",
        flags: dict[str, str] | None = None,
        c: torch.Tensor = untouched,
        **changed: torch.Tensor | None,
    ) -> None:
        case = case_of(6, 3, 20, 64, precision, **(flags or {}))
        given = {n: v for n, v in {**operands(case)[1], **changed}.items() if v is not None}
        with pytest.raises(Refused, match=sentence):
            multiply(case, given, c=c)
        assert (untouched == 7).all()

    def ends(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32)

    b = torch.zeros(3, 20, 64)
    refused(r"ends\[1\] is 1; accepted: 2 to 6, never falling", ends=ends(2, 1, 6))
    refused(r"ends\[0\] is -1; accepted: 0 to 6", ends=ends(-1, 2, 6))
    refused(r"ends\[2\] is 7; accepted: 3 to 6", ends=ends(2, 3, 7))
    refused(r"ends\[0\] is 2147483647", ends=ends(2**31 - 1, 2, 6))
    refused('tensor "ends" is int64, expected int32', ends=ends(1, 2, 6).long())
    refused('dimension 0 of "b" is 3, expected 2', ends=ends(1, 2))
    refused('dimension 1 of "b" is 19, expected 20', b=b[:, :19].contiguous())
    refused('dimension 2 of "b" is 63, expected 64', b=b[..., :63].contiguous())
    refused('tensor "b" is bf16, expected fp32', b=b.bfloat16())
    refused('tensor "b" has 3 dimensions, expected 5', flags={"b_layout": "panel16"}, b=b)
    refused('"b" is missing', b=None)
    refused('"ends" is missing', ends=None)
    refused('"row_scale" is for int8 inputs', row_scale=torch.ones(6))
    refused('"row_scale" is missing', "int8->fp32", row_scale=None)
    refused('"col_scale" is missing', "int8->fp32", col_scale=None)
    refused('dimension 0 of "row_scale" is 5', "int8->fp32", row_scale=torch.ones(5))
    refused('dimension 1 of "col_scale" is 19', "int8->fp32", col_scale=torch.ones(3, 19))
    refused('dimension 0 of "bias" is 2, expected 3', bias=torch.ones(2, 20))
    refused('tensor "bias" is bf16, expected fp32', bias=torch.ones(3, 20).bfloat16())
    refused('tensor "a" is int32; accepted: fp32', a=torch.ones((6, 64), dtype=torch.int32))
    refused('dimension 0 of "a" is 4, expected 6', a=torch.ones((4, 64)))
    refused('make elements of "c" overlap', c=untouched[:1].expand(6, 20))
    wide = torch.zeros(3, 2, 64, 32, 1)[..., ::2, :]
    refused('each panel of a panel16 "b"', flags={"b_layout": "panel16"}, b=wide)


def test_the_spec_refuses_what_does_not_exist() -> None:
    with pytest.raises(UsageError, match="scale"):
        case_of(1, 1, 1, 1, "fp32", scale="row_col")
    with pytest.raises(UsageError, match="b_layout"):
        case_of(1, 1, 1, 1, "fp32", b_layout="KN")


def test_the_torch_op() -> None:
    from tilewright.bindings.torch.ops import torch_op

    op = torch_op(family("grouped_gemm"))
    case = case_of(9, 3, 40, 96, "bf16", bias="yes")
    _, given = operands(case, (2, 2, 8))
    c = op(given["a"], given["b"], given["ends"], bias=given["bias"])
    assert torch.equal(c, multiply(case, given))
    compiled = torch.compile(lambda a, b, e: op(a, b, e), backend="aot_eager", fullgraph=True)
    assert compiled(given["a"], given["b"], given["ends"]).shape == (9, 40)
