"""paged_attention on this processor: every level against the reference, and what a cache may not do to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright import native
from tilewright.backends import backend
from tilewright.cases import Case
from tilewright.errors import Refused
from tilewright.inputs import Inputs, draw, from_logical, reference_outputs
from tilewright.kernels._kv import pages as kv_pages
from tilewright.kernels.paged_attention.inputs import with_table
from tilewright.numerics import compare
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

FAMILY = family("paged_attention")
SPEC = FAMILY.spec
PLAIN = Config(split_pages=0, prefetch_kib=32)
SMALL = {"TQ": 2, "HQ": 4, "HKV": 2, "DK": 64, "DV": 64, "NS": 2, "MP": 5, "P": 9, "R": 40, "F": 8}
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=("scalar", "avx2", "avx2vnni", "avx512", "amx"))
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    module = native.module()
    if request.param not in module.cpu_levels():
        pytest.skip(f"this CPU lacks {request.param}")
    module.force_level(request.param)
    yield request.param
    module.force_level(None)


def case_of(
    precision: str = "bf16",
    flags: Mapping[str, str] | None = None,
    memory: str = "dense",
    **sizes: int,
) -> Case:
    return SPEC.case({**SMALL, **sizes}, precision, flags or {}, memory)


def run(
    case: Case, inputs: Inputs, config: Config = PLAIN, threads: int = 1
) -> dict[str, torch.Tensor]:
    """Outputs on this machine, from memory that was poisoned."""
    prepared = backend("host").prepare(FAMILY, case, inputs, config, target("cpu"), threads)
    prepared.run()
    return dict(prepared.outputs)


def check(case: Case, inputs: Inputs, config: Config = PLAIN, threads: int = 1) -> None:
    outputs = run(case, inputs, config, threads)
    for name, expected in reference_outputs(FAMILY, case, inputs).items():
        bound, unit = SPEC.tolerance_of(name, case), SPEC.unit_of(name)
        verdict = compare(outputs[name], expected, bound, unit)
        assert verdict.ok, f"{name} of {case}: {verdict.reason}"


def changed(case: Case, inputs: Inputs, **values: torch.Tensor) -> Inputs:
    return from_logical(FAMILY, case, {**inputs.logical, **values})


@st.composite
def cases(draw: st.DrawFn) -> Case:
    precision = draw(st.sampled_from(SPEC.precisions))
    heads = draw(st.integers(1, 3))
    d = draw(st.sampled_from((4, 12, 32, 64, 80, 96, 128)))
    sizes = {
        "TQ": draw(st.integers(0, 9) | st.integers(16, 40)),
        "HQ": heads * draw(st.sampled_from((1, 2, 3, 5, 8))),
        "HKV": heads,
        "DK": d,
        "DV": draw(st.sampled_from((d, d, 4, 64))),
        "NS": draw(st.integers(1, 4)),
        "MP": draw(st.integers(0, 11)),
        "P": draw(st.integers(1, 40)),
        "R": draw(st.sampled_from((0, 7, 300))),
        "F": draw(st.sampled_from((0, 3, 60))),
    }
    flags = {
        flag.name: draw(st.sampled_from(SPEC.flag_values(flag, precision)))
        for flag in SPEC.flags
        if not flag.numeric
    }
    flags |= {
        "scale": draw(st.sampled_from(("0", "0.3", "-0.1"))),
        "softcap": draw(st.sampled_from(("0", "0", "5", "30"))),
        "window": draw(st.sampled_from(("0", "0", "1", "16", "33.5", "1000"))),
    }
    if sizes["DV"] > sizes["DK"]:
        flags["values"] = "separate"
    return SPEC.case(sizes, precision.name, flags, draw(st.sampled_from(("dense", "padded"))))


@QUICK
@given(
    case=cases(),
    seed=st.integers(0, 2**16),
    split=st.sampled_from((0, 4, 8)),
    prefetch=st.sampled_from((0, 1, 64)),
    threads=st.integers(1, 3),
)
def test_matches_float64(
    level: str, case: Case, seed: int, split: int, prefetch: int, threads: int
) -> None:
    """Random tables, lengths, formats and flags; what no sequence covers is NaN or out of range."""
    config = Config(split_pages=split, prefetch_kib=prefetch)
    check(case, draw(FAMILY, case, seed), config, threads)


@pytest.mark.parametrize("precision", ("bf16", "fp16", "bf16-c8s", "bf16-c8d", "bf16-kv4"))
@pytest.mark.parametrize("length", (1, 15, 16, 17, 64, 65, 16 * 1024))
def test_lengths(precision: str, length: int) -> None:
    width = max(1, -(-length // 16))
    case = case_of(precision, {"lse": "yes"}, TQ=1, NS=1, MP=width, P=width + 2, HQ=3, HKV=1)
    generator = torch.Generator().manual_seed(length)
    table = kv_pages.table(torch.tensor([length], dtype=torch.int32), width + 2, width, generator)
    starts = torch.tensor([0, 1], dtype=torch.int32)
    inputs = from_logical(FAMILY, case, with_table(SPEC, case, table, starts, generator))
    check(case, inputs, threads=2)


def test_no_key_is_zero_and_minus_infinity(level: str) -> None:
    """An empty sequence, and more queries than tokens."""
    case = case_of(flags={"lse": "yes"}, TQ=5, NS=2)
    generator = torch.Generator().manual_seed(0)
    table = kv_pages.table(torch.tensor([0, 1], dtype=torch.int32), 9, 5, generator)
    starts = torch.tensor([0, 2, 5], dtype=torch.int32)
    inputs = from_logical(FAMILY, case, with_table(SPEC, case, table, starts, generator))
    check(case, inputs)
    outputs = run(case, inputs)
    assert not outputs["o"][:4].any() and bool((outputs["lse"][:4] == -math.inf).all())
    assert bool(outputs["lse"][4].isfinite().all())


@pytest.mark.parametrize("layout", ("nd", "nz"))
@pytest.mark.parametrize("precision", ("bf16", "fp32", "bf16-c8s", "fp16-c8d", "bf16-kv4"))
def test_where_pages_lie_does_not_matter(level: str, precision: str, layout: str) -> None:
    """The bits are the same after all pages have moved."""
    residual = "none" if precision in ("bf16", "fp32") else "nested"
    case = case_of(precision, {"kv_layout": layout, "residual": residual})
    inputs = draw(FAMILY, case, 3)
    moved = torch.randperm(case.sizes["P"], generator=torch.Generator().manual_seed(1))
    values: dict[str, torch.Tensor] = {}
    for tensor in SPEC.inputs:
        value = inputs.logical[tensor.name]
        if value is not None and str(tensor.dims[0]) == "P":
            values[tensor.name] = value.index_copy(0, moved, value)
    table = inputs.logical["block_table"]
    assert table is not None
    inside = (table >= 0) & (table < len(moved))
    values["block_table"] = torch.where(
        inside, moved[table.clamp(0, len(moved) - 1).long()], table
    ).to(torch.int32)
    expected, got = run(case, inputs), run(case, changed(case, inputs, **values))
    assert torch.equal(expected["o"], got["o"])


@QUICK
@given(
    seed=st.integers(0, 2**16),
    precision=st.sampled_from(("bf16", "fp16", "fp32", "bf16-c8d", "bf16-c8s", "fp16-kv4")),
    window=st.sampled_from(("0", "40")),
    query=st.integers(0, 6),
    threads=st.integers(1, 2),
)
def test_bits_do_not_depend_on_batch_mates(
    level: str, seed: int, precision: str, window: str, query: int, threads: int
) -> None:
    """One query alone, as decoding meets it, and the same among others, as chunks of a prompt meet it."""
    flags = {"batch_invariant": "yes", "lse": "yes", "window": window}
    many = case_of(precision, flags, TQ=7, NS=2, MP=12, P=24)
    generator = torch.Generator().manual_seed(seed)
    # 4-bit keys of an open page are floats, which become codes once it is full: another value, not other bits.
    length = 160 if "kv4" in precision else int(torch.randint(8, 190, (1,), generator=generator))
    table = kv_pages.table(torch.tensor([length, 33], dtype=torch.int32), 24, 12, generator)
    starts = torch.tensor([0, 7, 7], dtype=torch.int32)
    if "kv4" in precision:
        query = 6
    inputs = from_logical(FAMILY, many, with_table(SPEC, many, table, starts, generator))
    together = run(many, inputs, threads=threads)
    one = case_of(precision, flags, TQ=1, NS=1, MP=12, P=24)
    logical = dict(inputs.logical)
    position = length - 7 + query
    for name, value in {
        "q": inputs.logical["q"][query : query + 1],  # type: ignore[index]
        "cu_q": torch.tensor([0, 1], dtype=torch.int32),
        "seq_lens": torch.tensor([position + 1], dtype=torch.int32),
        "block_table": table.block_table[:1].clone(),
    }.items():
        logical[name] = value
    if logical["k_open"] is not None:
        logical["k_open"] = logical["k_open"][:1]
    alone = run(one, from_logical(FAMILY, one, logical))
    assert torch.equal(together["o"][query], alone["o"][0])
    assert torch.equal(together["lse"][query], alone["lse"][0])


def test_agrees_with_torch(level: str) -> None:
    case = case_of("fp32", TQ=1, NS=1, HQ=6, HKV=2, MP=9, P=9)
    inputs = draw(FAMILY, case, 5)
    table, length = inputs.logical["block_table"], int(inputs.logical["seq_lens"][0])  # type: ignore[index]
    k, v = (
        inputs.logical[n][table[0, : -(-length // 16)].long()].flatten(0, 1)[:length]  # type: ignore[index]
        for n in ("k_cache", "v_cache")
    )
    q = inputs.logical["q"]
    assert q is not None
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(0, 1)[None] for x in (q, k, v)), enable_gqa=True
    )[0].transpose(0, 1)
    torch.testing.assert_close(run(case, inputs)["o"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ("bf16", "fp16", "fp32"))
@pytest.mark.parametrize("name", ("k_cache", "v_cache"))
def test_nan_reaches_who_sees_it_and_nobody_else(level: str, precision: str, name: str) -> None:
    """The newest token is NaN in one head: of five queries only the last sees it."""
    case = case_of(precision, TQ=5, NS=1, MP=3, P=4)
    generator = torch.Generator().manual_seed(7)
    table = kv_pages.table(torch.tensor([43], dtype=torch.int32), 4, 3, generator)
    logical = with_table(SPEC, case, table, torch.tensor([0, 5], dtype=torch.int32), generator)
    cache = logical[name]
    assert cache is not None
    cache[int(table.block_table[0, 2]), 42 % 16, 1] = math.nan
    out = run(case, from_logical(FAMILY, case, logical))["o"]
    assert bool(out[4, 2:].isnan().all()) and not bool(out[4, :2].isnan().any())
    assert not bool(out[:4].isnan().any())


def test_large_and_equal_logits(level: str) -> None:
    """Weights of one and of 1/L: no overflow, and the mean of the values."""
    case = case_of("fp32", {"lse": "yes"}, TQ=1, NS=1, HQ=2, HKV=2, MP=6, P=6)
    inputs = draw(FAMILY, case, 11)
    q = inputs.logical["q"]
    assert q is not None
    zero = run(case, changed(case, inputs, q=torch.zeros_like(q)))
    length = int(inputs.logical["seq_lens"][0])  # type: ignore[index]
    torch.testing.assert_close(zero["lse"], torch.full((1, 2), math.log(length)))
    outputs = run(case, changed(case, inputs, q=q * 1e4))
    assert bool(outputs["o"].isfinite().all()) and bool((outputs["lse"].abs() > 1e3).all())


def broken(case: Case, inputs: Inputs) -> dict[str, tuple[str, dict[str, torch.Tensor]]]:
    """What may be wrong with a call: the sentence, and the tensors that make it so."""
    whole = {k: v.clone() for k, v in inputs.logical.items() if v is not None}
    found: dict[str, tuple[str, dict[str, torch.Tensor]]] = {}

    def wrong(sentence: str, name: str, index: tuple[int, ...], value: int) -> None:
        tensor = whole[name].clone()
        tensor[index] = value
        found[f"{name}{index}={value}"] = (sentence, {name: tensor})

    page = int(whole["block_table"][0, 0])
    wrong(r"block_table\[0, 0\] is page 9; accepted: 0 to 8", "block_table", (0, 0), 9)
    wrong(r"block_table\[0, 1\] is page -1; accepted: 0 to 8", "block_table", (0, 1), -1)
    wrong(r"seq_lens\[1\] is -3; accepted: 0 to 80", "seq_lens", (1,), -3)
    wrong(r"seq_lens\[0\] is 81; accepted: 0 to 80", "seq_lens", (0,), 81)
    wrong(r"cu_q\[0\] is 1; accepted: 0 first", "cu_q", (0,), 1)
    wrong(r"cu_q\[1\] is 3; accepted", "cu_q", (1,), 3)
    wrong(r"cu_q\[1\] is -1; accepted", "cu_q", (1,), -1)
    wrong(r"cu_q\[2\] is 1; accepted: .* 2 queries last", "cu_q", (2,), 1)
    wrong(r"k_rank of page .* is 40 for .* within a pool of 40", "k_rank", (page, 0), 40)
    wrong(r"v_rank of page .* is -1 for", "v_rank", (page, 1), -1)
    wrong(r"v_frank of page .* is 9 for .* pool of 8", "v_frank", (page, 0), 9)
    both = whole["k_mask"].clone()
    both[page, 0] |= whole["k_fmask"][page, 0] | 1
    fmask = whole["k_fmask"].clone()
    fmask[page, 0] |= 1
    rank = whole["k_frank"].clone()
    rank[page, 0] = 0
    found["masks"] = (
        "k_mask and k_fmask of page .*, head 0 share a token",
        {"k_mask": both, "k_fmask": fmask, "k_frank": rank},
    )
    return found


def test_broken_tables_are_refused_before_anything_is_written(level: str) -> None:
    case = case_of("bf16-c8d", {"residual": "nested"})
    generator = torch.Generator().manual_seed(0)
    table = kv_pages.table(torch.tensor([80, 40], dtype=torch.int32), 9, 5, generator)
    logical = with_table(SPEC, case, table, torch.tensor([0, 1, 2], dtype=torch.int32), generator)
    for prefix in ("k_", "v_"):
        for letter in ("", "f"):
            mask, rank = logical[f"{prefix}{letter}mask"], logical[f"{prefix}{letter}rank"]
            assert mask is not None and rank is not None
            mask[:] = 6 if letter else 1
            rank[:] = 0
    inputs = from_logical(FAMILY, case, logical)
    check(case, inputs)
    for name, (sentence, values) in broken(case, inputs).items():
        bad = changed(case, inputs, **values)
        prepared = backend("host").prepare(FAMILY, case, bad, PLAIN, target("cpu"), 1)
        with pytest.raises(Refused, match=sentence):
            prepared.run()
        assert bool(prepared.outputs["o"].isnan().all()), name


def test_what_a_layout_cannot_be_is_refused() -> None:
    case = case_of()
    inputs = draw(FAMILY, case, 0)
    cache = inputs.physical["k_cache"]
    assert cache is not None

    def refused(sentence: str, **values: torch.Tensor) -> None:
        bad = replace(inputs, physical={**inputs.physical, **values})
        with pytest.raises(Refused, match=sentence):
            run(case, bad)

    room = torch.empty(cache.numel() + 64, dtype=cache.dtype)
    shifted = room[1 : 1 + cache.numel()].view(cache.shape)
    refused('"k_cache" starts .* bytes after a multiple of 64', k_cache=shifted)
    swapped = cache.transpose(1, 2).contiguous().transpose(1, 2)
    refused('pages of "k_cache" must be contiguous: dimension', k_cache=swapped)
    refused('"k_cache" is fp32, expected bf16', k_cache=cache.float())
    refused('"block_table" is int64, expected int32', block_table=torch.zeros((2, 5)).long())
    refused('dimension 0 of "seq_lens" is 3, expected 2', seq_lens=torch.zeros(3).int())
    refused('tensor "q" has 2 dimensions, expected 3', q=torch.zeros((2, 4), dtype=cache.dtype))
    numbers = case_of(flags={"window": "-1"})
    with pytest.raises(Refused, match=r"window is -1; accepted: 0 \(off\) or more"):
        run(numbers, inputs)
