"""quantize: the codes of the KV formats, bit for bit, and what they leave."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_calls import KINDS, call, spread, unwritten

from tilewright import native
from tilewright.errors import Refused, UsageError
from tilewright.kernels.quantize.spec import SCALES
from tilewright.registry import family


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    yield
    native.module().force_level(None)


def quantize(
    x: torch.Tensor,
    scales: str = "token",
    given_scale: torch.Tensor | None = None,
    threads: int = 1,
    q: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, scales), the given ones where they were."""
    q = torch.full(x.shape, -128, dtype=torch.int8) if q is None else q
    size = x.shape[0] if scales.endswith("token") else x.shape[1]
    tensors = {"x": x, "q": q}
    if given_scale is None:
        scale = torch.full((size,), math.nan) if scale is None else scale
        tensors[f"{scales}_scale"] = scale
    else:
        scale = given_scale
        tensors[f"given_{scales.removeprefix('static_')}_scale"] = scale
    call("quantize", tensors, {"scales": scales}, threads)
    return q, scale


def by_numpy(
    x: torch.Tensor, scales: str, given_scale: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """The formula, one fp32 operation at a time."""
    wide = x.float().numpy()
    axis = 1 if scales.endswith("token") else 0
    if given_scale is None:
        s = np.abs(wide).max(axis, initial=0.0) * (np.float32(1) / np.float32(127))
        s = np.where(s < np.float32(2.0**-126), np.float32(1), s).astype(np.float32)
    else:
        s = given_scale.numpy()
    r = np.expand_dims(np.float32(1) / s, axis)
    return np.clip(np.rint(wide * r), -127, 127).astype(np.int8), s


def inputs(t: int, d: int, kind: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((t, d), generator=generator)
    x = x * torch.exp2(torch.randint(-20, 10, (t, 1), generator=generator).float())
    x[::4] = torch.round(x[::4] * 20) / 2  # ties
    x[1::5] = 0
    return x.to(KINDS[kind])


@settings(max_examples=120, deadline=None)
@given(
    t=st.integers(0, 40),
    d=st.integers(0, 600),
    kind=st.sampled_from(sorted(KINDS)),
    scales=st.sampled_from(SCALES),
    seed=st.integers(0, 1000),
    threads=st.integers(1, 3),
    gaps=st.booleans(),
)
def test_codes_are_the_formulas(
    t: int, d: int, kind: str, scales: str, seed: int, threads: int, gaps: bool
) -> None:
    x = inputs(t, d, kind, seed)
    given_scale = None
    if scales.startswith("static"):
        size = t if scales == "static_token" else d
        given_scale = torch.rand(size, generator=torch.Generator().manual_seed(seed)) + 2.0**-20
    want, want_scale = by_numpy(x, scales, given_scale)
    for level in native.module().cpu_levels():
        native.module().force_level(level)
        q = spread(torch.zeros((t, d), dtype=torch.int8)) if gaps else None
        got, scale = quantize(spread(x) if gaps else x, scales, given_scale, threads, q)
        assert np.array_equal(got.numpy(), want), level
        assert np.array_equal(scale.numpy(), want_scale), level
        if gaps and t and d:
            assert (torch.as_strided(got, (t, d), got.stride(), 1) == -128).all()


@pytest.mark.parametrize("scales", [s for s in SCALES if s != "channel"])
def test_a_token_does_not_depend_on_its_mates(scales: str) -> None:
    x = inputs(50, 1030, "bf16", 3)
    given_scale = torch.rand(50 if scales == "static_token" else 1030) + 0.1
    found = scales == "token"
    want, scale = quantize(x, scales, None if found else given_scale, 3)
    for part in (slice(0, 1), slice(49, 50), slice(7, 31)):
        own = given_scale[part] if scales == "static_token" else given_scale
        got, some = quantize(x[part], scales, None if found else own)
        assert torch.equal(got, want[part])
        assert not found or torch.equal(some, scale[part])


def test_a_channels_scale_is_of_the_batch() -> None:
    sentence = "no row is independent of its batch; accepted with batch_invariant: token,"
    flags = {"scales": "channel", "batch_invariant": "yes"}
    with pytest.raises(UsageError, match=sentence):
        family("quantize").spec.case({"T": 2, "D": 2}, flags=flags)
    x, q = torch.ones((2, 2)), torch.zeros((2, 2), dtype=torch.int8)
    tensors = {"x": x, "q": q, "channel_scale": torch.ones(2)}
    with pytest.raises(Refused, match=sentence):
        call("quantize", tensors, flags)
    with pytest.raises(Refused, match=sentence):
        family("quantize").module("triton").launch(tensors, flags, {}, interpret=True)


def test_codes_are_those_of_the_cache() -> None:
    from tilewright.kernels._kv.reference import quantise8, token_scale8

    x = inputs(30, 128, "bf16", 1)
    q, scale = quantize(x)
    assert torch.equal(scale, token_scale8(x)) and torch.equal(q, quantise8(x, scale[:, None]))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_an_element_stands_for(kind: str) -> None:
    x = inputs(40, 300, kind, 2)
    q, scale = quantize(x)
    error = (x.double() - q.double() * scale.double()[:, None]).abs()
    assert (error <= scale.double()[:, None] * (0.5 + 127 * 2.0**-22)).all()
    assert (q.abs().amax(1)[x.abs().amax(1) > 0] == 127).all()


def test_specials_stay_with_their_scale() -> None:
    x = inputs(6, 100, "fp32", 5)
    want, scale = quantize(x)
    x[2, 7], x[3, 0] = math.nan, math.inf
    got, some = quantize(x)
    others = [0, 1, 4, 5]
    assert torch.equal(got[others], want[others]) and torch.equal(some[others], scale[others])
    large = torch.full((1, 64), 3.0e38)
    assert (quantize(large)[0] == 127).all()
    smallest = torch.full((1, 64), 2.0**-149)
    assert (quantize(smallest)[0] == 0).all() and quantize(smallest)[1][0] == 1


def test_scales_with_gaps() -> None:
    x = inputs(20, 30, "fp32", 7)
    for scales, size in (("token", 20), ("channel", 30)):
        want, _ = quantize(x, scales)
        wide = torch.full((3 * size,), -1.0)
        got, scale = quantize(x, scales, scale=wide[::3])
        assert torch.equal(got, want) and (wide[1::3] == -1).all()
        again, _ = quantize(x, f"static_{scales}", scale)
        assert torch.equal(again, want)


def test_refusals_come_before_memory_is_touched() -> None:
    x = inputs(5, 16, "fp32", 0)
    q = torch.full((5, 16), 7, dtype=torch.int8)

    def refused(sentence: str, **changed: object) -> None:
        given_values = {"x": x, "scales": "token", "given_scale": None, "q": q, **changed}
        with pytest.raises(Refused, match=sentence):
            quantize(**given_values)  # type: ignore[arg-type]
        assert (given_values["q"] == 7).all()  # type: ignore[attr-defined]

    refused('tensor "x" is int8; accepted: fp32, bf16, fp16', x=x.to(torch.int8))
    refused('tensor "q" is fp32, expected int8', q=torch.full((5, 16), 7.0))
    refused('dimension 1 of "q" is 15, expected 16', q=q[:, :15])
    refused('make elements of "q" overlap', q=q[:1].expand(5, 16))
    refused('dimension 0 of "token_scale" is 4, expected 5', scale=torch.zeros(4))
    refused('"channel_scale" is fp16', scales="channel", scale=torch.zeros(16).half())
    for bad in (0.0, -1.0, math.nan, math.inf, 2.0**-130):
        wrong = torch.ones(5)
        wrong[3] = bad
        refused(r"given_token_scale\[3\] is", scales="static_token", given_scale=wrong)
    refused(
        'dimension 0 of "given_channel_scale" is 5, expected 16',
        scales="static_channel",
        given_scale=torch.ones(5),
    )


def test_triton_refuses_what_it_can_see() -> None:
    gpu = family("quantize").module("triton")
    x = inputs(5, 16, "fp32", 0)
    tensors = {"x": x, "q": torch.zeros((5, 16), dtype=torch.int8)}
    tensors["given_token_scale"] = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    with pytest.raises(Refused, match=r"given_token_scale\[2\] is 0"):
        gpu.launch(tensors, {"scales": "static_token"}, {"num_warps": 1}, interpret=True)
    with pytest.raises(Refused, match="needs tensor 'channel_scale'"):
        gpu.launch(tensors, {"scales": "channel"}, {"num_warps": 1}, interpret=True)


@pytest.mark.parametrize("tile_t", [1, 2, 8])
def test_triton_tiles_of_tokens(tile_t: int) -> None:
    gpu = family("quantize").module("triton")
    config = {"num_warps": 1, "tile_t": tile_t}
    for t, d, kind in ((1, 1, "fp32"), (5, 300, "bf16"), (9, 1030, "fp16")):
        x = inputs(t, d, kind, 4)
        for scales in ("token", "static_token", "static_channel"):
            size = t if scales.endswith("token") else d
            own = None if scales == "token" else torch.linspace(0.1, 1, size)
            want, scale = quantize(x, scales, own)
            q, found = torch.full((t, d), -128, dtype=torch.int8), torch.full((size,), math.nan)
            tensors = {"x": x, "q": q}
            tensors |= {"token_scale": found} if own is None else {f"given_{scales[7:]}_scale": own}
            gpu.launch(tensors, {"scales": scales}, config, interpret=True)
            assert torch.equal(q, want) and (own is not None or torch.equal(found, scale))


def test_the_torch_op() -> None:
    from tilewright.bindings.torch.ops import torch_op

    op = torch_op(family("quantize"))
    x = inputs(9, 64, "bf16", 0)
    for scales in ("token", "channel"):
        q, scale = op(x, scales=scales)[:2]
        want, want_scale = quantize(x, scales)
        assert torch.equal(q, want)
        assert scale is not None and unwritten(want_scale).shape == want_scale.shape
