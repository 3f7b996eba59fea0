"""rmsnorm: any shape against fp64, the same bits at every level, what stays put, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

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


def norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    residual: torch.Tensor | None = None,
    eps: float = 1e-6,
    threads: int = 1,
    **outputs: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(y, h); h is x where there is no residual."""
    y, h = outputs.get("y", unwritten(x)), outputs.get("h", unwritten(x))
    tensors = {"x": x, "weight": weight}
    tensors |= {"y": y} if residual is None else {"residual": residual, "y": y, "h": h}
    flags = {"eps": str(eps), "residual": "no" if residual is None else "yes"}
    call("rmsnorm", tensors, flags, threads)
    return y, x if residual is None else h


def inputs(t: int, d: int, kind: str, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((t, d), (d,), (t, d))
    return tuple(torch.randn(s, generator=generator).to(KINDS[kind]) for s in shapes)


@settings(max_examples=100, deadline=None)
@given(
    t=st.integers(0, 20),
    d=st.integers(1, 300),
    kind=st.sampled_from(sorted(KINDS)),
    adds=st.booleans(),
    magnitude=st.sampled_from([1.0, 1e-4, 200.0]),
    eps=st.sampled_from([0.0, 1e-6, 0.5]),
    seed=st.integers(0, 1000),
    threads=st.integers(1, 3),
)
def test_any_shape(
    t: int, d: int, kind: str, adds: bool, magnitude: float, eps: float, seed: int, threads: int
) -> None:
    x, weight, residual = inputs(t, d, kind, seed)
    x = x * magnitude
    y, h = norm(x, weight, residual if adds else None, eps, threads)
    want = (x.float() + residual.float()).to(x.dtype) if adds else x
    assert same_bits(h, want)
    wide = want.double()
    exact = wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    # One rounding to the type, subnormals by their spacing, and what sums of d terms and six roundings lose.
    info = torch.finfo(x.dtype)
    bound = exact.abs() * (info.eps / 2 + (d + 8) * 2.0**-24) + info.tiny * info.eps
    zero = wide.square().mean(-1, keepdim=True) + eps == 0
    assert ((y.double() - exact).abs() <= bound).logical_or(zero).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_levels_threads_and_mates_give_the_same_bits(kind: str) -> None:
    for d in (1, 15, 64, 130, 577, 4096):
        x, weight, residual = inputs(37, d, kind)
        want = None
        for level in native.module().cpu_levels():
            native.module().force_level(level)
            for threads in (1, 3):
                got = norm(x, weight, residual, threads=threads)
                want = want or got
                assert all(same_bits(a, b) for a, b in zip(got, want, strict=True)), (level, d)
            for part in (slice(0, 1), slice(36, 37), slice(5, 21)):
                alone = norm(x[part], weight, residual[part])
                assert same_bits(alone[0], want[0][part]) if want else False


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_any_strides_and_in_place(kind: str) -> None:
    x, weight, residual = inputs(9, 70, kind)
    want, sums = norm(x, weight, residual)
    y, h = spread(unwritten(x)), spread(unwritten(x))
    norm(spread(x), spread(weight[None])[0], spread(residual, 2), y=y, h=h)
    assert same_bits(y, want) and same_bits(h, sums)
    assert all(torch.as_strided(t, (9, 70), t.stride(), 1).isnan().all() for t in (y, h))
    first, second = x.clone(), residual.clone()
    norm(first, weight, second, y=first, h=second)
    assert same_bits(first, want) and same_bits(second, sums)
    alone = x.clone()
    plain, _ = norm(x, weight)
    norm(alone, weight, y=alone)
    assert same_bits(alone, plain)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_specials(kind: str) -> None:
    x, weight, _ = inputs(5, 40, kind)
    x[0], x[1, 3], x[2, 5] = 0.0, math.nan, math.inf
    y, _ = norm(x, weight)
    assert (y[0] == 0).all()
    assert y[1].isnan().all()
    assert y[2, 5].isnan() and (y[2, :5] == 0).all()
    assert y[3:].isfinite().all()


def test_the_largest_rows_that_keep_their_digits() -> None:
    x, weight, _ = inputs(2, 300, "fp32")
    for magnitude in (1e17, 1e-15):
        y, _ = norm(x * magnitude, weight, eps=0.0)
        want = x.double() / x.double().square().mean(-1, keepdim=True).sqrt() * weight
        assert (y.double() - want).abs().max() < 1e-4


def test_refusals_come_before_memory_is_touched() -> None:
    x, weight, residual = inputs(5, 16, "fp32")
    untouched = torch.full_like(x, 7.0)

    def refused(sentence: str, eps: float = 1e-6, **changed: torch.Tensor) -> None:
        named: dict[str, Any] = {
            **{"x": x, "weight": weight, "residual": residual, "y": untouched},
            **{"h": untouched.clone(), **changed},
        }
        with pytest.raises(Refused, match=sentence):
            norm(named["x"], named["weight"], named["residual"], eps, y=named["y"], h=named["h"])
        assert (named["y"] == 7).all() and (named["h"] == 7).all()

    refused('tensor "x" is int8; accepted: fp32, bf16, fp16', x=x.to(torch.int8))
    refused('tensor "weight" is bf16, expected fp32', weight=weight.bfloat16())
    refused('dimension 0 of "weight" is 15, expected 16', weight=weight[:15])
    refused('dimension 0 of "residual" is 4, expected 5', residual=residual[:4])
    refused('dimension 1 of "h" is 15, expected 16', h=untouched[:, :15])
    refused('make elements of "y" overlap', y=untouched[:1].expand(5, 16))
    refused('"h" and "y" are the same memory', h=untouched)
    refused("eps is -1; accepted: 0 or more", eps=-1.0)
    with pytest.raises(UsageError, match="eps=-1 is negative"):
        family("rmsnorm").spec.case({"T": 1, "D": 1}, flags={"eps": "-1"})


def test_the_torch_op() -> None:
    from tilewright.bindings.torch.ops import torch_op

    op = torch_op(family("rmsnorm"))
    x, weight, residual = inputs(9, 64, "bf16")
    y, h = op(x, weight, residual=residual, eps=1e-5)
    want = norm(x, weight, residual, 1e-5)
    assert same_bits(y, want[0]) and same_bits(h, want[1])
    plain = op(x, weight)
    plain = plain[0] if isinstance(plain, tuple | list) else plain
    assert same_bits(plain, norm(x, weight)[0])
