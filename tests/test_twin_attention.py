"""The AscendC attention on the twin: any lengths, masks and configs, in every order of its instructions."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tilewright import check, native
from tilewright.ascendc.ops.attention import adapter, planning
from tilewright.ascendc.soc import find
from tilewright.ascendc.twin import bounds, model, runner
from tilewright.ascendc.twin.model_family import predict
from tilewright.backends.ascendc import AscendC
from tilewright.cases import Case
from tilewright.errors import Refused
from tilewright.inputs import Inputs, draw, from_logical
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

FAMILY, TARGET = family("attention"), target("ascend:910b1")
TUNED = {"tile_m": 128, "tile_n": 256, "preload": 2, "stagger": 1}
PUBLISHED_16K_US = 909.058  # pto-isa's kernel on a 910B2: row A9 of data/published_910b.csv
SCHEDULES = ("program", "timeline", "random")

slow_machine = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def case(
    sq: int,
    sk: int,
    heads: tuple[int, int] = (2, 1),
    d: tuple[int, int] = (64, 64),
    precision: str = "fp16",
    b: int = 1,
    sequences: int = 3,
    memory: str = "dense",
    **flags: str,
) -> Case:
    sizes = {"B": b, "SQ": sq, "SK": sk, "HQ": heads[0], "HKV": heads[1]}
    sizes |= {"DK": d[0], "DV": d[1], "NS1": sequences + 1}
    defaults = {flag.name: flag.default for flag in FAMILY.spec.flags}
    return Case.make(sizes, precision, {**defaults, **flags}, memory)


def config(**values: int) -> Config:
    return Config(**{"tile_m": 32, "tile_n": 32, "preload": 1, "stagger": 0, **values})


def run(
    one: Case, chosen: Config, inputs: Inputs, schedule: str = "program", seed: int = 0
) -> tuple[dict[str, torch.Tensor], runner.TwinResult]:
    """Outputs and what the twin saw; guards around the outputs and poison between them are the core's."""
    with runner.running(runner.How(schedule, seed)):
        launch = AscendC().prepare(FAMILY, one, inputs, chosen, TARGET)
        launch.run()
    return dict(launch.outputs), launch.details["result"]


def judged(one: Case, chosen: Config, schedule: str = "program", seed: int = 0) -> None:
    inputs = draw(FAMILY, one, seed)
    outputs, result = run(one, chosen, inputs, schedule, seed)
    assert not result.findings, result.findings[0]
    job = check.Job(FAMILY, AscendC(), TARGET, one, chosen, seed)
    verdict = check.compare_outputs(job, inputs, outputs)
    assert verdict.ok, f"{one} {chosen}: {verdict.reason}"


LANES = ((64, 64), (128, 128), (32, 32), (80, 80), (96, 96), (192, 128), (256, 256))


@st.composite
def configs(draw: st.DrawFn, d: tuple[int, int]) -> Config:
    chosen = config(
        tile_m=draw(st.sampled_from((32, 64, 128))),
        tile_n=draw(st.sampled_from((16, 32, 64, 128, 256, 512))),
        preload=draw(st.integers(1, 3)),
        stagger=draw(st.integers(0, 1)),
    )
    assume(not planning.illegal(planning.Config.of(chosen), *d))
    return chosen


@slow_machine
@given(st.data())
def test_any_lengths_masks_and_configs_in_any_order(data: st.DataObject) -> None:
    d = data.draw(st.sampled_from(LANES))
    hkv = data.draw(st.integers(1, 2))
    ragged = data.draw(st.booleans())
    one = case(
        data.draw(st.integers(1, 140)),
        data.draw(st.integers(0, 280)),
        (hkv * data.draw(st.integers(1, 3)), hkv),
        d,
        data.draw(st.sampled_from(("fp16", "bf16"))),
        b=1 if ragged else data.draw(st.integers(1, 2)),
        sequences=data.draw(st.integers(1, 4)),
        memory=data.draw(st.sampled_from(("dense", "padded"))),
        lengths="ragged" if ragged else "equal",
        mask=data.draw(st.sampled_from(("causal", "full"))),
        window=data.draw(st.sampled_from(("0", "1", "7", "64", "100000"))),
        softcap=data.draw(st.sampled_from(("0", "0", "2.5"))),
        alibi=data.draw(st.sampled_from(("no", "no", "yes"))),
        scale=data.draw(st.sampled_from(("0", "0", "0.3", "-0.1"))),
        lse=data.draw(st.sampled_from(("no", "yes"))),
        batch_invariant=data.draw(st.sampled_from(("no", "yes"))),
    )
    chosen = data.draw(configs(d))
    judged(one, chosen, data.draw(st.sampled_from(SCHEDULES)), data.draw(st.integers(0, 9)))


