"""Brcb, Copy, Transpose, TransDataTo5HD and BilinearInterpolation against numpy."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_across as across
from twin_across import TYPES, WIDE

SOURCE = "twin_vec_move.cpp"
TRANSPOSED = ("half", "float", "int16", "uint16", "int32", "uint32", "int8", "uint8")


def generator(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


@pytest.mark.parametrize("dtype", WIDE)
def test_brcb(dtype: str) -> None:
    code, kind = TYPES[dtype]
    rng = generator(dtype)
    for _ in range(6):
        repeat, blk = int(rng.integers(1, 6)), int(rng.integers(1, 4))
        rep = int(rng.integers(8 * blk, 32))
        x = across.elements(dtype, across.up(repeat * 8 * kind.itemsize) // kind.itemsize, rng)
        y = across.poison(repeat * rep * 32, rng)
        want = y.copy().view(kind).reshape(-1, 32 // kind.itemsize)
        for i in range(repeat * 8):
            want[i // 8 * rep + i % 8 * blk] = x[i]
        across.run(SOURCE, "brcb", [x, y], [code, x.nbytes, y.nbytes, repeat, blk, rep])
        np.testing.assert_array_equal(y, want.view(np.uint8).reshape(-1))


@pytest.mark.parametrize("how", across.HOWS)
@pytest.mark.parametrize("dtype", WIDE)
def test_copy(dtype: str, how: str) -> None:
    """Counter mode: the mask counts the elements of one repeat, and the repeats hold."""
    code, kind = TYPES[dtype]
    size, width, per = kind.itemsize, 256 // kind.itemsize, 32 // kind.itemsize
    rng = generator(dtype, how)
    for _ in range(5):
        mask = across.masks(how, width, rng)
        repeat = int(rng.integers(1, 5)) if how == "counter" else mask.repeat
        rows = (
            [list(range(mask.words[0]))] * repeat if how == "counter" else list(mask.lanes(width))
        )
        blocks = max(8, -(-mask.words[0] // per) if how == "counter" else 8)
        dst_blk, src_blk = int(rng.integers(1, 4)), int(rng.integers(0, 4))
        dst_rep, src_rep = int(rng.integers(blocks * dst_blk, 200)), int(rng.integers(0, 30))
        x = across.elements(dtype, (repeat * src_rep + blocks * max(src_blk, 1)) * per, rng)
        y = across.poison(across.up((repeat * dst_rep + 8) * 32), rng)
        want = y.copy().view(kind)
        for i, lanes in enumerate(rows):
            for e in lanes:
                to = (i * dst_rep + e // per * dst_blk) * per + e % per
                want[to] = x[(i * src_rep + e // per * src_blk) * per + e % per]
        params = [code, x.nbytes, y.nbytes, *mask.params(), repeat]
        across.run(SOURCE, "copy_lanes", [x, y], [*params, dst_blk, src_blk, dst_rep, src_rep])
        np.testing.assert_array_equal(y, want.view(np.uint8))
        assert size * per == 32


@pytest.mark.parametrize("dtype", ["half", "int16", "uint16"])
def test_transpose_square(dtype: str) -> None:
    code, kind = TYPES[dtype]
    rng = generator(dtype)
    x = across.elements(dtype, 256, rng)
    for basic in (1, 0) if dtype == "uint16" else (1,):
        y = across.poison(512, rng)
        across.run(SOURCE, "transpose", [x, y], [code, 512, 512, basic, 10, 0, 0, 16, 16, 0])
        np.testing.assert_array_equal(y.view(kind).reshape(16, 16), x.reshape(16, 16).T)


@pytest.mark.parametrize("dtype", TRANSPOSED)
def test_transpose_planes(dtype: str) -> None:
    code, kind = TYPES[dtype]
    rng = generator(dtype, "planes")
    for _ in range(4):
        n, c, h = (int(v) for v in rng.integers(1, 6, 3))
        w = 32 // kind.itemsize * int(rng.integers(1, 3))
        x = across.elements(dtype, n * c * h * w, rng)
        tile = (32 if kind.itemsize == 1 else 16) * 32
        for way, shape, axes in (
            (11, (n, c, h, w), (0, 2, 3, 1)),
            (12, (n, h, w, c), (0, 3, 1, 2)),
        ):
            y = np.zeros(x.nbytes, np.uint8)
            work = (c + 2 if way == 11 else 2 * c + 1) * tile
            params = [code, x.nbytes, x.nbytes, 0, way, n, c, h, w, work]
            across.run(SOURCE, "transpose", [x, y], params)
            want = np.ascontiguousarray(x.reshape(shape).transpose(axes)).view(np.uint8)
            np.testing.assert_array_equal(y, want.reshape(-1))


def test_transpose_of_nothing() -> None:
    x, y = np.ones(512, np.uint8), np.full(512, 7, np.uint8)
    across.run(SOURCE, "transpose", [x, y], [0, 512, 512, 0, 11, 0, 1, 1, 16, 2048])
    assert (y == 7).all()


@pytest.mark.parametrize("form", [0, 1, 2])
@pytest.mark.parametrize("dtype", TRANSPOSED)
def test_trans_data(dtype: str, form: int) -> None:
    code, kind = TYPES[dtype]
    size, per = kind.itemsize, 32 // kind.itemsize
    rng = generator(dtype, form)
    for trial in range(6):
        repeat = int(rng.integers(1, 4))
        high = [int(v) for v in rng.integers(0, 2, 2)] if size == 1 else [0, 0]
        dst_rep, src_rep = int(rng.integers(16, 20)), int(rng.integers(0, 5))
        x = across.elements(dtype, (40 + 3 * src_rep) * per, rng)
        blocks = 16 + 16 + 4 * dst_rep
        to = rng.permutation(16) if trial % 2 else np.arange(16)
        source = rng.integers(0, 40, 16) if trial % 2 else np.arange(16) * 2
        y = across.poison(blocks * 32, rng)
        want = y.copy().view(kind).reshape(-1, per)
        shape = x.reshape(-1, per)
        for i in range(repeat):
            # Documented: a single repeat starts one stride further.
            step = 1 if repeat == 1 else i
            rows = shape[source + step * src_rep]
            for k in range(16):
                at = to[k] + step * dst_rep
                if size == 1:
                    want[at, 16 * high[0] : 16 * high[0] + 16] = rows[:, 16 * high[1] + k]
                elif size == 2:
                    want[at] = rows[:, k]
                else:
                    want[at] = rows[8 * (k % 2) : 8 * (k % 2) + 8, k // 2]
        params = [code, x.nbytes, y.nbytes, form, *high, repeat, dst_rep, src_rep]
        across.run(
            SOURCE,
            "trans_data",
            [x, y],
            [*params, *(int(v) * 32 for v in to), *(int(v) * 32 for v in source)],
        )
        np.testing.assert_array_equal(y, want.view(np.uint8).reshape(-1))


def interpolate(
    x: np.ndarray, offsets: np.ndarray, weights: np.ndarray, h: int, v: int, every: bool
) -> np.ndarray:
    """[v, 8, 16] sums over h of gathered blocks times weights, rounded to half at every step."""
    out = np.zeros((v, 8, 16), np.float16)
    for row in range(v):
        for b in range(8):
            for column in range(h):
                step = row * h + column
                block = x[offsets[step * 8 + b] // 2 :][:16]
                product = block * weights[step * 8 + b if every else step]
                out[row, b] = product if column == 0 else out[row, b] + product
    return out


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("how", ["count", "bits"])
def test_bilinear(how: str, every: bool) -> None:
    rng = generator(how, every)
    for _ in range(6):
        h, v, blk = (int(n) for n in rng.integers(1, 4, 3))
        mask = across.masks(how, 128, rng)
        offset = 16 * int(rng.integers(8 * blk, 40))
        x = rng.standard_normal(16 * 40).astype(np.float16)
        offsets = rng.integers(0, 40, h * v * 8).astype(np.uint32) * np.uint32(32)
        weights = rng.standard_normal(across.up(h * v * (8 if every else 1), 16)).astype(np.float16)
        y = across.poison(v * offset * 2 + 512, rng)
        want = y.copy().view(np.float16)
        sums = interpolate(x, offsets, weights, h, v, every)
        (lanes,) = list(across.Mask(how, mask.words, 1).lanes(128))
        for row in range(v):
            for lane in lanes:
                want[row * offset + lane // 16 * blk * 16 + lane % 16] = sums[row].reshape(-1)[lane]
        params = [x.nbytes, offsets.nbytes, weights.nbytes, y.nbytes, *mask.params()]
        across.run(
            SOURCE, "bilinear", [x, offsets, weights, y], [*params, h, every, blk, offset, v]
        )
        np.testing.assert_array_equal(y, want.view(np.uint8))


def test_what_is_refused() -> None:
    x, y = np.zeros(32, np.float32), np.zeros(1024, np.uint8)
    words = across.refused(SOURCE, "brcb", [x, y], [1, 128, 1024, 2, 0, 8], "illegal-parameter")
    assert "dstBlkStride must not be 0" in words
    words = across.refused(SOURCE, "brcb", [x, y], [1, 128, 512, 3, 1, 8], "out-of-bounds")
    assert "the buffer is 128..640" in words
    params = [1, 128, 1024, 0, 8, 0, 1, 1, 1, 4096, 8]
    words = across.refused(SOURCE, "copy_lanes", [x, y], params, "illegal-parameter")
    assert "dstRepeatSize is 4096" in words
    params = [1, 128, 1024, 1, 10, 0, 0, 16, 16, 0]
    words = across.refused(SOURCE, "transpose", [x, y], params, "illegal-parameter")
    assert "type float is not supported" in words
    params = [0, 128, 1024, 0, 3, 1, 1, 1, 16, 0]
    words = across.refused(SOURCE, "transpose", [x, y], params, "illegal-parameter")
    assert "transposeType" in words


def test_lists_of_addresses_are_checked() -> None:
    x, y = np.zeros(256, np.float16), np.zeros(512, np.uint8)
    to, source = [32 * i for i in range(16)], [32 * i for i in range(16)]
    params = [0, 512, 512, 1, 0, 0, 1, 0, 0, *to[:15], 34, *source]
    words = across.refused(SOURCE, "trans_data", [x, y], params, "illegal-parameter")
    assert "not a multiple of 32" in words
    params = [0, 512, 512, 0, 0, 0, 2, 1, 0, *to, *source]
    words = across.refused(SOURCE, "trans_data", [x, y], params, "out-of-bounds")
    assert "writes ub bytes 512..1056" in words
