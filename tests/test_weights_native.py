"""C++ that decodes and lays out weights, against numpy, gguf and the families' own layout functions."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tilewright import native
from tilewright.engine.layout import code_panels, finite, group_panels, panels, rounded
from tilewright.errors import UsageError
from tilewright.kernels.gemm.reference import to_panel16
from tilewright.kernels.gemm_w4 import formats
from tilewright.models.dequant import NATIVE, dequantise, numpy_dequantise

C = native.module()
SIZES = st.integers(1, 70)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), encoding=st.sampled_from(sorted(NATIVE)))
def test_any_bytes_decode_as_in_numpy_and_gguf(data: st.DataObject, encoding: str) -> None:
    rows, blocks = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    seed = data.draw(st.integers(0, 2**32 - 1))
    size, values = NATIVE[encoding]
    raw = np.random.default_rng(seed).integers(0, 256, (rows, blocks * size), dtype=np.uint8)
    found = dequantise(raw, encoding)
    assert found.shape == (rows, blocks * values)
    with np.errstate(all="ignore"):
        if raw.size:
            np.testing.assert_array_equal(found, numpy_dequantise(raw, encoding))
            theirs = gguf.quants.dequantize(raw, GGMLQuantizationType[encoding])
            np.testing.assert_array_equal(found, theirs.astype(np.float32))


def test_every_fp16_number_is_exact() -> None:
    raw = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(1, -1)
    found, expected = dequantise(raw, "F16"), numpy_dequantise(raw, "F16")
    whole = ~np.isnan(expected)
    assert (np.isnan(found) == ~whole).all() and whole.sum() == (1 << 16) - 2046
    np.testing.assert_array_equal(found[whole].view(np.uint32), expected[whole].view(np.uint32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: C.dequantize("Q4_1", b(21), b(128)), "encoded has 21 bytes; accepted: 20"),
        (lambda b: C.dequantize("Q4_1", b(20), b(124)), "values has 124 bytes; accepted: 128"),
        (lambda b: C.dequantize("Q4_1", b(20), b(132)), "values has 132 bytes; accepted: 128"),
        (lambda b: C.dequantize("Q6_K", b(20), b(128)), "no encoding 'Q6_K'; accepted: F16"),
        (lambda b: C.dequantize("F16", b(8)[::2], b(8)), "encoded is not contiguous"),
        (lambda b: C.unpack_q4(b(20), 2, b(31), b(4)), "codes has 31 bytes; accepted: 32"),
        (lambda b: C.unpack_q4(b(20), 2, b(32), b(6)), "factors has 6 bytes; accepted: 4"),
        (lambda b: C.unpack_q4(b(20), 3, b(32), b(4)), "has 1 or 2 factors"),
        (lambda b: C.panels(b(12), 0, 4, b(64)), "are not 0 equal rows"),
        (lambda b: C.panels(b(13), 3, 4, b(64)), "are not 3 equal rows"),
        (lambda b: C.panels(b(12), 3, 4, b(60)), "laid has 60 bytes; accepted: 64"),
        (lambda b: C.panels(b(12), 3, 8, b(64)), "2 or 4 bytes"),
        (lambda b: C.pack_codes(b(33), 1, b(256)), "laid has 256 bytes; accepted: 512"),
    ],
)
def test_bounds_are_checked(call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(lambda size: np.zeros(size, np.uint8))  # type: ignore[operator]


def test_memory_that_may_not_be_written_is_refused() -> None:
    with pytest.raises((BufferError, ValueError, TypeError)):
        C.dequantize("F16", b"\0\0", b"\0\0\0\0")


@settings(max_examples=150, deadline=None)
@given(
    n=SIZES,
    k=SIZES,
    kind=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int8]),
    seed=st.integers(0, 2**31),
    turned=st.booleans(),
)
def test_panels_are_those_of_gemm(
    n: int, k: int, kind: torch.dtype, seed: int, turned: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randint(-127, 128, (k, n) if turned else (n, k), generator=generator).to(kind)
    w = w.t() if turned else w
    lane = {torch.float32: 1, torch.bfloat16: 2, torch.float16: 1, torch.int8: 4}[kind]
    assert torch.equal(panels(w), to_panel16(w.t(), {"KR": lane}))


@settings(max_examples=150, deadline=None)
@given(n=SIZES, k=SIZES, seed=st.integers(0, 2**31))
def test_four_bit_panels_are_those_of_gemm_w4(n: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (n, k), generator=generator).to(torch.uint8)
    assert torch.equal(code_panels(codes), formats.codes_to_panel16(codes.int(), {}))
    shared = torch.randn(n, k, generator=generator).half()
    assert torch.equal(group_panels(shared), formats.groups_to_panel16(shared, {}))


@settings(max_examples=100, deadline=None)
@given(
    n=SIZES,
    k=SIZES,
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 1e-42, 1e-38, 1e-3, 1.0, 1e30]),
    kind=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_rounding_is_to_the_nearest_code(
    n: int, k: int, seed: int, scale: float, kind: torch.dtype
) -> None:
    w = (torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * scale).to(kind)
    codes, scales = rounded(w)
    amax = w.float().abs().amax(dim=1)
    tiny = amax / 127.0 <= 2.0**-126
    assert torch.equal(scales, torch.where(tiny, torch.ones_like(amax), amax / 127.0))
    expected = (w.float() / scales[:, None]).round().clamp(-127, 127)
    assert torch.equal(codes, expected.to(torch.int8))
    assert bool(((codes.abs().amax(dim=1) == 127) | tiny).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_one_bad_value_among_many_is_found(bad: float, kind: torch.dtype) -> None:
    values = torch.ones(100_003, dtype=kind)
    assert finite(values)
    for at in (0, 50_001, 100_002):
        spoilt = values.clone()
        spoilt[at] = bad
        assert not finite(spoilt)


@settings(max_examples=100, deadline=None)
@example(data=b"\x01", at=0, bit=0)
@given(data=st.binary(min_size=1, max_size=200), at=st.integers(0, 199), bit=st.integers(0, 7))
def test_a_flipped_bit_or_a_lost_byte_changes_the_sum(data: bytes, at: int, bit: int) -> None:
    changed = bytearray(data)
    changed[at % len(data)] ^= 1 << bit
    assert C.checksum(data) != C.checksum(changed)
    assert C.checksum(data) != C.checksum(data[:-1])
    assert C.checksum(data) == C.checksum(bytes(data))
