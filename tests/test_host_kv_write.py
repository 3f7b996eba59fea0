"""The host kv_write at every ISA level: codes are the reference's bits, whatever the shape, slots and strides."""

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
from tilewright.kernels.kv_write.reference import page_runs
from tilewright.registry import family

FAMILY = family("kv_write")
SPEC = FAMILY.spec
PRECISIONS = tuple(p.name for p in SPEC.precisions)
BY_TOKEN = ("k", "v", "slots", "open_row")
FOUR_BITS = tuple(name for name in PRECISIONS if name.endswith("kv4"))
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
    precision = draw(st.sampled_from(PRECISIONS))
    unit = 4 if precision.endswith("kv4") else 1
    channels = st.integers(0, 140 // unit) | st.sampled_from((16 // unit, 64 // unit, 128 // unit))
    sizes = {
        "T": draw(st.integers(0, 70)),
        "HKV": draw(st.integers(0, 4) | st.just(1)),
        "DK": unit * draw(channels),
        "DV": unit * draw(channels),
        "P": draw(st.integers(0, 8)),
        "NS": draw(st.integers(0, 6)),
    }
    flags = {"kv_layout": draw(st.sampled_from(("nd", "nz")))}
    return SPEC.case(sizes, precision, flags, draw(st.sampled_from(("dense", "padded"))))


def case_of(precision: str, layout: str = "nd", **sizes: int) -> Case:
    default = {"T": 40, "HKV": 2, "DK": 44, "DV": 20, "P": 6, "NS": 5}
    return SPEC.case({**default, **sizes}, precision, {"kv_layout": layout})


@QUICK
@given(
    case=cases(), seed=st.integers(0, 2**16), threads=st.integers(1, 3), stream=st.integers(0, 2)
)
def test_every_case_is_exact(
    level: Level, case: Case, seed: int, threads: int, stream: int
) -> None:
    inputs = draw(FAMILY, case, seed)
    host_kv.check_exact(level, FAMILY, case, inputs, {"stream": stream}, threads)


@pytest.mark.parametrize("layout", ("nd", "nz"))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_elements_may_lie_apart(level: Level, precision: str, layout: str) -> None:
    """k and v transposed, or every third element; token scales with any strides."""
    case = case_of(precision, layout)
    inputs = draw(FAMILY, case, 5)

    def apart(name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in ("k", "v", "k_token_scale", "v_token_scale", "v_token_zero", "slots"):
            return value
        room = torch.zeros((*value.shape[::-1], 3), dtype=value.dtype)[..., 0]
        return room.permute(*range(value.dim())[::-1]).copy_(value)

    host_kv.check_exact(level, FAMILY, case, inputs, strided=apart)


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if "-" in p])
@pytest.mark.parametrize("size", (1e-30, 1.0, 3e4))
def test_magnitudes_from_tiny_to_huge(level: Level, precision: str, size: float) -> None:
    """Vectors of one magnitude, with exact halves between codes, and zeros: still the reference's bits."""
    case = case_of(precision, T=32, DK=64, DV=64)
    drawn = draw(FAMILY, case, 7)
    generator = torch.Generator().manual_seed(11)
    logical = dict(drawn.logical)
    for name in ("k", "v"):
        value = logical[name]
        assert value is not None
        # Multiples of half a code under the scale that 127 halves give: every tie there is.
        x = torch.randint(-254, 255, value.shape, generator=generator) / 2 * size / 127
        logical[name] = x.clamp(-6e4, 6e4).to(value.dtype)
    host_kv.check_exact(level, FAMILY, case, from_logical(FAMILY, case, logical))


