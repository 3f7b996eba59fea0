"""The AscendC gemm_w4 on the twin: any shape, group, zero and config, weights bit for bit, rows of batches, schedules."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tilewright import check, native
from tilewright.ascendc.ops.gemm_w4 import adapter, planning
from tilewright.ascendc.soc import SOCS, find
from tilewright.ascendc.twin.model_family import predict
from tilewright.ascendc.twin.runner import How, running
from tilewright.backends.ascendc import AscendC
from tilewright.errors import Refused
from tilewright.inputs import Inputs, draw, from_logical, make_outputs
from tilewright.kernels.gemm_w4.reference import dequantised
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

FAMILY, TARGET = family("gemm_w4"), target("ascend:910b1")
SPACE = FAMILY.spec.space_for(TARGET)
FLOATS, ZEROS, GROUPS = ("fp16", "bf16"), ("sym", "asym", "min"), (32, 64, 128)
MANY = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
Tensors = dict[str, torch.Tensor]


def job(
    sizes: tuple[int, int, int],
    precision: str = "fp16",
    group: int = 32,
    flags: Mapping[str, str] | None = None,
    memory: str = "dense",
    seed: int = 0,
    **config: int,
) -> check.Job:
    m, n, k = sizes
    named = {"M": m, "N": n, "K": k, "G": -(-k // group)}
    case = FAMILY.spec.case(named, precision, {"group": str(group), **(flags or {})}, memory)
    assert SPACE is not None
    chosen = SPACE.complete(config, FAMILY.spec.config_for(case, TARGET))
    return check.Job(FAMILY, AscendC(), TARGET, case, chosen, seed)


def right(asked: check.Job, inputs: Inputs | None = None) -> None:
    """The output is the reference's, and the twin found nothing."""
    schedule = ("program", "timeline", "random")[asked.seed % 3]
    with running(How(schedule=schedule, seed=asked.seed)):
        row = check.run(asked, inputs)
    assert row.ok, f"{asked.case} {asked.config}: {row.reason}"


def launched(asked: check.Job, changed: Mapping[str, torch.Tensor] | None = None) -> Tensors:
    """Inputs, with some changed, and the output of a launch."""
    drawn = draw(FAMILY, asked.case, asked.seed)
    inputs = from_logical(FAMILY, asked.case, {**drawn.logical, **(changed or {})})
    tensors = {**inputs.physical, **make_outputs(FAMILY, asked.case, inputs)}
    adapter.launch(tensors, asked.case, asked.config, asked.target, native.library("twin"))
    return {name: value for name, value in tensors.items() if value is not None}


@MANY
@given(
    st.integers(0, 40),
    st.integers(0, 300),
    st.one_of(st.integers(0, 300), st.integers(0, 1500)),
    st.sampled_from(FLOATS),
    st.sampled_from(GROUPS),
    st.fixed_dictionaries(
        {
            "zero": st.sampled_from(ZEROS),
            "bias": st.sampled_from(("no", "yes")),
            "batch_invariant": st.sampled_from(("no", "yes")),
        }
    ),
    st.sampled_from(("dense", "padded")),
    st.integers(0, 999),
)
def test_any_shape(
    m: int,
    n: int,
    k: int,
    precision: str,
    group: int,
    flags: dict[str, str],
    memory: str,
    seed: int,
) -> None:
    right(job((m, n, k), precision, group, flags, memory, seed))


@settings(MANY, max_examples=20)
@given(
    st.sampled_from((1, 17, 70)),
    st.sampled_from((16, 100, 231)),
    st.sampled_from((100, 640)),
    st.sampled_from(FLOATS),
    st.sampled_from(GROUPS),
    st.sampled_from(ZEROS),
    st.fixed_dictionaries(
        {
            "tile_m": st.sampled_from((16, 32, 64, 128, 256)),
            "tile_n": st.integers(1, 16).map(lambda i: 16 * i),
            "tile_k": st.sampled_from((32, 64, 128)),
            "step_k": st.sampled_from((1, 2, 4, 8)),
            "chunk": st.sampled_from((128, 256, 512, 1024)),
            "slots": st.sampled_from((2, 3, 4)),
        }
    ),
    st.integers(0, 999),
)
def test_any_config(
    m: int, n: int, k: int, precision: str, group: int, zero: str, config: dict[str, int], seed: int
) -> None:
    """What is legal runs and is right; what is not is refused in words."""
    asked = job((m, n, k), precision, group, {"zero": zero, "bias": "yes"}, "dense", seed, **config)
    reason = adapter.refuses(asked.case, asked.config, TARGET)
    if reason is None:
        right(asked)
        return
    with pytest.raises(Refused, match="gemm_w4"):
        launched(asked)


