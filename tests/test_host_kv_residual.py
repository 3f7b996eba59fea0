"""The host kv_residual at every ISA level: codes, masks, ranks and pools are the reference's bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from native import host_kv
from native.host_kv import Level
from tilewright.cases import Case
from tilewright.errors import UsageError
from tilewright.inputs import Inputs, draw, from_logical
from tilewright.kernels.kv_residual.select import (
    by_budget,
    by_threshold,
    clipped,
    keep_float,
    overhead,
    relative_error,
    sinks,
)
from tilewright.numerics import compare
from tilewright.registry import family

FAMILY = family("kv_residual")
SPEC = FAMILY.spec
PRECISIONS = tuple(p.name for p in SPEC.precisions)
KINDS = ("c8s", "c8d", "kv4_key", "kv4_value")
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=host_kv.RUNS, ids=lambda run: "-".join(run))
def level(request: pytest.FixtureRequest) -> Level:
    build, name = request.param
    if not host_kv.usable(build, name):
        pytest.skip(f"this CPU lacks {name}; its algorithms run emulated")
    return Level(build, name)


def case_of(
    kind: str,
    residual: str = "nested",
    direction: str = "write",
    memory: str = "dense",
    **sizes: int,
) -> Case:
    default = {"N": 3, "HKV": 2, "D": 20, "P": 5, "R": 60, "F": 20}
    flags = {"direction": direction, "kv": kind, "residual": residual}
    precision = f"bf16-{kind.split('_')[0]}"
    return SPEC.case({**default, **sizes}, precision, flags, memory)


@st.composite
def cases(draw: Callable[..., int]) -> Case:
    kind = draw(st.sampled_from(KINDS))
    compute = draw(st.sampled_from(("fp32", "bf16", "fp16")))
    pages = draw(st.integers(0, 5))
    sizes = {
        "N": draw(st.integers(0, pages)),
        "HKV": draw(st.integers(0, 4) | st.just(1)),
        "D": 4 * draw(st.integers(0, 35) | st.sampled_from((4, 16, 32))),
        "P": pages,
        "R": draw(st.integers(0, 60)),
        "F": draw(st.integers(0, 20)),
    }
    flags = {
        "kv": kind,
        "direction": draw(st.sampled_from(("write", "read"))),
        "residual": draw(st.sampled_from(("nested", "e3m0"))),
        "kv_layout": draw(st.sampled_from(("nd", "nz"))),
    }
    memory = draw(st.sampled_from(("dense", "padded")))
    return SPEC.case(sizes, f"{compute}-{kind.split('_')[0]}", flags, memory)


@QUICK
@given(case=cases(), seed=st.integers(0, 2**16), threads=st.integers(1, 3))
def test_every_case(level: Level, case: Case, seed: int, threads: int) -> None:
    """What is written is exact; values read are within the roundings of the spec."""
    inputs = draw(FAMILY, case, seed)
    ran = host_kv.check_exact(level, FAMILY, case, inputs, threads=threads, but=("y",))
    if case.flags["direction"] == "read":
        check_values(case, inputs, ran.outputs["y"])


def check_values(case: Case, inputs: Inputs, y: torch.Tensor) -> None:
    from tilewright.inputs import reference_outputs

    tensor = next(t for t in SPEC.outputs if t.name == "y")
    assert tensor.tolerance is not None
    verdict = compare(
        y, reference_outputs(FAMILY, case, inputs)["y"], tensor.tolerance.of(SPEC, case)
    )
    assert verdict.ok, f"{case}: {verdict.reason}"


def written(
    level: Level, case: Case, x: torch.Tensor, select: torch.Tensor, **others: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Pages 0.. with `x` and `select` in them, from an empty pool."""
    drawn = draw(FAMILY, case, 0)
    logical = {
        **drawn.logical,
        "x": x,
        "select": select,
        "page_ids": torch.arange(x.shape[0], dtype=torch.int32),
        "used_before": torch.zeros(2, dtype=torch.int32),
        **others,
    }
    ran = host_kv.check_exact(level, FAMILY, case, from_logical(FAMILY, case, logical))
    return {**{n: v for n, v in logical.items() if v is not None}, **ran.outputs}


def read(level: Level, case: Case, cache: dict[str, torch.Tensor]) -> torch.Tensor:
    """Every page of what `written` returned."""
    reading = case_of(case.flags["kv"], case.flags["residual"], "read", **case.sizes)
    names = {t.name for t in SPEC.given if t.present(reading)}
    logical = {n: v for n, v in cache.items() if n in names}
    ran = level.launch(FAMILY, reading, from_logical(FAMILY, reading, logical))
    assert ran.status == host_kv.OK, ran.error
    return ran.outputs["y"].float()