@pytest.mark.parametrize("precision", FOUR_BITS)
def test_a_page_written_in_steps_is_the_page_written_at_once(level: Level, precision: str) -> None:
    """Decoding token by token, in any chunks, gives the bits of a prefill; the open page holds the rest."""
    once = case_of(precision, T=37, P=4, NS=2)
    drawn = draw(FAMILY, once, 1)
    slots = torch.arange(16, 16 + 37, dtype=torch.int32)
    row = torch.ones(37, dtype=torch.int32)
    whole = from_logical(FAMILY, once, {**drawn.logical, "slots": slots, "open_row": row})
    expected = host_kv.check_exact(level, FAMILY, once, whole).outputs
    state = dict(whole.logical)
    at = 0
    for count in (3, 1, 12, 7, 9, 4, 1):
        case = case_of(precision, T=count, P=4, NS=2)
        part = {n: whole.logical[n] for n in ("k", "v", "slots", "open_row")}
        logical = {**state, **{n: v[at : at + count] for n, v in part.items() if v is not None}}
        ran = host_kv.check_exact(level, FAMILY, case, from_logical(FAMILY, case, logical))
        state.update(ran.outputs)
        at += count
    for name, value in expected.items():
        after = state[name]
        assert after is not None
        if name == "k_open":
            value, after = value[1, :5], after[1, :5]
        assert host_kv.same_bits(value, after), name


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if "-" in p])
def test_values_without_a_code_harm_no_other_vector(level: Level, precision: str) -> None:
    """Infinities and NaN: what their own vector becomes is unspecified, every other one is exact."""
    case = case_of(precision, "nz", T=48, P=5, NS=4)
    drawn = draw(FAMILY, case, 2)
    slots = torch.arange(0, 48, dtype=torch.int32)
    logical = {**drawn.logical, "slots": slots, "open_row": torch.zeros_like(slots)}
    if not precision.endswith("kv4"):
        del logical["open_row"]
    clean = level.launch(FAMILY, case, from_logical(FAMILY, case, logical))
    for name in ("k", "v"):
        value = logical[name]
        assert value is not None
        value = value.clone()
        value[20, 1, 3], value[21, 1, 4], value[22, 1, 0] = torch.nan, torch.inf, -torch.inf
        logical[name] = value
    ran = level.launch(FAMILY, case, from_logical(FAMILY, case, logical))
    assert ran.status == host_kv.OK, ran.error
    for name in ("k_cache", "v_cache"):
        # Head 1 of page 1 holds them; the other heads and pages are as before.
        for page, head in ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1)):
            same = host_kv.same_bits(ran.outputs[name][page, head], clean.outputs[name][page, head])
            assert same, (name, page, head)


def refused(case: Case, **others: torch.Tensor) -> str:
    """The sentence of a refusal; nothing may have been written."""
    inputs = draw(FAMILY, case, 0)
    inputs = Inputs({}, {**inputs.physical, **others})
    ran = Level("native", "scalar").launch(FAMILY, case, inputs, threads=2)
    assert ran.status == host_kv.REFUSED
    for name, after in ran.outputs.items():
        before = inputs.physical[name]
        assert before is not None and host_kv.same_bits(before, after), name
    return ran.error


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize("precision", ("bf16", "fp32-c8s", "fp16-c8d", "bf16-kv4"))
def test_slots_are_refused_before_memory_is_touched(precision: str) -> None:
    case = case_of(precision, T=3)
    assert refused(case, slots=ints(1, 2, 96)).startswith("slots[2] is 96; accepted: -1 (skipped)")
    assert refused(case, slots=ints(-3, 2, 4)).startswith("slots[0] is -3; accepted")
    assert (
        refused(case, slots=ints(5, 6, 5))
        == "slots[0] and slots[2] are both 5; accepted: every slot once"
    )


