"""Beam steps of the AscendC beam_topk on the twin: any group, ends, scores that are none, ties, shares, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tilewright import check, native
from tilewright.ascendc.ops.beam_topk import adapter, planning
from tilewright.ascendc.soc import find
from tilewright.ascendc.twin import model_family
from tilewright.ascendc.twin.runner import How, running
from tilewright.backends.ascendc import AscendC
from tilewright.errors import Refused
from tilewright.inputs import draw, from_logical, make_outputs
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

FAMILY, TARGET = family("beam_topk"), target("ascend:910b1")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
Tensors = dict[str, torch.Tensor]


def job(
    precision: str,
    groups: int,
    beams: int,
    v: int,
    k: int,
    *,
    memory: str = "dense",
    seed: int = 0,
    **given: Any,
) -> check.Job:
    config = {name: given.pop(name) for name in ("tile_v", "cores") if name in given}
    flags = {"step": "yes", "softmax": "row", **{name: str(value) for name, value in given.items()}}
    if precision == "int8":
        flags |= {"int8": "yes", "row_max": "yes"}
    sizes = {"B": groups * beams, "V": v, "K": k, "G": groups, "W": beams}
    case = FAMILY.spec.case(sizes, precision, flags, memory)
    chosen = Config(**{**dict(FAMILY.spec.default_config(TARGET)), **config})
    return check.Job(FAMILY, AscendC(), TARGET, case, chosen, seed)


def right(asked: check.Job, changed: Tensors | None = None) -> None:
    """The outputs are the reference's, and the twin found nothing."""
    inputs = draw(FAMILY, asked.case, asked.seed)
    if changed:
        inputs = from_logical(FAMILY, asked.case, {**inputs.logical, **changed})
    schedule = ("program", "timeline", "random")[asked.seed % 3]
    with running(How(schedule=schedule, seed=asked.seed)):
        row = check.run(asked, inputs)
    assert row.ok, f"{asked.case}: {row.reason}"


def launched(asked: check.Job, changed: Tensors | None = None) -> Tensors:
    drawn = draw(FAMILY, asked.case, asked.seed)
    inputs = from_logical(FAMILY, asked.case, {**drawn.logical, **(changed or {})})
    tensors = {**inputs.physical, **make_outputs(FAMILY, asked.case, inputs)}
    adapter.launch(tensors, asked.case, asked.config, TARGET, native.library("twin"))
    return {name: value for name, value in tensors.items() if value is not None}


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
@given(
    st.integers(0, 5),
    st.one_of(st.integers(1, 6), st.just(16)),
    st.one_of(st.integers(1, 80), st.integers(1, 3000), st.just(20_000)),
    st.integers(0, 64),
    st.sampled_from(PRECISIONS),
    st.fixed_dictionaries(
        {
            "int8": st.sampled_from(("no", "yes")),
            "temperature": st.sampled_from(("0.7", "1", "30")),
            "batch_invariant": st.sampled_from(("no", "yes")),
            "tile_v": st.sampled_from((1024, 8192)),
            "cores": st.sampled_from((1, 5, 48)),
            "memory": st.sampled_from(("dense", "padded")),
        }
    ),
    st.integers(0, 2),
    st.integers(0, 1000),
)
def test_any_group(
    groups: int,
    beams: int,
    v: int,
    k: int,
    precision: str,
    given_flags: dict[str, Any],
    eos: int,
    seed: int,
) -> None:
    groups = min(groups, 200_000 // (beams * v))
    asked = job(
        *(precision, groups, beams, v, min(k, beams * v)),
        seed=seed,
        eos=min(eos, v - 1),
        **given_flags,
    )
    right(asked)


@pytest.mark.parametrize("cores", [1, 48])
@pytest.mark.parametrize("int8", ["no", "yes"])
def test_beams_that_do_not_go_on(cores: int, int8: str) -> None:
    """Dead, finished, and finished dead ones, barely alive ones; too few continuations for all places."""
    inf, nan = math.inf, math.nan
    v = 2500
    logits = torch.full((8, v), -inf)
    logits[0, [3, 2400]] = logits[6, [5, 7]] = torch.tensor([1.0, 2.0])
    logits[4], logits[5] = nan, torch.randn(v, generator=torch.Generator().manual_seed(1))
    lowest = torch.finfo(torch.float32).min
    scores = torch.tensor([[-1.0, nan, -inf, lowest], [-2.0, -inf, lowest, -1e30]])
    finished = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 1]], dtype=torch.int8)
    changed = {"logits": logits, "scores": scores, "finished": finished}
    for k in (1, 3, 5, 33, 64):
        for eos in (0, 2, v - 1):
            asked = job("fp32", 2, 4, v, k, eos=eos, int8=int8, cores=cores, tile_v=1024)
            right(asked, changed)


