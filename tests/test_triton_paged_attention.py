"""paged_attention in Triton: every format interpreted against the reference, splits, and what binaries hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="the kernels are Triton's")

from fakes.triton_family import draw, outputs, row
from tilewright import aot
from tilewright.aot.ascend import lower_pool
from tilewright.errors import Refused
from tilewright.inputs import Inputs, from_logical
from tilewright.kernels.paged_attention import triton as paged
from tilewright.registry import family
from tilewright.targets import target as named

TARGETS = ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942")
NAME = "paged_attention"
SMALL = {
    "TQ": 5,
    "HQ": 4,
    "HKV": 2,
    "DK": 32,
    "DV": 48,
    "NS": 3,
    "MP": 4,
    "P": 14,
    "R": 60,
    "F": 14,
}


@given(
    compute=st.sampled_from(["bf16", "fp16", "fp32"]),
    kv=st.sampled_from(["float", "c8s", "c8d", "kv4"]),
    residual=st.sampled_from(["none", "nested", "e3m0"]),
    latent=st.booleans(),
    queries=st.integers(0, 20),
    heads=st.sampled_from([(1, 1), (4, 1), (6, 2), (17, 1), (3, 3)]),
    widths=st.sampled_from([(32, 32), (64, 48), (80, 96), (20, 12), (128, 64), (72, 64)]),
    table=st.tuples(st.integers(1, 4), st.integers(1, 11)),
    flags=st.fixed_dictionaries(
        {
            "kv_layout": st.sampled_from(["nd", "nz"]),
            "alibi": st.sampled_from(["yes", "no"]),
            "scale": st.sampled_from(["0", "0.3"]),
            "softcap": st.sampled_from(["0", "5"]),
            "window": st.sampled_from(["0", "1", "21", "40.5"]),
        }
    ),
    tiles=st.sampled_from([(16, 16, 0), (16, 32, 8), (32, 64, 8), (16, 16, 8)]),
    seed=st.integers(0, 99),
    memory=st.sampled_from(["dense", "padded"]),
)
@settings(max_examples=20, deadline=None)
def test_any_case_against_the_reference(
    compute: str,
    kv: str,
    residual: str,
    latent: bool,
    queries: int,
    heads: tuple[int, int],
    widths: tuple[int, int],
    table: tuple[int, int],
    flags: dict[str, str],
    tiles: tuple[int, int, int],
    seed: int,
    memory: str,
) -> None:
    dk, dv = widths
    (hq, hkv), (sequences, pages) = heads, table
    latent = latent and kv == "float" and dv <= dk
    every = {**flags, "kv": kv, "lse": "yes", "values": "latent" if latent else "separate"}
    every["residual"] = "none" if kv == "float" else residual
    total = sequences * pages + 1
    sizes = {"TQ": queries, "HQ": hq, "HKV": hkv, "DK": dk, "DV": dv, "NS": sequences, "MP": pages}
    sizes |= {"P": total, "R": total * hkv * 3, "F": total * hkv}
    precision = compute if kv == "float" else f"{compute}-{kv}"
    config = dict(zip(("tile_m", "tile_n", "split_pages"), tiles, strict=True))
    found = row(NAME, sizes, precision, every, memory=memory, config=config, seed=seed)
    assert found.ok, found.reason


@pytest.mark.parametrize("layout", ["nd", "nz"])
def test_the_shared_latent_of_mla(layout: str) -> None:
    sizes = {**SMALL, "TQ": 3, "HQ": 16, "HKV": 1, "DK": 576, "DV": 512, "NS": 2}
    found = row(NAME, sizes, "bf16", {"values": "latent", "kv_layout": layout, "lse": "yes"})
    assert found.ok, found.reason


def one_sequence(length: int, n: int, flags: dict[str, str], precision: str = "fp32") -> Any:
    """A case of one sequence of `length` tokens whose last `n` are queries, and its logical inputs."""
    found = family(NAME)
    pages = -(-length // 16)
    sizes = {**SMALL, "TQ": n, "NS": 1, "MP": pages, "P": pages + 3, "R": 999, "F": 99}
    case = found.spec.case(sizes, precision, {"lse": "yes", **flags})
    logical = dict(draw(found, case, length).logical)
    logical["seq_lens"] = torch.tensor([length], dtype=torch.int32)
    logical["block_table"] = torch.randperm(pages).to(torch.int32)[None]
    for name in ("k_cache", "v_cache"):
        cache = logical[name]
        assert cache is not None
        if cache.dtype.is_floating_point:
            cache.copy_(torch.randn(cache.shape).to(cache.dtype))
    return case, logical


@pytest.mark.parametrize("split_pages", [8, 16, 32])
def test_splits_agree_with_one_walk(split_pages: int) -> None:
    case, logical = one_sequence(611, 3, {})
    inputs = from_logical(family(NAME), case, logical)
    whole = outputs(case, NAME, inputs, {"split_pages": 0})
    parts = outputs(case, NAME, inputs, {"split_pages": split_pages})
    assert torch.allclose(parts["o"], whole["o"], atol=3e-6)
    assert torch.allclose(parts["lse"], whole["lse"], atol=3e-6)


@pytest.mark.parametrize("window", ["0", "30"])
@pytest.mark.parametrize("split_pages", [0, 8])
def test_a_later_query_alone_sees_what_is_bad_in_the_last_tokens(
    split_pages: int, window: str
) -> None:
    found = family(NAME)
    case, logical = one_sequence(200, 5, {"window": window})
    table, v = logical["block_table"], logical["v_cache"]
    for key, channel, value in ((199, 3, math.nan), (197, 7, math.inf), (167, 9, -math.inf)):
        v[int(table[0, key // 16]), key % 16, 0, channel] = value
    got = outputs(case, NAME, from_logical(found, case, logical), {"split_pages": split_pages})["o"]
    assert got[4, 0, 3].isnan() and got[:4, 0, 3].isfinite().all()
    assert got[2:, 0, 7].isinf().all() and got[:2, 0, 7].isfinite().all()
    sees = [0, 1] if window == "30" else list(range(5))
    bad = got[:, 0, 9].isinf().nonzero().flatten().tolist()
    assert bad == sees
    assert got[:, 2:].isfinite().all(), "the other kv head"


@given(
    length=st.integers(1, 150),
    n=st.integers(1, 6),
    others=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 5)), max_size=3),
    place=st.integers(0, 3),
    kv=st.sampled_from(["bf16", "fp32-c8s", "fp32-c8d", "bf16-kv4"]),
    wider=st.sampled_from([2, 25]),
    seed=st.integers(0, 9),
)
@settings(max_examples=8, deadline=None)
def test_bits_depend_on_nothing_but_the_own_sequence(
    length: int, n: int, others: list[tuple[int, int]], place: int, kv: str, wider: int, seed: int
) -> None:
    """Alone or among others, at any place, in a table of one split or of two: the same bits."""
    found = family(NAME)
    n = min(n, length)
    lengths = [*others]
    lengths.insert(min(place, len(others)), (length, n))
    sequence = min(place, len(others))
    width = max(-(-m // 16) for m, _ in lengths)
    flags = {
        "lse": "yes",
        "batch_invariant": "yes",
        "residual": "none" if kv == "bf16" else "nested",
    }

    def of(chosen: list[tuple[int, int]], width: int) -> tuple[Any, Inputs]:
        sizes = {**SMALL, "TQ": sum(q for _, q in chosen), "NS": len(chosen), "MP": width, "P": 40}
        case = found.spec.case({**sizes, "R": 400, "F": 200}, kv, flags)
        return case, draw(found, case, seed)

    alone, own = of([(length, n)], width)
    batch, _ = of(lengths, width + wider)
    logical = dict(own.logical)
    # One set of pages holds everything; the batch merely lists more of them.
    pages = torch.randperm(40, generator=torch.Generator().manual_seed(seed)).to(torch.int32)
    logical |= clean(logical, found.spec.precision(kv).dtypes)
    logical["seq_lens"] = torch.tensor([length], dtype=torch.int32)
    logical["block_table"] = pages[:width][None].contiguous()
    want = outputs(alone, NAME, from_logical(found, alone, logical))

    mixed = dict(logical)
    mixed["seq_lens"] = torch.tensor([m for m, _ in lengths], dtype=torch.int32)
    ends = torch.tensor([0, *(q for _, q in lengths)]).cumsum(0).to(torch.int32)
    mixed["cu_q"] = ends
    mixed["block_table"] = torch.stack(
        [pages.roll(3 * i)[: width + wider] for i in range(len(lengths))]
    )
    mixed["block_table"][sequence, :width] = pages[:width]
    q, k_open = logical["q"], logical["k_open"]
    assert q is not None
    start = int(ends[sequence])
    mixed["q"] = torch.randn((int(ends[-1]), *q.shape[1:])).to(q.dtype)
    mixed["q"][start : start + n] = q
    if k_open is not None:
        mixed["k_open"] = torch.randn((len(lengths), *k_open.shape[1:])).to(k_open.dtype)
        mixed["k_open"][sequence] = k_open[0]
    got = outputs(batch, NAME, from_logical(found, batch, mixed))
    for name in ("o", "lse"):
        assert torch.equal(got[name][start : start + n], want[name])


def clean(logical: dict[str, Any], dtypes: Any) -> dict[str, Any]:
    """The drawn tensors with every page readable: no poison, no residual out of range."""
    fixed = {}
    for name, value in logical.items():
        if value is None:
            continue
        if name.endswith(("mask", "rank", "frank")):
            fixed[name] = torch.zeros_like(value)
        elif value.dtype.is_floating_point:
            fixed[name] = value.nan_to_num(0.5)
    return fixed


def test_what_leads_out_of_the_tensors_is_refused_in_a_sentence() -> None:
    found = family(NAME)
    case = found.spec.case({**SMALL, "TQ": 3}, "bf16-c8s", {"residual": "nested"})
    good = dict(draw(found, case, 1).physical)
    lengths = good["seq_lens"]
    assert lengths is not None

    def refused(sentence: str, **changed: torch.Tensor) -> None:
        with pytest.raises(Refused, match=sentence):
            outputs(case, NAME, Inputs({}, {**good, **changed}))

    def with_(name: str, place: tuple[int, ...], value: int) -> dict[str, torch.Tensor]:
        tensor = good[name]
        assert tensor is not None
        tensor = tensor.clone()
        tensor[place] = value
        return {name: tensor}

    refused(
        r"block_table\[0\] names page 14; accepted: 0 to 13", **with_("block_table", (0, 1), 14)
    )
    refused(r"block_table\[0\] names page -1; accepted", **with_("block_table", (0, 0), -1))
    refused(r"seq_lens\[1\] is -3; accepted: 0 to 64", **with_("seq_lens", (1,), -3))
    refused(r"seq_lens\[2\] is 65; accepted: 0 to 64", **with_("seq_lens", (2,), 65))
    refused(r"cu_q is .*; accepted: from 0 to 3, never falling", **with_("cu_q", (1,), 3))
    refused(r"cu_q is .*; accepted: from 0 to 3", **with_("cu_q", (3,), 4))
    page = int(good["block_table"][0, 0]) if good["block_table"] is not None else 0
    changed = {**with_("k_mask", (page, 1), -1), **with_("k_rank", (page, 1), 50)}
    refused(
        rf"k_rank\[{page},1\] is 50 and k_mask has 16 bits; accepted: rows of the 60", **changed
    )
    with pytest.raises(Refused, match="split_pages=8 is 128 tokens, which tiles of tile_n=256"):
        outputs(case, NAME, Inputs({}, good), {"tile_n": 256, "split_pages": 8})
    with pytest.raises(Refused, match="powers of two from 16 for tile_m, not 8"):
        outputs(case, NAME, Inputs({}, good), {"tile_m": 8})


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aot-cache")


def build(
    cache_dir: Path, target: str, precision: str, split_pages: int = 32, **flags: str
) -> aot.CompiledKernel:
    config = {**family(NAME).spec.default_config(named(target)), "split_pages": split_pages}
    return aot.compile_config(paged, precision, flags, config, target, cache_dir=cache_dir)


@pytest.mark.parametrize("target", TARGETS)
def test_the_default_config_holds_matrix_instructions_and_a_merge(
    cache_dir: Path, target: str
) -> None:
    for precision in ("bf16", "fp16-c8d"):
        found = build(cache_dir, target, precision)
        (merge,) = found.then
        assert found.ok and found.spill_bytes == merge.spill_bytes == 0, found.error
        wanted = ("HMMA",) if target.startswith("cuda") else ("v_mfma_f32_16x16x16_",)
        assert all(name.startswith(wanted) for name in found.matrix_instructions)
        assert sum(found.matrix_instructions.values()) > 0 and not merge.matrix_instructions
        if target.startswith("cuda"):
            assert found.async_copies["LDGSTS"] > 0
        assert (
            merge.kernel_symbol == "merge"
            and [a.source for a in merge.parameters][0] == "workspace"
        )


def test_an_op_of_two_kernels_is_one_row_and_one_entry(cache_dir: Path) -> None:
    from tilewright.ship.launcher.compiled import dispatch_row
    from tilewright.ship.launcher.entries import read_entries

    found = build(
        cache_dir, "cuda:sm_80", "bf16", values="separate", kv_layout="nd", residual="none"
    )
    printed = found.row()
    assert [step["kernel_symbol"] for step in printed["then"]] == ["merge"]
    assert printed["sizes"] == {"DK": 128, "DV": 128}
    (entry,) = read_entries([dispatch_row(family(NAME).spec, found, "a.cubin", then=["b.cubin"])])
    assert [kernel.binary for kernel in entry.kernels] == ["a.cubin", "b.cubin"]
    assert entry.when == {"DK": (128, 128), "DV": (128, 128)}
    from tilewright.ship.launcher.grid_cpp import evaluate

    # 40 pages in splits of 32, 3 queries of 4 heads, 128 sums and two statistics each.
    assert evaluate(entry.workspace, {"MP": 40, "TQ": 3, "HQ": 4}) == 2 * 3 * 4 * 130 * 4
    single = build(cache_dir, "cuda:sm_80", "bf16", split_pages=0)
    assert not single.then and not single.workspace


@pytest.mark.usefixtures("ascend_ir")
def test_it_lowers_for_ascend() -> None:
    config = {"tile_m": 16, "tile_n": 32}
    for precision in ("fp16", "fp16-c8d"):
        (found,) = lower_pool(paged, precision, {}, [config], "ascend:910b1")
        assert found.ok and found.cores == "mix", found.error
