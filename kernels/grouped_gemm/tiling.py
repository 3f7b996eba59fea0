"""Which tile a grouped_gemm gets from the sizes and the target alone, where nothing is tuned.

A group has T / E rows on average; whether they fit is all that tiles can follow from before `ends` is known.
"""

from __future__ import annotations

from tilewright.cases import Case
from tilewright.kernels.gemm.spec import SPEC as GEMM
from tilewright.space import Config
from tilewright.spec import KernelSpec
from tilewright.targets import Target

# fp32 products run on scalar units, where larger tiles would only spill.
_MOST_TILE_M = {1: 128, 2: 128, 4: 64}


def tiling(spec: KernelSpec, case: Case, target: Target) -> Config | None:
    """The config for a case, or None where it is not legal and the baseline has to do.

    With `batch_invariant` the baseline on a GPU: what reaches the bits of a row must not follow from how many rows
    there are.
    """
    sizes = case.sizes
    rows = -(-sizes["T"] // max(1, sizes["E"]))
    if target.kind == "cpu":
        return _host(spec, case, rows, target)
    if target.kind == "ascend":
        from tilewright.ascendc.ops.grouped_gemm import adapter

        return adapter.tiling(case, target)
    if target.kind not in ("cuda", "hip") or case.flags["batch_invariant"] == "yes":
        return None
    element = spec.precision(case.precision).dtypes["a"].bytes
    space = spec.space_for(target)
    candidates = [_gpu(rows, sizes["K"], element, stages) for stages in (4, 3, 2)]
    legal = (c for c in candidates if space and not space.illegal(spec, case, c, target))
    return next(legal, None)


def _power_of_two(value: int, low: int, high: int) -> int:
    """The smallest power of two that is not below `value`, within [low, high]."""
    return max(low, min(high, 1 << max(0, value - 1).bit_length()))


def _host(spec: KernelSpec, case: Case, rows: int, target: Target) -> Config:
    """What gemm takes for a product of an average group."""
    sizes = {"M": rows, "N": case.sizes["N"], "K": case.sizes["K"]}
    found = GEMM.config_for(GEMM.case(sizes, case.precision), target)
    space = spec.space_for(target)
    return Config({name: value for name, value in found.items() if space and name in space.fields})


def _gpu(rows: int, depth: int, element: int, stages: int) -> Config:
    """Tiles as high as a group, and narrower the higher; weights of few rows come in long rows."""
    tile_m = _power_of_two(rows, 16, _MOST_TILE_M[element])
    tile_n = 64 if element == 4 or tile_m < 32 else 128
    return Config(
        tile_m=tile_m,
        tile_n=tile_n,
        tile_k=_power_of_two(depth, 32, 64 if element < 4 else 32),
        num_warps=_power_of_two(tile_m * tile_n // 2048, 4 if element == 4 else 2, 8),
        num_stages=stages,
        group_m=8 if tile_m >= 64 else 1,
    )