def test_equal_scores_go_to_the_lower_beam() -> None:
    logits = torch.zeros(6, 700)
    changed = {
        "logits": logits,
        "scores": torch.zeros(2, 3),
        "finished": torch.zeros(2, 3, dtype=torch.int8),
    }
    found = launched(job("fp32", 2, 3, 700, 64), changed)
    assert found["next_beam"].tolist() == [[0] * 64] * 2
    assert found["next_id"].tolist() == [list(range(64))] * 2


def test_more_results_than_a_row_has() -> None:
    for v, k in ((1, 3), (7, 20), (3, 9), (49, 64)):
        for precision in PRECISIONS:
            right(job(precision, 2, 3, v, k, seed=k))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bits_of_a_group_do_not_depend_on_its_batch(precision: str) -> None:
    flags = {"batch_invariant": "yes"}
    whole = launched(job(precision, 9, 3, 20_011, 5, **flags))
    for group in (0, 8):
        asked = job(precision, 1, 3, 20_011, 5, **flags)
        rows = slice(3 * group, 3 * group + 3)
        part = {
            name: value[rows if value.shape[0] == 27 else slice(group, group + 1)].clone()
            for name, value in whole.items()
        }
        want = {name: part[name].clone() for name in ("next_beam", "next_id", "next_score")}
        tensors: dict[str, torch.Tensor | None] = dict.fromkeys(t.name for t in FAMILY.spec.tensors)
        tensors |= part
        adapter.launch(tensors, asked.case, asked.config, TARGET, native.library("twin"))
        for name, value in want.items():
            assert torch.equal(part[name].view(torch.int32), value.view(torch.int32)), name


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("next_id", (2, 5), "do not fit together"),
        ("next_score", (3, 4), "do not fit together"),
        ("scores", (3, 2), "are not of the 6 rows"),
        ("finished", (2, 2), "are not of the 6 rows"),
        ("logits", (5, 100), "are not of the 5 rows"),
    ],
)
def test_tensors_that_do_not_fit(name: str, shape: tuple[int, int], words: str) -> None:
    asked = job("fp32", 2, 3, 100, 4)
    inputs = draw(FAMILY, asked.case, 0)
    tensors = {**inputs.physical, **make_outputs(FAMILY, asked.case, inputs)}
    with pytest.raises(Refused, match=words):
        adapter.launch(
            {**tensors, name: torch.zeros(shape)},
            asked.case,
            asked.config,
            TARGET,
            native.library("twin"),
        )


def test_room_and_time() -> None:
    """Of the largest step the sizes of an engine make; more beams than fit are refused."""
    for precision in PRECISIONS:
        for int8 in ("no", "yes"):
            asked = job(precision, 1, 16, 262_144, 64, int8=int8)
            found = model_family.predict(FAMILY, asked.case, asked.config, TARGET)
            assert found.unresolved == 0 and found.findings == 0 and found.predicted_us > 0
            assert found.peak["ub"] <= find("910b1").ub
    for beams in (1, 2, 5, 16):
        for element, coded in ((4, False), (4, True), (2, True), (1, False)):
            for k in (1, 8, 33, 64):
                kept = planning.survivors(k, 262_144) if coded else k
                launch = planning.Launch(
                    *(beams, 262_144, k, kept, 262_144, element, 1.0, True, True, coded),
                    *(beams, k, 0),
                )
                assert planning.refusal(launch, 8192, "910b1", 48) is None
    asked = job("fp32", 1, 400, 300, 64)
    reason = adapter.refuses(asked.case, asked.config, TARGET)
    assert reason is not None and "in groups of 400" in reason
    assert planning.step_bytes(planning.Launch(4, 9, 4, 4, 9, 4, 1.0, True, False)) == 0
