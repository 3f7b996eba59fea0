"""The host nz_kv at every ISA level: an exact round trip for every type, tail, stride and slot list."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from native import host_kv, host_lib
from native.host_kv import Level
from tilewright.cases import Case
from tilewright.inputs import Inputs, draw, from_logical
from tilewright.registry import family

FAMILY = family("nz_kv")
SPEC = FAMILY.spec
TYPES = tuple(p.name for p in SPEC.precisions)
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=host_kv.RUNS, ids=lambda run: "-".join(run))
def level(request: pytest.FixtureRequest) -> Level:
    build, name = request.param
    if not host_kv.usable(build, name):
        pytest.skip(f"this CPU lacks {name}; its algorithms run emulated")
    return Level(build, name)


@st.composite
def cases(draw: Callable[..., int]) -> Case:
    sizes = {
        "T": draw(st.integers(0, 70)),
        "HKV": draw(st.integers(0, 5) | st.just(1)),
        "D": draw(st.integers(0, 140) | st.sampled_from((16, 32, 64, 128))),
        "P": draw(st.integers(0, 8)),
    }
    flags = {"direction": draw(st.sampled_from(("write", "read")))}
    memory = draw(st.sampled_from(("dense", "padded")))
    return SPEC.case(sizes, draw(st.sampled_from(TYPES)), flags, memory)


def case_of(precision: str = "bf16", direction: str = "write", **sizes: int) -> Case:
    return SPEC.case(
        {"T": 5, "HKV": 2, "D": 33, "P": 3, **sizes}, precision, {"direction": direction}
    )


@QUICK
@given(
    case=cases(), seed=st.integers(0, 2**16), threads=st.integers(1, 3), stream=st.integers(0, 2)
)
def test_every_case_is_exact(
    level: Level, case: Case, seed: int, threads: int, stream: int
) -> None:
    inputs = draw(FAMILY, case, seed)
    host_kv.check_exact(level, FAMILY, case, inputs, {"stream": stream}, threads)


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("d", (1, 31, 64, 100))
def test_what_is_written_is_read_back_bit_by_bit(level: Level, precision: str, d: int) -> None:
    """Every bit pattern there is, NaN with its payload among them; prompts over many pages on two threads."""
    case = case_of(precision, T=333, HKV=3, D=d, P=40)
    inputs = draw(FAMILY, case, d)
    x = inputs.physical["x"]
    assert x is not None
    bits = torch.randint(-(2**31), 2**31, x.shape, generator=torch.Generator().manual_seed(d))
    x = bits.to(host_kv.BITS[x.element_size()]).view(x.dtype)
    given_ = {**inputs.logical, "x": x}
    ran = level.launch(FAMILY, case, from_logical(FAMILY, case, given_), {"stream": 1}, threads=2)
    assert ran.status == host_kv.OK, ran.error
    read = case_of(precision, "read", T=333, HKV=3, D=d, P=40)
    back = level.launch(
        FAMILY, read, Inputs({}, {**inputs.physical, "pages": ran.outputs["pages"]}), threads=2
    )
    assert back.status == host_kv.OK, back.error
    slots = inputs.logical["slots"]
    assert slots is not None
    kind = host_kv.BITS[x.element_size()]
    there = slots >= 0
    assert torch.equal(back.outputs["y"].view(kind)[there], x.view(kind)[there])
    assert not back.outputs["y"].view(kind)[~there].any()


@pytest.mark.parametrize("direction", ("write", "read"))
@pytest.mark.parametrize("precision", TYPES)
def test_elements_may_lie_apart(level: Level, precision: str, direction: str) -> None:
    """Rows transposed, reversed in memory order, or every third element: any strides of x and y."""
    case = case_of(precision, direction, T=40, D=45, P=5)
    inputs = draw(FAMILY, case, 3)

    def apart(name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in ("x", "y"):
            return value
        room = torch.zeros((45, 2, 3 * 40), dtype=value.dtype)
        placed = room[:, :, ::3].permute(2, 1, 0)
        return placed.copy_(value)

    host_kv.check_exact(level, FAMILY, case, inputs, strided=apart)


@pytest.mark.parametrize("name", host_lib.LEVELS)
def test_every_level_is_there(name: str) -> None:
    if not host_kv.usable("native", name):
        pytest.skip(f"this CPU lacks {name}")
    for each in host_kv.FAMILIES:
        found = family(each)
        case = next(iter(found.spec.check_cases(found.spec.precisions[-1])))
        host_kv.check_exact(Level("native", name), found, case, draw(found, case, 0))


def test_tokens_of_a_page_are_written_where_they_are(level: Level) -> None:
    """One token touches its own 32 bytes of each block and nothing else."""
    case = case_of("fp16", T=1, HKV=2, D=40, P=2)
    drawn = draw(FAMILY, case, 0)
    logical = {**drawn.logical, "slots": torch.tensor([16 + 5], dtype=torch.int32)}
    inputs = from_logical(FAMILY, case, logical)
    before = inputs.physical["pages"]
    assert before is not None
    after = level.launch(FAMILY, case, inputs).outputs["pages"]
    changed = (before != after).nonzero()
    assert set(changed[:, 0].tolist()) == {1} and set(changed[:, 3].tolist()) == {5}


def refused(case: Case, **others: torch.Tensor | None) -> str:
    """The sentence of a refusal; nothing may have been written."""
    inputs = draw(FAMILY, case, 0)
    inputs = Inputs({}, {**inputs.physical, **others})
    ran = Level("native", "scalar").launch(FAMILY, case, inputs, threads=2)
    assert ran.status == host_kv.REFUSED
    before = inputs.physical["pages"]
    assert before is not None and host_kv.same_bits(before, ran.outputs["pages"])
    return ran.error


def slots(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_slots_are_refused_before_memory_is_touched() -> None:
    case = case_of(T=4)
    ranged = "accepted: -1 (skipped) or 0 to 47 for 3 pages"
    assert refused(case, slots=slots(1, 2, 3, 48)) == f"slots[3] is 48; {ranged}"
    assert refused(case, slots=slots(1, 2, -2, 4)) == f"slots[2] is -2; {ranged}"
    twice = "are both 17; accepted: every slot once"
    assert refused(case, slots=slots(17, 3, 18, 17)) == f"slots[0] and slots[3] {twice}"
    assert refused(case, slots=slots(3, 16, 17, 17)) == f"slots[2] and slots[3] {twice}"
    assert refused(case, slots=slots(1, 2, 3)).startswith('dimension 0 of "slots" is 3, expected 4')
    wide = slots(1, 2, 3, 4).to(torch.int64)
    assert refused(case, slots=wide) == 'tensor "slots" is int64, expected int32'


def test_a_slot_may_be_read_twice(level: Level) -> None:
    case = case_of("int8", "read", T=4)
    drawn = draw(FAMILY, case, 0)
    inputs = from_logical(FAMILY, case, {**drawn.logical, "slots": slots(5, -1, 5, 4)})
    host_kv.check_exact(level, FAMILY, case, inputs)


def test_pages_that_are_not_aligned_or_not_dense_are_refused() -> None:
    case = case_of("fp32", T=4, D=16)
    pages = draw(FAMILY, case, 0).physical["pages"]
    assert pages is not None
    room = torch.zeros(pages.numel() + 1)
    shifted = room[1:].view(pages.shape)
    sentence = Level("native", "scalar").launch(
        FAMILY,
        case,
        draw(FAMILY, case, 0),
        strided=lambda name, value: shifted if name == "pages" else value,
    )
    assert sentence.status == host_kv.REFUSED and "accepted: aligned to 64 bytes" in sentence.error
    swapped = Level("native", "scalar").launch(
        FAMILY,
        case,
        draw(FAMILY, case, 0),
        strided=lambda name, value: (
            value.transpose(1, 2).contiguous().transpose(1, 2) if name == "pages" else value
        ),
    )
    assert swapped.status == host_kv.REFUSED and "pages are dense" in swapped.error


def test_bits_do_not_depend_on_threads_or_stores(level: Level) -> None:
    case = case_of("bf16", T=600, HKV=4, D=64, P=60)
    inputs = draw(FAMILY, case, 1)
    results = [
        level.launch(FAMILY, case, inputs, {"stream": stream}, threads).outputs["pages"]
        for threads in (1, 2, 5)
        for stream in (0, 1)
    ]
    assert all(host_kv.same_bits(results[0], other) for other in results)


def test_where_a_token_stands_in_a_batch_does_not_matter(level: Level) -> None:
    """Every token alone, in a call of its own, leaves the bytes that the batch leaves."""
    flags = {"direction": "write", "batch_invariant": "yes"}
    case = SPEC.case({"T": 30, "HKV": 2, "D": 40, "P": 4}, "bf16", flags)
    inputs = draw(FAMILY, case, 3)
    together = level.launch(FAMILY, case, inputs).outputs["pages"]
    alone = SPEC.case({"T": 1, "HKV": 2, "D": 40, "P": 4}, "bf16", flags)
    pages = inputs.physical["pages"]
    for token in range(30):
        one = {n: v[token : token + 1] for n, v in inputs.physical.items() if v is not None}
        ran = level.launch(FAMILY, alone, Inputs({}, {**one, "pages": pages}))
        assert ran.status == host_kv.OK, ran.error
        pages = ran.outputs["pages"]
    assert pages is not None and host_kv.same_bits(together, pages)