@pytest.mark.parametrize("seed", range(10))
def test_random_orders_change_nothing(seed: int) -> None:
    mask, precision = ("causal", "full")[seed % 2], ("fp16", "bf16")[seed // 5]
    one = case(150, 190, (2, 1), precision=precision, lengths="ragged", mask=mask, lse="yes")
    judged(one, config(tile_m=64, tile_n=64, preload=1 + seed % 3), "random", seed)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("d", ((64, 64), (128, 128)))
def test_the_tuned_config_in_every_order(schedule: str, d: tuple[int, int]) -> None:
    judged(case(140, 530, (2, 1), d, lse="yes"), config(**TUNED), schedule)


def test_results_are_the_same_bits_in_every_order() -> None:
    one = case(100, 150, lengths="ragged", window="40", lse="yes")
    inputs = draw(FAMILY, one, 3)
    bits = [run(one, config(preload=2), inputs, how, 5)[0] for how in SCHEDULES]
    for name, output in bits[0].items():
        for other in bits[1:]:
            assert torch.equal(output, other[name])


@slow_machine
@given(st.data())
def test_what_is_hidden_never_shows_whatever_it_is(data: st.DataObject) -> None:
    """NaN and infinities in keys and values reach the queries that see them, and no others."""
    causal = data.draw(st.booleans())
    window = data.draw(st.sampled_from(("0", "9", "33")))
    sq, sk = data.draw(st.integers(1, 100)), data.draw(st.integers(1, 200))
    one = case(sq, sk, mask="causal" if causal else "full", window=window)
    logical = dict(draw(FAMILY, one, data.draw(st.integers(0, 99))).logical)
    for name in ("k", "v"):
        drawn = logical[name]
        assert drawn is not None
        value = logical[name] = drawn.clone()
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, sk - 1)), data.draw(st.integers(0, 63))
            # An infinite key makes scores of either sign infinite, whose softmax is NaN in one order only.
            special = (math.nan, math.inf, -math.inf) if name == "v" else (math.nan,)
            value[0, at[0], 0, at[1]] = data.draw(st.sampled_from(special))
    inputs = from_logical(FAMILY, one, logical)
    chosen = data.draw(configs((64, 64)))
    outputs, result = run(one, chosen, inputs, data.draw(st.sampled_from(SCHEDULES)))
    assert not result.findings
    job = check.Job(FAMILY, AscendC(), TARGET, one, chosen, 0)
    verdict = check.compare_outputs(job, inputs, outputs)
    assert verdict.ok, verdict.reason


def test_extreme_scores() -> None:
    """Large magnitudes, equal scores, and a key that takes everything."""
    for factor, sink in ((0.0, 0.0), (30.0, 0.0), (1.0, 200.0)):
        one = case(70, 90, lse="yes", precision="bf16")
        logical = dict(draw(FAMILY, one, 0).logical)
        q, k = logical["q"], logical["k"]
        assert q is not None and k is not None
        logical["q"], logical["k"] = q * factor, k.clone()
        if sink:
            logical["k"][:, 0] = sink * q[:, 0, :1]
        inputs = from_logical(FAMILY, one, logical)
        outputs, result = run(one, config(), inputs)
        job = check.Job(FAMILY, AscendC(), TARGET, one, config(), 0)
        assert not result.findings and check.compare_outputs(job, inputs, outputs).ok


def test_rows_without_visible_keys() -> None:
    one = case(40, 10, lse="yes")
    outputs, _ = run(one, config(), draw(FAMILY, one, 0))
    assert (outputs["o"][0, :30] == 0).all()
    assert (outputs["lse"][0, :30] == -math.inf).all() and outputs["lse"][0, 30:].isfinite().all()


