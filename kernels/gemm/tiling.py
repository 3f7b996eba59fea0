"""Which tile, which split of K and how many cores a gemm gets from M, N, K and the target alone.

What a call gets where nothing is tuned. Every candidate is weighed by the work of the busiest core: how
many tiles it makes, times what one tile costs, and the best that the space allows is taken. The
weights rank tiles and predict no time; `tilewright tune` finds the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.cases import Case
from tilewright.space import Config
from tilewright.spec import KernelSpec
from tilewright.targets import Target

# Up to here the host reads B once, straight from where it lies, and has no use for tiles.
_FEW_ROWS = 16
# What of B a second-level cache holds from call to call: prefetching it again only takes load slots.
_NEAR_BYTES = 1 << 20
_HOST_TILE_M = (32, 48, 64, 96, 128)
_GPU_TILES = (
    *((128, 256), (256, 128), (128, 128), (64, 256), (128, 64), (64, 128)),
    *((64, 64), (32, 128), (32, 64), (16, 128), (16, 64), (32, 32), (16, 32)),
)
_ASCEND_TILES = (
    *((128, 256), (256, 128), (128, 128), (64, 256), (256, 64), (64, 128)),
    *((128, 64), (64, 64), (32, 256), (16, 256), (32, 128), (16, 128), (32, 64), (32, 32)),
)
# Bytes of operands a core loads while it multiplies one 16 x 16 x 16 block (16-bit operands): a
# 910B core loads about 84 bytes a cycle and does such a block in one (docs/model.md).
_ASCEND_BYTES_PER_CYCLE = 84
# A GPU core multiplies this many pairs while it loads one element: 1024 dense 16-bit multiply-adds a
# cycle against some 32 bytes from the second-level cache.
_GPU_MACS_PER_ELEMENT = 64
# fp32 products run on scalar units, where larger tiles would only spill.
_GPU_MOST_TILE_BYTES = 128 * 256 * 2
# What a tile costs besides its steps (prologue, epilogue), in steps of K.
_GPU_TILE_STEPS = 4
# A split writes and reads fp32 partial sums: worth it only where each part keeps this many steps of K.
_LEAST_STEPS_PER_SPLIT = 8


@dataclass(frozen=True, slots=True)
class _Sizes:
    m: int
    n: int
    k: int
    bytes: int  # of an operand

    def tiles(self, tile_m: int, tile_n: int) -> int:
        return _cdiv(self.m, tile_m) * _cdiv(self.n, tile_n)


def tiling(spec: KernelSpec, case: Case, target: Target) -> Config | None:
    """The config for a case, or None where no candidate is legal and the baseline has to do.

    M, N and K may be anything from 0 up. With `batch_invariant` the same as for M = 1, and on a GPU the
    baseline: what reaches the bits of a row must not follow from how many rows there are.
    """
    operand = spec.precision(case.precision).dtypes["a"].bytes
    m, n, k = (max(1, case.sizes[name]) for name in ("M", "N", "K"))
    fixed = case.flags.get("batch_invariant") == "yes" and target.kind != "cpu"
    sizes = _Sizes(_FEW_ROWS if fixed else m, n, k, operand)
    space = spec.space_for(target)
    if space is None or (fixed and target.kind in ("cuda", "hip")):
        return None
    for config in _CANDIDATES[target.kind](sizes, target):
        # A plan with parts of K is none without them: its tiles would be too few.
        if config.get("split_k", 1) > 1 and "split_k" not in space.fields:
            continue
        if any(
            config[name] not in values for name, values in space.fields.items() if name in config
        ):
            continue
        known = {name: value for name, value in config.items() if name in space.fields}
        whole = space.complete(known, spec.default_config(target))
        if space.illegal(spec, case, whole, target) is None:
            return whole
    return None


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(value: int, low: int, high: int) -> int:
    """The smallest power of two that is not below `value`, within [low, high]."""
    return max(low, min(high, 1 << (value - 1).bit_length()))


def _host(s: _Sizes, target: Target) -> Iterator[dict[str, int]]:
    """Rows in as few even blocks as the second-level cache takes; wide and deep panels.

    The kernel cuts columns and K evenly by itself, and every thread's share of them. No split: panels of 16
    columns are work for as many threads. Few rows are bound by reading B: prefetched where it is not near.
    """
    if s.m <= _FEW_ROWS:
        stages = 1 if s.n * s.k * s.bytes <= _NEAR_BYTES else 2
        yield {"tile_m": 16, "tile_n": 512, "tile_k": 1024, "stages": stages, "split_k": 1}
        return
    blocks = _cdiv(s.m, _HOST_TILE_M[-1])
    each = _cdiv(s.m, blocks)
    tile_m = next(t for t in _HOST_TILE_M if t >= each)
    yield {"tile_m": tile_m, "tile_n": 128, "tile_k": 2048, "stages": 2, "split_k": 1}


def _gpu(s: _Sizes, target: Target) -> Iterator[dict[str, int]]:
    """By waves over the multiprocessors: tiles that divide the work evenly beat larger ones that do not."""
    cores = target.limit("sms")
    warp = target.limit("warp_size")
    tile_k = _power_of_two(s.k, 32, 64 if s.bytes < 4 else 32)
    steps = _cdiv(s.k, tile_k)

    def cost(tile: tuple[int, int], split: int) -> float:
        rounds = _cdiv(s.tiles(*tile) * split, cores)
        per_step = tile[0] * tile[1] / _GPU_MACS_PER_ELEMENT + (tile[0] + tile[1])
        merge = tile[0] * tile[1] * (split > 1) / tile_k
        return rounds * ((_cdiv(steps, split) + _GPU_TILE_STEPS) * per_step + merge)

    plans = [
        (cost(tile, split), split, -tile[0] * tile[1], tile)
        for tile in _GPU_TILES
        for split in (1, 2, 4, 8)
        if tile[0] <= max(16, 2 * s.m - 1)
        and tile[0] * tile[1] * s.bytes <= _GPU_MOST_TILE_BYTES
        and (split == 1 or steps >= split * _LEAST_STEPS_PER_SPLIT)
    ]
    for _, split, _, (tile_m, tile_n) in sorted(plans):
        warps = _power_of_two(tile_m * tile_n // (warp * 64), 4 if tile_m * tile_n > 2048 else 2, 8)
        for stages in (4, 3, 2):
            yield {
                "tile_m": tile_m,
                "tile_n": tile_n,
                "tile_k": tile_k,
                "num_warps": warps,
                "num_stages": stages,
                "group_m": 8 if _cdiv(s.m, tile_m) >= 8 else 1,
                "split_k": split,
            }


def _ascend(s: _Sizes, target: Target) -> Iterator[dict[str, int]]:
    """By the tiles of the busiest cube core, each bound by its products or by what it loads."""
    cores = target.limit("aic_cores")
    l0 = target.limit("l0a_bytes") // 2  # two buffers
    l1 = target.limit("l1_bytes") // 2

    def cost(tile: tuple[int, int]) -> float:
        cube = _cdiv(tile[0], 16) * _cdiv(tile[1], 16) * s.bytes / 2
        loads = (tile[0] + tile[1]) * 16 * s.bytes / _ASCEND_BYTES_PER_CYCLE
        return _cdiv(s.tiles(*tile), cores) * max(cube, loads)

    wanted = [t for t in _ASCEND_TILES if t[0] <= max(16, 2 * s.m - 1)]
    for tile_m, tile_n in sorted(wanted, key=lambda t: (cost(t), -t[0] * t[1])):
        most = l0 // (max(tile_m, tile_n) * s.bytes)
        tile_k = _power_of_two(s.k, 32, max(32, min(256, 1 << (most.bit_length() - 1))))
        room = l1 // ((tile_m + tile_n) * tile_k * s.bytes)
        for step in (8, 4, 2, 1):
            if step > max(1, room) or (step > 1 and (step - 1) * tile_k >= s.k):
                continue
            yield {
                "tile_m": tile_m,
                "tile_n": tile_n,
                "tile_k": tile_k,
                "step_ka": step,
                "step_kb": step,
                "unit_flag": 1,
            }
            yield {
                "tile_m": tile_m,
                "tile_n": tile_n,
                "tile_k": tile_k,
                "step_ka": step,
                "step_kb": step,
                "unit_flag": 0,
            }


_CANDIDATES = {"cpu": _host, "cuda": _gpu, "hip": _gpu, "ascend": _ascend}