def test_open_pages_are_refused_before_memory_is_touched() -> None:
    case = case_of("fp32-kv4", T=4)
    slots = ints(16, 17, 40, 41)
    assert (
        refused(case, slots=slots, open_row=ints(0, 0, 5, 5))
        == "open_row[2] is 5; accepted: 0 to 4"
    )
    assert "accepted: one row for tokens of one page" in refused(
        case, slots=slots, open_row=ints(0, 1, 2, 2)
    )
    assert "that both need row 3" in refused(case, slots=slots, open_row=ints(3, 3, 3, 3))
    # A sequence that closes a page begun before and goes on in the next one.
    assert "that both need row 1" in refused(
        case, slots=ints(30, 31, 32, 33), open_row=ints(1, 1, 1, 1)
    )
    apart = refused(case, slots=ints(16, 18, -1, -1), open_row=ints(0, 0, -1, -1))
    assert "both of page 1, and others stand between them" in apart
    assert "neighbours in ascending order" in refused(
        case, slots=ints(17, 16, -1, -1), open_row=ints(0, 0, -1, -1)
    )


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    (
        (
            "k_cache",
            torch.zeros(7, 16, 2, 44, dtype=torch.int8),
            'dimension 0 of "v_cache" is 6, expected 7',
        ),
        ("v_cache", torch.zeros(6, 16, 2, 20), 'tensor "v_cache" is fp32, expected int8'),
        (
            "k_channel_scale",
            torch.zeros(2, 45),
            'dimension 1 of "k_channel_scale" is 45, expected 44',
        ),
        ("v", torch.zeros(40, 3, 20, dtype=torch.bfloat16), 'dimension 1 of "v" is 3, expected 2'),
        (
            "k",
            torch.zeros(40, 2, 44, dtype=torch.int8),
            'tensor "k" is int8; accepted: fp32, bf16, fp16',
        ),
    ),
)
def test_wrong_tensors_are_refused(name: str, wrong: torch.Tensor, sentence: str) -> None:
    case = case_of("bf16-c8s")
    inputs = draw(FAMILY, case, 0)

    def other(tensor: str, value: torch.Tensor) -> torch.Tensor:
        return wrong if tensor == name else value

    ran = Level("native", "scalar").launch(FAMILY, case, inputs, strided=other)
    assert (ran.status, ran.error) == (host_kv.REFUSED, sentence)


def test_four_bits_need_channels_in_fours() -> None:
    with pytest.raises(UsageError, match="DV=18 with kv=kv4; accepted: multiples of 4"):
        case_of("bf16-kv4", DV=18)


def test_bits_do_not_depend_on_threads(level: Level) -> None:
    for precision in ("fp32", "bf16-c8d", "fp16-kv4"):
        case = case_of(precision, "nz", T=600, DK=64, DV=64, P=60, NS=9)
        inputs = draw(FAMILY, case, 1)
        first = level.launch(FAMILY, case, inputs).outputs
        for threads in (2, 5):
            other = level.launch(FAMILY, case, inputs, threads=threads).outputs
            assert all(host_kv.same_bits(first[name], other[name]) for name in first)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_does_not_depend_on_its_batch(level: Level, precision: str) -> None:
    """Every page's tokens in a call of their own, last first, leave the bits that the batch leaves."""
    sizes = {"HKV": 2, "DK": 64, "DV": 36, "P": 8, "NS": 40}
    flags = {"kv_layout": "nz", "batch_invariant": "yes"}
    case = SPEC.case({"T": 40, **sizes}, precision, flags)
    inputs = draw(FAMILY, case, 9)
    together = level.launch(FAMILY, case, inputs)
    assert together.status == host_kv.OK, together.error
    slots = inputs.logical["slots"]
    assert slots is not None
    state = dict(inputs.physical)
    for run in reversed(page_runs(slots)):
        here = slice(run.token, run.token + run.count)
        own = {n: v[here] for n, v in inputs.physical.items() if v is not None and n in BY_TOKEN}
        alone = SPEC.case({"T": run.count, **sizes}, precision, flags)
        ran = level.launch(FAMILY, alone, Inputs({}, {**state, **own}))
        assert ran.status == host_kv.OK, ran.error
        state.update(ran.outputs)
    for name, value in together.outputs.items():
        after = state[name]
        assert after is not None and host_kv.same_bits(value, after), name
