"""The AscendC grouped_gemm on the twin: any groups, empty ones and rows of nobody among them, every precision."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tilewright import check, native
from tilewright.ascendc.ops.grouped_gemm import adapter, planning
from tilewright.ascendc.twin.model_family import predict
from tilewright.ascendc.twin.runner import How, running
from tilewright.backends.ascendc import AscendC
from tilewright.errors import Refused
from tilewright.inputs import draw, from_logical, make_outputs
from tilewright.registry import family
from tilewright.targets import target

FAMILY, TARGET = family("grouped_gemm"), target("ascend:910b1")
SPACE = FAMILY.spec.space_for(TARGET)
PRECISIONS = tuple(p.name for p in FAMILY.spec.precisions)
MANY = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
Tensors = dict[str, torch.Tensor]


def job(
    sizes: tuple[int, int, int, int],
    precision: str = "fp16",
    flags: Mapping[str, str] | None = None,
    memory: str = "dense",
    seed: int = 0,
    **config: int,
) -> check.Job:
    named = dict(zip("TENK", sizes, strict=True))
    scale = FAMILY.spec.precision(precision).flags["scale"][0]
    case = FAMILY.spec.case(named, precision, {"scale": scale, **(flags or {})}, memory)
    assert SPACE is not None
    chosen = SPACE.complete(config, FAMILY.spec.config_for(case, TARGET))
    return check.Job(FAMILY, AscendC(), TARGET, case, chosen, seed)


def right(asked: check.Job, changed: Mapping[str, torch.Tensor] | None = None) -> None:
    """The output is the reference's, and the twin found nothing."""
    schedule = ("program", "timeline", "random")[asked.seed % 3]
    inputs = draw(FAMILY, asked.case, asked.seed)
    if changed:
        inputs = from_logical(FAMILY, asked.case, {**inputs.logical, **changed})
    with running(How(schedule=schedule, seed=asked.seed)):
        row = check.run(asked, inputs)
    assert row.ok, f"{asked.case} {asked.config}: {row.reason}"


def launched(asked: check.Job, changed: Mapping[str, torch.Tensor] | None = None) -> Tensors:
    drawn = draw(FAMILY, asked.case, asked.seed)
    inputs = from_logical(FAMILY, asked.case, {**drawn.logical, **(changed or {})})
    tensors = {**inputs.physical, **make_outputs(FAMILY, asked.case, inputs)}
    adapter.launch(tensors, asked.case, asked.config, TARGET, native.library("twin"))
    return {name: value for name, value in tensors.items() if value is not None}


@MANY
@given(
    st.lists(st.one_of(st.just(0), st.integers(0, 40)), max_size=9),
    st.integers(0, 30),
    st.integers(0, 150),
    st.integers(0, 200),
    st.sampled_from(PRECISIONS),
    st.sampled_from(("no", "yes")),
    st.sampled_from(("no", "yes")),
    st.sampled_from(("dense", "padded")),
    st.integers(0, 999),
)
def test_any_groups(
    groups: list[int],
    more: int,
    n: int,
    k: int,
    precision: str,
    bias: str,
    invariant: str,
    memory: str,
    seed: int,
) -> None:
    """Groups of any size, and any number of rows of nobody behind them."""
    sizes = (sum(groups) + more, len(groups), n, k)
    flags = {"bias": bias, "batch_invariant": invariant}
    ends = torch.tensor(np.cumsum([0, *groups])[1:], dtype=torch.int32)
    right(job(sizes, precision, flags, memory, seed), {"ends": ends})


