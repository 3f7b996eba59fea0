"""The AscendC beam_topk on the twin: any shape and tile, equal logits at every border, codes, batches, schedules."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright import check, native
from tilewright.ascendc.ops.beam_topk import planning
from tilewright.ascendc.soc import find
from tilewright.ascendc.twin import model_family
from tilewright.ascendc.twin.runner import How, running
from tilewright.backends.ascendc import AscendC
from tilewright.errors import Refused
from tilewright.inputs import Inputs, draw, from_logical, make_outputs
from tilewright.kernels.beam_topk import spec
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

TARGET = target("ascend:910b1")
UB = find("910b1").ub
FLOATS = ("fp32", "bf16", "fp16")
TILES = (1024, 2048, 8192)
MANY = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def job(
    precision: str, b: int, v: int, k: int, *, memory: str = "dense", seed: int = 0, **given: Any
) -> check.Job:
    one = family("beam_topk")
    config = {name: given.pop(name) for name in ("tile_v", "cores") if name in given}
    flags = {name: str(value) for name, value in given.items()}
    if precision == "int8":
        flags |= {"int8": "yes", "row_max": "yes"}
    sizes = {"B": b, "V": v, "K": k, "G": b, "W": 1}
    case = one.spec.case(sizes, precision, flags, memory)
    chosen = Config(**{**dict(one.spec.default_config(TARGET)), **config})
    return check.Job(one, AscendC(), TARGET, case, chosen, seed)


def given_logits(asked: check.Job, logits: torch.Tensor) -> Inputs:
    """The inputs of a job with these logits."""
    precision = asked.family.spec.precision(asked.case.precision)
    value = logits.to(precision.dtypes["logits"].torch())
    drawn = draw(asked.family, asked.case, asked.seed)
    return from_logical(asked.family, asked.case, {**drawn.logical, "logits": value})


def right(asked: check.Job, logits: torch.Tensor | None = None) -> None:
    """The outputs are the reference's, and the twin found nothing."""
    row = check.run(asked, None if logits is None else given_logits(asked, logits))
    assert row.ok, f"{asked.case}: {row.reason}"


def launch(asked: check.Job, tensors: dict[str, torch.Tensor | None]) -> None:
    adapter = AscendC().adapter(asked.family)
    adapter.launch(tensors, asked.case, asked.config, asked.target, native.library("twin"))


