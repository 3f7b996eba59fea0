"""attention in Triton: interpreted against the reference, and what its binaries hold."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="the kernels are Triton's")

from fakes.triton_family import draw, outputs, row
from tilewright import aot
from tilewright.aot.ascend import lower_pool
from tilewright.errors import Refused
from tilewright.inputs import from_logical
from tilewright.kernels.attention import triton as attention
from tilewright.registry import family

TARGETS = ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942")
WIDTHS = (32, 64, 80, 96, 128, 192, 256)
PLAIN = {"compute": "float"}


def sizes(sq: int, sk: int, hq: int, hkv: int, dk: int, dv: int, **more: int) -> dict[str, int]:
    return {"B": 1, "SQ": sq, "SK": sk, "HQ": hq, "HKV": hkv, "DK": dk, "DV": dv, "NS1": 4, **more}


@given(
    shape=st.tuples(st.integers(0, 70), st.integers(0, 90)),
    heads=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    widths=st.tuples(st.sampled_from((16, 20, *WIDTHS)), st.sampled_from((16, 36, *WIDTHS))),
    flags=st.fixed_dictionaries(
        {
            "mask": st.sampled_from(["causal", "full"]),
            "lengths": st.sampled_from(["equal", "ragged"]),
            "window": st.sampled_from(["0", "1", "7", "40"]),
            "softcap": st.sampled_from(["0", "0.5", "20"]),
            "alibi": st.sampled_from(["yes", "no"]),
            "scale": st.sampled_from(["0", "0.3", "-0.2"]),
            "batch_invariant": st.sampled_from(["yes", "no"]),
        }
    ),
    tiles=st.sampled_from([(16, 16), (32, 16), (16, 64), (64, 32)]),
    precision=st.sampled_from(["fp32", "bf16", "fp16"]),
    more=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(0, 99)),
    memory=st.sampled_from(["dense", "padded"]),
)
@example(  # a softcap of scores near 0, whose tanh needs all its digits
    shape=(1, 1),
    heads=(1, 1),
    widths=(16, 16),
    flags={
        **{"mask": "causal", "lengths": "equal", "window": "0", "softcap": "20"},
        **{"alibi": "yes", "scale": "0", "batch_invariant": "yes"},
    },
    tiles=(16, 16),
    precision="fp32",
    more=(1, 1, 1),
    memory="dense",
)
@settings(max_examples=20, deadline=None)
def test_any_case_against_the_reference(
    shape: tuple[int, int],
    heads: tuple[int, int],
    widths: tuple[int, int],
    flags: dict[str, str],
    tiles: tuple[int, int],
    precision: str,
    more: tuple[int, int, int],
    memory: str,
) -> None:
    batch, sequences, seed = more
    ragged = flags["lengths"] == "ragged"
    case = sizes(
        *shape,
        *(heads[0] * heads[1], heads[0], *widths),
        B=1 if ragged else batch,
        NS1=sequences + 1,
    )
    found = row(
        *("attention", case, precision, {**PLAIN, **flags, "lse": "yes"}),
        memory=memory,
        config={"tile_m": tiles[0], "tile_n": tiles[1]},
        seed=seed,
    )
    assert found.ok, found.reason


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_of_head(width: int) -> None:
    flags = {**PLAIN, "lse": "yes", "window": "0"}
    found = row("attention", sizes(35, 45, 2, 1, width, width), "bf16", flags, memory="padded")
    assert found.ok, found.reason


@pytest.mark.parametrize("mask", ["causal", "full"])
@pytest.mark.parametrize("invariant", ["no", "yes"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_row_does_not_see_cannot_spoil_it_and_what_it_sees_does(
    precision: str, invariant: str, mask: str
) -> None:
    found = family("attention")
    flags = {**PLAIN, "mask": mask, "window": "30", "batch_invariant": invariant, "lse": "yes"}
    case = found.spec.case(sizes(40, 70, 2, 1, 32, 48), precision, flags)
    logical = dict(draw(found, case, 5).logical)
    k, v = logical["k"], logical["v"]
    assert k is not None and v is not None
    v[0, 5, 0, 3], v[0, 45, 0, 7], v[0, 66, 0, 40] = math.nan, math.inf, -math.inf
    v[0, 68, 0, 1] = v[0, 69, 0, 2] = math.nan
    k[0, 69] = math.nan
    inputs = from_logical(found, case, logical)
    got = outputs(case, "attention", inputs)["o"].double()
    want, _ = found.spec.reference.resolve(found.package)(
        **{n: t.double() if t is not None else None for n, t in logical.items()}, case=case
    )
    assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.isinf(), want.isinf())
    assert bool(want.isnan().any()) and bool(want.isfinite().any())
    both = want.isfinite()
    assert (got[both] - want[both]).norm() <= 2**-7 * want[both].norm()


def test_extremes_equal_logits_huge_scores_and_rows_without_keys() -> None:
    found = family("attention")
    case = found.spec.case(sizes(50, 20, 1, 1, 64, 64), "fp32", {**PLAIN, "lse": "yes"})
    logical = dict(draw(found, case, 0).logical)
    assert logical["q"] is not None and logical["k"] is not None and logical["v"] is not None
    logical["q"] *= 1e4
    logical["k"][:, ::2] = logical["k"][:, :1]
    got = outputs(case, "attention", from_logical(found, case, logical))
    # 50 queries over 20 keys: the first 30 stand before every key.
    assert torch.equal(got["o"][0, :30], torch.zeros(30, 1, 64))
    assert torch.equal(got["lse"][0, :30], torch.full((30, 1), -math.inf))
    assert row(
        "attention", case.sizes, "fp32", case.flags, inputs=from_logical(found, case, logical)
    ).ok
    case = found.spec.case(
        sizes(3, 40, 1, 1, 64, 64), "fp32", {**PLAIN, "mask": "full", "lse": "yes"}
    )
    logical = dict(draw(found, case, 0).logical)
    assert logical["q"] is not None and logical["v"] is not None
    logical["q"].zero_()
    got = outputs(case, "attention", from_logical(found, case, logical))
    assert torch.allclose(
        got["o"], logical["v"].mean(1, keepdim=True).expand_as(got["o"]), atol=1e-6
    )
    assert torch.allclose(got["lse"], torch.tensor(math.log(40.0)))


def test_against_torchs_own_attention() -> None:
    found = family("attention")
    case = found.spec.case(sizes(33, 33, 4, 2, 64, 64, B=2), "fp32", PLAIN)
    inputs = draw(found, case, 3)
    got = outputs(case, "attention", inputs)["o"]
    q, k, v = (t.transpose(1, 2) for t in (inputs.logical[n] for n in "qkv") if t is not None)
    want = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    assert torch.allclose(got, want.transpose(1, 2), atol=2e-6)


@given(
    alone=st.integers(1, 40),
    earlier=st.integers(0, 40),
    others=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=3),
    place=st.integers(0, 3),
    cut=st.integers(0, 39),
    window=st.sampled_from(["0", "9"]),
    precision=st.sampled_from(["fp32", "bf16"]),
)
@settings(max_examples=10, deadline=None)
def test_batch_invariant_bits_depend_on_the_sequence_alone(
    alone: int,
    earlier: int,
    others: list[tuple[int, int]],
    place: int,
    cut: int,
    window: str,
    precision: str,
) -> None:
    """One sequence by itself, among others at any place, and its last queries as a chunk of their own."""
    assume(cut < alone)
    found = family("attention")
    flags = {**PLAIN, "batch_invariant": "yes", "lse": "yes", "lengths": "ragged", "window": window}
    own = found.spec.case(sizes(alone, alone + earlier, 2, 1, 32, 32, NS1=2), precision, flags)
    first = dict(draw(found, own, 1).logical)
    first |= starts([(alone, alone + earlier)])
    want = outputs(own, "attention", from_logical(found, own, first))

    lengths = [*others]
    lengths.insert(min(place, len(others)), (alone, alone + earlier))
    total = [sum(n for n, _ in lengths), sum(n for _, n in lengths)]
    batch = found.spec.case(sizes(*total, 2, 1, 32, 32, NS1=len(lengths) + 1), precision, flags)
    mixed = dict(draw(found, batch, 2).logical) | starts(lengths)
    at = [sum(n[i] for n in lengths[: min(place, len(others))]) for i in (0, 1)]
    for name, offset in (("q", at[0]), ("k", at[1]), ("v", at[1])):
        mine, all_of_them = first[name], mixed[name]
        assert mine is not None and all_of_them is not None
        all_of_them[:, offset : offset + mine.shape[1]] = mine
    got = outputs(batch, "attention", from_logical(found, batch, mixed))
    for name in ("o", "lse"):
        assert torch.equal(got[name][:, at[0] : at[0] + alone], want[name])

    chunk = found.spec.case(
        sizes(alone - cut, alone + earlier, 2, 1, 32, 32, NS1=2), precision, flags
    )
    last = {**first, **starts([(alone - cut, alone + earlier)])}
    assert first["q"] is not None
    last["q"] = first["q"][:, cut:]
    got = outputs(chunk, "attention", from_logical(found, chunk, last))
    assert torch.equal(got["o"], want["o"][:, cut:]) and torch.equal(
        got["lse"], want["lse"][:, cut:]
    )


def starts(lengths: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    ends = torch.tensor([(0, 0), *lengths], dtype=torch.int32).cumsum(0).to(torch.int32)
    return {"cu_q": ends[:, 0].contiguous(), "cu_k": ends[:, 1].contiguous()}


def test_refusals_name_the_value_and_what_is_taken() -> None:
    x = torch.zeros(1, 4, 1, 32)
    tensors = {"q": x, "k": x, "v": x, "o": x.clone()}
    config = {"tile_m": 32, "tile_n": 32, "num_warps": 4, "num_stages": 2}
    with pytest.raises(Refused, match="powers of two from 16 for tile_n, not 48"):
        attention.launch(tensors, {}, {**config, "tile_n": 48}, interpret=True)
    with pytest.raises(Refused, match="needs tensor 'v'"):
        attention.launch({"q": x, "k": x, "o": x}, {}, config, interpret=True)
    ragged = {"lengths": "ragged"}
    for ends in ([0, 5], [1, 4], [0, 3, 2, 4]):
        cu = torch.tensor(ends, dtype=torch.int32)
        right = torch.tensor([0, 4], dtype=torch.int32)
        with pytest.raises(Refused, match=r"cu_k is \[.*accepted: from 0 to 4, never falling"):
            attention.launch({**tensors, "cu_q": right, "cu_k": cu}, ragged, config, interpret=True)


def default(target: str) -> dict[str, int]:
    from tilewright.targets import target as named

    return dict(family("attention").spec.default_config(named(target)))


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aot-cache")


def build(
    cache_dir: Path, target: str, precision: str = "bf16", width: int = 128, **flags: str
) -> aot.CompiledKernel:
    widths = {"DK": width, "DV": width}
    return aot.compile_config(
        attention, precision, flags, default(target), target, sizes=widths, cache_dir=cache_dir
    )


@pytest.mark.parametrize("target", TARGETS)
def test_the_default_config_holds_the_architectures_matrix_instructions(
    cache_dir: Path, target: str
) -> None:
    found = build(cache_dir, target)
    assert found.ok and found.spill_bytes == 0, found.error
    wanted = {"cuda:sm_80": "HMMA", "cuda:sm_90": "HGMMA", "cuda:sm_100": "UTCHMMA"}
    if target in wanted:
        assert wanted[target] in found.matrix_instructions and found.async_copies["LDGSTS"] > 0
    else:
        assert all(name.startswith("v_mfma_f32_") for name in found.matrix_instructions)
    assert found.sizes == {"DK": 128, "DV": 128} and not found.then and not found.workspace


def test_a_binary_takes_masks_windows_and_scales_as_arguments(cache_dir: Path) -> None:
    first = build(cache_dir, "cuda:sm_80", mask="full", window="9", scale="0.5", softcap="0")
    again = build(cache_dir, "cuda:sm_80", mask="causal", window="0", lse="yes", softcap="0")
    assert first.binary_sha256 == again.binary_sha256
    assert {"mask", "window", "scale", "lse"} <= set(first.free) and "softcap" not in first.free
    sources = {p.name: p.source for p in first.parameters}
    assert (sources["window"], sources["full"]) == ("number:window", "flag:mask")


def test_precisions_and_ints_are_refused_by_name(cache_dir: Path) -> None:
    found = build(cache_dir, "cuda:sm_80", compute="int8")
    assert not found.ok and "int8" in found.error
    with pytest.raises(Exception, match="unknown precision of triton attention 'int4'"):
        build(cache_dir, "cuda:sm_80", precision="int4")


@pytest.mark.usefixtures("ascend_ir")
def test_it_lowers_for_ascend() -> None:
    config = {"tile_m": 32, "tile_n": 32}
    (found,) = lower_pool(
        attention, "fp16", {}, [config], "ascend:910b1", sizes={"DK": 64, "DV": 64}
    )
    assert found.ok and found.cores == "mix", found.error
    assert found.cube_ops and found.vector_ops and found.workspace_bytes