@settings(MANY, max_examples=15)
@given(
    st.sampled_from(PRECISIONS),
    st.sampled_from((16, 32, 128)),
    st.sampled_from((16, 32, 128, 256)),
    st.sampled_from((32, 64, 256)),
    st.sampled_from((1, 4)),
    st.sampled_from((1, 2)),
    st.sampled_from((0, 1)),
    st.integers(0, 99),
)
def test_any_config(
    precision: str, m: int, n: int, k: int, step: int, buffers: int, flag: int, seed: int
) -> None:
    """What is legal runs and is right; what is not is refused in words."""
    config = {"tile_m": m, "tile_n": n, "tile_k": k, "step_ka": step, "step_kb": 5 - step}
    config |= {"l1_buffers": buffers, "l0_buffers": 3 - buffers, "unit_flag": flag}
    config["step_kb"] = 1 if step == 4 else 4
    asked = job((230, 6, 300, 333), precision, {"bias": "yes"}, "dense", seed, **config)
    if adapter.refuses(asked.case, asked.config, TARGET) is None:
        right(asked)
        return
    with pytest.raises(Refused, match="grouped_gemm"):
        launched(asked)


def test_many_experts_and_many_rows() -> None:
    right(job((520, 128, 80, 96), "bf16", {"bias": "yes"}, seed=2))
    right(job((700, 2, 300, 65), "int8->bf16", {"bias": "yes"}, seed=1))


@pytest.mark.parametrize("precision", ["fp16", "int8->bf16"])
def test_rows_of_nobody_are_zero_whatever_they_hold(precision: str) -> None:
    asked = job((50, 3, 5000, 20), precision, {"bias": "yes"})
    ends = torch.tensor([7, 7, 20], dtype=torch.int32)
    drawn = draw(FAMILY, asked.case, 0).logical
    a = drawn["a"].clone()
    changed = {"ends": ends, "a": a}
    if precision == "fp16":
        a[20:] = float("nan")
    else:
        changed["row_scale"] = drawn["row_scale"].clone()
        changed["row_scale"][20:] = float("nan")
    found = launched(asked, changed)["c"]
    assert bool((found[20:] == 0).all())
    assert bool(found[:20].isfinite().all())


def test_a_row_that_is_not_finite_leaves_its_group_alone() -> None:
    asked = job((40, 3, 33, 70), "fp16")
    ends = torch.tensor([10, 25, 40], dtype=torch.int32)
    a = draw(FAMILY, asked.case, 0).logical["a"].clone()
    plain = launched(asked, {"ends": ends, "a": a})["c"]
    a[12, 3] = float("nan")
    found = launched(asked, {"ends": ends, "a": a})["c"]
    others = [row for row in range(40) if row != 12]
    assert bool(found[12].isnan().all())
    assert torch.equal(found[others], plain[others])


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32", "int8->fp16"])
def test_a_row_does_not_depend_on_its_group(precision: str) -> None:
    """The same rows of one expert, alone and among others."""
    flags = {"batch_invariant": "yes", "bias": "yes"}
    asked = job((60, 2, 70, 130), precision, flags)
    whole = launched(asked, {"ends": torch.tensor([20, 60], dtype=torch.int32)})
    for first, count in ((20, 1), (59, 1), (30, 17)):
        one = job((count, 2, 70, 130), precision, flags)
        rows = slice(first, first + count)
        shared = {name: whole[name] for name in ("b", "bias", "col_scale") if name in whole}
        tensors: dict[str, torch.Tensor | None] = {
            **dict.fromkeys(t.name for t in FAMILY.spec.inputs),
            **shared,
            "a": whole["a"][rows].clone(),
            "ends": torch.tensor([0, count], dtype=torch.int32),
            "c": torch.empty_like(whole["c"][rows]),
        }
        if "row_scale" in whole:
            tensors["row_scale"] = whole["row_scale"][rows].clone()
        adapter.launch(tensors, one.case, one.config, TARGET, native.library("twin"))
        found = tensors["c"]
        assert found is not None
        assert torch.equal(found.view(torch.uint8), whole["c"][rows].contiguous().view(torch.uint8))