def results(asked: check.Job, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = given_logits(asked, logits)
    outputs = make_outputs(asked.family, asked.case, inputs)
    launch(asked, {**inputs.physical, **outputs})
    return outputs["ids"], outputs["probs"]


@cache
def _schedule(seed: int) -> How:
    return How(schedule=("program", "timeline", "random")[seed % 3], seed=seed)


@MANY
@given(
    st.integers(0, 70),
    st.one_of(st.integers(1, 600), st.integers(1, 20000)),
    st.integers(0, 64),
    st.sampled_from((*FLOATS, "int8")),
    st.sampled_from(("survivors", "row")),
    st.sampled_from(("no", "yes")),
    st.sampled_from(("0.0001", "0.7", "1", "30")),
    st.sampled_from(TILES),
    st.sampled_from((1, 5, 48)),
    st.sampled_from(("dense", "padded")),
    st.integers(0, 1000),
)
def test_any_shape(
    rows: int,
    columns: int,
    k: int,
    precision: str,
    softmax: str,
    int8: str,
    temperature: str,
    tile: int,
    cores: int,
    memory: str,
    seed: int,
) -> None:
    rows = min(rows, 200_000 // columns)
    flags = {"softmax": softmax, "int8": int8, "temperature": temperature}
    with running(_schedule(seed)):
        right(
            job(
                *(precision, rows, columns, min(k, columns)),
                memory=memory,
                seed=seed,
                tile_v=tile,
                cores=cores,
                **flags,
            )
        )


# --- where lists are cut ----------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 48])
@pytest.mark.parametrize("int8", ["no", "yes"])
@pytest.mark.parametrize("softmax", ["survivors", "row"])
def test_equal_logits_go_to_the_lower_id(cores: int, int8: str, softmax: str) -> None:
    generator = torch.Generator().manual_seed(1)
    # Few different values, so that each border of a list, a group, a tile and a share cuts through equals.
    logits = torch.randint(0, 3, (4, 9001), generator=generator).float()
    logits[1] = 2.5
    logits[2, :4000] = -math.inf
    logits[3] = torch.where(torch.arange(9001) % 997 == 996, 1.0, 0.0)
    for k in (1, 4, 31, 33, 64):
        right(job("fp32", 4, 9001, k, tile_v=1024, cores=cores, int8=int8, softmax=softmax), logits)


@pytest.mark.parametrize("int8", ["no", "yes"])
def test_special_values(int8: str) -> None:
    inf, nan = math.inf, math.nan
    logits = torch.randn(6, 3000, generator=torch.Generator().manual_seed(2))
    logits[0, 1500:] = nan
    logits[1, [3, 2999]] = inf
    logits[2] = -inf
    logits[3] = nan
    logits[4] = torch.where(torch.arange(3000) == 2047, -5.0, -inf)
    logits[5, ::2], logits[5, 1::2] = 0.0, -0.0
    for softmax in ("survivors", "row"):
        for cores in (1, 48):
            right(
                job("fp32", 6, 3000, 20, tile_v=1024, cores=cores, softmax=softmax, int8=int8),
                logits,
            )


def test_rows_without_a_candidate_give_the_lowest_ids() -> None:
    logits = torch.full((1, 2500), -math.inf)
    logits[0, 2400] = 1.0
    ids, probs = results(job("fp32", 1, 2500, 5, tile_v=1024), logits)
    assert ids.tolist() == [[2400, 0, 1, 2, 3]] and probs.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]


# --- batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", FLOATS)
@pytest.mark.parametrize("softmax", ["survivors", "row"])
@pytest.mark.parametrize("int8", ["no", "yes"])
def test_the_bits_of_a_row_do_not_depend_on_its_batch(
    precision: str, softmax: str, int8: str
) -> None:
    generator = torch.Generator().manual_seed(3)
    row = torch.randn(1, 20011, generator=generator) * 3
    flags = {"softmax": softmax, "int8": int8, "batch_invariant": "yes"}
    seen = None
    for rows, place in ((1, 0), (7, 5), (61, 60)):
        logits = torch.randn(rows, 20011, generator=generator)
        logits[place] = row
        ids, probs = results(job(precision, rows, 20011, 9, **flags), logits)
        found = ids[place].tolist(), probs[place].view(torch.int32).tolist()
        assert seen is None or found == seen
        seen = found


# --- time, room and refusals ------------------------------------------------------------------------


def test_top_64_of_4800_rows_is_modelled_below_the_published_time() -> None:
    asked = job("fp32", 4800, 1024, 64, softmax="survivors")
    found = model_family.predict(asked.family, asked.case, asked.config, TARGET)
    assert found.unresolved == 0 and found.findings == 0 and 0 < found.predicted_us <= 324.1


@pytest.mark.parametrize("precision", [*FLOATS, "int8"])
@pytest.mark.parametrize("int8", ["no", "yes"])
def test_no_flag_is_set_before_it_was_waited_for(precision: str, int8: str) -> None:
    for rows in (3, 70):
        asked = job(precision, rows, 50_000, 8, int8=int8)
        found = model_family.predict(asked.family, asked.case, asked.config, TARGET)
        assert found.unresolved == 0 and found.findings == 0 and found.predicted_us > 0


@MANY
@given(
    st.integers(1, 5000),
    st.integers(1, 300_000),
    st.integers(1, 64),
    st.sampled_from((1, 2, 4)),
    st.booleans(),
    st.sampled_from((1024, 2048, 4096, 8192)),
)
def test_whatever_is_not_refused_fits(
    rows: int, columns: int, k: int, element: int, coded: bool, wanted: int
) -> None:
    k = min(k, columns)
    coded = coded and element != 1
    kept = planning.survivors(k, columns) if coded else k
    assert planning.survivors(k, columns) == spec.survivors(k, columns)
    launch = planning.Launch(rows, columns, k, kept, columns, element, 1.0, True, False, coded)
    assert planning.refusal(launch, wanted, "910b1", 48) is None
    tile = planning.tile_of(launch, wanted)
    assert tile.size % 256 == 0 and tile.direct <= planning.MOST_SORTED
    assert planning.ub_bytes(launch, tile, planning.parts_of(launch, tile, 48)) <= UB


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("ids", (2, 5), "do not fit together"),
        ("probs", (3, 4), "do not fit together"),
        ("logits", (3, 100), "do not fit together"),
        ("logits", (2, 3), "ids has 4 results of 3 logits"),
        ("row_max", (2,), "row_max goes with logits of int8 codes"),
    ],
)
def test_tensors_that_do_not_fit(name: str, shape: tuple[int, int], words: str) -> None:
    asked = job("fp32", 2, 100, 4)
    inputs = draw(asked.family, asked.case, 0)
    tensors = {**inputs.physical, **make_outputs(asked.family, asked.case, inputs)}
    kind = torch.int32 if name == "ids" else torch.float32
    with pytest.raises(Refused, match=words):
        launch(asked, {**tensors, name: torch.zeros(shape, dtype=kind)})


def test_a_tile_that_does_not_fit_is_refused() -> None:
    launch = planning.Launch(1, 60_000, 4, 4, 60_000, 4, 1.0, True, False)
    assert str(UB) in (planning.refusal(launch, 32_768, "910b1", 48) or "")
    with pytest.raises(ValueError, match="UB"):
        planning.plan(launch, "fp32", 32_768, "910b1")