@pytest.mark.parametrize("window", ("0", "50"))
@pytest.mark.parametrize("chosen", (config(), config(**TUNED), config(tile_m=64, tile_n=128)))
def test_batch_invariant_bits(window: str, chosen: Config) -> None:
    """A sequence among others, at another place, cut into chunks, in another config: the same bits."""
    heads = (2, 1)
    alone = case(133, 150, heads, window=window, batch_invariant="yes", lse="yes")
    inputs = draw(FAMILY, alone, 1)
    expected, _ = run(alone, chosen, inputs)
    other = draw(FAMILY, case(40, 77, heads), 2)

    def packed(begin: int, end: int) -> tuple[Case, Inputs]:
        """Queries begin.. of the sequence, behind another one; its keys end with its queries."""
        keys = 150 - (133 - end)
        tensors: dict[str, torch.Tensor | None] = {"alibi": None}
        for name, part in (("q", slice(begin, end)), ("k", slice(0, keys)), ("v", slice(0, keys))):
            mine, before = inputs.logical[name], other.logical[name]
            assert mine is not None and before is not None
            tensors[name] = torch.cat([before, mine[:, part]], dim=1)
        tensors["cu_q"] = torch.tensor([0, 40, 40 + end - begin], dtype=torch.int32)
        tensors["cu_k"] = torch.tensor([0, 77, 77 + keys], dtype=torch.int32)
        one = case(
            40 + end - begin, 77 + keys, heads, sequences=2, lengths="ragged", window=window,
            batch_invariant="yes", lse="yes",
        )  # fmt: skip
        return one, from_logical(FAMILY, one, tensors)

    for (begin, end), tile_m in zip(
        ((0, 133), (0, 70), (70, 133), (132, 133)), (128, 64, 32, 128), strict=True
    ):
        one, together = packed(begin, end)
        outputs, _ = run(one, config(tile_m=tile_m, tile_n=64, stagger=1), together)
        for name in ("o", "lse"):
            assert torch.equal(outputs[name][:, 40:], expected[name][:, begin:end]), (name, begin)


def test_only_visible_blocks_are_multiplied() -> None:
    def macs(**flags: str) -> int:
        one = case(512, 512, (1, 1), **flags)
        return adapter.count(one, config(), TARGET, native.library("twin")).macs

    full = macs(mask="full")
    blocks = 512 // 32
    assert full == 2 * 512 * 512 * 64
    assert macs() == full * (blocks + 1) / 2 / blocks
    assert macs(window="64") == full * (3 * blocks - 3) / blocks**2


def test_ends_that_cut_nothing_are_refused() -> None:
    one = case(20, 30, lengths="ragged", sequences=2)
    drawn = draw(FAMILY, one, 0)
    for name, total in (("cu_q", 20), ("cu_k", 30)):
        wrong = (
            [0, 5, 99],
            [1, 5, total],
            [0, total + 5, total],
            [0, 5, total - 1],
            [0, -1, total],
        )
        for ends in wrong:
            refused_ends(one, drawn, name, ends)


def refused_ends(one: Case, drawn: Inputs, name: str, ends: list[int]) -> None:
    tensors = {**drawn.logical, name: torch.tensor(ends, dtype=torch.int32)}
    with pytest.raises(Refused, match=name):
        run(one, config(), from_logical(FAMILY, one, tensors))


@pytest.mark.parametrize(
    ("one", "reason"),
    (
        (case(4, 4, precision="fp32"), "fp16 and bf16"),
        (case(4, 4, compute="int8"), "compute=int8"),
        (case(4, 4, d=(72, 72)), "DK is 72"),
        (case(4, 4, d=(64, 40)), "DV is 40"),
        (case(4, 4, d=(272, 64)), "DK is 272"),
    ),
)
def test_refusals_have_reasons(one: Case, reason: str) -> None:
    why = adapter.refuses(one, config(), TARGET)
    assert why is not None and reason in why


def test_every_tile_has_room_for_what_batch_invariance_settles() -> None:
    for d in LANES:
        for tile_m in (32, 64, 128):
            chosen = planning.Config(tile_m)
            if not planning.illegal(chosen, *d):
                settled = planning.settled(chosen, *d)
                assert not planning.illegal(settled, *d)
                assert planning.chunk(settled, *d, find("910b1")) == planning.chunk(
                    replace(settled, tile_m=32), *d, find("910b1")
                )


