"""mask_gemm on the host: rows against both products, bits against gemm, masks that change, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_calls import call, same_bits, spread

from tilewright import native
from tilewright.errors import Refused, UsageError
from tilewright.inputs import draw, from_logical
from tilewright.kernels.gemm.reference import to_panel16
from tilewright.kernels.mask_gemm import reference, selection
from tilewright.kernels.mask_gemm.reference import mask_gemm
from tilewright.numerics import compare
from tilewright.registry import family

FAMILY = family("mask_gemm")
Tensors = dict[str, torch.Tensor]
MIXED, WHOLE, NOTHING = 3, 1, 2  # layers, by what reference.make_inputs selects


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    yield
    native.module().force_level(None)


def case_of(m: int, n: int, k: int, w: int = 4, **flags: Any) -> Any:
    sizes = {"M": m, "N": n, "K": k, "W": w}
    return FAMILY.spec.case(sizes, "bf16", {name: str(v) for name, v in flags.items()})


def operands(case: Any, seed: int = 0) -> Tensors:
    """Physical inputs of a case that are there."""
    return {n: v for n, v in draw(FAMILY, case, seed).physical.items() if v is not None}


def unwritten(case: Any) -> Tensors:
    return {
        "c": torch.full((case.sizes["M"], case.sizes["N"]), math.nan, dtype=torch.bfloat16),
        "counts": torch.full((3,), -7, dtype=torch.int32),
    }


def multiply(case: Any, given: Tensors, threads: int = 1, **outputs: torch.Tensor) -> Tensors:
    found = {**unwritten(case), **outputs}
    call("mask_gemm", {**given, **found}, case.flags, threads)
    return found


def rows_of(given: Tensors, rows: slice) -> Tensors:
    """The same rows alone; what they belong to goes with them through `owner` only."""
    by_row = ("a8", "row_scale", "owner", "a")
    return {n: v[rows] if n in by_row else v for n, v in given.items()}


def by_request(given: Tensors, selected: torch.Tensor) -> Tensors:
    """The same operands with exactly these rows selected, by request."""
    words = torch.zeros_like(given["selection"])
    selection.set_bits(words, requests=[9])
    owner = torch.where(selected, 9, selection.NO_REQUEST).to(torch.int32)
    return {**given, "selection": words, "owner": owner}


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(0, 150),
    n=st.integers(0, 70),
    k=st.integers(0, 150),
    layer=st.integers(0, 7),
    layout=st.sampled_from(("NK", "panel16")),
    resident=st.sampled_from(("yes", "no")),
    bias=st.sampled_from(("no", "yes")),
    seed=st.integers(0, 1000),
    threads=st.integers(1, 3),
    level=st.integers(0, 9),
)
def test_any_shape_and_mask_on_any_level(
    m: int,
    n: int,
    k: int,
    layer: int,
    layout: str,
    resident: str,
    bias: str,
    seed: int,
    threads: int,
    level: int,
) -> None:
    levels = native.module().cpu_levels()
    native.module().force_level(levels[level % len(levels)])
    flags = {"b_layout": layout, "resident": resident, "missing": "keep_int8", "bias": bias}
    case = case_of(m, n, k, layer=layer, **flags)
    drawn = draw(FAMILY, case, seed)
    given = {name: v for name, v in drawn.physical.items() if v is not None}
    found = multiply(case, given, threads)
    c, counts = mask_gemm(**{n: v for n, v in drawn.logical.items() if v is not None}, case=case)
    assert torch.equal(found["counts"], counts) and int(counts[:2].sum()) == m
    verdict = compare(found["c"], c, FAMILY.spec.tolerance_of("c", case))
    assert verdict.ok, verdict.reason


@pytest.mark.parametrize("layout", ["NK", "panel16"])
def test_rows_have_the_bits_of_gemm(layout: str) -> None:
    case = case_of(90, 50, 130, layer=MIXED, b_layout=layout)
    given = operands(case, 5)
    selected = selection.rows_in_bf16(given["selection"], MIXED, given["owner"])
    assert 10 < int(selected.sum()) < 80
    flags = {"b_layout": layout, "scale": "row_col"}
    for level in native.module().cpu_levels():
        native.module().force_level(level)
        found = multiply(case, given, 2)["c"]
        for rows, operand, weights in ((selected, "a", "b16"), (~selected, "a8", "b8")):
            c = torch.full_like(found, math.nan)
            one: Tensors = {"a": given[operand], "b": given[weights], "c": c}
            if operand == "a8":
                one |= {name: given[name] for name in ("row_scale", "col_scale")}
            mode = {
                "batch_invariant": "yes",
                **flags,
                **({} if operand == "a8" else {"scale": "none"}),
            }
            call("gemm", one, mode)
            assert same_bits(found[rows], c[rows]), level


@pytest.mark.parametrize("invariant", ["no", "yes"])
@pytest.mark.parametrize("layout", ["NK", "panel16"])
def test_a_row_depends_on_its_path_alone(layout: str, invariant: str) -> None:
    """Neither on rows beside it, nor on its place, nor on what else is selected, nor on threads."""
    case = case_of(
        140, 40, 130, b_layout=layout, batch_invariant=invariant, bias="yes", layer=WHOLE
    )
    given = operands(case, 3)
    for level in native.module().cpu_levels():
        native.module().force_level(level)
        bf16 = multiply(case, given)["c"]
        int8 = multiply(case_of(140, 40, 130, b_layout=layout, bias="yes", layer=NOTHING),
                        by_request(given, torch.zeros(140, dtype=torch.bool)))["c"]  # fmt: skip
        generator = torch.Generator().manual_seed(1)
        for share, rows in ((0.02, slice(0, 140)), (0.5, slice(3, 68)), (0.9, slice(130, 140))):
            some = torch.rand(140, generator=generator) < share
            some[131] = True
            part = rows_of(by_request(given, some), rows)
            size = rows.stop - rows.start
            one = case_of(size, 40, 130, b_layout=layout, batch_invariant=invariant, bias="yes")
            found = multiply(one, part, 2)
            want = torch.where(some[:, None], bf16, int8)[rows]
            assert same_bits(found["c"], want), (level, share)
            assert found["counts"].tolist() == [
                int(some[rows].sum()), int((~some[rows]).sum()), 0
            ]  # fmt: skip


@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 64), (35, 9), (0, 5), (5, 0)])
def test_panels_are_those_of_gemm(n: int, k: int) -> None:
    for dtype, lane, pack in (
        (torch.int8, 4, reference.panels_of_4),
        (torch.bfloat16, 2, reference.panels_of_2),
    ):
        b = torch.randint(-9, 9, (n, k)).to(dtype)
        assert torch.equal(pack(b, {}), to_panel16(b.t(), {"KR": lane}))


def test_a_mask_change_takes_effect_at_the_next_launch() -> None:
    """The very same prepared call, on the very same memory."""
    case = case_of(130, 24, 64, layer=NOTHING)
    given = by_request(operands(case), torch.zeros(130, dtype=torch.bool))
    given["owner"][:] = torch.arange(130) % 64
    found = unwritten(case)
    words = given["selection"]
    seen = []

    def launch() -> list[int]:
        call("mask_gemm", {**given, **found}, case.flags)
        chosen = selection.rows_in_bf16(words, NOTHING, given["owner"])
        c = mask_gemm(**given, case=case)[0]
        assert compare(found["c"], c, FAMILY.spec.tolerance_of("c", case)).ok
        assert int(found["counts"][0]) == int(chosen.sum())
        seen.append(found["c"].clone())
        return found["counts"].tolist()

    words[:] = 0
    assert launch() == [0, 130, 0]
    selection.set_bits(words, requests=[63])
    assert launch() == [2, 128, 0]
    selection.set_bits(words, groups=[2])
    assert launch() == [4, 126, 0]
    selection.set_bits(words, layers=[NOTHING])
    assert launch() == [130, 0, 0]
    selection.clear_bits(words, layers=[NOTHING])
    selection.begin_step(words)
    assert launch() == [0, 130, 0] and same_bits(seen[0], seen[4])


def test_layers_beside_the_launch_and_bits_beyond_the_rows_select_nothing() -> None:
    case = case_of(70, 24, 64, w=5, layer=65)
    given = by_request(operands(case), torch.zeros(70, dtype=torch.bool))
    given["selection"] = selection.pack(192, set(range(192)) - {65}, range(2, 64), range(64))
    assert multiply(case, given)["counts"].tolist() == [0, 70, 0]
    given["owner"][69] = 63
    assert multiply(case, given)["counts"].tolist() == [1, 69, 0]


def test_missing_weights_are_an_error_or_are_counted() -> None:
    keep = case_of(130, 24, 64, layer=WHOLE, resident="no", missing="keep_int8")
    given = operands(keep)
    assert "a" not in given and "b16" not in given
    assert multiply(keep, given)["counts"].tolist() == [0, 130, 130]
    strict = case_of(130, 24, 64, layer=WHOLE, resident="no")
    found = unwritten(strict)
    with pytest.raises(
        Refused, match="row 0 of layer 1 is selected for bf16, and its weights are not"
    ):
        multiply(strict, given, **found)
    assert found["c"].isnan().all() and (found["counts"] == -7).all()
    some = torch.zeros(130, dtype=torch.bool)
    nothing = by_request(given, some)
    assert multiply(strict, nothing)["counts"].tolist() == [0, 130, 0]
    some[77] = True
    with pytest.raises(Refused, match="row 77 of layer 1 is selected for bf16"):
        multiply(strict, by_request(given, some))


def test_specials_reach_rows_of_their_path_only() -> None:
    case = case_of(40, 24, 64)
    given = operands(case)
    selected = torch.arange(40) % 3 == 0
    given = by_request(given, selected)
    clean = multiply(case, given)["c"]
    given["a"][4, 7] = math.nan  # a row in int8
    given["a"][6, 7] = math.nan
    given["a8"][9] = 127  # a row in bf16
    given["row_scale"][12] = math.inf
    found = multiply(case, given)["c"]
    assert found[6].isnan().all()
    rest = torch.arange(40) != 6
    assert same_bits(found[rest], clean[rest])
    given["b16"][5] = math.inf
    found = multiply(case, given)["c"]
    assert not found[selected, 5].isfinite().any() and found[~selected].isfinite().all()


def test_int8_sums_are_exact_at_their_ends() -> None:
    case = case_of(20, 17, 1000, layer=NOTHING)
    given = by_request(operands(case), torch.arange(20) == 3)
    given["a8"][:] = given["b8"][:] = -128
    given["row_scale"][:], given["col_scale"][:] = 2.0**-14, 1.0
    for level in native.module().cpu_levels():
        native.module().force_level(level)
        rows = multiply(case, given)["c"][torch.arange(20) != 3]
        assert (rows == torch.tensor(1000.0).bfloat16()).all(), level


def test_any_strides() -> None:
    case = case_of(75, 33, 70, layer=MIXED, bias="yes")
    given = operands(case, 2)
    want = multiply(case, given)
    wide = {
        name: spread(v) if v.dim() == 2 else spread(v[:, None])[:, 0] for name, v in given.items()
    }
    wide["selection"] = torch.stack([given["selection"]] * 2, 1)[:, 0]
    wide["a8"] = given["a8"].t().contiguous().t()
    room = torch.full((33, 150), math.nan, dtype=torch.bfloat16)
    counts = torch.full((6,), -7, dtype=torch.int32)
    found = multiply(case, wide, 3, c=room[:, ::2].t(), counts=counts[::2])
    assert same_bits(found["c"].contiguous(), want["c"]) and room[:, 1::2].isnan().all()
    assert torch.equal(counts[::2], want["counts"]) and (counts[1::2] == -7).all()


def test_it_has_no_split_of_k() -> None:
    """Which would change the bits of bf16 rows: 1 added to 2^26 is lost, and 63 of them together are not."""
    case = case_of(3, 5, 192, layer=MIXED)
    given = operands(case)
    given["selection"].fill_(-1)
    given["a"].fill_(1)
    given["b16"].fill_(1)[:, 0] = 2.0**26
    given["b16"][:, -1] = -(2.0**26)
    for level in native.module().cpu_levels():
        native.module().force_level(level)
        split = unwritten(case)
        call("mask_gemm", {**given, **split}, case.flags, config={"split_k": 2})
        assert same_bits(split["c"], multiply(case, given)["c"]), level


def test_refusals_come_before_memory_is_touched() -> None:
    case = case_of(5, 20, 64, layer=MIXED)
    whole = operands(case)
    outputs = unwritten(case)

    def refused(sentence: str, flags: Any = case.flags, **changed: torch.Tensor | None) -> None:
        given = {n: v for n, v in {**whole, **outputs, **changed}.items() if v is not None}
        with pytest.raises(Refused, match=sentence):
            call("mask_gemm", given, flags)
        assert outputs["c"].isnan().all() and (outputs["counts"] == -7).all()

    words, owner = whole["selection"], whole["owner"]
    refused('"selection" has 2 words; accepted: 3 or more', selection=words[:2])
    refused('tensor "selection" is int32, expected int64', selection=words.int())
    refused(r"layer is 128; accepted: 0 to 127", {**case.flags, "layer": "128"})
    refused(r"layer is -1; accepted: 0 to 127", {**case.flags, "layer": "-1"})
    refused(r"layer is 0.5; accepted: 0 to 127", {**case.flags, "layer": "0.5"})
    refused(
        r"owner\[2\] is 64; accepted: 0 to 63, or -1",
        owner=owner.clone().index_fill_(0, torch.tensor(2), 64),
    )
    refused(r"owner\[4\] is -2; accepted", owner=owner.clone().index_fill_(0, torch.tensor(4), -2))
    refused('tensor "owner" is int64, expected int32', owner=owner.long())
    refused('dimension 0 of "owner" is 4, expected 5', owner=owner[:4])
    refused('tensor "a8" is uint8, expected int8', a8=whole["a8"].to(torch.uint8))
    refused('dimension 1 of "b8" is 63, expected 64', b8=whole["b8"][:, :63])
    refused('dimension 0 of "b16" is 19, expected 20', b16=whole["b16"][:19])
    refused('tensor "b16" is fp16, expected bf16', b16=whole["b16"].half())
    refused('tensor "b16" is missing', b16=None)
    refused('tensor "a" is missing', a=None)
    refused('tensor "a" is for resident bf16 weights', {**case.flags, "resident": "no"}, b16=None)
    refused('dimension 0 of "row_scale" is 4', row_scale=whole["row_scale"][:4])
    refused('"col_scale" is missing', col_scale=None)
    refused('tensor "bias" is bf16, expected fp32', bias=torch.ones(20).bfloat16())
    refused('tensor "b8" has 2 dimensions, expected 4', {**case.flags, "b_layout": "panel16"})
    refused('make elements of "c" overlap', c=outputs["c"][:1].expand(5, 20))
    refused('make elements of "counts" overlap', counts=outputs["counts"][:1].expand(3))
    refused('dimension 0 of "counts" is 2, expected 3', counts=outputs["counts"][:2])
    refused('tensor "c" is fp32, expected bf16', c=torch.zeros(5, 20))
    long = torch.zeros((4097, 64), dtype=torch.int8)
    refused('dimension 0 of "a8" is 4097; accepted: up to 4096', a8=long)


def test_the_spec_refuses_what_has_no_bit() -> None:
    for sizes, layer, sentence in (
        ((4097, 1, 1, 3), 0, "M=4097 rows are more than the 4096 of 64 groups"),
        ((1, 1, 1, 2), 0, "W=2 words have no bit for a layer"),
        ((1, 1, 1, 3), 64, "layer=64 has no bit in W=3 words; accepted: 0 to 63"),
        ((1, 1, 1, 3), 1.5, "layer=1.5 has no bit"),
    ):
        with pytest.raises(UsageError, match=sentence):
            case_of(*sizes, layer=layer)


def test_quantize_makes_the_operands() -> None:
    """Rows of either path are near the plain product; those in int8 by the error of their codes."""
    case = case_of(64, 48, 256, layer=NOTHING)
    x = torch.randn((64, 256), generator=torch.Generator().manual_seed(0)).bfloat16()
    w = torch.randn((48, 256), generator=torch.Generator().manual_seed(1)).bfloat16()
    coded = {}
    for name, value in (("a", x), ("b", w)):
        q, scale = torch.empty(value.shape, dtype=torch.int8), torch.empty(value.shape[0])
        call("quantize", {"x": value, "q": q, "token_scale": scale})
        coded[name] = q, scale
    given = {"a8": coded["a"][0], "row_scale": coded["a"][1], "b8": coded["b"][0]}
    given |= {"col_scale": coded["b"][1], "a": x, "b16": w}
    given |= {"selection": selection.pack(80, requests=[1]), "owner": torch.arange(64).int() % 2}
    physical = {
        n: v for n, v in from_logical(FAMILY, case, given).physical.items() if v is not None
    }
    c = multiply(case, physical)["c"].double()
    want = x.double() @ w.double().t()
    error = (c - want).norm(dim=1) / want.norm(dim=1)
    assert (error[1::2] < 2.0**-8).all() and (error[::2] > 2.0**-8).all() and error.max() < 0.03


def test_the_torch_op() -> None:
    from tilewright.bindings.torch.ops import torch_op

    op = torch_op(FAMILY)
    case = case_of(33, 40, 96, layer=MIXED)
    given = operands(case)
    required = [given[n] for n in ("a8", "row_scale", "b8", "col_scale", "selection", "owner")]
    c, counts = op(*required, a=given["a"], b16=given["b16"], layer=3.0)
    want = multiply(case, given)
    assert same_bits(c, want["c"]) and torch.equal(counts, want["counts"])
    assert op(*required, layer=3.0, missing="keep_int8")[1].tolist() == [0, 33, int(counts[0])]
    with pytest.raises((Refused, RuntimeError, ValueError), match="is selected for bf16"):
        op(*required, layer=3.0)
