"""The formats of a paged KV cache: what their encoders promise, against oracles written differently."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.kernels._kv import pages as kv_pages
from tilewright.kernels._kv import reference as kv
from tilewright.kernels._kv.formats import PAGE

QUICK = settings(max_examples=40, deadline=None)
BASES = (("c8s", True), ("c8d", True), ("kv4", True), ("kv4", False))

seeds = st.integers(0, 2**16)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9).map(lambda n: 4 * n))


def drawn(shape: tuple[int, int, int], seed: int, spread: float = 1.0) -> torch.Tensor:
    """Pages [N,16,HKV,D] with some channels and some tokens much larger than others."""
    n, heads, d = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((n, PAGE, heads, d), generator=generator)
    by_channel = torch.exp(spread * torch.randn((heads, d), generator=generator))
    by_token = torch.exp(spread * torch.randn((n, PAGE, heads, 1), generator=generator))
    return x * by_channel * by_token


def pools(rows: int, floats: int, d: int, residual: str) -> kv.Stored:
    return kv.Stored(
        torch.empty(0),
        pool=torch.full((rows, d // 4), 0x5A5A, dtype=torch.int16),
        pool_scale=torch.full((rows,), math.nan) if residual == "e3m0" else None,
        fpool=torch.full((floats, d), math.nan),
    )


@QUICK
@given(shape=shapes, lanes=st.sampled_from((8, 16, 32)), seed=seeds)
def test_nz_gives_back_what_it_took(shape: tuple[int, int, int], lanes: int, seed: int) -> None:
    x = drawn(shape, seed)
    packed = kv.to_nz(x, {"C0": lanes})
    assert packed.shape == (shape[0], shape[1], -(-shape[2] // lanes), PAGE, lanes)
    assert torch.equal(kv.from_nz(packed, shape[2]), x)
    token, channel = seed % PAGE, seed % shape[2]
    assert torch.equal(
        packed[:, :, channel // lanes, token, channel % lanes], x[:, token, :, channel]
    )
    padding = packed.permute(0, 1, 3, 2, 4).flatten(3)[..., shape[2] :]
    assert not padding.any()


@QUICK
@given(d=st.integers(1, 20).map(lambda n: 4 * n), seed=seeds)
def test_a_nibble_stands_where_the_format_says(d: int, seed: int) -> None:
    nibbles = torch.randint(0, 16, (3, d), generator=torch.Generator().manual_seed(seed))
    lanes = kv.pack4(nibbles)
    assert lanes.dtype == torch.int16 and lanes.shape == (3, d // 4)
    for channel in range(d):
        j, i = divmod(channel, d // 4)
        assert (int(lanes[1, i]) >> (4 * j)) & 15 == int(nibbles[1, channel])
    assert torch.equal(kv.unpack4(lanes), nibbles.to(torch.int32))
    signed = torch.where(nibbles > 7, nibbles - 16, nibbles).to(torch.int32)
    assert torch.equal(kv.unpack4(lanes, signed=True), signed)


@QUICK
@given(shape=shapes, seed=seeds, exponent=st.integers(-60, 60))
def test_int8_errs_by_half_a_step(shape: tuple[int, int, int], seed: int, exponent: int) -> None:
    x = drawn(shape, seed) * 2.0**exponent
    stored = kv.encode(x, "c8d", key=False)
    assert stored.token_scale is not None
    assert stored.codes.abs().max() == 127  # the largest element of a token reaches the end
    error = (kv.decode(stored, "c8d", "none", False) - x).abs()
    assert bool((error <= stored.token_scale[..., None] * (0.5 + 2.0**-14)).all())


def test_tokens_of_zeros_have_a_scale_of_one() -> None:
    x = torch.zeros((1, PAGE, 1, 8))
    x[0, 3] = 1e-39  # subnormal: its scale would have no reciprocal
    stored = kv.encode(x, "c8d", key=True)
    assert stored.token_scale is not None and bool((stored.token_scale == 1).all())
    assert not stored.codes.any()
    packed = kv.encode(torch.full((1, PAGE, 1, 8), 2.5), "kv4", key=True)
    assert packed.page_scale is not None and bool((packed.page_scale == 1).all())
    assert bool((kv.decode(packed, "kv4", "none", True) == 2.5).all())


@QUICK
@given(shape=shapes, seed=seeds, key=st.booleans())
def test_four_bits_err_by_half_a_step(shape: tuple[int, int, int], seed: int, key: bool) -> None:
    x = drawn(shape, seed)
    stored = kv.encode(x, "kv4", key)
    step = stored.page_scale[:, None] if key else stored.token_scale[..., None]  # type: ignore[index]
    # zero and the step are rounded to fp16: at either end that costs up to this more.
    rounding = x.abs().amax() * 2.0**-9 + 2.0**-20
    error = (kv.decode(stored, "kv4", "none", key) - x).abs()
    assert bool((error <= step.float() * 0.5 + rounding).all())


@QUICK
@given(shape=shapes, seed=seeds, base=st.sampled_from(BASES))
def test_nested_codes_are_one_rounding_at_sixteen_times_the_resolution(
    shape: tuple[int, int, int], seed: int, base: tuple[str, bool]
) -> None:
    format_, key = base
    x = drawn(shape, seed)
    channel = kv_pages.static_scale(x) if format_ == "c8s" else None
    every = torch.ones(x.shape[:3], dtype=torch.uint8)
    stored, used = kv.encode_selected(
        x,
        format_,
        key,
        "nested",
        every,
        pools(every.numel(), 1, shape[2], "nested"),
        channel_scale=channel,
    )
    assert used == (every.numel(), 0)
    plain = kv.encode(x, format_, key, channel)
    coarse = kv.decode(plain, format_, "none", key)
    fine = kv.decode(stored, format_, "nested", key)
    if format_ == "kv4":
        step = plain.page_scale[:, None] if key else plain.token_scale[..., None]  # type: ignore[index]
        rounding = x.abs().amax() * 2.0**-9 + 2.0**-20  # of zero and the step to fp16
        # The largest code is 15 7/16, one sixteenth short of what would be half a step above 15.
        assert bool(((fine - x).abs() <= step.float() / 32 + rounding).all())
        return
    scale = channel[None, None] if channel is not None else plain.token_scale[..., None]  # type: ignore[index]
    inside = x.abs() <= scale * 126.9
    assert bool((((fine - x).abs() <= scale * (1 / 32 + 2.0**-11)) | ~inside).all())
    assert bool(((coarse - x).abs() <= scale * (0.5 + 2.0**-11)).logical_or(~inside).all())
    # A clipped element gains at most half a step: a nested code cannot repair it.
    assert bool(((fine.abs() <= scale * (127.5 + 2.0**-11)) | inside).all())


@QUICK
@given(shape=shapes, seed=seeds)
def test_e3m0_takes_the_nearest_power(shape: tuple[int, int, int], seed: int) -> None:
    error = drawn(shape, seed)
    nibbles, scale = kv.e3m0(error)
    chosen = kv.e3m0_value(nibbles, scale.double())
    values = torch.cat([2.0 ** torch.arange(-7, 1), -(2.0 ** torch.arange(-7, 1))]).double()
    every = values * scale[..., None, None].double()
    best = (every - error[..., None].double()).abs().amin(-1)
    assert bool((torch.sign(chosen) == torch.sign(error)).all())
    # fl(1/scale) and its product may tip a tie over.
    slack = error.abs().double() * 2.0**-22
    assert bool(((chosen - error.double()).abs() <= best + slack).all())


def test_e3m0_of_an_exact_base_adds_nothing() -> None:
    nibbles, scale = kv.e3m0(torch.zeros((2, 8)))
    assert not scale.any() and not kv.e3m0_value(nibbles, scale).any()


@QUICK
@given(shape=shapes, seed=seeds, rows=st.integers(0, 60), floats=st.integers(0, 12))
def test_runs_fill_the_pools_in_order(
    shape: tuple[int, int, int], seed: int, rows: int, floats: int
) -> None:
    x = drawn(shape, seed)
    select = torch.randint(
        0, 3, x.shape[:3], dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    stored, used = kv.encode_selected(
        x, "c8d", False, "e3m0", select, pools(rows, floats, shape[2], "e3m0")
    )
    values = kv.decode(stored, "c8d", "e3m0", False)
    plain = kv.decode(kv.encode(x, "c8d", False), "c8d", "none", False)
    assert stored.mask is not None and stored.rank is not None and stored.fmask is not None
    assert not bool((stored.mask & stored.fmask).any())
    for kind, mask, capacity, taken in (
        (kv.RESIDUAL, stored.mask, rows, used[0]),
        (kv.FLOAT, stored.fmask, floats, used[1]),
    ):
        at, full = 0, False
        for n in range(shape[0]):
            for h in range(shape[1]):
                wanted = [t for t in range(PAGE) if int(select[n, t, h]) == kind]
                full = full or at + len(wanted) > capacity
                bits = 0 if full else sum(1 << t for t in wanted)
                assert int(mask[n, h]) & 0xFFFF == bits
                at += 0 if full else len(wanted)
        assert taken == at
    floats_at = kv.rows_of(stored.fmask, stored.frank) >= 0  # type: ignore[arg-type]
    assert torch.equal(values[floats_at], x[floats_at])
    residual_at = kv.rows_of(stored.mask, stored.rank) >= 0
    alone = ~floats_at & ~residual_at
    assert torch.equal(values[alone], plain[alone])
    better = (values - x).norm(dim=-1) <= (plain - x).norm(dim=-1)
    assert bool(better[residual_at].all())


def test_nested_codes_are_nine_decibels_better_than_e3m0() -> None:
    """What the residual itself resolves of a rounding error that is uniform over a step."""
    x = torch.randn((64, PAGE, 1, 128), generator=torch.Generator().manual_seed(1))
    every = torch.ones(x.shape[:3], dtype=torch.uint8)
    error = kv.decode(kv.encode(x, "c8d", False), "c8d", "none", False) - x
    decibels = {}
    for residual in ("nested", "e3m0"):
        room = pools(every.numel(), 1, 128, residual)
        stored, _ = kv.encode_selected(x, "c8d", False, residual, every, room)
        left = kv.decode(stored, "c8d", residual, False) - x
        decibels[residual] = float(20 * torch.log10(error.norm() / left.norm()))
    assert 23.5 < decibels["nested"] < 24.5 and 14 < decibels["e3m0"] < 15.5


@QUICK
@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=5),
    spare=st.integers(-3, 6),
    seed=seeds,
)
def test_tables_cover_exactly_the_tokens(lengths: list[int], spare: int, seed: int) -> None:
    needed = sum(-(-n // PAGE) for n in lengths)
    pages = max(needed + spare, max(-(-n // PAGE) for n in lengths))
    generator = torch.Generator().manual_seed(seed)
    table = kv_pages.table(torch.tensor(lengths, dtype=torch.int32), pages, 5, generator)
    covered = set()
    for i, length in enumerate(lengths):
        own = table.block_table[i, : -(-length // PAGE)].tolist()
        assert len(set(own)) == len(own) and all(0 <= page < pages for page in own)
        covered |= {(own[t // PAGE], t % PAGE) for t in range(length)}
        assert all(not 0 <= int(p) < pages for p in table.block_table[i, len(own) :])
    assert {(int(p), int(t)) for p, t in table.covered.nonzero()} == covered


@pytest.mark.parametrize("total,sequences", [(7, 3), (6, 3), (0, 2), (5, 1), (0, 0)])
def test_queries_are_shared_out(total: int, sequences: int) -> None:
    starts = kv_pages.draw_starts(sequences, total, torch.Generator().manual_seed(0)).tolist()
    assert starts[0] == 0 and starts[-1] == total and starts == sorted(starts)
    assert len(starts) == sequences + 1