def test_the_space_holds_what_the_kernel_takes() -> None:
    """Every point of the declared space is taken, and fits, or says which memory it does not fit."""
    space = FAMILY.spec.space["ascend"]
    for d in LANES:
        for values in product((32, 64, 128), (32, 64, 128, 256, 512)):
            chosen = planning.Config(*values)
            why = planning.illegal(chosen, *d)
            assert all(text.split(":")[0] in ("l1", "l0b", "l0c", "ub") for text in why), why
            if not why:
                one = case(5, 5, (1, 1), d)
                result = adapter.count(
                    one, config(tile_m=values[0], tile_n=values[1]), TARGET, native.library("twin")
                )
                assert not result.findings
                assert result.peak["ub"] <= planning.unified_buffer(chosen, d[1])
    assert space is not None


def test_a_walk_and_its_mirror_agree() -> None:
    """Steps counted by the host are those that the kernel's flags count."""
    for sq, sk, window in ((100, 250, 0), (250, 100, 0), (90, 300, 64), (7, 0, 0)):
        problem = planning.Problem([sq] * 2, [sk] * 2, 3, 1, 64, 64, window=window)
        chosen = planning.Config(blocks=5)
        stands = planning.representatives(problem, chosen, find("910b1"))
        assert sum(stands.values()) == min(5, planning.tiles(problem, chosen))
        tiles = -(-sq // 32)
        steps = sum(planning.steps(problem, chosen, sq, sk, t) for t in range(tiles)) * 2 * 3
        one = case(sq, sk, (3, 1), b=2, window=str(window))
        result = adapter.count(one, {**config(), "blocks": 5}, TARGET, native.library("twin"))
        # Each step sets one flag for scores and one for sums on the cube core, one on each vector core.
        assert result.count("CrossSet") == 4 * steps


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_flags_of_steps_with_nothing_to_do_do_not_pile_up(schedule: str) -> None:
    """A flag's counter ends at 15: many steps for one vector core alone, and many for the outputs alone."""
    for one in (case(5, 900, (1, 1)), case(700, 5, (20, 20))):
        judged(one, config(preload=3), schedule)
        assert predict(FAMILY, one, config(preload=3), TARGET).unresolved == 0


@pytest.mark.parametrize("lengths", ("equal", "ragged"))
@pytest.mark.parametrize("chosen", (config(), config(preload=3), config(**TUNED)))
def test_every_flag_finds_its_wait_in_simulated_time(lengths: str, chosen: Config) -> None:
    """A flag set again before it was waited for leaves instructions of which the model knows no time."""
    for sq, sk, window in ((300, 700, "0"), (70, 40, "0"), (200, 300, "64")):
        one = case(sq, sk, (4, 2), (128, 128), lengths=lengths, window=window, lse="yes")
        predicted = predict(FAMILY, one, chosen, TARGET)
        assert predicted.unresolved == 0 and predicted.findings == 0


def test_16k_is_within_a_tenth_of_what_is_published() -> None:
    """On a 910B2, as the published row: modelled, and never a performance."""
    one = case(16384, 16384, (1, 1), (128, 128), mask="full")
    where = target("ascend:910b2")
    predicted = predict(FAMILY, one, config(**TUNED), where)
    assert predicted.findings == 0 and predicted.unresolved == 0
    assert predicted.predicted_us <= 1.1 * PUBLISHED_16K_US
    default = predict(FAMILY, replace_size(one, 2048), config(), where)
    tuned = predict(FAMILY, replace_size(one, 2048), config(**TUNED), where)
    assert tuned.predicted_us < default.predicted_us


def replace_size(one: Case, tokens: int) -> Case:
    return replace(one, sizes={**one.sizes, "SQ": tokens, "SK": tokens})


def test_the_floor_is_below_the_model() -> None:
    one = case(512, 512, (2, 1), (128, 128), mask="full")
    library = native.library("twin")
    result = adapter.count(one, config(**TUNED), TARGET, library)
    floor: bounds.Bound = adapter.floor(one, config(**TUNED), TARGET, result, 24)
    predicted: model.Prediction = predict(FAMILY, one, config(**TUNED), TARGET)
    assert 0 < floor.microseconds(1850) < predicted.predicted_us
