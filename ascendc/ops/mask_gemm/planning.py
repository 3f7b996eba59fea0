"""Configs and tilings of mask_gemm: `mask_gemm_tiling.h`. Standard library only.

The kernel computes c[M,N] = a[M,K] @ b[N,K]^T (+ bias[N]), rows in bf16 or in int8 by a packed selection.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...soc import find
from .._kv.planning import Plan
from ..gemm import planning as gemm

MOST_ROWS = 4096
_INT32_MAX = 2**31 - 1
_PIECE = 65536  # bytes of rows that vector cores move at once: `kTileBytes` of rows_of_path.h
_ALIGNMENT = 512  # bytes, of every part of the workspace
_LAYOUT = "NK"
_NO_GRID = (1, 1)  # tiles are dealt out, not laid on a grid


@dataclass(frozen=True, slots=True)
class Config:
    """A point of the tunable space, as of gemm in int8; bf16 takes half of ``tile_k``. ``cores`` 0: all."""

    tile_m: int = 32
    tile_n: int = 32
    tile_k: int = 32
    step_ka: int = 1
    step_kb: int = 1
    l1_buffers: int = 2
    l0_buffers: int = 2
    unit_flag: int = 0
    cores: int = 0

    @property
    def codes(self) -> gemm.Config:
        """Of the product in int8."""
        return gemm.Config(
            self.tile_m,
            self.tile_n,
            self.tile_k,
            self.step_ka,
            self.step_kb,
            self.l1_buffers,
            self.l0_buffers,
            unit_flag=self.unit_flag,
        )

    @property
    def floats(self) -> gemm.Config:
        """Of the product in bf16: tiles of as many bytes."""
        return replace(self.codes, tile_k=self.tile_k // 2)


@dataclass(frozen=True, slots=True)
class Launch:
    """Sizes, elements from one row to the next (0: dense), and what the selection is read with."""

    m: int
    n: int
    k: int
    layer: int
    words: int
    resident: bool = True
    bias: bool = False
    lda8: int = 0
    ldb8: int = 0
    lda16: int = 0
    ldb16: int = 0
    ldc: int = 0


def config_of(values: Mapping[str, int]) -> Config:
    """From named integers; raises TypeError for an unknown name."""
    return Config(**values)


def illegal(config: Config, soc: str) -> list[str]:
    """Every reason why ``config`` cannot run, empty if it can. Does not depend on the shape."""
    if config.tile_k % 32:
        return [f"tile_k is {config.tile_k}, it must be a positive multiple of 32"]
    most = find(soc).cube_cores
    if not 0 <= config.cores <= most:
        return [f"cores is {config.cores}, allowed are 0..{most}, the cube cores of {soc}"]
    codes = gemm.illegal("int8->bf16", _LAYOUT, config.codes, soc, row_scale=True)
    return codes or gemm.illegal("bf16", _LAYOUT, config.floats, soc, mixed=True)


def tiles(m: int, n: int, config: Config) -> int:
    """Tiles of C over ``m`` rows."""
    return -(-m // config.tile_m) * -(-n // config.tile_n)


def blocks(launch: Launch, config: Config, soc: str) -> int:
    """Blocks of a launch: as few as finish in the same number of turns as all cube cores, for one path."""
    total = tiles(launch.m, launch.n, config)
    turns = -(-total // (config.cores or find(soc).cube_cores))
    return -(-total // turns)


def plan(launch: Launch, config: Config, soc: str) -> Plan:
    """Kernel, blocks, tiling bytes and workspace of a launch that is not empty.

    Raises ValueError with every reason if it cannot run.
    """
    part = find(soc)
    why = illegal(config, soc)
    codes = gemm.Dims(launch.m, launch.n, launch.k, launch.lda8, launch.ldb8, launch.ldc)
    floats = gemm.Dims(launch.m, launch.n, launch.k, launch.lda16, launch.ldb16, launch.ldc)
    lda8, ldb8, ldc = codes.pitches(_LAYOUT)
    lda16, ldb16, _ = floats.pitches(_LAYOUT)
    why += [
        f"{name} is {value}, allowed are 1..{most}"
        for name, value, most in (
            ("M", launch.m, MOST_ROWS),
            ("N", launch.n, _INT32_MAX),
            # Rows are moved by vector cores, which count their bytes in 31 bits, up to a piece behind the last.
            ("K", launch.k, _INT32_MAX // 2 - _PIECE),
            ("the row stride of a8", lda8, _INT32_MAX),
            ("the row stride of b8", ldb8, _INT32_MAX),
            ("the row stride of a", lda16, _INT32_MAX // 2),
            ("the row stride of b16", ldb16, _INT32_MAX),
            ("the row stride of c", ldc, _INT32_MAX // 2),
        )
        if not 1 <= value <= most
    ]
    if why:
        raise ValueError("; ".join(why))
    pitches = _whole(launch.k), _whole(2 * launch.k)
    words = [
        *gemm.tiling_words(codes, _LAYOUT, config.codes, part, _NO_GRID),
        *gemm.tiling_words(floats, _LAYOUT, config.floats, part, _NO_GRID, whole=True),
        launch.layer,
        launch.words,
        int(launch.resident),
        int(launch.bias),
        gemm.piece_rows(config.codes),
        *pitches,
    ]
    count = blocks(launch, config, soc)
    numbers = 3 * 4 * _whole(4 * launch.m) // 4  # rows of both paths, and scales: 4 bytes each
    rows = launch.m * sum(pitches) if launch.resident else 0
    return Plan(
        "mask_gemm_bf16",
        count,
        struct.pack(f"<{len(words)}i", *words),
        _whole(count * gemm.ring_bytes(config.codes)) + numbers + rows,
    )


def _whole(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def representatives(launch: Launch, config: Config, count: int) -> dict[int, int]:
    """Blocks that stand for all where every row takes one path: those with as many and such tiles.

    Mirrors the kernel's ``Deal``.
    """
    across, down = -(-launch.n // config.tile_n), -(-launch.m // config.tile_m)
    total = across * down
    found: dict[tuple[int, int, int], int] = {}
    stands: dict[int, int] = {}
    for block in range(count):
        each, more = divmod(total, count)
        begin = block * each + min(block, more)
        own = range(begin, begin + each + (block < more))
        narrow = sum(tile % across == across - 1 for tile in own) if launch.n % config.tile_n else 0
        short = sum(tile // across == down - 1 for tile in own) if launch.m % config.tile_m else 0
        first = found.setdefault((len(own), narrow, short), block)
        stands[first] = stands.get(first, 0) + 1
    return stands