@pytest.mark.parametrize("precision", ["bf16", "int8->bf16", "int8->fp16"])
def test_without_depth_the_bias_is_rounded_as_torch_does(precision: str) -> None:
    asked = job((6, 2, 40, 0), precision, {"bias": "yes"})
    bias = draw(FAMILY, asked.case, 0).logical["bias"].clone()
    tiny = 2.0**-9
    some = torch.tensor([float("nan"), float("inf"), -3.4e38, 1 + tiny, 1 + 3 * tiny, -1e30])
    bias[1, :6] = some.to(bias.dtype)
    if bias.dtype == torch.float32:
        bias[0, 0] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        c = launched(asked, {"bias": bias, "ends": torch.tensor([2, 6], dtype=torch.int32)})["c"]
    want = bias[[0, 0, 1, 1, 1, 1]].to(c.dtype)
    assert torch.equal(c.isnan(), want.isnan())
    assert torch.equal(c.nan_to_num(7), want.nan_to_num(7))


def test_columns_of_zeros_are_counted_in_31_bits() -> None:
    kind = planning.Kind("fp16", False, False)
    most = 2**31 - 1 - 4096
    planning.plan(planning.Dims(1, 1, most, 1), kind, {}, "910b1")
    with pytest.raises(ValueError, match=rf"N is {most + 1}, accepted are 1..{most}"):
        planning.plan(planning.Dims(1, 1, most + 1, 1), kind, {}, "910b1")


@pytest.mark.parametrize("ends", [[3, 2, 9], [-1, 2, 9], [3, 4, 10], [2**31 - 1, 0, 0]])
def test_ends_that_fall_or_leave_the_rows_are_refused(ends: list[int]) -> None:
    asked = job((9, 3, 20, 32), "fp16")
    good = launched(asked)
    good["c"].fill_(7)
    tensors = {**dict.fromkeys(t.name for t in FAMILY.spec.inputs), **good}
    tensors["ends"] = torch.tensor(ends, dtype=torch.int32)
    with pytest.raises(Refused, match=r"ends\["):
        adapter.launch(tensors, asked.case, asked.config, TARGET, native.library("twin"))
    assert bool((good["c"] == 7).all())


def test_tensors_that_do_not_fit_are_refused() -> None:
    asked = job((9, 3, 20, 32), "fp16", {"bias": "yes"})
    good = {**dict.fromkeys(t.name for t in FAMILY.spec.inputs), **launched(asked)}
    for name in ("a", "b", "ends", "bias", "c"):
        value = good[name]
        assert value is not None
        with pytest.raises(Refused, match="grouped_gemm"):
            adapter.launch(
                {**good, name: value[..., :-1]},
                asked.case,
                asked.config,
                TARGET,
                native.library("twin"),
            )
    assert "host format" in (planning.refusal("fp16", "panel16") or "")


def test_experts_apart_by_more_than_31_bits_are_addressed() -> None:
    kind = planning.Kind("fp16", False, False)
    dims = planning.Dims(4, 3, 16, 32, b_step=5 * 2**31 + 7)
    words = np.frombuffer(planning.plan(dims, kind, {}, "910b1").tiling, np.int32)[-4:]
    assert int(words[0]) == 3
    assert (int(words[2]) << 32 | int(words[1]) & 0xFFFFFFFF) == 5 * 2**31 + 7


@pytest.mark.parametrize("precision", PRECISIONS)
def test_chosen_tiles_beat_the_baseline(precision: str) -> None:
    """Modelled; the tiles that sizes suggest are legal on every part."""
    for sizes in ((64, 8, 768, 768), (512, 8, 768, 768)):
        asked = job(sizes, precision)
        assert adapter.refuses(asked.case, asked.config, TARGET) is None
        chosen = predict(FAMILY, asked.case, asked.config, TARGET).predicted_us
        baseline = FAMILY.spec.default_config(TARGET)
        assert chosen < predict(FAMILY, asked.case, baseline, TARGET).predicted_us
