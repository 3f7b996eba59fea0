"""Cases, spaces, buckets and tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright import tables
from tilewright.cases import SizeGrid, parse_shape
from tilewright.errors import TilewrightError, UsageError
from tilewright.inputs import draw, empty_outputs, reference_outputs
from tilewright.registry import family
from tilewright.space import Config, parse_config
from tilewright.targets import ALL, target

GEMM = family("gemm")
SPEC = GEMM.spec


@pytest.mark.parametrize("precision", SPEC.precisions, ids=lambda p: p.name)
@pytest.mark.parametrize("backend", ["host", "triton", "ascendc"])
def test_cases_meet_every_size_and_every_flag_value(precision, backend: str) -> None:
    cases = list(SPEC.check_cases(precision, backend))
    assert {tuple(c.sizes.items()) for c in cases} >= {
        tuple(SPEC.case(s, precision.name).sizes.items()) for s in SPEC.cases.sizes
    }
    for flag in SPEC.flags:
        assert {c.flags[flag.name] for c in cases} == set(
            SPEC.flag_values(flag, precision, backend)
        )
    assert {c.memory for c in cases} == {"dense", "padded"}
    if backend != "host":
        assert "panel16" not in {c.flags["b_layout"] for c in cases}


@given(st.integers(1, 12), st.sampled_from(SPEC.precisions))
@settings(deadline=None)
def test_a_cover_meets_every_size_and_every_combination(count: int, precision) -> None:
    """However few sizes there are for the combinations of flags."""
    sizes = tuple({"M": i + 1, "N": 2, "K": 3} for i in range(count))
    cases = list(SizeGrid(sizes).cover(SPEC, precision, "host"))
    assert {c.sizes["M"] for c in cases} == set(range(1, count + 1))
    met = [dict(c.flags) for c in cases]
    assert all(wanted in met for wanted in SPEC.flag_combinations(precision, "host"))


@pytest.mark.parametrize("precision", SPEC.precisions, ids=lambda p: p.name)
def test_no_flag_is_tied_to_a_size_or_to_a_memory(precision) -> None:
    """Every layout of B meets dense memory and views, and more than one depth."""
    cases = list(SPEC.check_cases(precision, "host"))
    for flag in SPEC.flags:
        for value in SPEC.flag_values(flag, precision, "host"):
            met = [c for c in cases if c.flags[flag.name] == value]
            assert {c.memory for c in met} == {"dense", "padded"}, value
            assert len({c.sizes["K"] for c in met}) > 1, value


@given(m=st.integers(0, 20), n=st.integers(0, 40), k=st.integers(0, 40), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_every_layout_carries_the_same_matrix(m: int, n: int, k: int, seed: int) -> None:
    for precision in ("fp32", "bf16", "int8->int32"):
        results = []
        for layout in ("KN", "NK", "panel16"):
            case = SPEC.case({"M": m, "N": n, "K": k}, precision, {"b_layout": layout})
            inputs = draw(GEMM, case, seed)
            assert inputs.physical["b"] is not None
            assert tuple(inputs.physical["b"].shape) == SPEC.shape(SPEC.inputs[1], case)
            results.append(reference_outputs(GEMM, case, inputs)["c"])
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


def test_panel16_holds_each_element_where_the_layout_says() -> None:
    case = SPEC.case({"M": 1, "N": 35, "K": 13}, "int8->int32", {"b_layout": "panel16"})
    inputs = draw(GEMM, case, 1)
    logical, physical = inputs.logical["b"], inputs.physical["b"]
    for k in range(13):
        for n in range(35):
            assert physical[n // 16, k // 4, n % 16, k % 4] == logical[k, n]
    assert int(physical.to(torch.int64).abs().sum()) == int(logical.to(torch.int64).abs().sum())


def test_padded_memory_is_a_view_with_poison_around() -> None:
    case = SPEC.case({"M": 5, "N": 6, "K": 7}, "fp32", memory="padded")
    a = draw(GEMM, case, 0).physical["a"]
    assert a is not None and not a.is_contiguous() and a.storage_offset() > 0
    base = torch.as_strided(a, (5, 10), a.stride(), a.storage_offset())
    assert torch.isnan(base[:, 7:9]).all()


def test_outputs_start_poisoned() -> None:
    floats = empty_outputs(GEMM, SPEC.case({"M": 2, "N": 2, "K": 2}, "bf16"))["c"]
    assert torch.isnan(floats.float()).all()
    ints = empty_outputs(GEMM, SPEC.case({"M": 2, "N": 2, "K": 2}, "int8->int32"))["c"]
    assert (ints == 2**31 - 1).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sizes": {"M": 1, "N": 2}}, "gemm needs a size for K"),
        ({"sizes": {"M": 1, "N": 2, "K": 3, "Q": 4}}, "unknown dim of gemm 'Q'; accepted: M, N, K"),
        ({"sizes": {"M": -1, "N": 2, "K": 3}}, "M=-1 is negative"),
        (
            {"sizes": {"M": 1, "N": 2, "K": 3}, "precision": "fp8"},
            "unknown precision of gemm 'fp8'; accepted: fp32",
        ),
        (
            {"sizes": {"M": 1, "N": 2, "K": 3}, "flags": {"b_layout": "X"}},
            "unknown b_layout for fp32 'X'",
        ),
        (
            {"sizes": {"M": 1, "N": 2, "K": 3}, "flags": {"scale": "col"}},
            "unknown scale for fp32 'col'",
        ),
        (
            {"sizes": {"M": 1, "N": 2, "K": 3}, "flags": {"nope": "1"}},
            "unknown flag of gemm 'nope'",
        ),
    ],
)
def test_a_wrong_case_is_one_sentence(kwargs: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        SPEC.case(**kwargs)


def test_shape_and_config_texts() -> None:
    assert parse_shape("M=1, N=2") == {"M": 1, "N": 2}
    assert parse_config('{"tile_m":64}') == {"tile_m": 64}
    with pytest.raises(UsageError, match="'M:1' in --shape is not NAME=INTEGER"):
        parse_shape("M:1")
    for bad in ("{", "[1]", '{"tile_m":true}', '{"tile_m":1.5}'):
        with pytest.raises(UsageError, match="--config"):
            parse_config(bad)


@pytest.mark.parametrize("name", ["cpu", "cuda:sm_80", "cuda:sm_90", "hip:gfx942"])
def test_the_default_config_is_legal_and_the_pool_is_wide(name: str) -> None:
    case = SPEC.case({"M": 64, "N": 576, "K": 576}, "bf16")
    where = target(name)
    default = SPEC.default_config(where)
    assert default["tile_m"] == default["tile_n"] == 32
    assert default.get("stages", default.get("num_stages")) == 2
    pool = SPEC.space_for(where).pool(SPEC, case, where)
    assert default in pool
    assert len(pool) > 500
    assert len(set(pool)) == len(pool)


def test_every_limit_has_a_source() -> None:
    for one in ALL.values():
        assert all(limit.source and limit.value >= 0 for limit in one.limits.values())
    with pytest.raises(UsageError, match="unknown target 'cuda:sm_70'; accepted: cpu, cuda:sm_80"):
        target("cuda:sm_70")


@given(m=st.integers(0, 10**6), n=st.integers(0, 9999), k=st.integers(0, 9999))
def test_a_bucket_holds_its_case_and_no_other_model(m: int, n: int, k: int) -> None:
    first, *rest = tables.bucket(SPEC.case({"M": m, "N": n, "K": k}))
    assert first >= m and (first < 2 * m or m == 0) and rest == [n, k]
    again = tables.bucket(SPEC.case({"M": first, "N": n, "K": k}))
    assert again == (first, n, k)


def entry(m: int, tile: int, layout: str = "NK") -> tables.Entry:
    config = Config({**SPEC.default_config(target("cpu")), "tile_m": tile})
    return tables.Entry(
        (m, 576, 576), "fp32", {"b_layout": layout, "bias": "no", "scale": "none"}, config
    )


def test_choose_takes_the_bucket_then_the_nearest_then_the_tiling() -> None:
    table = tables.Table("gemm", "cpu", (entry(16, 64), entry(256, 128)))

    def chosen(m: int, layout: str = "NK") -> tables.Choice:
        case = SPEC.case({"M": m, "N": 576, "K": 576}, "fp32", {"b_layout": layout})
        return tables.choose(GEMM, case, target("cpu"), table)

    assert chosen(13).config["tile_m"] == 64
    assert "tuned for bucket (16, 576, 576)" in chosen(13).source
    assert chosen(1000).config["tile_m"] == 128
    assert "nearest" in chosen(1000).source
    assert chosen(16, "KN").source.startswith("tiling: nothing tuned")


def test_a_stored_entry_is_read_back_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    tables.store(path, GEMM, target("cpu"), entry(16, 64))
    tables.store(path, GEMM, target("cpu"), entry(16, 96))
    tables.store(path, GEMM, target("cpu"), entry(32, 48))
    table = tables.read(path, GEMM, target("cpu"))
    assert sorted(e.config["tile_m"] for e in table.entries) == [48, 96]
    assert json.loads(path.read_text())["schema"] == tables.SCHEMA


def test_a_broken_table_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    for text in ("{", "[]", '{"devices": []}'):
        path.write_text(text)
        with pytest.raises(TilewrightError, match="is not a table of configs"):
            tables.read(path, GEMM, target("cpu"))


def test_a_relative_serves_where_the_own_processor_was_not_tuned(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cpu.json"
    tables.store(path, GEMM, target("cpu"), entry(16, 64))
    content = json.loads(path.read_text())
    (own,) = content["devices"]
    content["devices"] = {
        "relative": content["devices"][own],
        "stranger": {"level": "other", "entries": [{}]},
    }
    path.write_text(json.dumps(content))
    table = tables.read(path, GEMM, target("cpu"))
    case = SPEC.case({"M": 16, "N": 576, "K": 576}, "fp32")
    choice = tables.choose(GEMM, case, target("cpu"), table)
    assert choice.config["tile_m"] == 64
    assert choice.source.endswith(", on relative")
    tables.store(path, GEMM, target("cpu"), entry(16, 96))
    mine = tables.choose(GEMM, case, target("cpu"), tables.read(path, GEMM, target("cpu")))
    assert (mine.config["tile_m"], mine.source) == (96, "tuned for bucket (16, 576, 576)")


def test_configs_and_cases_cross_process_borders() -> None:
    import pickle

    config = SPEC.default_config(target("cpu"))
    case = SPEC.case({"M": 16, "N": 576, "K": 576}, "bf16", {"bias": "yes"}, "padded")
    assert pickle.loads(pickle.dumps(config)) == config
    assert pickle.loads(pickle.dumps(case)) == case