@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("precision", FLOATS)
def test_the_identity_reads_the_weights(precision: str, group: int, zero: str) -> None:
    """Bit for bit: each weight is rounded once from what its code stands for."""
    k, n = 200, 70
    asked = job((k, n, k), precision, group, {"zero": zero}, seed=2)
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    found = launched(asked, {"a": torch.eye(k, dtype=dtype)})
    logical = draw(FAMILY, asked.case, 2).logical
    want = dequantised(
        logical["b"], logical["scale"], logical.get("zero"), logical.get("minimum"), group
    )
    # fp64 sums with minima are exact too; fp32 ones may lie half a bit beside them before the last rounding.
    exact = want if zero != "min" else want.float().double()
    assert torch.equal(found["c"], exact.t().to(dtype))


@pytest.mark.parametrize("precision", FLOATS)
def test_a_row_does_not_depend_on_its_batch(precision: str) -> None:
    rows, n, k = 150, 90, 700
    flags = {"batch_invariant": "yes", "zero": "asym", "bias": "yes"}
    whole = launched(job((rows, n, k), precision, 64, flags, seed=3))
    for first, count in ((0, 1), (149, 1), (37, 90)):
        for tile in (16, 128):
            asked = job((count, n, k), precision, 64, flags, seed=3, tile_m=tile, tile_k=32)
            inputs = {name: whole[name] for name in ("scale", "zero", "bias")}
            drawn = draw(FAMILY, asked.case, 3)
            tensors = {
                **drawn.physical,
                **inputs,
                "b": whole["b"],
                "a": whole["a"][first : first + count].clone(),
                **make_outputs(FAMILY, asked.case, drawn),
            }
            adapter.launch(tensors, asked.case, asked.config, TARGET, native.library("twin"))
            want = whole["c"][first : first + count]
            assert torch.equal(tensors["c"].view(torch.int16), want.view(torch.int16))


def test_what_is_not_finite_stays_in_its_row() -> None:
    asked = job((5, 40, 130), "fp16", 32, {"zero": "sym"})
    a = draw(FAMILY, asked.case, 0).logical["a"].clone()
    plain = launched(asked)["c"]
    a[1, 7], a[3, 100] = float("nan"), float("inf")
    found = launched(asked, {"a": a})["c"]
    assert bool(found[1].isnan().all())
    assert not bool(found[3].isfinite().any())
    assert torch.equal(found[[0, 2, 4]], plain[[0, 2, 4]])


def test_scales_at_the_ends_of_their_range() -> None:
    """Products of the least scales are exact in halves; bf16 holds those of the largest."""
    for precision, value in (("fp16", 2.0**-24), ("fp16", 2.0**-14), ("bf16", 65504.0)):
        asked = job((4, 33, 96), precision, 32, {"zero": "asym"})
        drawn = draw(FAMILY, asked.case, 0)
        scale = torch.full_like(drawn.logical["scale"], value)
        logical = {**drawn.logical, "scale": scale}
        if precision == "fp16":
            logical["a"] = (drawn.logical["a"].float() * 64).half()
        right(asked, from_logical(FAMILY, asked.case, logical))


def test_only_the_low_bits_of_a_zero_count() -> None:
    asked = job((3, 40, 130), "fp16", 32, {"zero": "asym"})
    plain = launched(asked)
    dirty = {"zero": plain["zero"] | 0xF0}
    drawn = draw(FAMILY, asked.case, 0)
    tensors = {**drawn.physical, **dirty, **make_outputs(FAMILY, asked.case, drawn)}
    adapter.launch(tensors, asked.case, asked.config, TARGET, native.library("twin"))
    assert torch.equal(tensors["c"], plain["c"])


@pytest.mark.parametrize(
    ("precision", "flags", "words"),
    [
        ("fp32", {}, "quarter of the rate"),
        ("int8->bf16", {"activations": "int8"}, "float activations"),
        ("fp16", {"b_layout": "panel16"}, "takes rows"),
    ],
)
def test_kinds_that_are_refused(precision: str, flags: dict[str, str], words: str) -> None:
    case = FAMILY.spec.case({"M": 1, "N": 1, "K": 64, "G": 2}, precision, flags)
    config = FAMILY.spec.default_config(TARGET)
    assert words in (adapter.refuses(case, config, TARGET) or "")


