"""silu_mul: any shape against fp64, both saturations, strides, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_calls import KINDS, call, same_bits, spread, unwritten

from tilewright import native
from tilewright.errors import Refused, UsageError
from tilewright.registry import family


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    yield
    native.module().force_level(None)


def gated(x: torch.Tensor, threads: int = 1, y: torch.Tensor | None = None) -> torch.Tensor:
    y = unwritten(x[:, : x.shape[1] // 2].contiguous()) if y is None else y
    call("silu_mul", {"gate_up": x, "y": y}, threads=threads)
    return y


def inputs(t: int, half: int, kind: str, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((t, 2 * half), generator=generator) * scale).to(KINDS[kind])


@settings(max_examples=100, deadline=None)
@given(
    t=st.integers(0, 12),
    half=st.integers(0, 300),
    kind=st.sampled_from(sorted(KINDS)),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    seed=st.integers(0, 1000),
    threads=st.integers(1, 3),
)
def test_any_shape(t: int, half: int, kind: str, scale: float, seed: int, threads: int) -> None:
    x = inputs(t, half, kind, scale, seed)
    for level in native.module().cpu_levels():
        native.module().force_level(level)
        y = gated(x, threads)
        gate, up = x.double().chunk(2, dim=-1) if half else (x.double(), x.double())
        want = gate * torch.sigmoid(gate) * up
        info = torch.finfo(x.dtype)
        # The exponential's argument is rounded; 1 / (1 + e^-g) may be 0 from 2^-128 on; subnormals have their spacing.
        bound = want.abs() * (info.eps / 2 + (gate.abs() + 8) * 2.0**-23)
        lost = (gate * up).abs() * 2.0**-128 + info.tiny * info.eps
        assert ((y.double() - want).abs() <= bound + lost).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_threads_and_mates_give_the_same_bits(kind: str) -> None:
    for half in (5, 64, 1000, 9001):
        x = inputs(7, half, kind)
        for level in native.module().cpu_levels():
            native.module().force_level(level)
            want = gated(x)
            assert same_bits(gated(x, threads=3), want)
            assert same_bits(gated(x[3:4]), want[3:4])
            assert same_bits(gated(spread(x)), want)
            y = spread(unwritten(want), 2)
            gated(x, y=y)
            assert same_bits(y, want)
            assert torch.as_strided(y, (7, half), y.stride(), 1).isnan().all()


@pytest.mark.parametrize("level", native.module().cpu_levels())
def test_saturations_and_specials(level: str) -> None:
    native.module().force_level(level)
    gates = [0.0, 90.0, 1e30, math.inf, -90.0, -1e30, -math.inf, math.nan]
    x = torch.tensor([gates + [1.0] * len(gates)])
    y = gated(x)[0]
    assert y[:4].tolist() == pytest.approx([0.0, 90.0, 1e30, math.inf])
    assert y[4:6].abs().max() < 1e-35 and not y[4:6].isnan().any()
    assert y[6:].isnan().all()
    ups = torch.tensor([[-50.0, 0.0, 3.0, math.inf, math.nan, 2.0]])
    assert gated(ups)[0].isnan().tolist() == [False, True, False]


def test_in_place_over_the_gates() -> None:
    x = inputs(6, 100, "fp32")
    want = gated(x)
    y = gated(x, y=x[:, :100])
    assert same_bits(y, want)


def test_refusals_come_before_memory_is_touched() -> None:
    x = inputs(5, 8, "fp32")
    untouched = torch.full((5, 8), 7.0)
    for sentence, x_, y in (
        ('"gate_up" has 15 columns; accepted: an even number', x[:, :15], untouched),
        ('tensor "gate_up" is int32; accepted: fp32', x.to(torch.int32), untouched),
        ('tensor "y" is fp16, expected fp32', x, untouched.half()),
        ('dimension 0 of "y" is 4, expected 5', x, untouched[:4]),
        ('dimension 1 of "y" is 7, expected 8', x, untouched[:, :7]),
        ('make elements of "y" overlap', x, untouched[:1].expand(5, 8)),
    ):
        with pytest.raises(Refused, match=sentence):
            gated(x_, y=y)
        assert (y == 7).all()
    with pytest.raises(UsageError, match="W=3 is odd"):
        family("silu_mul").spec.case({"T": 1, "W": 3})


def test_the_torch_op() -> None:
    from tilewright.bindings.torch.ops import torch_op

    x = inputs(9, 40, "bf16")
    assert same_bits(torch_op(family("silu_mul"))(x), gated(x))
