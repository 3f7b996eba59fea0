"""One instruction at a time against numpy: copies, fractals, loads into L0, Fixpipe, rounding."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
from twin_build import runner

RNG = np.random.default_rng(11)


def launch(kernel: str, *args: np.ndarray | int | float) -> runner.TwinResult:
    made: list[runner.Buffer | runner.Scalar] = []
    for i, arg in enumerate(args):
        if isinstance(arg, np.ndarray):
            made.append(runner.Buffer.of(f"arg{i}", arg))
        else:
            made.append(runner.Scalar(f"arg{i}", arg, isinstance(arg, float)))
    return runner.run(
        twin_build.twin(),
        kernel,
        1,
        made,
        kernel_library=twin_build.kernels("twin_moves.cpp"),
        hazards=False,  # values in program order; these kernels write no synchronisation
    )


def run(kernel: str, *args: np.ndarray | int | float) -> runner.TwinResult:
    result = launch(kernel, *args)
    assert result.ok, "\n".join(map(str, result.findings))
    return result


def halves(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float16)


def poisoned(count: int, dtype: type) -> np.ndarray:
    return np.full(count * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 50),
    st.integers(0, 9),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_nd2nz(nd: int, n: int, d: int, gap: int, dst_n: int, loose: int) -> None:
    src_d, c_blocks = d + gap, -(-d // 16)
    src_nd = n * src_d + gap
    dst_c0 = n * dst_n + loose
    dst_nd = c_blocks * dst_c0 * 16
    total = nd * dst_nd
    x, y = halves(nd * src_nd + src_d), poisoned(total, np.float16)
    want = y.copy()
    for i in range(nd):
        for row in range(n):
            line = np.zeros(c_blocks * 16, np.float16)
            line[:d] = x[i * src_nd + row * src_d :][:d]
            for block in range(c_blocks):
                start = i * dst_nd + block * dst_c0 * 16 + row * dst_n * 16
                want[start : start + 16] = line[block * 16 : block * 16 + 16]
    run("nd2nz", x, y, nd, n, d, src_nd, src_d, dst_c0, dst_n, dst_nd, total)
    np.testing.assert_array_equal(y.view(np.uint16), want.view(np.uint16))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 4), st.integers(0, 4))
def test_blocks_with_gaps(count: int, length: int, src_gap: int, dst_gap: int) -> None:
    x, y = (
        halves(count * (length + src_gap) * 16),
        poisoned(count * (length + dst_gap) * 16, np.float16),
    )
    run("blocks", x, y, count, length, src_gap, dst_gap)
    rows = x.reshape(count, -1)[:, : length * 16]
    np.testing.assert_array_equal(y.reshape(count, -1)[:, : length * 16], rows)
    assert np.isnan(y.reshape(count, -1)[:, length * 16 :]).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(0, 20),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_copy_pad(count: int, length: int, gm_gap: int, ub_gap: int, left: int, right: int) -> None:
    padded = -(-(length + left + right) // 16) * 16
    pitch = padded + ub_gap * 16
    x, y = halves(count * (length + gm_gap)), poisoned(count * pitch, np.float16)
    run("pad_in", x, y, count, 2 * length, 2 * gm_gap, ub_gap, left, right, 0.5, count * pitch)
    for row, got in zip(x.reshape(count, -1), y.reshape(count, -1), strict=True):
        np.testing.assert_array_equal(got[left : left + length], row[:length])
        assert (got[:left] == 0.5).all() and (got[left + length : padded] == 0.5).all()
        assert np.isnan(got[padded:]).all()
    pitch = -(-length // 16) * 16 + ub_gap * 16
    x, y = halves(count * pitch), poisoned(count * (length + gm_gap), np.float16)
    run("pad_out", x, y, count, 2 * length, ub_gap, 2 * gm_gap, count * pitch)
    np.testing.assert_array_equal(
        y.reshape(count, -1)[:, :length], x.reshape(count, -1)[:, :length]
    )
    assert np.isnan(y.reshape(count, -1)[:, length:]).all()


@pytest.mark.parametrize(
    ("h", "w", "c", "filter_h", "filter_w", "stride", "dilation", "pad", "start"),
    [
        (5, 7, 16, 3, 3, 1, 1, 1, 0),
        (6, 6, 32, 2, 1, 2, 1, 0, 0),
        (9, 8, 16, 2, 3, 1, 2, 2, 16),
        (4, 16, 48, 1, 1, 1, 1, 0, 16),
    ],
)
def test_image_to_column(
    h: int,
    w: int,
    c: int,
    filter_h: int,
    filter_w: int,
    stride: int,
    dilation: int,
    pad: int,
    start: int,
) -> None:
    feature = halves(c // 16, h, w, 16)
    wide = np.full((c // 16, h + 2 * pad, w + 2 * pad, 16), -3, np.float16)
    wide[:, pad : pad + h, pad : pad + w] = feature
    out_h = (h + 2 * pad - dilation * (filter_h - 1) - 1) // stride + 1
    out_w = (w + 2 * pad - dilation * (filter_w - 1) - 1) // stride + 1
    columns = [
        wide[
            c1,
            fy * dilation : fy * dilation + out_h * stride : stride,
            fx * dilation : fx * dilation + out_w * stride : stride,
        ]
        for c1 in range(c // 16)
        for fy in range(filter_h)
        for fx in range(filter_w)
    ]
    matrix = np.concatenate([x.reshape(out_h * out_w, 16) for x in columns], axis=1)
    m, k = out_h * out_w - start, matrix.shape[1]
    y = poisoned(m * k, np.float32)
    run(
        "image_to_column",
        feature,
        y,
        np.eye(k, dtype=np.float16),
        h,
        w,
        c,
        filter_h,
        filter_w,
        stride,
        dilation,
        pad,
        m,
        start,
    )
    np.testing.assert_array_equal(y.reshape(m, k), matrix[start:].astype(np.float32))


@pytest.mark.parametrize(
    ("kernel", "dtype"), [("transposed_a_half", np.float16), ("transposed_a_float", np.float32)]
)
@pytest.mark.parametrize(("k", "m"), [(16, 16), (40, 24), (36, 50)])
def test_a_transposed_on_the_way(kernel: str, dtype: type, k: int, m: int) -> None:
    x, y = RNG.standard_normal((k, m)).astype(dtype), poisoned(m * k, np.float32)
    run(kernel, x, y, np.eye(k, dtype=dtype), k, m)
    np.testing.assert_array_equal(y.reshape(m, k), x.T.astype(np.float32))


def test_square_transpose_of_floats() -> None:
    x, y = RNG.standard_normal((16, 16)).astype(np.float32), poisoned(256, np.float32)
    run("square_transpose_float", x, y, np.eye(16, dtype=np.float32))
    np.testing.assert_array_equal(y.reshape(16, 16), x.T)


SPECIAL = np.array(
    [
        0.0,
        -0.0,
        1.0,
        -1.0,
        65504,
        65519.99,
        65520,
        -65536,
        np.inf,
        -np.inf,
        2**-24,
        2**-25,
        2**-25 * 1.001,
        6.1e-5,
        1 + 2**-11,
        1 + 3 * 2**-11,
        3.4e38,
        1e-45,
        -6e-8,
        2**-14,
        0.1,
        -1 / 3,
    ],
    np.float32,
)


def bf16(x: np.ndarray) -> np.ndarray:
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@pytest.mark.parametrize("relu", [0, 1])
def test_fixpipe_rounds_floats(relu: int) -> None:
    # Infinity times the padding of L0 would be NaN, so each value is a product of its own with one.
    x = np.concatenate([SPECIAL, RNG.standard_normal(74).astype(np.float32) * 1000])
    want = np.where(x > 0, x, np.float32(0)) if relu else x
    one = np.ones((1, 1), np.float32)
    y = poisoned(96, np.float16)
    run("fix_half", x, y, one, 96, relu)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y, want.astype(np.float16))
    y = poisoned(96, np.uint16)
    run("fix_bf16", x, y, one, 96, relu)
    np.testing.assert_array_equal(y & 0x7FFF, bf16(want) & 0x7FFF)  # 0 * -1 + 0 has no sign
    np.testing.assert_array_equal((y >> 15)[want != 0], (bf16(want) >> 15)[want != 0])


def quant(factor: float, *, offset: int = 0, signed: bool = False, shift: int = 0) -> int:
    bits = int(np.float32(factor).view(np.uint32)) | (offset & 0x1FF) << 37 | int(signed) << 46
    return bits | (1 << 36 | (shift - 1) << 32 if shift else 0)


def truncated(factor: float) -> np.float32:
    return np.float32((np.float32(factor).view(np.uint32) & ~np.uint32(0x1FFF)).view(np.float32))


def test_fixpipe_floats_to_int8() -> None:
    x = np.concatenate([np.arange(-40, 40) * np.float32(7.3), [0.5, 1.5, -0.5, -2.5]]).astype(
        np.float32
    )[:80]
    y = poisoned(80, np.int8)
    run(
        "fix_float_int8",
        x,
        y,
        np.ones((1, 1), np.float32),
        80,
        0,
        quant(0.7, offset=-5, signed=True),
    )
    want = np.clip(np.rint(x * truncated(0.7)) - 5, -128, 127)
    np.testing.assert_array_equal(y, want.astype(np.int8))


def product(m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b = (RNG.integers(-128, 128, s, dtype=np.int8) for s in ((m, k), (n, k)))
    return a, b, a.astype(np.int32) @ b.astype(np.int32).T


@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize("factor", [1.0 / 300, 0.01, 3.7])
def test_fixpipe_int32_to_half(factor: float, relu: int) -> None:
    a, b, acc = product(32, 48, 64)
    y = poisoned(32 * 48, np.float16)
    run("fix_int_half", a, b, y, 32, 48, 64, relu, quant(factor))
    want = acc.astype(np.float32) * truncated(factor)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            y.reshape(32, 48), (np.maximum(want, 0) if relu else want).astype(np.float16)
        )


@pytest.mark.parametrize("shift", [0, 3])
def test_fixpipe_int32_to_uint8(shift: int) -> None:
    a, b, acc = product(16, 32, 96)
    y = poisoned(16 * 32, np.uint8)
    run("fix_int_uint8", a, b, y, 16, 32, 96, 0, quant(0.01, offset=7, shift=shift))
    narrowed = (acc >> shift).clip(-32768, 32767) if shift else acc
    want = np.rint(narrowed.astype(np.float32) * truncated(0.01)) + 7
    np.testing.assert_array_equal(y.reshape(16, 32), np.clip(want, 0, 255).astype(np.uint8))


def test_fixpipe_vector_of_scales() -> None:
    a, b, acc = product(16, 64, 32)
    scale = (RNG.random(64) * 0.02 + 1e-3).astype(np.float32)
    table = np.array(
        [quant(float(s), offset=i % 5, signed=True) for i, s in enumerate(scale)], np.uint64
    )
    y = poisoned(16 * 64, np.int8)
    run("fix_int_vector", a, b, y, table, 16, 64, 32)
    used = np.array([truncated(float(s)) for s in scale])
    want = np.rint(acc.astype(np.float32) * used) + np.arange(64) % 5
    np.testing.assert_array_equal(y.reshape(16, 64), np.clip(want, -128, 127).astype(np.int8))


def test_fixpipe_keeps_fractals() -> None:
    a, b, acc = product(32, 64, 32)
    y = poisoned(32 * 64, np.int32)
    run("fix_nz", a, b, y, 32, 64, 32, 0, 0)
    np.testing.assert_array_equal(y.reshape(4, 32, 16).transpose(1, 0, 2).reshape(32, 64), acc)
    y8 = poisoned(32 * 64, np.int8)
    run("fix_nz", a, b, y8, 32, 64, 32, 1, quant(0.001, signed=True))
    want = np.clip(np.rint(acc.astype(np.float32) * truncated(0.001)), -128, 127)
    np.testing.assert_array_equal(
        y8.reshape(2, 32, 32).transpose(1, 0, 2).reshape(32, 64), want.astype(np.int8)
    )


def test_half_bias_is_widened() -> None:
    x, y = halves(64), poisoned(16 * 64, np.float32)
    run("half_bias", x, y, np.zeros(256, np.float16), 64)
    np.testing.assert_array_equal(
        y.reshape(16, 64), np.broadcast_to(x.astype(np.float32), (16, 64))
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=300))
def test_scalar_rounding(values: list[float]) -> None:
    x = np.concatenate([np.array(values, np.float32), SPECIAL])
    h, b, back = (
        poisoned(x.size, np.float16),
        poisoned(x.size, np.uint16),
        poisoned(x.size, np.float32),
    )
    run("round_scalars", x, h, b, back, x.size)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(h.view(np.uint16), x.astype(np.float16).view(np.uint16))
    np.testing.assert_array_equal(b, bf16(x))
    np.testing.assert_array_equal(back, h.astype(np.float32))


def test_every_half_survives_the_round_trip() -> None:
    every = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)
    numbers = every[~np.isnan(every)]
    x = numbers.astype(np.float32)
    h, b, back = (
        poisoned(x.size, np.float16),
        poisoned(x.size, np.uint16),
        poisoned(x.size, np.float32),
    )
    run("round_scalars", x, h, b, back, x.size)
    np.testing.assert_array_equal(h.view(np.uint16), numbers.view(np.uint16))
    np.testing.assert_array_equal(back, x)


def packed(x: np.ndarray) -> np.ndarray:
    """Two numbers of 4 bits to a byte, the first one low."""
    return ((x[:, 1::2] << 4) | (x[:, ::2] & 15)).astype(np.int8)


@pytest.mark.parametrize("image", [0, 1], ids=["2d", "3d"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_four_bits(transposed: int, image: int) -> None:
    m, n, k = 48, 128, 192
    a, b = (RNG.integers(-8, 8, s, dtype=np.int8) for s in ((m, k), (n, k)))
    y = poisoned(m * n, np.int32)
    other = np.ascontiguousarray(b.T) if transposed else b
    run("int4_product", packed(a), packed(other), y, m, n, k, transposed, image)
    np.testing.assert_array_equal(y.reshape(m, n), a.astype(np.int32) @ b.astype(np.int32).T)


def test_data_copy_out_of_l0c() -> None:
    m, n, k = 32, 64, 32
    a, b, acc = product(m, n, k)
    none = np.zeros(n, np.uint64)
    rows = poisoned(m * n, np.float16)
    run("co1", a, b, rows, none, m, n, k, 0, quant(0.01))
    want = np.maximum(acc.astype(np.float32) * truncated(0.01), 0).astype(np.float16)
    np.testing.assert_array_equal(rows.reshape(m, n), want)

    def unfolded(y: np.ndarray, width: int) -> np.ndarray:
        return y.reshape(n // width, m, width).transpose(1, 0, 2).reshape(m, n)

    factors = [0.001 * (1 + i % 7) for i in range(n)]
    table = np.array([quant(f, signed=True) for f in factors], np.uint64)
    eight = poisoned(m * n, np.int8)
    run("co1", a, b, eight, table, m, n, k, 1, 0)
    scaled = np.rint(acc.astype(np.float32) * np.array([truncated(f) for f in factors]))
    np.testing.assert_array_equal(unfolded(eight, 32), np.clip(scaled, -128, 127).astype(np.int8))

    plain = poisoned(m * n, np.int32)
    run("co1", a, b, plain, none, m, n, k, 2, 0)
    np.testing.assert_array_equal(unfolded(plain, 16), acc)

    run("co1", a, b, eight, none, m, n, k, 3, quant(0.002, signed=True))
    scaled = np.rint(acc.astype(np.float32) * truncated(0.002))
    np.testing.assert_array_equal(unfolded(eight, 32), np.clip(scaled, -128, 127).astype(np.int8))

    (finding,) = launch("co1", a, b, plain, none, m, n, k, 4, 0).findings
    assert finding.kind == "illegal-parameter" and "SetFixpipeNz2ndFlag" in finding.message


def test_load_3d_of_floats_writes_no_row_beyond_the_last_8() -> None:
    k, n = 32, 24  # 4 blocks along k, each of 32 rows of 8 of which 24 are written
    x = np.ones((k, n), np.float32)
    run("into_l0b", x, k, n, (3 * 32 + 24) * 8)
    (finding,) = launch("into_l0b", x, k, n, (3 * 32 + 24) * 8 - 1).findings
    assert finding.kind == "out-of-bounds" and finding.range == (0, (3 * 32 + 24) * 32)