def test_tensors_that_do_not_fit_are_refused_before_memory_is_touched() -> None:
    asked = job((4, 20, 100), "fp16", 32, {"zero": "asym"})
    good = launched(asked)
    for name, bad in (
        ("b", good["b"][:, :-1]),
        ("scale", good["scale"][:, :-1]),
        ("zero", None),
        ("c", good["c"][:-1]),
    ):
        before = good["c"].clone()
        tensors = {**good, name: bad}
        with pytest.raises(Refused, match="gemm_w4"):
            adapter.launch(tensors, asked.case, asked.config, TARGET, native.library("twin"))
        assert torch.equal(good["c"], before)


@pytest.mark.parametrize("soc", sorted(SOCS))
def test_plans_stay_within_the_chip(soc: str) -> None:
    """What a config is said to take of UB is what the kernel takes, and chosen configs are legal."""
    for precision in FLOATS:
        for zero in ZEROS:
            for group in GROUPS:
                kind = planning.Kind(precision, group, zero, True)
                for m, n in ((1, 64), (16, 4096), (4096, 11008)):
                    found = planning.tiling(planning.Dims(m, n, 4096), kind, soc)
                    assert found is not None
                    assert not planning.illegal(found, kind, soc)


@settings(MANY, max_examples=12)
@given(st.sampled_from(FLOATS), st.sampled_from(GROUPS), st.sampled_from(ZEROS))
def test_memory_is_as_planned(precision: str, group: int, zero: str) -> None:
    asked = job((32, 400, 1024), precision, group, {"zero": zero, "bias": "yes"})
    result, _ = AscendC().model(FAMILY, asked.case, asked.config, TARGET)
    kind = planning.Kind(precision, group, zero, True)
    config = planning.Config.of(asked.config)
    rows = planning.part_rows(config, kind, find("910b1"))
    assert result.peak["ub"] == planning.ub_bytes(config, kind, rows)


def test_blocks_that_stand_for_all_give_the_same_time() -> None:
    case = FAMILY.spec.case({"M": 300, "N": 1000, "K": 512, "G": 16}, "fp16", {})
    config = FAMILY.spec.config_for(case, TARGET)
    some = predict(FAMILY, case, config, TARGET).predicted_us
    counts = adapter.representatives(case, config, TARGET)
    assert sum(counts.values()) <= find("910b1").cube_cores
    stand = adapter.representatives
    try:
        del adapter.representatives
        every = predict(FAMILY, case, config, TARGET).predicted_us
    finally:
        adapter.representatives = stand
    assert some == pytest.approx(every, rel=0.03)


def test_four_bits_are_faster_than_sixteen() -> None:
    """Modelled: a few rows by 4096 x 4096 weights, against gemm's own tiles."""
    case = FAMILY.spec.case({"M": 16, "N": 4096, "K": 4096, "G": 128}, "fp16", {})
    ours = predict(FAMILY, case, FAMILY.spec.config_for(case, TARGET), TARGET).predicted_us
    gemm = family("gemm")
    plain = gemm.spec.case({"M": 16, "N": 4096, "K": 4096}, "fp16", {"b_layout": "NK"})
    whole = predict(gemm, plain, gemm.spec.config_for(plain, TARGET), TARGET).predicted_us
    assert ours < whole


def test_configs_and_sizes_in_words() -> None:
    kind = planning.Kind("fp16", 32, "sym", False)
    assert "tile_n is 20" in planning.illegal(planning.Config(tile_n=20), kind)[0]
    assert "multiple" in planning.illegal(planning.Config(tile_k=128, step_k=8, chunk=256), kind)[0]
    with pytest.raises(ValueError, match="unknown config field 'tile'"):
        planning.Config.of({"tile": 1})
    most = 2**31 - 1 - 1024  # a chunk behind the last is still counted
    planning.plan(planning.Dims(1, 1, most), kind, planning.Config(), "910b1")
    with pytest.raises(ValueError, match=f"K is {most + 1}, accepted are 1..{most}"):
        planning.plan(planning.Dims(1, 1, most + 1), kind, planning.Config(), "910b1")
    assert isinstance(
        adapter.tiling(
            FAMILY.spec.sample_case(
                FAMILY.spec.precision("fp16"),
                {flag.name: flag.default for flag in FAMILY.spec.flags},
            ),
            TARGET,
        ),
        Config,
    )
