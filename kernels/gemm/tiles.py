"""Tiles that the kernels of gemm, and the families built on them, are tuned over, and the baseline of each.

A baseline is 32x32 tiles, double-buffered: what tuning starts from.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.space import Config

Fields = Mapping[str, tuple[int, ...]]

HOST: Fields = {
    "tile_m": (8, 16, 32, 48, 64, 96, 128, 192, 256),
    "tile_n": (16, 32, 64, 96, 128, 256, 512),
    "tile_k": (32, 64, 128, 256, 512, 1024, 2048, 4096),
    "stages": (1, 2),
}
HOST_BASELINE = Config(tile_m=32, tile_n=32, tile_k=32, stages=2)

CUBE: Fields = {
    "tile_m": (16, 32, 64, 128, 256),
    "tile_n": (16, 32, 64, 128, 256),
    "tile_k": (32, 64, 128, 256),
    "step_ka": (1, 2, 4, 8),
    "step_kb": (1, 2, 4, 8),
    "l1_buffers": (1, 2),
    "l0_buffers": (1, 2),
}
CUBE_BASELINE = Config(
    tile_m=32, tile_n=32, tile_k=32, step_ka=1, step_kb=1, l1_buffers=2, l0_buffers=2
)

GPU_BASELINE = Config(tile_m=32, tile_n=32, tile_k=32, num_warps=4, num_stages=2)
