"""rope: tables against formulas of model code, kernels against rotations, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright import native
from tilewright.backends.host import view
from tilewright.errors import Refused, UsageError
from tilewright.kernels.rope import tables
from tilewright.registry import family

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STYLES = ("neox", "gptj")


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    yield
    native.module().force_level(None)


def turn(
    x: torch.Tensor,
    positions: torch.Tensor,
    table: torch.Tensor,
    style: str = "neox",
    y: torch.Tensor | None = None,
    threads: int = 1,
) -> torch.Tensor:
    """One call of the host kernel."""
    y = torch.full_like(x, math.nan) if y is None else y
    views = [
        view(n, v) for n, v in (("x", x), ("positions", positions), ("cos_sin", table), ("y", y))
    ]
    attributes = {"style": STYLES.index(style), "batch_invariant": 0}
    address = native.host_function(family("rope"))
    native.module().prepare(address, views, attributes, threads).run()
    return y


def rotated(
    x: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, style: str
) -> torch.Tensor:
    """By complex numbers, in fp64."""
    rot = table.shape[1]
    rows = table.double()[positions.long()]
    turns = torch.complex(rows[:, : rot // 2], rows[:, rot // 2 :])[:, None, :]
    wide = x.double()
    if style == "neox":
        pairs = torch.complex(wide[..., : rot // 2], wide[..., rot // 2 : rot])
        done = pairs * turns
        front = torch.cat((done.real, done.imag), dim=-1)
    else:
        pairs = torch.view_as_complex(wide[..., :rot].unflatten(-1, (-1, 2)).contiguous())
        front = torch.view_as_real(pairs * turns).flatten(-2)
    return torch.cat((front, wide[..., rot:]), dim=-1)


def inputs(
    tokens: int, heads: int, channels: int, rot: int, kind: str, seed: int = 0, most: int = 300
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((tokens, heads, channels), generator=generator).to(KINDS[kind])
    positions = torch.randint(most, (tokens,), generator=generator).to(torch.int32)
    return x, positions, tables.cos_sin(rot, most)


@settings(max_examples=120, deadline=None)
@given(
    tokens=st.integers(0, 20),
    heads=st.integers(0, 5),
    channels=st.integers(1, 150),
    share=st.floats(0, 1),
    kind=st.sampled_from(sorted(KINDS)),
    style=st.sampled_from(STYLES),
    seed=st.integers(0, 1000),
    threads=st.integers(1, 3),
)
def test_any_shape_is_a_rotation(
    tokens: int,
    heads: int,
    channels: int,
    share: float,
    kind: str,
    style: str,
    seed: int,
    threads: int,
) -> None:
    rot = 2 * int(share * channels / 2)
    x, positions, table = inputs(tokens, heads, channels, rot, kind, seed)
    y = turn(x, positions, table, style, threads=threads)
    want = rotated(x, positions, table, style) if rot else x.double()
    roundoff = torch.finfo(KINDS[kind]).eps / 2 + 3 * 2.0**-24
    pairs = x.double().abs().amax() if x.numel() else 0
    assert ((y.double() - want).abs() <= 3 * roundoff * pairs).all()
    assert torch.equal(y[..., rot:], x[..., rot:])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_levels_and_threads_give_the_same_bits(kind: str, style: str) -> None:
    for rot, channels in ((64, 64), (96, 128), (10, 33), (46, 80), (192, 256)):
        x, positions, table = inputs(37, 9, channels, rot, kind)
        want = None
        for level in native.module().cpu_levels():
            native.module().force_level(level)
            for threads in (1, 2, 5):
                y = turn(x, positions, table, style, threads=threads)
                want = y if want is None else want
                assert torch.equal(y.view(torch.uint8), want.view(torch.uint8)), (level, threads)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_any_strides_and_in_place(kind: str, style: str) -> None:
    x, positions, table = inputs(11, 4, 40, 24, kind)
    want = turn(x, positions, table, style)
    # Tokens and heads exchanged, channels apart, the table with gaps, positions backwards in memory.
    other = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(turn(other, positions, table, style), want)
    gaps = torch.full((11, 4, 80), math.nan, dtype=x.dtype)
    gaps[..., ::2] = x
    out = torch.full((4, 11, 120), math.nan, dtype=x.dtype)
    turn(gaps[..., ::2], positions, table, style, y=out[..., ::3].transpose(0, 1))
    assert torch.equal(out[..., ::3].transpose(0, 1), want)
    assert out[..., 1::3].isnan().all() and out[..., 2::3].isnan().all()
    wide = torch.full((300, 60), math.nan)
    wide[:, ::2] = torch.nn.functional.pad(table, (0, 6))
    assert torch.equal(turn(x, positions, wide[:, ::2][:, :24], style), want)
    spread = torch.stack((positions, positions - 1000), dim=1)[:, 0]
    assert torch.equal(turn(x, spread, table, style), want)
    same = x.clone()
    turn(same, positions, table, style, y=same)
    assert torch.equal(same, want)


def test_a_row_does_not_depend_on_its_batch() -> None:
    """Whatever the flag batch_invariant says: there is nothing to give up for it."""
    x, positions, table = inputs(64, 8, 128, 128, "bf16")
    want = turn(x, positions, table, threads=3)
    for part in (slice(0, 1), slice(63, 64), slice(7, 40)):
        assert torch.equal(turn(x[part], positions[part], table), want[part])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(turn(x[order], positions[order], table), want[order])


@pytest.mark.parametrize("style", STYLES)
def test_scores_depend_on_distance_alone(style: str) -> None:
    """What rope is for: turned queries and keys meet in a product that knows m - n only."""
    table = tables.cos_sin(64, 3000)
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn((1, 1, 64), generator=generator) for _ in range(2))

    def score(m: int, n: int) -> float:
        a, b = (
            turn(v, torch.tensor([p], dtype=torch.int32), table, style) for v, p in ((q, m), (k, n))
        )
        return float((a.double() * b.double()).sum())

    for distance in (0, 1, 17, 500):
        scores = [score(n + distance, n) for n in (0, 1, 100, 2000)]
        assert max(scores) - min(scores) < 64 * 8 * 2.0**-22


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_specials_stay_in_their_pair(kind: str) -> None:
    x, positions, table = inputs(3, 2, 32, 16, kind)
    x[1, 0, 3], x[1, 1, 20] = math.nan, math.inf
    y = turn(x, positions, table)
    assert y[1, 0].isnan().nonzero().flatten().tolist() == [3, 11]
    assert y[1, 1, 20] == math.inf and y[1, 1].isfinite().sum() == 31
    assert y[[0, 2]].isfinite().all()


# Formulas as model code writes them, loop by loop, in plain Python.


def naive_yarn(rot: int, base: float, factor: float, original: int) -> tuple[list[float], float]:
    def pair_of(rotations: float) -> float:
        return (rot * math.log(original / (rotations * 2 * math.pi))) / (2 * math.log(base))

    low, high = max(math.floor(pair_of(32)), 0), min(math.ceil(pair_of(1)), rot - 1)
    found = []
    for i in range(rot // 2):
        extrapolated = 1.0 / base ** (2 * i / rot)
        interpolated = 1.0 / (factor * base ** (2 * i / rot))
        mask = 1 - min(max((i - low) / (high - low), 0.0), 1.0)
        found.append(interpolated * (1 - mask) + extrapolated * mask)
    return found, 0.1 * math.log(factor) + 1.0


def naive_llama3(
    rot: int, base: float, factor: float, low: float, high: float, original: int
) -> list[float]:
    found = []
    for i in range(rot // 2):
        frequency = 1.0 / base ** (2 * i / rot)
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            found.append(frequency)
        elif wavelength > original / low:
            found.append(frequency / factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            found.append((1 - smooth) * frequency / factor + smooth * frequency)
    return found


def naive_dynamic(rot: int, base: float, factor: float, original: int, length: int) -> list[float]:
    if length > original:
        base = base * ((factor * length / original) - (factor - 1)) ** (rot / (rot - 2))
    return [1.0 / base ** (2 * i / rot) for i in range(rot // 2)]


def naive_table(frequencies: list[float], positions: int, magnitude: float = 1.0) -> torch.Tensor:
    rows = [
        [magnitude * math.cos(p * f) for f in frequencies]
        + [magnitude * math.sin(p * f) for f in frequencies]
        for p in range(positions)
    ]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("rot", [2, 64, 128])
@pytest.mark.parametrize("base", [10000.0, 500000.0, 1e6])
def test_tables_are_those_of_model_code(rot: int, base: float) -> None:
    plain = [1.0 / base ** (2 * i / rot) for i in range(rot // 2)]
    most = 200
    wanted: list[tuple[dict[str, Any], torch.Tensor]] = [
        ({}, naive_table(plain, most)),
        ({"rope_type": "linear", "factor": 4.0}, naive_table([f / 4 for f in plain], most)),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            naive_table(naive_llama3(rot, base, 8.0, 1.0, 4.0, 8192), most),
        ),
    ]
    if rot > 2:
        dynamic = naive_dynamic(rot, base, 2.0, 100, most)
        wanted.append(
            (
                {"type": "dynamic", "factor": 2.0, "max_position_embeddings": 100},
                naive_table(dynamic, most),
            )
        )
        yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
        wanted.append((yarn, naive_table(*_yarn(rot, base, most))))
    for config, want in wanted:
        got = tables.cos_sin(rot, most, base, tables.scaling_of(config))
        assert got.dtype == torch.float32 and got.shape == (most, rot)
        # Angles of the two differ by a few units of fp64, the table by its one rounding.
        assert (got.double() - want).abs().max() < 2.0**-24 * 1.2 + most * 2.0**-50, config


def _yarn(rot: int, base: float, most: int) -> tuple[list[float], int, float]:
    frequencies, magnitude = naive_yarn(rot, base, 4.0, 32768)
    return frequencies, most, magnitude


def test_what_scaling_is_for() -> None:
    """Fast pairs stay, slow pairs are slowed by the factor, between them it rises."""
    plain = tables.plain(128, 1e6)
    for scaling in (tables.Yarn(4.0, 32768), tables.Llama3(4.0, 1.0, 4.0, 32768)):
        slowed = plain / scaling.frequencies(128, 1e6, 131072)
        assert slowed[0] == 1 and slowed[-1] == pytest.approx(4.0)
        assert (slowed.diff() >= -1e-12).all()
    stretched = tables.DynamicNTK(4.0, 2048)
    assert torch.equal(stretched.frequencies(64, 1e4, 2048), tables.plain(64, 1e4))
    slowed = tables.plain(64, 1e4) / stretched.frequencies(64, 1e4, 8192)
    assert slowed[0] == 1 and slowed[-1] == pytest.approx(4 * 8192 / 2048 - 3)


def test_yarns_magnitude() -> None:
    assert tables.Yarn(1.0, 4096).magnitude == 1.0
    assert tables.Yarn(40.0, 4096).magnitude == pytest.approx(0.1 * math.log(40) + 1)
    assert tables.Yarn(40.0, 4096, mscale=1.0, mscale_all=1.0).magnitude == 1.0
    both = tables.Yarn(40.0, 4096, mscale=0.707, mscale_all=1.0).magnitude
    assert both == pytest.approx((0.0707 * math.log(40) + 1) / (0.1 * math.log(40) + 1))
    assert (
        tables.scaling_of(
            {
                "type": "yarn",
                "factor": 2,
                "original_max_position_embeddings": 64,
                "attention_factor": 1.5,
            }
        ).magnitude
        == 1.5
    )


def test_tables_are_rounded_once() -> None:
    """Far positions keep the precision of fp32; angles in fp32 would lose it."""
    table = tables.cos_sin(128, 131072)
    exact = [math.cos(131071 * 10000.0 ** (-2 * i / 128)) for i in range(64)]
    assert (table[-1, :64].double() - torch.tensor(exact, dtype=torch.float64)).abs().max() < 1e-7
    in_fp32 = (torch.tensor(131071.0) * tables.plain(128, 1e4).float()).cos()
    assert (in_fp32.double() - torch.tensor(exact, dtype=torch.float64)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"rope_type": "longrope"}, "unknown rope scaling 'longrope'; accepted: default, linear"),
        ({"rope_type": "linear"}, "rope scaling 'linear' needs 'factor'"),
        ({"rope_type": "yarn", "factor": 2.0}, "needs 'max_position_embeddings'"),
    ],
)
def test_scalings_that_are_none(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        tables.scaling_of(config)
    with pytest.raises(UsageError, match="an even number is needed"):
        tables.cos_sin(7, 10)
    with pytest.raises(UsageError, match="rope base 1"):
        tables.cos_sin(8, 10, base=1.0)


def test_refusals_come_before_memory_is_touched() -> None:
    x, positions, table = inputs(5, 2, 16, 8, "fp32", most=50)
    untouched = torch.full_like(x, 7.0)

    def refused(sentence: str, **changed: torch.Tensor) -> None:
        given = {"x": x, "positions": positions, "table": table, "y": untouched, **changed}
        with pytest.raises(Refused, match=sentence):
            turn(given["x"], given["positions"], given["table"], y=given["y"])
        assert (given["y"] == 7).all()

    for bad in (-1, 50, 2**31 - 1, -(2**31)):
        wrong = positions.clone()
        wrong[4] = bad
        refused(rf"positions\[4\] is {bad}; accepted: 0 to 49", positions=wrong)
    refused('dimension 0 of "positions" is 4, expected 5', positions=positions[:4].contiguous())
    refused('tensor "positions" is int64, expected int32', positions=positions.long())
    refused('"cos_sin" turns 7 of 16 channels', table=table[:, :7].contiguous())
    refused('"cos_sin" turns 18 of 16 channels', table=tables.cos_sin(18, 50))
    refused('tensor "cos_sin" is fp16, expected fp32', table=table.half())
    refused('tensor "y" is bf16, expected fp32', y=untouched.bfloat16())
    refused('dimension 2 of "y" is 15', y=untouched[..., :15].contiguous())
    refused('make elements of "y" overlap', y=untouched[:1].expand(5, 2, 16))
    refused('tensor "x" is int8; accepted: fp32', x=x.to(torch.int8))


@pytest.mark.parametrize("style", STYLES)
def test_triton_refuses_what_it_can_see(style: str) -> None:
    from tilewright.kernels.rope import triton as gpu

    x, positions, table = inputs(5, 2, 16, 8, "fp32", most=50)
    tensors = {"x": x, "positions": positions + 60, "cos_sin": table, "y": torch.empty_like(x)}
    config = {"tile_t": 2, "num_warps": 1, "num_stages": 1}
    with pytest.raises(Refused, match="accepted: 0 to 49"):
        gpu.launch(tensors, {"style": style}, config, interpret=True)
    with pytest.raises(Refused, match="powers of two for tile_t, not 3"):
        gpu.launch(
            {**tensors, "positions": positions},
            {"style": style},
            {**config, "tile_t": 3},
            interpret=True,
        )
    with pytest.raises(Refused, match="needs tensor 'y'"):
        gpu.launch({**tensors, "y": None}, {"style": style}, config, interpret=True)


def test_the_spec_refuses_sizes_that_do_not_go_together() -> None:
    sizes = {"T": 1, "H": 1, "D": 8, "MAXPOS": 4, "ROT": 8}
    for changed, sentence in (
        ({"ROT": 7}, "ROT=7 is odd"),
        ({"ROT": 10}, "ROT=10 channels cannot be turned of D=8"),
        ({"MAXPOS": 0}, "a token has no position in MAXPOS=0"),
    ):
        with pytest.raises(UsageError, match=sentence):
            family("rope").spec.case({**sizes, **changed})


def test_the_torch_op() -> None:
    from tilewright.bindings.torch.ops import torch_op

    op = torch_op(family("rope"))
    x, positions, table = inputs(9, 3, 64, 32, "bf16")
    y = op(x, positions, table, style="gptj")
    assert torch.equal(y, turn(x, positions, table, "gptj"))
    with pytest.raises(RuntimeError, match=r"positions\[0\] is 300"):
        op(x, positions * 0 + 300, table)
