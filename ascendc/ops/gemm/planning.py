"""What the AscendC gemm takes and how it is tiled: tiling bytes; ``precisions.py``, ``limits.py``.

The kernel (``gemm.cpp``) computes C[M,N] = A[M,K] @ B (+ bias[N]); B is [K,N] ("KN") or [N,K]
("NK").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ...soc import Soc, find
from .limits import DEFAULT_CONFIG, Config, illegal, l0c_buffers, piece_rows, ring_bytes
from .precisions import (
    B_LAYOUTS,
    KERNEL_LAYOUTS,
    NZ,
    PRECISIONS,
    Precision,
    precision_of,
    refusal,
)

__all__ = [
    "B_LAYOUTS",
    "DEFAULT_CONFIG",
    "NZ",
    "PRECISIONS",
    "Config",
    "Dims",
    "Plan",
    "Precision",
    "choose_grid",
    "illegal",
    "piece_rows",
    "plan",
    "precision_of",
    "refusal",
    "representatives",
    "ring_bytes",
    "tiling",
    "tiling_words",
]

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Dims:
    """The shape in elements, and row pitches of A, B and C (0: dense)."""

    m: int
    n: int
    k: int
    lda: int = 0
    ldb: int = 0
    ldc: int = 0

    def pitches(self, b_layout: str) -> tuple[int, int, int]:
        """lda, ldb, ldc with the dense ones filled in."""
        return (
            self.lda or self.k,
            self.ldb or (self.n if b_layout == "KN" else self.k),  # NZ: rows of a fractal column
            self.ldc or self.n,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A launch, ready but for its buffers. ``workspace`` in bytes, ``mix``: of both kinds of cores."""

    kernel: str
    block_dim: int
    tiling: bytes
    config: Config
    workspace: int = 0
    mix: bool = False


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def choose_grid(dims: Dims, config: Config, soc: Soc) -> tuple[int, int]:
    """The core grid with the fewest tiles on its busiest core, then the one that reads least."""
    m_tiles, n_tiles = _ceil_div(dims.m, config.tile_m), _ceil_div(dims.n, config.tile_n)

    def cost(grid: tuple[int, int]) -> tuple[int, int, int]:
        rows, columns = _ceil_div(m_tiles, grid[0]), _ceil_div(n_tiles, grid[1])
        return rows * columns, rows * config.tile_m + columns * config.tile_n, grid[0] * grid[1]

    grids = [
        (gm, gn)
        for gm in range(1, min(soc.cube_cores, m_tiles) + 1)
        for gn in range(1, min(soc.cube_cores // gm, n_tiles) + 1)
    ]
    return min(grids, key=cost)


def plan(
    dims: Dims,
    precision: str,
    b_layout: str = "KN",
    config: Config = DEFAULT_CONFIG,
    soc: str = "910b1",
    *,
    bias: bool = False,
    row_scale: bool = False,
    invariant: bool = False,
) -> Plan:
    """Kernel, blocks and tiling bytes of a non-empty case.

    ``invariant``: the bits of a row do not depend on how many there are.
    Raises ValueError with every reason if it can not run.
    """
    part = find(soc)
    kind = precision_of(precision, bias=bias, row_scale=row_scale)
    why = illegal(precision, b_layout, config, soc, bias=bias, row_scale=row_scale)
    lda, ldb, ldc = dims.pitches(b_layout)
    why += [
        f"{name} is {value}, allowed are 1..{most}"
        for name, value, most in (
            ("M", dims.m, _INT32_MAX),
            ("N", dims.n, _INT32_MAX),
            ("K", dims.k, _INT32_MAX),
            ("lda", lda, _INT32_MAX),
            ("ldb", ldb, _INT32_MAX),
            # Vector cores count bytes of a row in 31 bits.
            ("ldc", ldc, _INT32_MAX // kind.output_bytes if kind.mix else _INT32_MAX),
        )
        if not 1 <= value <= most
    ]
    if why:
        raise ValueError("; ".join(why))
    grid_m, grid_n = (
        (config.grid_m, config.grid_n) if config.grid_m else choose_grid(dims, config, part)
    )
    words = tiling_words(
        dims, b_layout, config, part, (grid_m, grid_n), bias=bias and not kind.mix, whole=invariant
    )
    if kind.mix:
        words += [int(row_scale), int(bias), piece_rows(config)]
    blocks = grid_m * grid_n
    return Plan(
        kind.kernel,
        blocks,
        struct.pack(f"<{len(words)}i", *words),
        config,
        blocks * ring_bytes(config) if kind.mix else 0,
        kind.mix,
    )


def tiling_words(
    dims: Dims,
    b_layout: str,
    config: Config,
    part: Soc,
    grid: tuple[int, int],
    *,
    bias: bool = False,
    whole: bool = False,
) -> list[int]:
    """The fields of ``TwGemmTiling``."""
    return [
        dims.m,
        dims.n,
        dims.k,
        *dims.pitches(b_layout),
        KERNEL_LAYOUTS.index(b_layout),
        int(bias),
        config.tile_m,
        config.tile_n,
        config.tile_k,
        config.step_ka,
        config.step_kb,
        config.l1_buffers,
        config.l0_buffers,
        l0c_buffers(config, part),
        *grid,
        config.unit_flag,
        config.l2_split_m,
        int(whole),
    ]


def representatives(dims: Dims, config: Config, grid: tuple[int, int]) -> dict[int, int]:
    """Blocks that stand for all: each the first of those with its number and shape of tiles.

    Mirrors the kernel's partition (``Partition`` and ``EnterSplit`` of ``gemm.cpp``).
    """
    m_tiles, n_tiles = _ceil_div(dims.m, config.tile_m), _ceil_div(dims.n, config.tile_n)
    split = _ceil_div(m_tiles, config.l2_split_m)
    share_n = _ceil_div(n_tiles, grid[1])

    def rows(core: int) -> tuple[tuple[int, bool], ...]:
        parts = []
        for part in range(config.l2_split_m):
            begin = min(part * split, m_tiles)
            end = min(begin + split, m_tiles)
            share = _ceil_div(end - begin, grid[0])
            first = min(begin + core * share, end)
            last = min(first + share, end)
            parts.append((last - first, first < last == m_tiles and dims.m % config.tile_m != 0))
        return tuple(parts)

    def columns(core: int) -> tuple[int, bool]:
        first = min(core * share_n, n_tiles)
        last = min(first + share_n, n_tiles)
        return last - first, first < last == n_tiles and dims.n % config.tile_n != 0

    row_kinds = [rows(core) for core in range(grid[0])]
    column_kinds = [columns(core) for core in range(grid[1])]
    found: dict[tuple[object, object], int] = {}
    counts: dict[int, int] = {}
    for block in range(grid[0] * grid[1]):
        kind = row_kinds[block // grid[1]], column_kinds[block % grid[1]]
        first = found.setdefault(kind, block)
        counts[first] = counts.get(first, 0) + 1
    return counts


def tiling(
    dims: Dims,
    precision: str,
    b_layout: str,
    config: Config,
    soc: str = "910b1",
    *,
    bias: bool = False,
    row_scale: bool = False,
) -> bytes:
    """The bytes of ``TwGemmTiling``, or of ``TwScaledTiling``."""
    return plan(dims, precision, b_layout, config, soc, bias=bias, row_scale=row_scale).tiling
