"""The host kernel of attention at every ISA level: those this CPU has, and all of them emulated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from native.host_attention import REFUSED, RUNS, TORCH, Call, Level

QUICK = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
D = (32, 64, 80, 96, 128, 192, 256, 33, 7, 1)
BEST = Level("native", "avx2")


@pytest.fixture(params=RUNS, ids=lambda run: "-".join(run))
def level(request: pytest.FixtureRequest) -> Level:
    found = Level(*request.param)
    if not found.usable:
        pytest.skip(f"this CPU lacks {found.name}; its algorithms run emulated")
    return found


def normal(seed: int, *shape: int, precision: str = "fp32") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(TORCH[precision])


def ends(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def plain(
    sq: int, sk: int, *, hq: int = 2, hkv: int = 1, d: int = 32, precision: str = "fp32",
    seed: int = 0, b: int = 1, **flags: str,
) -> Call:  # fmt: skip
    tensors = {
        "q": normal(seed, b, sq, hq, d, precision=precision),
        "k": normal(seed + 1, b, sk, hkv, d, precision=precision),
        "v": normal(seed + 2, b, sk, hkv, d, precision=precision),
    }
    return Call(tensors, precision, flags)


def strided(x: Tensor, order: tuple[int, ...], step: int) -> Tensor:
    """The same values in memory of another order of dims, every `step`-th element, NaN between."""
    shape = [x.shape[i] for i in order]
    room = torch.full([*(n + 1 for n in shape[:-1]), shape[-1] * step + 1], math.nan, dtype=x.dtype)
    place = room[tuple(slice(1, 1 + n) for n in shape[:-1])][..., 1 : 1 + shape[-1] * step : step]
    back = sorted(range(len(order)), key=order.__getitem__)
    found = place.permute(back)
    return found.copy_(x)


@st.composite
def calls(draw: Callable[..., Any], compute: str = "float") -> Call:
    pick = st.sampled_from
    seed, precision = draw(st.integers(0, 2**16)), draw(pick(sorted(TORCH)))
    hkv, group = draw(pick((1, 2, 3))), draw(pick((1, 2, 5)))
    dk = draw(pick(D))
    dv = draw(pick((dk, dk, *D)))
    ragged = draw(st.booleans())
    lengths = st.lists(st.integers(0, 40), min_size=1, max_size=4)
    cu: dict[str, Tensor | None] = {}
    if ragged:
        queries = draw(lengths)
        keys = [draw(pick((n, n, n + 3, 0, 50))) for n in queries]
        cu = {"cu_q": ends(queries), "cu_k": ends(keys)}
        b, sq, sk = 1, sum(queries), sum(keys)
    else:
        b, sq = draw(st.integers(1, 2)), draw(st.integers(0, 70))
        sk = draw(st.just(sq) | st.integers(0, 130))
    shapes = {"q": (sq, hkv * group, dk), "k": (sk, hkv, dk), "v": (sk, hkv, dv)}
    tensors: dict[str, Tensor | None] = {
        name: strided(
            normal(seed + i, b, *shape, precision=precision),
            draw(pick(((0, 1, 2, 3), (0, 2, 1, 3), (2, 1, 0, 3), (3, 1, 0, 2)))),
            draw(pick((1, 1, 2))),
        )
        for i, (name, shape) in enumerate(shapes.items())
    }
    if draw(st.booleans()):
        tensors["alibi"] = normal(seed + 9, hkv * group).abs()
    flags = {
        "mask": draw(pick(("causal", "full"))),
        "window": draw(pick(("0", "0", "1", "5", "30", "1000"))),
        "softcap": draw(pick(("0", "0", "0.5", "30"))),
        "scale": draw(pick(("0", "0", "0.3", "-0.2", "1e-3"))),
        "lse": draw(pick(("no", "yes"))),
        "batch_invariant": draw(pick(("no", "yes"))),
        "compute": compute,
    }
    config = {"tile_m": draw(pick((16, 32, 48, 256))), "tile_n": draw(pick((32, 64, 96, 1024)))}
    return Call({**tensors, **cu}, precision, flags, config, draw(st.integers(1, 3)))


@QUICK
@given(call=calls())
def test_matches_float64(level: Level, call: Call) -> None:
    level.check(call)


@QUICK
@given(call=calls(compute="int8"))
def test_int8_stays_within_what_rounding_costs(level: Level, call: Call) -> None:
    level.check(call)


@pytest.mark.parametrize("precision", sorted(TORCH))
def test_many_blocks_and_tasks(level: Level, precision: str) -> None:
    """More rows than a task takes, more keys than a block has, on more threads than processors."""
    call = plain(150, 400, hq=4, hkv=2, d=64, precision=precision, b=2, lse="yes")
    level.check(replace(call, threads=3, config={"tile_n": 64}))


@QUICK
@given(
    data=st.data(), seed=st.integers(0, 2**16), precision=st.sampled_from(sorted(TORCH)),
    mask=st.sampled_from(("causal", "full")), window=st.sampled_from(("0", "1", "9")),
    compute=st.sampled_from(("float", "int8")),
)  # fmt: skip
def test_special_values_reach_those_who_see_them(
    level: Level, data: Any, seed: int, precision: str, mask: str, window: str, compute: str
) -> None:
    """NaN in any q, k or v, and inf in v: in rows that see them, exactly as in the reference, and nowhere else."""
    flags = {"mask": mask, "window": window, "compute": compute, "lse": "yes"}
    call = plain(37, 45, precision=precision, seed=seed, **flags)
    if data.draw(st.booleans()):
        cut = {"cu_q": ends([10, 0, 27]), "cu_k": ends([10, 5, 30])}
        call = replace(call, tensors={**call.tensors, **cut})
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from("qkv"))
        place = [data.draw(st.integers(0, n - 1)) for n in call.given(name).shape]
        # int8 weights may round to 0, and 0 times inf is NaN: no row of int8 promises inf.
        infinite = name == "v" and compute == "float"
        special = data.draw(st.sampled_from((math.nan, math.inf) if infinite else (math.nan,)))
        call.given(name)[tuple(place)] = special
    level.check(call)


@QUICK
@given(key=st.integers(0, 44), head=st.integers(0, 1), lane=st.integers(0, 31))
def test_infinite_values_of_int8_stay_with_those_who_see_them(
    level: Level, key: int, head: int, lane: int
) -> None:
    """They are inf or NaN there, and finite everywhere else."""
    call = plain(37, 45, hq=4, hkv=2, compute="int8")
    call.given("v")[0, key, head, lane] = math.inf
    finite = torch.isfinite(level.run(call)["o"].float())
    expected = torch.ones_like(finite)
    sees = torch.arange(37) + 45 - 37 >= key
    expected[0, sees, 2 * head : 2 * head + 2, lane] = False
    assert torch.equal(finite, expected)


@pytest.mark.parametrize("compute", ("float", "int8"))
@pytest.mark.parametrize("precision", sorted(TORCH))
def test_what_is_masked_may_be_huge(level: Level, precision: str, compute: str) -> None:
    """0 times the largest number is 0: weights of masked keys are exactly nothing."""
    call = plain(20, 20, precision=precision, compute=compute)
    largest = torch.finfo(TORCH[precision]).max
    for name in ("k", "v"):
        call.given(name)[:, 12:] = largest if name == "v" else largest**0.25
    seen = replace(call, tensors={n: x[:, :12] for n, x in call.tensors.items() if x is not None})
    # int8 rounds a whole block by one scale: what is masked there costs accuracy, never more.
    if compute == "float":
        whole, part = level.run(call)["o"], level.run(seen)["o"]
        assert torch.equal(whole[:, :12], part)
    else:
        assert bool(torch.isfinite(level.run(call)["o"][:, :12]).all())


def test_rows_without_keys_are_zero(level: Level) -> None:
    call = plain(9, 4, precision="bf16", lse="yes")
    found = level.check(call)
    assert (found["o"][:, :5] == 0).all() and (found["lse"][:, :5] == -math.inf).all()
    nothing = level.check(plain(9, 0, lse="yes"))
    assert (nothing["o"] == 0).all() and (nothing["lse"] == -math.inf).all()


@pytest.mark.parametrize("precision", sorted(TORCH))
def test_equal_logits_average(level: Level, precision: str) -> None:
    call = plain(40, 40, precision=precision, lse="yes")
    call.given("k")[...] = 0.25
    found = level.check(call)
    counts = torch.arange(1, 41, dtype=torch.float64).log()
    scores = (call.given("q").double() * 0.25).sum(-1) / math.sqrt(32)
    assert torch.allclose(found["lse"].double(), scores + counts[None, :, None], atol=1e-4)


@pytest.mark.parametrize("precision", sorted(TORCH))
@pytest.mark.parametrize("size", (30.0, 300.0))
def test_large_magnitudes(level: Level, precision: str, size: float) -> None:
    """Scores of thousands: weights are one or nothing, nothing overflows, and the later may beat the earlier."""
    call = plain(50, 70, precision=precision, lse="yes", seed=3)
    for name in ("q", "k"):
        call.given(name).mul_(size)
    found, expected = level.run(call), call.expected()
    # A score of this size is known to its rounding in fp32, 2^-24 of some hundred thousand.
    known = 64 * size * size * 2.0**-22
    assert torch.allclose(found["lse"].double(), expected["lse"], atol=known, rtol=1e-6)
    good = (found["o"].double() - expected["o"]).abs() < 0.02 + 4 * known
    assert good.all()


def test_a_growing_row_moves_its_reference(level: Level) -> None:
    """Every block beats the one before by more than what sums have room for."""
    call = plain(3, 300, precision="bf16", lse="yes", mask="full")
    call.given("k")[...] = torch.linspace(0, 40, 300)[None, :, None, None]
    call.given("q")[...] = 1.0
    level.check(replace(call, config={"tile_n": 32}))


@pytest.mark.parametrize("flags", ({}, {"compute": "int8"}))
@pytest.mark.parametrize("precision", sorted(TORCH))
def test_bits_depend_on_nothing_but_the_sequence(
    level: Level, precision: str, flags: dict[str, str]
) -> None:
    """Alone, in a batch, in ragged company, by any number of threads and rows a block."""
    call = plain(45, 60, hq=4, hkv=2, precision=precision, b=3, batch_invariant="yes", **flags)
    want = level.run(call)["o"]
    for threads, tile_m in ((1, 16), (2, 48), (3, 256)):
        again = level.run(replace(call, threads=threads, config={"tile_m": tile_m}))
        assert torch.equal(again["o"], want)
    alone = {n: x[1:2] for n, x in call.tensors.items() if x is not None}
    assert torch.equal(level.run(replace(call, tensors=alone))["o"], want[1:2])
    flat: dict[str, Tensor | None] = {
        n: x.reshape(1, -1, *x.shape[2:]) for n, x in call.tensors.items() if x is not None
    }
    cut = {"cu_q": ends([45, 45, 45]), "cu_k": ends([60, 60, 60])}
    ragged = level.run(replace(call, tensors={**flat, **cut}))["o"]
    assert torch.equal(ragged.view_as(want), want)
    last = {**alone, "q": call.given("q")[1:2, 40:]}
    assert torch.equal(level.run(replace(call, tensors=last))["o"], want[1:2, 40:])


def test_int8_keys_far_from_zero_cost_nothing(level: Level) -> None:
    """What all keys share is subtracted before rounding: an offset of 40 deviations changes no weight."""
    call = plain(64, 64, d=64, compute="int8")
    near = level.check(call)["o"]
    call.given("k").add_(40.0)
    far = level.run(call)["o"].double()
    error = (far - call.expected()["o"]).norm() / near.double().norm()
    assert error < 0.03


@pytest.mark.parametrize("precision", ("fp32", "bf16"))
@pytest.mark.parametrize("shared", (1, 3))
def test_torch_says_the_same(level: Level, precision: str, shared: int) -> None:
    for sq, sk, mask in ((50, 50, "causal"), (20, 50, "full"), (1, 33, "full")):
        call = plain(sq, sk, hq=2 * shared, hkv=2, precision=precision, mask=mask)
        q, k, v = (call.given(n).transpose(1, 2) for n in ("q", "k", "v"))
        want = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=mask == "causal", enable_gqa=shared > 1
        )
        limit = 1e-5 if precision == "fp32" else 0.02
        assert torch.allclose(level.run(call)["o"], want.transpose(1, 2), atol=limit)


def test_outputs_may_lie_anywhere_and_nothing_else_is_written(level: Level) -> None:
    call = plain(21, 30, hq=3, hkv=1, d=33, precision="bf16", lse="yes")
    want = level.check(call)
    room = torch.full((1, 40, 5, 80), 7.0, dtype=torch.bfloat16)
    sums = torch.full((2, 25, 6), 7.0)
    outputs = {"o": room[:, 3:24, 1:4, 5:71:2], "lse": sums[1:, 2:23, ::2]}
    status, error = level.raw(call, outputs, call.case)
    assert status == 0, error
    for name, value in outputs.items():
        assert torch.equal(value, want[name])
        value.fill_(7.0)
    assert (room == 7.0).all() and (sums == 7.0).all()


def _ragged(cu_q: list[int], cu_k: list[int]) -> dict[str, Tensor]:
    return {
        "cu_q": torch.tensor(cu_q, dtype=torch.int32),
        "cu_k": torch.tensor(cu_k, dtype=torch.int32),
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": torch.zeros(1, 12, 1, 31)}, 'dimension 3 of "k" is 31, expected 32'),
        ({"k": torch.zeros(1, 12, 3, 32), "v": torch.zeros(1, 12, 3, 32)}, "2 heads of \"q\" are not a multiple of the 3"),
        ({"v": torch.zeros(1, 11, 1, 32)}, 'dimension 1 of "v" is 11, expected 12'),
        ({"v": torch.zeros(1, 12, 1, 32).half()}, 'tensor "v" is fp16, expected fp32'),
        ({"q": torch.zeros(1, 10, 2, 32, dtype=torch.int32)}, 'tensor "q" is int32; accepted: fp32, bf16, fp16'),
        ({"alibi": torch.zeros(3)}, 'dimension 0 of "alibi" is 3, expected 2'),
        ({"alibi": torch.zeros(2).half()}, 'tensor "alibi" is fp16, expected fp32'),
        (_ragged([0, 10], [0, 11]), '"cu_k" goes from 0 to 11; expected 0 to 12'),
        (_ragged([1, 10], [0, 12]), '"cu_q" goes from 1 to 10; expected 0 to 10'),
        (_ragged([0, 7, 3, 10], [0, 1, 2, 12]), '"cu_q" falls from 7 to 3 at entry 2'),
        (_ragged([0, 3, 10], [0, 12]), "as many ends of queries as of keys"),
        (_ragged([], [0, 12]), '"cu_q" is empty'),
        ({"cu_q": torch.tensor([0, 10], dtype=torch.int32)}, 'tensor "cu_k" is missing'),
        ({"cu_q": torch.tensor([0, 10]), "cu_k": torch.tensor([0, 12])}, 'tensor "cu_q" is int64, expected int32'),
        ({"o": torch.zeros(1, 10, 2, 1).expand(1, 10, 2, 32)}, 'makes elements of "o" overlap'),
        ({"o": torch.zeros(1, 10, 1, 32)}, 'dimension 2 of "o" is 1, expected 2'),
    ],
    ids=lambda x: x[:40] if isinstance(x, str) else "",
)  # fmt: skip
def test_refusals_say_what_is_wrong(changes: dict[str, Tensor], said: str) -> None:
    call = plain(10, 12)
    case, outputs = call.case, call.outputs()
    inputs = {n: x for n, x in changes.items() if n != "o"}
    outputs.update({n: x for n, x in changes.items() if n == "o"})
    before = outputs["o"].clone()
    status, error = BEST.raw(replace(call, tensors={**call.tensors, **inputs}), outputs, case)
    assert (status, said in error) == (REFUSED, True), error
    assert torch.equal(outputs["o"], before) or bool(before.isnan().all())


@pytest.mark.parametrize(
    ("config", "said"),
    [({"tile_m": 24}, "tile_m is 24; accepted: multiples of 16 up to 256"),
     ({"tile_n": 2048}, "tile_n is 2048; accepted: multiples of 32 up to 1024")],
)  # fmt: skip
def test_configs_are_refused(config: dict[str, int], said: str) -> None:
    call = replace(plain(4, 4), config=config)
    status, error = BEST.raw(call, call.outputs(), call.case)
    assert (status, error) == (REFUSED, said)
