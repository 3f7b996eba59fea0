"""beam_topk: kernels against sorting, codes, beams, special values, levels, batches, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright import native
from tilewright.backends.host import view
from tilewright.cases import Case
from tilewright.errors import Refused, UsageError
from tilewright.inputs import Inputs, draw, empty_outputs, reference_outputs
from tilewright.kernels.beam_topk.reference import agreement, codes
from tilewright.numerics import compare
from tilewright.registry import family

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Tensors = dict[str, torch.Tensor | None]


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    yield
    native.module().force_level(None)


def call(
    tensors: Tensors,
    softmax: str = "row",
    int8: bool = False,
    temperature: float = 1.0,
    eos: int = 0,
    threads: int = 1,
) -> None:
    """One call of the host kernel."""
    flags = {
        "softmax": softmax,
        "int8": "yes" if int8 else "no",
        "temperature": str(temperature),
        "eos": str(eos),
    }
    attributes = {}
    for flag in family("beam_topk").spec.flags:
        value = flags.get(flag.name, flag.default)
        attributes[flag.name] = bits(float(value)) if flag.numeric else flag.values.index(value)
    views = [view(name, value) for name, value in tensors.items()]
    address = native.host_function(family("beam_topk"))
    native.module().prepare(address, views, attributes, threads).run()


def bits(number: float) -> int:
    return int(torch.tensor(number, dtype=torch.float64).view(torch.int64))


def top(
    logits: torch.Tensor,
    k: int,
    row_max: torch.Tensor | None = None,
    softmax: str = "row",
    int8: bool = False,
    temperature: float = 1.0,
    threads: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = logits.shape[0]
    ids, probs = torch.full((rows, k), -7, dtype=torch.int32), torch.full((rows, k), math.nan)
    tensors: Tensors = {"logits": logits, "row_max": row_max, "ids": ids, "probs": probs}
    call(
        {n: t for n, t in tensors.items() if t is not None}, softmax, int8, temperature, 0, threads
    )
    return ids, probs


def step(
    logits: torch.Tensor,
    scores: torch.Tensor,
    finished: torch.Tensor,
    k: int,
    eos: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (scores.shape[0], k)
    beam, token = (torch.full(shape, -7, dtype=torch.int32) for _ in range(2))
    score = torch.full(shape, math.nan)
    call(
        {
            "logits": logits, "scores": scores, "finished": finished,
            "next_beam": beam, "next_id": token, "next_score": score,
        },
        eos=eos,
    )  # fmt: skip
    return beam, token, score


def normal(rows: int, vocabulary: int, seed: int = 0, kind: str = "fp32") -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, vocabulary, generator=generator) * 3).to(KINDS[kind])


def sizes_of(data: st.DataObject) -> dict[str, int]:
    groups, beams = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 5))
    vocabulary = data.draw(st.one_of(st.integers(1, 40), st.integers(250, 1100)))
    k = data.draw(st.integers(0, min(64, vocabulary)))
    return {"B": groups * beams, "V": vocabulary, "K": k, "G": groups, "W": beams}


def drawn_case(
    data: st.DataObject, precision: str, row: bool, coarse: bool, is_step: bool, memory: str
) -> Case:
    sizes = sizes_of(data)
    flags = {
        "softmax": "row" if is_step or row else "survivors",
        "step": "yes" if is_step else "no",
        "int8": "yes" if coarse or precision == "int8" else "no",
        "temperature": data.draw(st.sampled_from(("1", "0.3", "5"))),
        "eos": str(data.draw(st.integers(0, sizes["V"] - 1))),
    }
    return family("beam_topk").spec.case(sizes, precision, flags, memory)


def assert_right(case: Case, inputs: Inputs, outputs: dict[str, torch.Tensor]) -> None:
    one = family("beam_topk")
    for name, want in reference_outputs(one, case, inputs).items():
        bound, unit = one.spec.tolerance_of(name, case), one.spec.unit_of(name)
        found = compare(outputs[name], want, bound, unit)
        assert found.ok, (name, case, found.reason)


CASES = {
    "data": st.data(),
    "precision": st.sampled_from(("fp32", "bf16", "fp16", "int8")),
    "row": st.booleans(),
    "coarse": st.booleans(),
    "is_step": st.booleans(),
    "memory": st.sampled_from(("dense", "padded")),
    "seed": st.integers(0, 10_000),
}


@settings(max_examples=150, deadline=None)
@given(level=st.integers(0, 9), **CASES)
def test_any_case_is_its_reference(
    data: st.DataObject,
    precision: str,
    row: bool,
    coarse: bool,
    is_step: bool,
    memory: str,
    level: int,
    seed: int,
) -> None:
    one, case = family("beam_topk"), drawn_case(data, precision, row, coarse, is_step, memory)
    inputs, outputs = draw(one, case, seed), empty_outputs(one, case)
    levels = native.module().cpu_levels()
    native.module().force_level(levels[level % len(levels)])
    tensors = {n: t for n, t in {**inputs.physical, **outputs}.items() if t is not None}
    numbers = case.number("temperature"), int(case.number("eos"))
    call(tensors, case.flags["softmax"], coarse and precision != "int8", *numbers, 2)
    assert_right(case, inputs, outputs)


@settings(max_examples=12, deadline=None)
@given(**CASES)
def test_triton_agrees_too(
    data: st.DataObject,
    precision: str,
    row: bool,
    coarse: bool,
    is_step: bool,
    memory: str,
    seed: int,
) -> None:
    pytest.importorskip("triton")
    one, case = family("beam_topk"), drawn_case(data, precision, row, coarse, is_step, memory)
    inputs, outputs = draw(one, case, seed), empty_outputs(one, case)
    config = {"block": 256, "num_warps": 4, "num_stages": 1}
    tensors = {**inputs.physical, **outputs}
    one.module("triton").launch(tensors, case.flags, config, interpret=True)
    assert_right(case, inputs, outputs)


def test_triton_refuses_blocks_that_do_not_hold_the_results() -> None:
    from tilewright.kernels.beam_topk import triton as gpu

    tensors: Tensors = {
        "logits": normal(1, 200),
        "ids": torch.zeros(1, 64, dtype=torch.int32),
        "probs": torch.zeros(1, 64),
    }
    for block in (32, 100):
        with pytest.raises(Refused, match=f"powers of two from 64 for block, not {block}"):
            gpu.launch(
                tensors, {}, {"block": block, "num_warps": 1, "num_stages": 1}, interpret=True
            )
    with pytest.raises(Refused, match="64 results; accepted: up to 20"):
        config = {"block": 256, "num_warps": 1, "num_stages": 1}
        gpu.launch({**tensors, "logits": normal(1, 20)}, {}, config, interpret=True)


def test_the_largest_sizes() -> None:
    logits = normal(16, 262144, 9)
    ids, probs = top(logits, 64, threads=2)
    want = torch.sort(torch.softmax(logits.double(), dim=1), descending=True, stable=True)
    values = logits.gather(1, ids.long())
    assert torch.equal(values, logits.gather(1, want.indices[:, :64]))
    assert torch.allclose(probs.double(), want.values[:, :64], rtol=1e-5)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("softmax", ["row", "survivors"])
def test_bits_do_not_depend_on_mates_places_or_threads(kind: str, softmax: str) -> None:
    logits = normal(16, 5003, 1, kind)
    ids, probs = top(logits, 8, softmax=softmax)
    for threads in (2, 3, 16):
        again = top(logits, 8, softmax=softmax, threads=threads)
        assert torch.equal(ids, again[0])
        assert torch.equal(probs, again[1])
    for row in (0, 7, 15):
        alone = top(logits[row : row + 1], 8, softmax=softmax)
        assert torch.equal(ids[row : row + 1], alone[0])
        assert torch.equal(probs[row : row + 1], alone[1])


def test_levels_choose_the_same_ids() -> None:
    for kind in KINDS:
        logits = normal(3, 3001, 2, kind)
        found = []
        for level in native.module().cpu_levels():
            native.module().force_level(level)
            found.append(top(logits, 33))
        for ids, probs in found:
            assert torch.equal(ids, found[0][0])
            assert torch.allclose(probs, found[0][1], rtol=2e-6, atol=0)


def test_of_equal_logits_the_lower_ids_come_first() -> None:
    for vocabulary in (64, 257, 4096):
        ids, probs = top(torch.full((2, vocabulary), 1.5), 64)
        assert torch.equal(ids, torch.arange(64, dtype=torch.int32).expand(2, 64))
        assert torch.allclose(probs, torch.tensor(1.0 / vocabulary), rtol=1e-6)
    # Ascending and descending rows are the longest and the shortest way through the candidates.
    ramp = torch.arange(10_000, dtype=torch.float32)[None]
    assert torch.equal(top(ramp, 64)[0][0], torch.arange(9999, 9935, -1, dtype=torch.int32))
    assert torch.equal(top(-ramp, 64)[0][0], torch.arange(64, dtype=torch.int32))


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("softmax", ["row", "survivors"])
def test_special_values(softmax: str, int8: bool) -> None:
    lowest, largest, nothing = -math.inf, math.inf, math.nan
    ids, probs = top(
        torch.tensor(
            [
                [lowest] * 6,
                [lowest, nothing, lowest, 3.0, lowest, lowest],
                [nothing] * 6,
                [1.0, largest, 2.0, largest, nothing, lowest],
                [-1e38, 1e38, lowest, -1e38, 1e38, 3e38],
            ]
        ),
        4,
        softmax=softmax,
        int8=int8,
    )
    assert ids.tolist() == [[0, 1, 2, 3], [3, 0, 1, 2], [0, 1, 2, 3], [1, 3, 2, 0], [5, 1, 4, 0]]
    zero = [0.0] * 4
    assert probs.tolist() == [zero, [1, 0, 0, 0], zero, [0.5, 0.5, 0, 0], [1, 0, 0, 0]]


def test_codes_are_what_they_are_defined_as() -> None:
    x = torch.tensor([[5.0, 5.0 - 16, 5.0 - 15.9, -100.0, -math.inf, 5.0 - 1 / 15.9375]])
    assert codes(x.double()).tolist() == [[127, -128, -126, -128, -129, 126]]


def test_int8_finds_nearly_what_the_exact_way_finds() -> None:
    logits = normal(64, 49152, 3)
    for k in (1, 4, 8, 64):
        exact, coarse = (top(logits, k, int8=int8)[0] for int8 in (False, True))
        same = (exact[:, :, None] == coarse[:, None, :]).any(dim=2).double().mean()
        assert float(same) == pytest.approx(agreement(logits, k))
        assert same >= 0.99


def test_rows_and_columns_may_be_strided() -> None:
    logits = normal(9, 600, 4)
    want = top(logits, 5)
    turned = logits.T.contiguous().T
    assert turned.stride(1) == 9
    for found, right in zip(top(turned, 5), want, strict=True):
        assert torch.equal(found, right)


def test_given_codes_and_their_largest() -> None:
    generator = torch.Generator().manual_seed(5)
    q = torch.randint(-128, 128, (3, 700), generator=generator).to(torch.int8)
    ids, probs = top(q, 6, row_max=torch.tensor([4.0, -math.inf, math.nan]))
    weights = torch.softmax((q[0].double() - 127) * 16 / 255, dim=0)
    best, at = torch.sort(weights, descending=True, stable=True)
    assert ids[0].tolist() == at[:6].tolist()
    assert torch.allclose(probs[0].double(), best[:6], rtol=1e-6)
    assert ids[1:].tolist() == [list(range(6))] * 2
    assert not probs[1:].any()


def test_a_finished_beam_goes_on_with_the_end_only() -> None:
    logits = normal(2, 50, 6)
    scores, finished = torch.tensor([[-0.5, -1.0]]), torch.tensor([[1, 0]], dtype=torch.int8)
    beam, token, score = step(logits, scores, finished, 60, eos=9)
    assert (beam[0, 0], token[0, 0], float(score[0, 0])) == (0, 9, -0.5)
    assert (beam[0, 1:51] == 1).all()
    want = torch.sort(torch.log_softmax(logits[1].double(), 0) - 1.0, descending=True)
    assert torch.equal(token[0, 1:51].long(), want.indices)
    assert torch.allclose(score[0, 1:51].double(), want.values, rtol=1e-6)
    assert torch.isneginf(score[0, 51:]).all()
    assert token[0, 51:].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_beams_of_no_score_are_not_gone_on_with() -> None:
    logits = normal(1, 40, 7).expand(3, 40)
    scores = torch.tensor([[-math.inf, 0.0, math.nan]])
    beam, token, score = step(logits, scores, torch.zeros(1, 3, dtype=torch.int8), 8)
    assert (beam == 1).all()
    assert torch.equal(token, top(logits[:1], 8)[0])
    assert torch.isfinite(score).all()
    # Equal beams: the lower one first.
    beam, _, _ = step(logits, torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.int8), 6)
    assert beam.tolist() == [[0, 1, 2, 0, 1, 2]]


def test_refusals_come_before_memory_is_touched() -> None:
    logits, untouched = normal(4, 20), torch.full((4, 3), 7.0)
    ids = torch.full((4, 3), 7, dtype=torch.int32)
    scores, finished = torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int8)

    def refused(sentence: str, **changed: torch.Tensor | float | str) -> None:
        options = {k: v for k, v in changed.items() if not isinstance(v, torch.Tensor)}
        tensors: Tensors = {"logits": logits}
        tensors |= {} if "next_id" in changed else {"ids": ids, "probs": untouched}
        tensors |= {k: v for k, v in changed.items() if isinstance(v, torch.Tensor)}
        with pytest.raises(Refused, match=sentence):
            call(tensors, **options)  # type: ignore[arg-type]
        assert (untouched == 7).all()
        assert (ids == 7).all()

    refused('"logits" is int32; accepted: fp32', logits=logits.to(torch.int32))
    refused('int8 logits need "row_max"', logits=logits.to(torch.int8))
    refused('goes with int8 logits; "logits" is fp32', row_max=torch.zeros(4))
    refused("temperature is 0; accepted", temperature=0.0)
    refused('"ids" is int64, expected int32', ids=ids.long())
    refused('dimension 0 of "probs" is 3, expected 4', probs=untouched[:3])
    refused('make elements of "probs" overlap', probs=untouched[:1].expand(4, 3))
    refused("3 results are asked for; accepted: up to 2", logits=logits[:, :2].contiguous())
    beams = {"next_beam": ids[:2], "next_id": ids[2:], "next_score": untouched[:2]}
    refused(
        "eos is 20; accepted: a token, 0 to 19", scores=scores, finished=finished, eos=20, **beams
    )
    refused("of 1 groups of 2 beams", scores=scores[:1], finished=finished[:1], **beams)
    refused("softmax=row", scores=scores, finished=finished, softmax="survivors", **beams)
    refused('"finished" is fp32, expected int8', scores=scores, finished=scores, **beams)


def test_the_spec_refuses_what_does_not_go_together() -> None:
    sizes = {"B": 4, "V": 10, "K": 4, "G": 2, "W": 2}
    for changed, flags, sentence in (
        ({"K": 65}, {}, "K=65 is above 64"),
        ({"K": 11}, {}, "K=11 results cannot be had of V=10"),
        ({"K": 21}, {"step": "yes"}, "K=21 results cannot be had of 2 beams"),
        ({"G": 3}, {"step": "yes"}, "B=4 is not G=3 groups of W=2 beams"),
        ({}, {"step": "yes", "softmax": "survivors"}, "goes with softmax=row only"),
        ({}, {"step": "yes", "eos": "10"}, "eos=10 is no token of V=10"),
        ({}, {"temperature": "0"}, "temperature=0 is not from"),
    ):
        with pytest.raises(UsageError, match=sentence):
            family("beam_topk").spec.case({**sizes, **changed}, "fp32", flags)


def test_the_torch_op() -> None:
    from tilewright.bindings.torch.ops import torch_op

    op = torch_op(family("beam_topk"))
    logits = normal(4, 300, 8)
    ids, probs, *_ = op(logits, K=5, temperature=0.5)
    want = top(logits, 5, temperature=0.5)
    assert torch.equal(ids, want[0])
    assert torch.equal(probs, want[1])
    scores, finished = torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int8)
    _, _, *found = op(logits, K=5, scores=scores, finished=finished)
    for got, right in zip(found, step(logits, scores, finished, 5), strict=True):
        assert torch.equal(got, right)


def test_check_reports_how_often_codes_find_the_exact_results() -> None:
    from tilewright import check
    from tilewright.kernels.beam_topk import reference

    beam = family("beam_topk")
    sizes = {"B": 4, "V": 5000, "K": 8, "G": 2, "W": 2}
    for step in ("no", "yes"):
        chosen = {"int8": "yes", "step": step}
        (job,) = check.jobs([beam], ["host"], ["cpu"], ["fp32"], sizes, chosen)
        row = check.run(job)
        assert row.ok and 0 <= row.report["agreement"] <= 1
    (job,) = check.jobs([beam], ["host"], ["cpu"], ["fp32"], sizes, {"int8": "no"})
    assert check.run(job).report == {}
    below = torch.tensor([[0.0, 1.0, 20.0, 30.0], [0.0, 1.0, 2.0, 3.0]])
    wanted = torch.tensor([[0, 2], [0, 1]])
    assert reference.shares(wanted, wanted, below) == {
        "agreement": 1.0,
        "agreement_in_window": 1.0,
    }
    told = reference.shares(torch.tensor([[0, 3], [1, 0]]), wanted, below)
    assert told == {"agreement": 0.75, "agreement_in_window": 1.0}
    assert "agreement_in_window" not in reference.shares(wanted[:1], wanted[:1], below[:1])
    assert reference.shares(wanted[:, :0], wanted[:, :0], below) == {}
