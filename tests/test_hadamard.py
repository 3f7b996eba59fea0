"""hadamard: matrices that are what they should be, any size against whole products, and what is refused."""

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
from tilewright.kernels.hadamard import matrices
from tilewright.registry import family

SIZES = [m << n for m in matrices.ORDERS for n in range(16) if m << n <= matrices.LARGEST]


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    yield
    native.module().force_level(None)


def transform(x: torch.Tensor, threads: int = 1, y: torch.Tensor | None = None) -> torch.Tensor:
    y = unwritten(x) if y is None else y
    call("hadamard", {"x": x, "y": y}, threads=threads)
    return y


def inputs(t: int, d: int, kind: str, seed: int = 0) -> torch.Tensor:
    return torch.randn((t, d), generator=torch.Generator().manual_seed(seed)).to(KINDS[kind])


def whole(d: int) -> torch.Tensor:
    """The matrix of a transform, by Kronecker products, not normalised."""
    m, n = matrices.parts(d) or (0, 0)
    h = torch.tensor(matrices.matrix(m), dtype=torch.float64)
    for _ in range(n):
        h = torch.kron(h, torch.tensor([[1, 1], [1, -1]], dtype=torch.float64))
    return h


@pytest.mark.parametrize("order", matrices.ORDERS)
def test_the_matrices_are_hadamards(order: int) -> None:
    h = torch.tensor(matrices.matrix(order))
    assert h.shape == (order, order) and (h.abs() == 1).all()
    assert torch.equal(h @ h.T, order * torch.eye(order, dtype=h.dtype))


def test_sizes_have_one_form_or_none() -> None:
    for d in range(1, 3000):
        forms = [(m, n) for m in matrices.ORDERS for n in range(12) if m << n == d]
        assert len(forms) <= 1 and matrices.parts(d) == (forms[0] if forms else None)
    assert matrices.parts(0) is None and matrices.parts(65536) is None
    assert matrices.parts(32768) == (1, 15) and matrices.parts(28672) == (28, 10)


@settings(max_examples=80, deadline=None)
@given(
    t=st.integers(0, 9),
    d=st.sampled_from([s for s in SIZES if s <= 1200]),
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 1000),
    threads=st.integers(1, 3),
)
def test_any_size_is_a_product(t: int, d: int, kind: str, seed: int, threads: int) -> None:
    x = inputs(t, d, kind, seed)
    y = transform(x, threads)
    want = x.double() @ whole(d).T / math.sqrt(d)
    m, n = matrices.parts(d) or (0, 0)
    norm = want.norm(dim=1, keepdim=True)
    bound = want.abs() * torch.finfo(x.dtype).eps / 2 + norm * (n + m + 1) * 2.0**-24
    assert ((y.double() - want).abs() <= bound + torch.finfo(x.dtype).tiny).all()


@pytest.mark.parametrize("d", [d for d in SIZES if d > 1200])
def test_large_sizes_keep_the_norm_and_their_order(d: int) -> None:
    """A unit vector becomes a column: checked against products of the factors, not the whole matrix."""
    m, n = matrices.parts(d) or (0, 0)
    at = [0, 1, d // 3, d - 1]
    x = torch.zeros((len(at), d))
    x[range(len(at)), at] = math.sqrt(d)
    y = transform(x)
    left = torch.tensor(matrices.matrix(m))
    for row, c in enumerate(at):
        b, inner = torch.arange(1 << n), c % (1 << n)
        shared = sum(((b >> i) & (inner >> i) & 1) for i in range(n))
        signs = 1 - 2 * (torch.as_tensor(shared) % 2)
        want = (left[:, c >> n, None] * signs[None, :]).flatten()
        assert torch.equal(y[row].round().int(), want.int())
        assert (y[row].abs() - 1).abs().max() < 1e-6


@pytest.mark.parametrize("d", [1, 2, 8, 16, 512, 4096])
def test_powers_of_two_are_their_own_inverse(d: int) -> None:
    x = inputs(5, d, "fp32")
    assert (transform(transform(x)) - x).abs().max() < 1e-5


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_levels_threads_mates_and_strides_give_the_same_bits(kind: str) -> None:
    for d in (1, 4, 12, 40, 112, 576, 1024, 5120):
        x = inputs(13, d, kind)
        want = None
        for level in native.module().cpu_levels():
            native.module().force_level(level)
            for threads in (1, 3):
                y = transform(x, threads)
                want = y if want is None else want
                assert same_bits(y, want), (level, d)
            assert want is not None and same_bits(transform(x[5:6]), want[5:6])
            gaps = spread(unwritten(x))
            transform(spread(x, 2), y=gaps)
            assert same_bits(gaps, want)
            assert torch.as_strided(gaps, (13, d), gaps.stride(), 1).isnan().all()
            same = x.clone()
            transform(same, y=same)
            assert same_bits(same, want)


def test_specials_fill_their_row() -> None:
    x = inputs(4, 80, "fp32")
    want = transform(x)
    x[1, 3], x[2, 7] = math.nan, math.inf
    y = transform(x)
    assert y[1].isnan().all() and y[2].isinf().all()
    assert same_bits(y[[0, 3]], want[[0, 3]])
    equal = transform(torch.ones((1, 64)))
    assert equal[0].tolist() == [8.0] + [0.0] * 63


def test_refusals_come_before_memory_is_touched() -> None:
    for d in (3, 24 + 1, 44, 7168 + 1, 65536, 36864 * 2):
        x, y = torch.zeros((2, d)), torch.full((2, d), 7.0)
        with pytest.raises(Refused, match=f"rows of {d} channels; accepted: 0 and m"):
            transform(x, y=y)
        assert (y == 7).all()
        with pytest.raises(UsageError, match=f"D={d}; accepted: 0 and m"):
            family("hadamard").spec.case({"T": 1, "D": d})
    x, y = torch.zeros((2, 12)), torch.full((2, 12), 7.0)
    for sentence, x_, y_ in (
        ('tensor "x" is int64; accepted: fp32', x.long(), y),
        ('tensor "y" is bf16, expected fp32', x, y.bfloat16()),
        ('dimension 0 of "y" is 1, expected 2', x, y[:1]),
        ('make elements of "y" overlap', x, y[:1].expand(2, 12)),
    ):
        with pytest.raises(Refused, match=sentence):
            transform(x_, y=y_)
        assert (y_ == 7).all()
    gpu = family("hadamard").module("triton")
    with pytest.raises(Refused, match="rows of 3 channels"):
        three = torch.zeros((1, 3))
        gpu.launch({"x": three, "y": three.clone()}, {}, {"num_warps": 1}, interpret=True)


def test_the_torch_op() -> None:
    from tilewright.bindings.torch.ops import torch_op

    x = inputs(9, 40, "bf16")
    assert same_bits(torch_op(family("hadamard"))(x), transform(x))
