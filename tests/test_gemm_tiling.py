"""The tiling of gemm: what a call gets from M, N, K and the target where nothing is tuned."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright import check, tables
from tilewright.cases import Case
from tilewright.errors import UsageError
from tilewright.registry import family
from tilewright.space import Config, Space, parse_config
from tilewright.targets import CPU, target

GEMM = family("gemm")
SPEC = GEMM.spec
TARGETS = ("cpu", "cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942", "ascend:910b1")
PRECISIONS = [p.name for p in SPEC.precisions]
SIZES = st.one_of(
    st.integers(0, 70), st.integers(0, 20000), st.sampled_from([2**k for k in range(17)])
)
quick = settings(max_examples=60, deadline=None)


def case(m: int, n: int, k: int, precision: str = "fp16", **flags: str) -> Case:
    return SPEC.case({"M": m, "N": n, "K": k}, precision, flags)


@quick
@given(
    m=SIZES,
    n=SIZES,
    k=SIZES,
    precision=st.sampled_from(PRECISIONS),
    invariant=st.sampled_from(["yes", "no"]),
    name=st.sampled_from(TARGETS),
)
def test_it_is_always_in_the_space_and_legal_or_the_baseline(
    m: int, n: int, k: int, precision: str, invariant: str, name: str
) -> None:
    where = target(name)
    one = case(m, n, k, precision, batch_invariant=invariant)
    config = SPEC.config_for(one, where)
    space = SPEC.space_for(where)
    assert space is not None
    assert set(config) == set(space.fields)
    assert all(config[field] in values for field, values in space.fields.items())
    legal = space.illegal(SPEC, one, config, where) is None
    assert legal or config == SPEC.default_config(where)
    assert invariant == "no" or config.get("split_k", 1) == 1


@quick
@given(m=SIZES, other=SIZES, n=SIZES, k=SIZES, name=st.sampled_from(TARGETS[1:]))
def test_with_batch_invariant_it_does_not_look_at_m(
    m: int, other: int, n: int, k: int, name: str
) -> None:
    """On the host the tile does not reach the bits, so there it may."""
    one, two = (case(rows, n, k, batch_invariant="yes") for rows in (m, other))
    assert SPEC.config_for(one, target(name)) == SPEC.config_for(two, target(name))


@pytest.mark.parametrize("name", TARGETS[1:])
@pytest.mark.parametrize("m, n", ((1, 4096), (64, 2048), (256, 2048), (1000, 3000), (8192, 8192)))
def test_the_busiest_core_has_less_to_do_than_with_the_baseline(m: int, n: int, name: str) -> None:
    """Work is what a core loads and multiplies: half a tile's rim for every step, and its products; of a part of K
    where K is split."""
    where = target(name)
    cores = where.limit("aic_cores" if where.kind == "ascend" else "sms")

    def work(config: Config) -> float:
        tile_m, tile_n, parts = config["tile_m"], config["tile_n"], config.get("split_k", 1)
        tiles = -(-m // tile_m) * -(-n // tile_n) * parts
        return -(-tiles // cores) * (tile_m * tile_n / 64 + tile_m + tile_n) / parts

    chosen = SPEC.config_for(case(m, n, 4096), where)
    baseline = SPEC.default_config(where)
    assert work(chosen) <= work(baseline)


def test_partial_sums_of_a_split_are_bounded_in_whole_panels() -> None:
    space = SPEC.space_for(CPU)
    assert space is not None
    config = Config({**SPEC.default_config(CPU), "split_k": 8})
    for m, n, legal in ((1 << 19, 16, True), (1 << 19, 1, True), ((1 << 19) + 1, 1, False)):
        told = space.illegal(SPEC, case(m, n, 64), config, CPU)
        assert (told is None) == legal
        assert legal or "split_k=8 takes 268435968 bytes of partial sums" in str(told)


def test_large_products_get_large_tiles_and_few_rows_get_few() -> None:
    for name in TARGETS[1:]:
        large = SPEC.config_for(case(8192, 8192, 8192), target(name))
        assert large["tile_m"] * large["tile_n"] == 128 * 256
        assert SPEC.config_for(case(1, 8192, 8192), target(name))["tile_m"] == 16


def test_rows_of_the_host_are_cut_evenly() -> None:
    for m in range(17, 700):
        tile = SPEC.config_for(case(m, 1000, 1000), CPU)["tile_m"]
        blocks = -(-m // tile)
        assert tile <= 128 and blocks == -(-m // 128)


def test_check_takes_it_and_the_baseline_has_a_name() -> None:
    sizes = {"M": 300, "N": 40, "K": 70}
    named = check.jobs([GEMM], ["host"], ["cpu"], ["fp32"], sizes, config=parse_config("baseline"))
    assert [job.config for job in named] == [SPEC.default_config(CPU)]
    (own,) = check.jobs([GEMM], ["host"], ["cpu"], ["fp32"], sizes)
    assert own.config == SPEC.config_for(own.case, CPU) != SPEC.default_config(CPU)
    with pytest.raises(UsageError, match="--config must be baseline or an object"):
        parse_config("[1]")


@quick
@given(m=SIZES, n=SIZES, k=SIZES, name=st.sampled_from(("cuda:sm_80", "cuda:sm_90", "hip:gfx942")))
def test_a_space_without_parts_of_k_gets_the_best_plan_without_them(
    m: int, n: int, k: int, name: str
) -> None:
    where = target(name)
    whole, default = SPEC.space[where.kind], SPEC.default[where.kind]

    def config(parts: dict[str, tuple[int, ...]]) -> Config:
        fields = {f: v for f, v in whole.fields.items() if f != "split_k"} | parts
        start = Config({f: v for f, v in default.items() if f in fields})
        space = {where.kind: Space(whole.rules, **fields)}
        return replace(SPEC, space=space, default={where.kind: start}).config_for(
            case(m, n, k), where
        )

    one = dict(config({"split_k": (1,)}))
    assert one.pop("split_k") == 1 and config({}) == Config(one)


def test_deep_products_of_few_rows_get_small_tiles_where_k_is_in_one_part() -> None:
    """With parts of K this shape gets tiles too few for the cores."""
    mask = family("mask_gemm").spec
    sizes = {"M": 64, "N": 2048, "K": 8192}
    where = target("cuda:sm_90")
    assert SPEC.config_for(SPEC.case(sizes, "bf16"), where)["split_k"] > 1
    config = mask.config_for(mask.case({**sizes, "W": 4}), where)
    parts = Space(mask.space["cuda"].rules, **mask.space["cuda"].fields, split_k=(1,))
    start = Config({**mask.default["cuda"], "split_k": 1})
    one = replace(mask, space={"cuda": parts}, default={"cuda": start})
    assert {**config, "split_k": 1} == dict(one.config_for(one.case({**sizes, "W": 4}), where))


def test_a_family_without_a_tiling_gets_its_default() -> None:
    rope = family("rope").spec
    one = next(rope.benchmark_cases(rope.precisions[0]))
    assert rope.config_for(one, CPU) == rope.default_config(CPU)
    nothing = tables.choose(family("rope"), one, CPU, tables.Table("rope", "cpu"))
    assert nothing.source.startswith("default: ")
