"""Gather, Gatherb and GatherMask against plain Python."""

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

SOURCE = "twin_vec_gather.cpp"


def generator(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


@pytest.mark.parametrize("how", ["count-form", *across.HOWS[:3]])
@pytest.mark.parametrize("dtype", WIDE)
def test_gather(dtype: str, how: str) -> None:
    code, kind = TYPES[dtype]
    size, width, per = kind.itemsize, 256 // kind.itemsize, 32 // kind.itemsize
    rng = generator(dtype, how)
    for _ in range(5):
        if how == "count-form":
            mask = across.Mask("counter", (int(rng.integers(1, 5 * width)), 0), 1)
        else:
            mask = across.masks(how, width, rng)
        rows = list(mask.lanes(width))
        dst_rep = 8 if how == "count-form" else int(rng.integers(8, 12))
        x = across.elements(dtype, per * int(rng.integers(4, 40)), rng)
        base = int(rng.integers(0, 8)) * size
        offsets = rng.integers(0, x.size - 8, len(rows) * width).astype(np.uint32) * np.uint32(size)
        y = across.poison(len(rows) * dst_rep * 32 + 32, rng)
        want = y.copy().view(kind)
        for i, lanes in enumerate(rows):
            for lane in lanes:
                from_ = (base + int(offsets[i * width + lane])) // size
                want[i * dst_rep * per + lane] = x[from_]
        params = [code, x.nbytes, offsets.nbytes, y.nbytes, 0, how == "count-form"]
        params += [*mask.params(), mask.repeat, base, 1, dst_rep]
        across.run(SOURCE, "gather", [x, offsets, y], params)
        np.testing.assert_array_equal(y, want.view(np.uint8))


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_gatherb(dtype: str) -> None:
    code, kind = TYPES[dtype]
    rng = generator(dtype)
    for _ in range(8):
        repeat, blk = int(rng.integers(1, 5)), int(rng.integers(0, 3))
        rep = int(rng.integers(8 * max(blk, 1), 24))
        x = across.elements(dtype, 32 // kind.itemsize * 30, rng)
        offsets = rng.integers(0, 30, repeat * 8).astype(np.uint32) * np.uint32(32)
        y = across.poison(repeat * rep * 32, rng)
        want = y.copy().reshape(-1, 32)
        for i in range(repeat * 8):
            block = x.view(np.uint8).reshape(-1, 32)[offsets[i] // 32]
            want[i // 8 * rep + i % 8 * max(blk, 1)] = block
        params = [code, x.nbytes, offsets.nbytes, y.nbytes, 1, 0, 0, 0, 0, repeat, 0, blk, rep]
        across.run(SOURCE, "gather", [x, offsets, y], params)
        np.testing.assert_array_equal(y, want.reshape(-1))


def picked(
    x: np.ndarray, elements: int, repeat: int, blk: int, rep: int
) -> tuple[list[list[int]], int]:
    """Places in ``x`` of every repeat's elements, and how many elements a block has."""
    per = 32 // x.itemsize
    return [
        [(i * rep + e // per * blk) * per + e % per for e in range(elements)] for i in range(repeat)
    ], per


KEEP = {1: (0, 2), 2: (1, 3), 3: (0,), 4: (1,), 5: (2,), 6: (3,), 7: (0, 1, 2, 3)}


@pytest.mark.parametrize("pattern", range(8))
@pytest.mark.parametrize("dtype", WIDE)
def test_gather_mask(dtype: str, pattern: int) -> None:
    """Pattern 0: bits of the user's."""
    code, kind = TYPES[dtype]
    rng = generator(dtype, pattern)
    for trial in range(6):
        reduce = trial % 2
        elements = int(rng.integers(1, 200)) if reduce else 256 // kind.itemsize
        repeat, blk, rep = (int(rng.integers(1, 5)) for _ in range(3))
        x = across.elements(dtype, (repeat * rep + 30 * blk) * 32 // kind.itemsize * 2, rng)
        bits_rep = int(rng.integers(0, 3))
        bits = across.poison(across.up(repeat * bits_rep * 32 + 32) if pattern == 0 else 0, rng)
        keep = np.unpackbits(bits, bitorder="little")
        rows, _ = picked(x, elements, repeat, blk, rep)
        kept = [
            x[at]
            for i, row in enumerate(rows)
            for e, at in enumerate(row)
            if (keep[i * bits_rep * 256 + e] if pattern == 0 else e % 4 in KEEP[pattern])
        ]
        y = across.poison(across.up(repeat * elements * kind.itemsize) + 32, rng)
        want = y.copy()
        want[: len(kept) * kind.itemsize] = np.array(kept, kind).view(np.uint8)
        want[-32:-16].view(np.uint64)[:] = len(kept), 0
        params = [code, x.nbytes, bits.nbytes, y.nbytes, pattern, reduce, elements if reduce else 0]
        across.run(SOURCE, "gather_mask", [x, bits, y], [*params, blk, repeat, rep, bits_rep, 0])
        np.testing.assert_array_equal(y, want)


def test_gather_mask_in_place() -> None:
    x = np.arange(1, 257, dtype=np.uint32)
    y = np.zeros(512 + 32, np.uint8)
    none = np.zeros(0, np.uint8)
    across.run(SOURCE, "gather_mask", [x, none, y], [6, 1024, 0, y.nbytes, 2, 0, 0, 1, 4, 8, 0, 1])
    np.testing.assert_array_equal(y[:512].view(np.uint32), np.arange(2, 257, 2))
    assert y[-32:].view(np.uint64)[0] == 128


def test_the_count_waits_for_its_instruction() -> None:
    x, none = np.arange(1, 257, dtype=np.uint32), np.zeros(0, np.uint8)
    for seed in range(12):
        y = np.zeros(512 + 32, np.uint8)
        params = [6, 1024, 0, y.nbytes, 2, 0, 0, 1, 4, 8, 0, 1]
        result = across.launch(SOURCE, "gather_mask", [x, none, y], params, seed)
        assert result.ok and y[-32:].view(np.uint64)[0] == 128


@pytest.mark.parametrize(
    ("at", "value", "base", "kind", "words"),
    [
        (5, 1024, 0, "out-of-bounds", "offset 1024 leads to ub address 1024"),
        (5, 2, 0, "misaligned", "not a multiple of 4"),
        (0, 0, 2, "illegal-parameter", "srcBaseAddr"),
        (0, 1020, 4, "out-of-bounds", "offset 1024"),
    ],
)
def test_offsets_are_checked(at: int, value: int, base: int, kind: str, words: str) -> None:
    x, y = np.zeros(256, np.float32), np.zeros(256, np.uint8)
    offsets = np.zeros(64, np.uint32)
    offsets[at] = value
    params = [1, 1024, 256, 256, 0, 1, 0, 64, 0, 1, base, 1, 8]
    assert words in across.refused(SOURCE, "gather", [x, offsets, y], params, kind)


def test_types_are_checked() -> None:
    x, y = np.zeros(64, np.float32), np.zeros(256, np.uint8)
    params = [1, 256, 32, 256, 1, 0, 0, 0, 0, 1, 0, 1, 8]
    words = across.refused(SOURCE, "gather", [x, x[:8], y], params, "illegal-parameter")
    assert "type float is not supported" in words


def test_a_full_destination_is_reported() -> None:
    x, bits = np.zeros(128, np.float16), np.full(32, 0xFF, np.uint8)
    y = np.zeros(64 + 32, np.uint8)
    params = [0, 256, 32, y.nbytes, 0, 0, 0, 1, 1, 8, 0, 0]
    words = across.refused(SOURCE, "gather_mask", [x, bits, y], params, "out-of-bounds")
    assert "full after 32 kept elements" in words


@pytest.mark.parametrize("half", [0, 1])
def test_a_gather_reads_what_its_offsets_say(half: int) -> None:
    """Of a buffer in two halves it reads the first: the other may be empty, or just being filled."""
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    offsets = np.arange(0, 256, 4, dtype=np.uint32)[::-1].copy()
    buffers = [runner.Buffer.of(n, b) for n, b in (("x", x), ("offsets", offsets), ("y", y))]
    result = runner.run(
        twin_build.twin(),
        "gather_beside",
        1,
        [*buffers, runner.Scalar("half", half)],
        kernel_library=twin_build.kernels(SOURCE),
    )
    assert [f.kind for f in result.findings] == ([] if half else ["race"])
    np.testing.assert_array_equal(y, x[::-1])


def test_a_gather_in_place_is_reported_and_computed() -> None:
    x, offsets = np.arange(64, dtype=np.float32), np.arange(64, dtype=np.uint32)
    want = x[offsets ^ 1]
    offsets = (offsets ^ 1) * np.uint32(4)
    buffers = [runner.Buffer.of("x", x), runner.Buffer.of("offsets", offsets)]
    library = twin_build.kernels(SOURCE)
    result = runner.run(twin_build.twin(), "gather_in_place", 1, buffers, kernel_library=library)
    assert ["source and destination are the same memory" in f.message for f in result.findings] == [
        True
    ]
    np.testing.assert_array_equal(x, want)
