"""DataCopy's rarer forms, Fill, and LoadData 3D with its registers, against numpy."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_across as across
import twin_build
from twin_across import TYPES, WIDE
from twin_build import runner

SOURCE = "twin_data_forms.cpp"


def generator(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


@pytest.mark.parametrize("dtype", WIDE)
def test_nz2nd(dtype: str) -> None:
    code, kind = TYPES[dtype]
    rng = generator(dtype)
    for _ in range(6):
        nd, n, columns = int(rng.integers(1, 4)), int(rng.integers(1, 30)), int(rng.integers(1, 4))
        src_n, d = n + int(rng.integers(0, 4)), 16 * columns
        src_nd = -(-columns * src_n // 16) + int(rng.integers(0, 2))
        dst_d = d + int(rng.integers(0, 9))
        dst_nd = n * dst_d + int(rng.integers(0, 9))
        x = across.elements(dtype, nd * src_nd * 256, rng)
        y = across.poison(nd * dst_nd * kind.itemsize, rng).view(kind)
        want = y.copy()
        for i in range(nd):
            for row in range(n):
                line = [x[i * src_nd * 256 + (c * src_n + row) * 16 :][:16] for c in range(columns)]
                want[i * dst_nd + row * dst_d :][:d] = np.concatenate(line)
        across.run(
            SOURCE, "nz2nd", [x, y], [code, x.nbytes, nd, n, d, src_nd, src_n, dst_d, dst_nd]
        )
        np.testing.assert_array_equal(y.view(np.uint8), want.view(np.uint8))


def test_nz2nd_is_checked() -> None:
    x, y = np.zeros(512, np.float16), np.zeros(512, np.float16)
    words = across.refused(
        SOURCE, "nz2nd", [x, y], [0, 1024, 1, 4, 8, 1, 4, 8, 1], "illegal-parameter"
    )
    assert "dValue 8 is not a multiple of 16" in words


def places(side: list[tuple[int, ...]], counts: list[int], length: int) -> np.ndarray:
    """Elements of all slices, in order; those of the first dimension are ``length`` long."""
    at = np.zeros(1, np.int64)
    pitch = 1
    for (start, _, gap, _, shape), count in zip(side, counts, strict=True):
        steps = start + np.arange(count)[:, None] * (gap + length) + np.arange(length)
        at = (steps.reshape(-1)[:, None] * pitch + at).reshape(-1)
        pitch *= shape
        length = 1
    return at


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["half", "float", "int8"])
def test_slices(dtype: str, dims: int) -> None:
    code, kind = TYPES[dtype]
    per = 32 // kind.itemsize
    rng = generator(dtype, dims)
    for _ in range(6):
        counts = [int(c) for c in rng.integers(1, 4, dims)]
        burst = int(rng.integers(1, 4))
        sides = []
        for chip in (True, False):
            side = []
            for d, count in enumerate(counts):
                length = burst * per if d == 0 else 1
                gap = int(rng.integers(0, 3)) * (per if chip and d == 0 else 1)
                start = int(rng.integers(0, 3)) * (per if chip and d == 0 else 1)
                end = start + (count - 1) * gap + count * length - 1
                shape = end + 1 + int(rng.integers(0, 3))
                if chip and d == 0:
                    shape = across.up(shape, per)
                side.append((start, end, gap, burst if d == 0 else 1, shape))
            sides.append(side)
        chip_side, gm_side = sides

        x = across.elements(dtype, int(np.prod([s[4] for s in gm_side])), rng)
        size = across.up(int(np.prod([s[4] for s in chip_side])) * kind.itemsize)
        y, z = across.poison(size, rng).view(kind), across.poison(x.nbytes, rng).view(kind)
        in_y, in_z = y.copy(), z.copy()
        sliced = places(gm_side, counts, burst * per)
        in_y[places(chip_side, counts, burst * per)] = x[sliced]
        in_z[sliced] = x[sliced]
        flat = [v for side in (chip_side, gm_side) for one in side for v in one]
        across.run(SOURCE, "slices", [x, y, z], [code, size, dims, *flat])
        np.testing.assert_array_equal(y.view(np.uint8), in_y.view(np.uint8))
        np.testing.assert_array_equal(z.view(np.uint8), in_z.view(np.uint8))


def test_forms_add_to_gm() -> None:
    x, y = np.arange(256, dtype=np.float32), np.full(256, 1000, np.float32)
    arguments = [runner.Buffer.of("x", x), runner.Buffer.of("y", y)]
    library = twin_build.kernels(SOURCE)
    result = runner.run(twin_build.twin(), "forms_add", 1, arguments, kernel_library=library)
    assert result.ok, result.findings
    np.testing.assert_array_equal(y, 1000 + 2 * x)


def test_slices_are_checked() -> None:
    x, y = np.zeros(261, np.float32), np.zeros(96, np.float32)
    good = [0, 47, 0, 3, 48, 0, 1, 0, 1, 2, 16, 70, 7, 3, 87, 0, 2, 1, 1, 3]
    across.run(SOURCE, "slices", [x, y, x.copy()], [1, 384, 2, *good])
    for at, value in ((11, 71), (16, 3), (3, 2)):
        bad = [*good]
        bad[at] = value
        result = across.launch(SOURCE, "slices", [x, y, x.copy()], [1, 384, 2, *bad])
        assert {f.kind for f in result.findings} == {"illegal-parameter"}


def test_enhanced_parameters() -> None:
    x, y = np.arange(8 * 16, dtype=np.float16), np.zeros(8 * 16, np.float16)
    arguments = [runner.Buffer.of("x", x), runner.Buffer.of("y", y), runner.Scalar("blocks", 4)]
    library = twin_build.kernels(SOURCE)
    result = runner.run(twin_build.twin(), "enhanced", 1, arguments, kernel_library=library)
    assert result.ok, result.findings
    want = x.reshape(4, 32).copy()
    want[:, 16:] = 0
    np.testing.assert_array_equal(y, want.reshape(-1))
    result = runner.run(twin_build.twin(), "out_of_l0c", 1, arguments[:1], kernel_library=library)
    assert "there is no path from l0c to ub" in str(result.findings[0])


@pytest.mark.parametrize("n", [1, 5, 15])
def test_padding_from_the_register(n: int) -> None:
    x, y = np.arange(3 * n, dtype=np.float16), np.zeros(48, np.float16)
    arguments = [runner.Buffer.of("x", x), runner.Buffer.of("y", y), runner.Scalar("n", n)]
    result = runner.run(
        twin_build.twin(),
        "pad_from_register",
        1,
        arguments,
        kernel_library=twin_build.kernels(SOURCE),
    )
    assert result.ok, result.findings
    want = np.full((3, 16), 7, np.float16)
    want[:, 1 : n + 1] = x.reshape(3, n)
    np.testing.assert_array_equal(y.reshape(3, 16), want)


@pytest.mark.parametrize("dtype", WIDE)
def test_fill_l1(dtype: str) -> None:
    code, kind = TYPES[dtype]
    rng = generator(dtype)
    for _ in range(4):
        repeat, blocks, gap = (int(v) for v in rng.integers(1, 6, 3))
        y = across.poison(repeat * (blocks + gap) * 32, rng)
        value = across.elements(dtype, 40, rng)[:1]
        want = y.copy().reshape(repeat, blocks + gap, 32)
        want[:, :blocks] = np.tile(value, 32 // kind.itemsize).view(np.uint8)
        bits = int(value.view(f"u{kind.itemsize}")[0])
        across.run(SOURCE, "fill_l1", [y], [code, y.nbytes, repeat, blocks, gap, bits])
        np.testing.assert_array_equal(y, want.reshape(-1))
    before = y.copy()
    across.run(SOURCE, "fill_l1", [y], [code, y.nbytes, 0, 3, 0, 1])
    np.testing.assert_array_equal(y, before)


def test_fill_l0() -> None:
    y = np.zeros((48, 16), np.float32)
    result = runner.run(
        twin_build.twin(),
        "fill_l0",
        1,
        [runner.Buffer.of("y", y)],
        kernel_library=twin_build.kernels(SOURCE),
    )
    assert result.ok, result.findings
    np.testing.assert_array_equal(y, np.repeat([32.0, 48.0, 32.0], 16)[:, None] * np.ones((48, 16)))


def columns(feature: np.ndarray, kh: int, kw: int, pad: int) -> np.ndarray:
    """[out_h * out_w, c1 * kh * kw * 16] of a feature map [c1, h, w, 16], padded with -3."""
    c1, h, w, _ = feature.shape
    wide = np.full((c1, h + 2 * pad, w + 2 * pad, 16), -3, np.float16)
    wide[:, pad : pad + h, pad : pad + w] = feature
    out_h, out_w = h + 2 * pad - kh + 1, w + 2 * pad - kw + 1
    taps = [
        wide[c, y : y + out_h, x : x + out_w].reshape(-1, 16)
        for c in range(c1)
        for y in range(kh)
        for x in range(kw)
    ]
    return np.concatenate(taps, axis=1)


def load_3d(
    feature: np.ndarray,
    form: int,
    kernel: tuple[int, int],
    pad: int,
    extent: tuple[int, int],
    start: tuple[int, int] = (0, 0),
    *,
    at: int = 0,
    boundary: int = 0,
    repeat: tuple[int, int, int] = (0, 1, 0),
) -> np.ndarray:
    """What LoadData 3D brings to L0A, row-major; ``extent`` and ``start`` are (m, k)."""
    c1, h, w, _ = feature.shape
    stride, time, mode = repeat
    m = extent[0] * (time if mode == 0 else 1)
    k = extent[1] * (time if mode == 1 else 1)
    y = np.zeros((m, k), np.float32)
    eye = np.eye(k, dtype=np.float16)
    x = np.ascontiguousarray(feature).reshape(-1)
    raw = x
    if boundary and at + x.nbytes > boundary:  # what lies beyond goes to the start of L1
        raw = np.zeros(boundary // 2, np.float16)
        cut = (boundary - at) // 2
        raw[at // 2 :] = x[:cut]
        raw[: x.size - cut] = x[cut:]
    params = [raw.nbytes, 0, form, h, w, 16 * c1, extent[1], extent[0], start[1], start[0]]
    params += [kernel[1], kernel[0], pad, boundary, stride, time, mode, m, k, at]
    across.run(SOURCE, "load_3d", [raw, eye, y], params)
    return y


@pytest.mark.parametrize("form", [0, 1, 2])
def test_load_3d_forms(form: int) -> None:
    """Parameters, registers and the packed form say the same."""
    feature = generator(form).standard_normal((2, 5, 6, 16)).astype(np.float16)
    want = columns(feature, 3, 3, 1)
    got = load_3d(feature, form, (3, 3), 1, (16, 48), (8, 32))
    np.testing.assert_array_equal(got, want[8:24, 32:80])


def test_load_3d_repeats() -> None:
    feature = generator("repeats").standard_normal((4, 16, 8, 16)).astype(np.float16)
    want = columns(feature, 1, 1, 0)
    got = load_3d(feature, 0, (1, 1), 0, (16, 32), (0, 16), repeat=(3, 2, 0))
    np.testing.assert_array_equal(got, np.concatenate([want[0:16, 16:48], want[48:64, 16:48]]))
    got = load_3d(feature, 0, (1, 1), 0, (32, 16), (16, 0), repeat=(2, 2, 1))
    np.testing.assert_array_equal(
        got, np.concatenate([want[16:48, 0:16], want[16:48, 32:48]], axis=1)
    )


def test_load_3d_beyond_the_boundary() -> None:
    feature = generator("boundary").standard_normal((1, 8, 8, 16)).astype(np.float16)
    got = load_3d(feature, 0, (1, 1), 0, (64, 16), at=2048, boundary=3072)
    np.testing.assert_array_equal(got, columns(feature, 1, 1, 0))
