"""The kernels behind the published rows compute what they say, without a finding."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
from twin_build import runner


def run(kernel: str, blocks: int, tiling: tuple[int, ...], **arrays: np.ndarray) -> None:
    buffers = [runner.Buffer.of(name, array) for name, array in arrays.items()]
    packed = struct.pack(f"<{len(tiling)}i", *tiling)
    ran = runner.run(twin_build.twin(), kernel, blocks, buffers, packed)
    assert ran.ok, [str(f) for f in ran.findings]


@pytest.mark.parametrize("scalar", [0, 1])
@pytest.mark.parametrize("buffers", [1, 2])
def test_additions_add(scalar: int, buffers: int) -> None:
    rng = np.random.default_rng(3)
    x, y = (rng.integers(-8, 8, (7, 160)).astype(np.float16) for _ in range(2))
    z = np.zeros_like(x)
    size = 2 * 192
    at = [(i * size, (3 + i) * size) for i in range(3)]
    run("bench_add", 3, (7, 160, 192, scalar, 0, buffers, *at[0], *at[1], *at[2]), x=x, y=y, z=z)
    np.testing.assert_array_equal(z, x + y)


def test_additions_in_ub_are_ordered() -> None:
    run("bench_add_in_ub", 1, (4096, 3, 0, 0x10100, 0x4020, 1, 8))


@pytest.mark.parametrize("pitch", [32, 33])
def test_rows_become_fractals(pitch: int) -> None:
    rng = np.random.default_rng(4)
    x = rng.integers(-99, 99, (80, 256)).astype(np.float16)
    y = np.zeros((16, 80, 16), np.float16)
    run("bench_nd2nz_in_ub", 4, (80, 256, 32, 128, pitch, 2, 2), x=x, y=y)
    np.testing.assert_array_equal(y, x.reshape(80, 16, 16).transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("rows", "columns", "tile", "gelu", "blocks"),
    [(64, 256, (32, 256), 0, 2), (33, 112, (32, 112), 0, 1), (70, 608, (32, 256), 1, 3)],
)
def test_products_are_scaled(
    rows: int, columns: int, tile: tuple[int, int], gelu: int, blocks: int
) -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(-9, 9, (rows, columns)).astype(np.int32)
    by_column, by_row = (rng.random(n).astype(np.float32) for n in (columns, rows))
    y = np.zeros((rows, columns), np.float16)
    arrays = {"x": x, "column_scale": by_column, "row_scale": by_row, "y": y}
    run("bench_dequant", blocks, (rows, columns, *tile, gelu), **arrays)
    want = x * by_column.astype(np.float64) * by_row[:, None]
    if gelu:
        want = want / (1 + np.exp(-1.702 * want))
    np.testing.assert_allclose(y, want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("kernel", ["bench_copy_gm_ub", "bench_copy_gm_l1"])
def test_copies_read_what_they_should(kernel: str, order: int) -> None:
    """One tile overwrites the other: only findings and amounts can be looked at."""
    x = np.zeros((24, 200), np.float16)
    blocks, passes, parts = 3, 2, 2
    packed = struct.pack("<8i", 24, 200, 8, 64, passes, parts, order, 0)
    buffers = [runner.Buffer.of("x", x)]
    ran = runner.run(
        twin_build.twin(), kernel, blocks, buffers, packed, skip_data=True, hazards=False
    )
    assert ran.ok, [str(f) for f in ran.findings]
    reads = 24 // 8 * 2 * parts * passes  # of 8 rows and at most 64 of 100 columns
    everybody = blocks if order else 1
    op = "CopyPad" if kernel.endswith("ub") else "Nd2Nz"
    assert ran.count(op) == reads * everybody
