"""The AscendC paged_attention on the twin: any pages, lengths, formats, configs and orders against fp64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright import check, native
from tilewright.ascendc.ops.paged_attention import adapter, dealing, host, planning
from tilewright.ascendc.soc import find
from tilewright.ascendc.twin.model_family import predict
from tilewright.ascendc.twin.runner import How, running
from tilewright.backends.ascendc import AscendC
from tilewright.cases import Case
from tilewright.errors import Refused
from tilewright.inputs import Inputs, draw, from_logical
from tilewright.kernels._kv.reference import FLOAT, RESIDUAL, Stored, encode_selected
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

FAMILY = family("paged_attention")
B1 = target("ascend:910b1")
SMALL = {
    **{"TQ": 5, "HQ": 6, "HKV": 2, "DK": 64, "DV": 64},
    **{"NS": 3, "MP": 4, "P": 14, "R": 120, "F": 40},
}
TUNED = {"tile_pages": 4, "step_pages": 8, "tile_heads": 0}
AS_WRITTEN = How()


def case_of(
    precision: str = "fp16",
    sizes: Mapping[str, int] | None = None,
    memory: str = "dense",
    **flags: str,
) -> Case:
    return FAMILY.spec.case({**SMALL, **(sizes or {})}, precision, flags, memory)


def launch(
    case: Case,
    inputs: Inputs | None = None,
    config: Mapping[str, int] | None = None,
    seed: int = 0,
    how: How = AS_WRITTEN,
) -> tuple[dict[str, torch.Tensor], Any]:
    """Outputs of a run that must be free of findings, and what the twin says of it."""
    full = FAMILY.spec.space_for(B1).complete(config or {}, FAMILY.spec.default_config(B1))
    ready = AscendC().prepare(FAMILY, case, inputs or draw(FAMILY, case, seed), full, B1)
    with running(how):
        ready.run()
    result = ready.details["result"]
    assert not result.findings, "\n".join(str(f) for f in result.findings)
    return dict(ready.outputs), result


def passes(
    case: Case,
    config: Mapping[str, int] | None = None,
    seed: int = 0,
    how: How = AS_WRITTEN,
    inputs: Inputs | None = None,
) -> dict[str, torch.Tensor]:
    inputs = inputs or draw(FAMILY, case, seed)
    outputs, _ = launch(case, inputs, config, seed, how)
    full = FAMILY.spec.default_config(B1)
    verdict = check.compare_outputs(
        check.Job(FAMILY, AscendC(), B1, case, full, seed), inputs, outputs
    )
    assert verdict.ok, f"{case} {config} {how}: {verdict.reason}"
    return outputs


def edited(case: Case, edit: Callable[[dict[str, torch.Tensor]], None], seed: int = 0) -> Inputs:
    """A draw of the case with its logical inputs changed in place."""
    logical = {
        k: None if v is None else v.clone() for k, v in draw(FAMILY, case, seed).logical.items()
    }
    edit({k: v for k, v in logical.items() if v is not None})
    return from_logical(FAMILY, case, logical)


FORMATS = [
    ("fp16", "none"),
    ("bf16", "none"),
    *itertools.product(("fp16-c8s", "bf16-c8s", "fp16-c8d", "bf16-c8d"), ("none", "nested")),
]


@pytest.mark.parametrize("layout", ["nd", "nz"])
@pytest.mark.parametrize(("precision", "residual"), FORMATS)
def test_every_format_with_default_and_larger_tiles(
    precision: str, residual: str, layout: str
) -> None:
    flags = {"kv_layout": layout, "residual": residual, "lse": "yes"}
    passes(case_of(precision, **flags))
    wide = {"TQ": 4, "HQ": 4, "HKV": 1, "DK": 128, "DV": 128, "NS": 2, "MP": 20, "P": 40}
    passes(case_of(precision, {**wide, "R": 400, "F": 100}, **flags), TUNED, seed=1)


def schedules() -> Iterator[How]:
    yield How("program")
    yield How("timeline")
    yield from (How("random", seed) for seed in range(10))


@pytest.mark.parametrize(
    ("precision", "residual", "layout"),
    [("fp16", "none", "nd"), ("bf16", "none", "nz"), ("bf16-c8d", "nested", "nd")],
)
def test_every_order_that_its_flags_permit_gives_the_same_bits(
    precision: str, residual: str, layout: str
) -> None:
    # Two steps and more a task, several tasks a core, splits that meet.
    sizes = {"TQ": 6, "MP": 12, "P": 30, "R": 300, "F": 60}
    case = case_of(precision, sizes, kv_layout=layout, residual=residual, lse="yes")
    inputs = draw(FAMILY, case, 3)
    found = [
        passes(case, {"cores": 0, "tile_heads": 0}, how=how, inputs=inputs) for how in schedules()
    ]
    for name, value in found[0].items():
        assert all(torch.equal(value, other[name]) for other in found[1:]), name


@st.composite
def problems(draw_from: st.DrawFn) -> tuple[Case, dict[str, int]]:
    def pick(*values: Any) -> Any:
        return draw_from(st.sampled_from(values))

    kv = pick("float", "float", "c8s", "c8d")
    compute = pick("fp16", "bf16", "fp32") if kv == "float" else pick("fp16", "bf16")
    heads, group = pick(1, 2, 3, 4, 8), pick(1, 2, 3, 7, 8)
    d = pick(16, 64, 80, 128, 192) if kv == "float" else pick(64, 128)
    sequences, width = pick(1, 2, 3, 5), pick(1, 2, 4, 9, 20)
    queries = pick(sequences, draw_from(st.integers(0, 40)), 4 * sequences, 16 * sequences)
    sizes = {"TQ": queries, "HQ": heads * group, "HKV": heads, "DK": d, "DV": d, "NS": sequences}
    sizes |= {"MP": width, "P": pick(width * sequences, width), "R": 3000 * heads, "F": 900 * heads}
    flags = {
        "lse": pick("yes", "no"),
        "kv_layout": pick("nd", "nz"),
        "alibi": pick("no", "yes"),
        "softcap": pick("0", "30", "5"),
        "window": pick("0", "0", "5", "37.5"),
        "scale": pick("0", "0.2"),
        "batch_invariant": pick("no", "yes"),
    }
    if kv != "float":
        flags["residual"] = pick("none", "nested")
    config = {
        "tile_pages": pick(1, 2, 4, 8),
        "step_pages": pick(4, 8, 12, 16),
        "tile_heads": pick(0, 1),
        "split_pages": pick(0, 0, 16),
    }
    precision = compute if kv == "float" else f"{compute}-{kv}"
    return FAMILY.spec.case(sizes, precision, flags, pick("dense", "padded")), config


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(problems(), st.integers(0, 10**6), st.sampled_from(["program", "timeline", "random"]))
def test_any_problem_under_any_legal_config(
    problem: tuple[Case, dict[str, int]], seed: int, schedule: str
) -> None:
    case, config = problem
    full = FAMILY.spec.space_for(B1).complete(config, FAMILY.spec.default_config(B1))
    if adapter.refuses(case, full, B1):
        with pytest.raises(Refused, match=r"take \d+ bytes|LoadData|bytes$"):
            launch(case, config=config, seed=seed)
        return
    passes(case, config, seed, How(schedule, seed % 10))


@pytest.mark.parametrize("layout", ["nd", "nz"])
@pytest.mark.parametrize("back", [0, 1, 5])
def test_a_nan_reaches_the_queries_that_see_it_and_no_others(layout: str, back: int) -> None:
    case = case_of("fp16", {"TQ": 8, "NS": 1, "MP": 6, "P": 6}, kv_layout=layout)

    def poison(logical: dict[str, torch.Tensor]) -> None:
        token = int(logical["seq_lens"][0]) - 1 - back
        page = int(logical["block_table"][0, token // 16])
        logical["v_cache"][page, token % 16, 1] = math.nan

    inputs = edited(case, poison)
    got = launch(case, inputs)[0]["o"].isnan().any(-1)
    seen = torch.zeros_like(got)
    seen[7 - back :, 3:] = True
    assert torch.equal(got, seen)


@pytest.mark.parametrize("precision", ["fp16", "fp16-c8d"])
def test_what_lies_before_a_window_is_not_heard(precision: str) -> None:
    case = case_of(precision, {"TQ": 3, "NS": 1, "MP": 6, "P": 6}, window="21", lse="yes")

    def poison(logical: dict[str, torch.Tensor]) -> None:
        # The first query stands at L - 3 and sees 21 tokens: nothing below L - 23 is seen by any.
        hidden = int(logical["seq_lens"][0]) - 23
        for token in range(hidden):
            page = int(logical["block_table"][0, token // 16])
            for prefix in ("k_", "v_"):
                name = "cache" if precision == "fp16" else "token_scale"
                logical[prefix + name][page, token % 16] = math.nan

    outputs = passes(case, inputs=edited(case, poison))
    assert not outputs["o"].isnan().any()


def test_the_pool_holds_residuals_of_whole_pages_and_float_vectors() -> None:
    case = case_of(
        "bf16-c8s", {"TQ": 2, "NS": 1, "MP": 4, "P": 4, "R": 300, "F": 300}, residual="nested"
    )

    def select_all(logical: dict[str, torch.Tensor]) -> None:
        select = torch.full((4, 16, 2), RESIDUAL, dtype=torch.uint8)
        select[int(logical["block_table"][0, 0])] = FLOAT
        for prefix in ("k_", "v_"):
            x = torch.randn((4, 16, 2, 64), generator=torch.Generator().manual_seed(5)).bfloat16()
            pools = Stored(
                torch.empty(0),
                pool=torch.zeros((300, 16), dtype=torch.int16),
                fpool=torch.zeros((300, 64), dtype=torch.bfloat16),
            )
            scale = torch.full((2, 64), 2.5 / 127)
            stored, _ = encode_selected(
                x, "c8s", prefix == "k_", "nested", select, pools, (0, 0), scale
            )
            logical[prefix + "cache"].copy_(stored.codes)
            logical[prefix + "channel_scale"].copy_(scale)
            for part in ("mask", "rank", "pool", "fmask", "frank", "fpool"):
                logical[prefix + part].copy_(getattr(stored, part))

    passes(case, inputs=edited(case, select_all))


@pytest.mark.parametrize("factor", [2.0**-60, 2.0**40])
@pytest.mark.parametrize(("kv", "name"), [("c8s", "channel_scale"), ("c8d", "token_scale")])
def test_scales_that_no_half_holds_lose_nothing(kv: str, name: str, factor: float) -> None:
    case = case_of(f"bf16-{kv}", {"DK": 128, "DV": 128})

    def stretch(logical: dict[str, torch.Tensor]) -> None:
        logical["k_" + name] *= factor
        logical["v_" + name] *= factor
        logical["q"] /= factor

    passes(case, inputs=edited(case, stretch))


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    case = case_of("fp16", {"TQ": 3, "MP": 80, "P": 240}, batch_invariant="yes", lse="yes")
    inputs = draw(FAMILY, case, 7)
    whole = launch(case, inputs, TUNED)[0]
    for i in range(3):
        logical = dict(inputs.logical)
        logical["q"] = logical["q"][i : i + 1]
        logical["cu_q"] = torch.tensor([0, 1], dtype=torch.int32)
        logical["seq_lens"], logical["block_table"] = (
            logical[name][i : i + 1] for name in ("seq_lens", "block_table")
        )
        alone = case_of(
            "fp16", {"TQ": 1, "NS": 1, "MP": 80, "P": 240}, batch_invariant="yes", lse="yes"
        )
        one = launch(alone, from_logical(FAMILY, alone, logical), TUNED)[0]
        for name in ("o", "lse"):
            assert torch.equal(one[name][0], whole[name][i]), (i, name)


def test_queries_without_keys_are_zero_and_their_lse_is_minus_infinity() -> None:
    case = case_of("fp16", {"TQ": 12, "NS": 2, "MP": 2, "P": 4}, lse="yes")

    def shorten(logical: dict[str, torch.Tensor]) -> None:
        logical["seq_lens"].copy_(torch.tensor([3, 0]))
        logical["block_table"].copy_(torch.tensor([[1, -1], [9999, -1]]))
        for name in ("k_cache", "v_cache"):
            logical[name][1, :3] = 0.5

    outputs = passes(case, inputs=edited(case, shorten))
    blind = torch.cat([torch.arange(3), torch.arange(6, 12)])
    assert (outputs["o"][blind] == 0).all() and (outputs["lse"][blind] == -math.inf).all()


WRONG: list[tuple[str, Callable[[dict[str, torch.Tensor]], None], str]] = [
    (
        "fp16",
        lambda x: x["block_table"].fill_(14),
        r"block_table\[0, 0\] is 14, there are 14 pages",
    ),
    ("fp16", lambda x: x["block_table"].fill_(-1), r"block_table\[0, 0\] is -1"),
    ("fp16", lambda x: x["seq_lens"].fill_(-2), r"seq_lens\[0\] is -2, allowed are 0..64"),
    ("fp16", lambda x: x["seq_lens"].fill_(65), r"seq_lens\[0\] is 65"),
    ("fp16", lambda x: x["cu_q"].copy_(torch.tensor([0, 3, 2, 5])), "cu_q falls after entry 1"),
    ("fp16", lambda x: x["cu_q"].copy_(torch.tensor([0, 1, 2, 4])), "cu_q ends at 4, q has 5 rows"),
    ("fp16", lambda x: x["cu_q"].copy_(torch.tensor([1, 2, 3, 5])), r"cu_q\[0\] is 1"),
    ("fp16-c8s", lambda x: x["k_rank"].fill_(119), r"k_rank\[\d+, \d\] is 119 with \d+ rows"),
    ("fp16-c8s", lambda x: x["v_frank"].fill_(-1), r"v_frank\[\d+, \d\] is -1"),
    ("fp16-c8s", lambda x: x["v_fmask"].copy_(x["v_mask"]), "share a token"),
]


@pytest.mark.parametrize(("precision", "edit", "says"), WRONG)
def test_what_leads_out_of_memory_is_refused(
    precision: str, edit: Callable[[dict[str, torch.Tensor]], None], says: str
) -> None:
    case = case_of(precision, residual="none" if precision == "fp16" else "nested")
    with pytest.raises(Refused, match=says):
        launch(case, edited(case, edit))


def test_misaligned_and_misshapen_arrays_are_refused() -> None:
    case = case_of("fp16")
    inputs = draw(FAMILY, case, 0)
    room = torch.empty(14 * 16 * 2 * 64 + 8, dtype=torch.float16)
    good = dict(inputs.physical)
    for name, value, says in (
        ("k_cache", room[8:].view(14, 16, 2, 64), "multiples of 512 bytes"),
        ("v_cache", good["v_cache"][:, :8], "v_cache has shape"),
        ("q", good["q"].float(), "q is of float32, it must be of float16"),
        ("block_table", good["block_table"].long(), "block_table is of int64"),
        ("seq_lens", None, "seq_lens is missing"),
    ):
        with pytest.raises(Refused, match=says):
            launch(case, replace(inputs, physical={**good, name: value}))


@pytest.mark.parametrize(
    ("precision", "sizes", "flags", "says"),
    [
        ("fp32-c8s", {}, {}, "not enough for fp32"),
        ("fp16-kv4", {}, {}, "kv=kv4"),
        ("fp16-c8s", {}, {"residual": "e3m0"}, "residual=e3m0"),
        ("fp16-c8s", {"DK": 96}, {}, "DK=96"),
        ("fp16", {}, {"values": "latent"}, "values=latent"),
        ("bf16", {"DV": 20}, {}, "DV=20"),
    ],
)
def test_what_the_kernel_does_not_do_is_refused_by_name(
    precision: str, sizes: dict[str, int], flags: dict[str, str], says: str
) -> None:
    why = adapter.refuses(case_of(precision, sizes, **flags), FAMILY.spec.default_config(B1), B1)
    assert why is not None and says in why


def test_memory_is_what_the_plan_says() -> None:
    for precision, residual in FORMATS:
        case = case_of(precision, {"DK": 128, "DV": 128, "HKV": 2, "HQ": 8}, residual=residual)
        problem = adapter.problem(case)
        inputs = draw(FAMILY, case, 0)
        _, result = launch(case, inputs, TUNED)
        most = int(inputs.logical["cu_q"].diff().max())
        config = planning.Config.of({**FAMILY.spec.default_config(B1), **TUNED})
        tiles = planning.settle(problem, config, find("910b1"), most)
        assert isinstance(tiles, planning.Tiles)
        said = planning.memory(problem, tiles)
        for name, peak in result.peak.items():
            assert peak <= said.get(name, 0) <= getattr(find("910b1"), name), (precision, name)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 700)), min_size=1, max_size=7),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0, 1, 5]),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 20.0, 300.0]),
)
def test_plans_cover_every_visible_token_once(
    sequences: list[tuple[int, int]], heads: int, split: int, invariant: bool, window: float
) -> None:
    problem = planning.Problem(
        "fp16", "float", 2 * heads, heads, 64, 64, 64, invariant=invariant, window=window
    )
    starts = [0, *itertools.accumulate(n for n, _ in sequences)]
    plan = dealing.plan(
        problem, starts, [length for _, length in sequences], planning.Config(split_pages=split)
    )
    seen: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for task in itertools.chain.from_iterable(plan.by_core):
        assert task.tokens > 0
        begin = task.page * 16
        for i in range(task.queries):
            for head in range(task.head, task.head + plan.tiles.heads):
                own = (begin + task.skip, min(begin + task.tokens, begin + task.position + i + 1))
                seen.setdefault((task.row + i, head), []).append(own)
    for s, (n, length) in enumerate(sequences):
        for i, head in itertools.product(range(n), range(heads)):
            runs = sorted(r for r in seen.get((starts[s] + i, head), []) if r[0] < r[1])
            position = length - n + i
            first = max(math.floor(position - window) + 1, 0) if window else 0
            visible = max(position + 1 - first, 0)
            assert sum(b - a for a, b in runs) == visible
            assert all(x[1] == y[0] for x, y in itertools.pairwise(runs))


def test_the_model_counts_without_data() -> None:
    for precision, residual in (("bf16", "none"), ("fp16-c8d", "nested")):
        case = case_of(precision, {"TQ": 1, "NS": 1, "MP": 64, "P": 64}, residual=residual)
        full = FAMILY.spec.default_config(B1)
        result = adapter.count(case, full, B1, native.library("twin"))
        assert result.ok and result.macs > 0
        floor = adapter.floor(case, full, B1, result, 24)
        assert floor.cycles > 0
        # A flag set again before its wait is not a finding, but the timeline does not resolve.
        assert predict(FAMILY, case, full, B1).unresolved == 0
    assert "nothing" in adapter.validated_by(case, full)
    assert adapter.on_cores(case, Config(full), B1, 4)["cores"] == 4


def test_host_takes_arrays_of_numpy() -> None:
    case = case_of("fp16")
    inputs = draw(FAMILY, case, 0)
    arrays = {k: v.numpy() for k, v in inputs.physical.items() if v is not None}
    expected, _ = launch(case, inputs)
    arrays["o"] = torch.zeros((5, 6, 64), dtype=torch.float16).numpy()
    result = host.launch(arrays, adapter.problem(case), lib_path=native.library("twin"))
    assert result.ok and torch.equal(torch.from_numpy(arrays["o"]), expected["o"])