@pytest.mark.parametrize("kind", KINDS)
def test_residuals_repair_what_is_selected(level: Level, kind: str) -> None:
    """Nested residuals leave half a step of 16 times the resolution; float vectors are kept bit by bit."""
    case = case_of(kind, N=4, HKV=3, D=64, P=4, R=300, F=60)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn((4, 16, 3, 64), generator=generator).to(torch.bfloat16)
    select = torch.randint(0, 3, (4, 16, 3), generator=generator, dtype=torch.uint8)
    select[select == 2] = (torch.rand((4, 16, 3), generator=generator) < 0.5)[select == 2].to(
        torch.uint8
    ) * 2
    scale = x.float().abs().amax((0, 1)) / 127
    cache = written(level, case, x, select, **({"channel_scale": scale} if kind == "c8s" else {}))
    assert cache["used_after"].tolist() == [int((select == 1).sum()), int((select == 2).sum())]
    y = read(level, case, cache)
    assert torch.equal(y[select == 2], x.float()[select == 2])
    error = (y - x.float()).norm(dim=-1) / x.float().norm(dim=-1)
    plain, repaired = error[select == 0].mean(), error[select == 1].mean()
    # bf16 rounds y to 2**-9 of itself: more than what a residual leaves of an int8 code.
    assert repaired < (0.6 if kind.startswith("c8") else 0.1) * plain


def test_pools_that_run_out_end_the_filling(level: Level) -> None:
    """The first run that does not fit, and all after it, are plain; the counters stand at the last that fitted."""
    case = case_of("c8d", N=2, HKV=2, D=4, P=2, R=5, F=1)
    x = torch.randn((2, 16, 2, 4)).to(torch.bfloat16)
    select = torch.zeros((2, 16, 2), dtype=torch.uint8)
    select[0, :3, 0] = 1  # rows 0 to 2
    select[0, 5:8, 1] = 1  # rows 3 to 5: beyond the pool
    select[1, 2, 0] = 1  # would fit alone, but the filling has ended
    select[0, 9, 1] = select[1, 0, 1] = 2
    cache = written(level, case, x, select)
    assert cache["used_after"].tolist() == [3, 1]
    assert cache["mask"].tolist() == [[0b111, 0], [0, 0]]
    assert cache["fmask"].tolist() == [[0, 1 << 9], [0, 0]]
    assert cache["rank"].tolist() == [[0, 0], [0, 0]] == cache["frank"].tolist()


@pytest.mark.parametrize("residual", ("nested", "e3m0"))
def test_all_sixteen_tokens_selected(level: Level, residual: str) -> None:
    """The mask's sign bit is a token like the others."""
    case = case_of("kv4_key", residual, N=1, HKV=1, D=4, P=1, R=16, F=0)
    x = torch.randn((1, 16, 1, 4)).to(torch.bfloat16)
    cache = written(level, case, x, torch.ones((1, 16, 1), dtype=torch.uint8))
    assert cache["mask"].tolist() == [[-1]]
    assert read(level, case, cache).shape == (1, 16, 1, 4)


def refused(case: Case, **others: torch.Tensor) -> str:
    """The sentence of a refusal; nothing may have been written."""
    inputs = draw(FAMILY, case, 0)
    inputs = Inputs({}, {**inputs.physical, **others})
    ran = Level("native", "scalar").launch(FAMILY, case, inputs, threads=2)
    assert ran.status == host_kv.REFUSED
    for name, after in ran.outputs.items():
        before = inputs.physical.get(name)
        assert before is None or host_kv.same_bits(before, after), name
    return ran.error


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_what_cannot_be_written_is_refused_before_memory_is_touched() -> None:
    case = case_of("c8s")
    assert refused(case, page_ids=ints(0, 5, 1)) == "page_ids[1] is 5; accepted: 0 to 4"
    twice = 'page 4 stands twice in "page_ids"; accepted: every page once'
    assert refused(case, page_ids=ints(4, 1, 4)) == twice
    select = torch.zeros((3, 16, 2), dtype=torch.uint8)
    select[2, 3, 1] = 3
    kinds = "accepted: 0 (plain), 1 (residual) or 2 (float)"
    assert refused(case, select=select) == f"select[2,3,1] is 3; {kinds}"
    rows = 'used_before[0] is 61; accepted: 0 to 60, the rows of "pool"'
    assert refused(case, used_before=ints(61, 0)) == rows
    assert refused(case, used_before=ints(0, -1)).startswith(
        "used_before[1] is -1; accepted: 0 to 20"
    )


def test_masks_and_ranks_that_cannot_be_are_refused() -> None:
    case = case_of("c8d", direction="read")
    inputs = draw(FAMILY, case, 0).physical
    page = inputs["page_ids"]
    assert page is not None
    mask, fmask, rank = (torch.zeros_like(inputs[n]) for n in ("mask", "fmask", "rank"))
    mask[page[1], 1], rank[page[1], 1] = 0b101, 59
    both = fmask.clone()
    both[page[1], 1] = 0b100
    assert "is 59 with 2 vectors; accepted: within the pool's 60 rows" in refused(
        case, mask=mask, rank=rank, fmask=fmask
    )
    rank[page[1], 1] = -1
    assert "is -1 with 2 vectors" in refused(case, mask=mask, rank=rank, fmask=fmask)
    assert refused(case, mask=mask, fmask=both).startswith("token 2 of page")


def test_bits_do_not_depend_on_threads(level: Level) -> None:
    for kind in KINDS:
        for direction in ("write", "read"):
            case = case_of(kind, "e3m0", direction, N=20, HKV=4, D=64, P=24, R=500, F=90)
            inputs = draw(FAMILY, case, 1)
            first = level.launch(FAMILY, case, inputs).outputs
            for threads in (2, 5):
                other = level.launch(FAMILY, case, inputs, threads=threads).outputs
                assert all(host_kv.same_bits(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_does_not_depend_on_its_batch(level: Level, kind: str) -> None:
    """Page by page, each call going on where the last one's pools ended, gives the bits of one call."""
    case = case_of(kind, N=4, P=4, R=200, F=60)
    inputs = draw(FAMILY, case, 6)
    together = level.launch(FAMILY, case, inputs)
    state = dict(inputs.physical)
    one = case_of(kind, N=1, P=4, R=200, F=60)
    for n in range(4):
        own = {name: state[name][n : n + 1] for name in ("x", "select", "page_ids")}
        ran = level.launch(FAMILY, one, Inputs({}, {**state, **own}))
        assert ran.status == host_kv.OK, ran.error
        state.update(ran.outputs)
        state["used_before"] = ran.outputs["used_after"]
    for name, value in together.outputs.items():
        after = state[name]
        assert after is not None and host_kv.same_bits(value, after), name


def test_budgets_are_exact_and_ties_go_to_the_first() -> None:
    error = torch.tensor([[0.5, 0.25], [0.5, 0.5]]).view(1, 2, 2)
    assert by_budget(error, 2).flatten().tolist() == [1, 0, 1, 0]
    assert [int(by_budget(error, count).sum()) for count in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="a budget of 5 residuals; accepted: 0 to 4"):
        by_budget(error, 5)
    assert by_threshold(error, 0.25).flatten().tolist() == [1, 0, 1, 1]


def test_sinks_and_clipped_vectors_stay_floats() -> None:
    x = torch.zeros((2, 16, 1, 4))
    x[1, 7, 0, 2] = 12.9
    scale = torch.full((1, 4), 0.1)
    assert clipped(x, scale).nonzero().tolist() == [[1, 7, 0]]
    assert not clipped(x * 0.98, scale).any()
    there = sinks(2, 1, [1], 3)
    assert there.nonzero().tolist() == [[1, t, 0] for t in range(3)]
    select = keep_float(by_budget(torch.ones(2, 16, 1), 20), there | clipped(x, scale))
    assert (select == 2).nonzero().tolist() == [[1, 0, 0], [1, 1, 0], [1, 2, 0], [1, 7, 0]]
    assert int((select == 1).sum()) == 17
    with pytest.raises(UsageError, match="17 sink tokens; accepted: 0 to 16"):
        sinks(2, 1, [0], 17)
    with pytest.raises(UsageError, match="page 2 of 2 pages; accepted: 0 to 1"):
        sinks(2, 1, [2], 1)


def test_a_multiple_of_the_mean_selects_nothing_with_token_scales() -> None:
    """The field report's rule: no int8 vector under its own scale errs three times the mean."""
    x = torch.randn((8, 16, 4, 64), generator=torch.Generator().manual_seed(0))
    error = relative_error(x, "c8d", False)
    assert int(by_threshold(error, 3 * float(error.mean())).sum()) == 0
    static = relative_error(x, "c8s", False, torch.full((4, 64), 2.5 / 127))
    assert int(by_threshold(static, 3 * float(static.mean())).sum()) > 0


def test_overhead_is_counted_from_the_tensors() -> None:
    """128 channels of int8, 4 % of vectors: 64 bytes each are 2 % of the cache, masks and ranks 0.6 % more."""
    case = case_of("c8s", N=25, HKV=1, D=128, P=25, R=16, F=0)
    logical = draw(FAMILY, case, 0).logical
    found = overhead(logical, (16, 0))
    assert (found.codes, found.scales) == (25 * 16 * 128, 0)
    assert (found.by_page, found.residuals, found.floats) == (25 * 12, 16 * 64, 0)
    assert found.relative == pytest.approx(0.02 + 12 / 2048)
