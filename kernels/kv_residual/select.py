"""Which vectors of quantised pages get a residual, and which stay floats; and what that takes in bytes.

A vector is one token of one head, key or value. With scales per token, no vector's error is far above the
mean (README.md), so a multiple of the mean selects nothing; a budget or a threshold on static
scales does. A vector that a static scale clips is out of a nested residual's reach, +-s/2, and
is kept in float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewright.errors import UsageError
from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._kv.reference import FLOAT, RESIDUAL, decode, encode


def relative_error(x: Tensor, kv: str, key: bool, channel_scale: Tensor | None = None) -> Tensor:
    """||x - x^|| / ||x|| of every vector of pages [N,16,HKV,D] under the plain format: [N,16,HKV] fp64.

    0 for a vector of zeros. `kv`, `key` and `channel_scale` [HKV,D] as in `kernels/_kv/reference.py`.
    """
    wide = x.to(torch.float64)
    stored = encode(x, kv, key, channel_scale)
    error = (wide - decode(stored, kv, "none", key).to(torch.float64)).norm(dim=-1)
    norm = wide.norm(dim=-1)
    return torch.where(norm > 0, error / norm.clamp_min(1e-300), torch.zeros_like(norm))


def by_threshold(error: Tensor, limit: float) -> Tensor:
    """A selection [N,16,HKV] uint8: a residual for every vector whose error is above `limit`."""
    return (error > limit).to(torch.uint8) * RESIDUAL


def by_budget(error: Tensor, count: int) -> Tensor:
    """A selection with exactly `count` residuals, the largest errors; of equal ones the first in order.

    Raises UsageError for a count below 0 or above the number of vectors.
    """
    vectors = error.numel()
    if not 0 <= count <= vectors:
        raise UsageError(
            f"a budget of {count} residuals; accepted: 0 to {vectors}, the vectors there are"
        )
    order = torch.sort(error.flatten(), descending=True, stable=True).indices
    chosen = torch.zeros(vectors, dtype=torch.uint8)
    chosen[order[:count]] = RESIDUAL
    return chosen.view(error.shape)


def clipped(x: Tensor, channel_scale: Tensor) -> Tensor:
    """Where a static scale clips: bool [N,16,HKV], some element beyond 127.5 steps."""
    steps = x.to(torch.float32).abs() / channel_scale.to(torch.float32)
    return (steps > 127.5).any(-1)


def sinks(pages: int, heads: int, first_pages: Sequence[int], tokens: int) -> Tensor:
    """The first `tokens` tokens of sequences that begin in `first_pages`: bool [pages,16,heads].

    Raises UsageError for more tokens than a page has, or a page beyond the last.
    """
    if not 0 <= tokens <= PAGE:
        raise UsageError(f"{tokens} sink tokens; accepted: 0 to {PAGE}, those of a page")
    wrong = [page for page in first_pages if not 0 <= page < pages]
    if wrong:
        raise UsageError(f"page {wrong[0]} of {pages} pages; accepted: 0 to {pages - 1}")
    there = torch.zeros((pages, PAGE, heads), dtype=torch.bool)
    there[list(first_pages), :tokens] = True
    return there


def keep_float(select: Tensor, where: Tensor) -> Tensor:
    """The selection with vectors kept in float `where` it is true, instead of a residual or nothing."""
    return torch.where(where, torch.full_like(select, FLOAT), select)


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes of pages: codes with their scales, and what residuals and floats add.

    `by_page` is what every page and head has, selected or not: two masks and two ranks. `floats` counts the
    rows in use of the float pool, whose codes stay where they were.
    """

    codes: int
    scales: int
    by_page: int
    residuals: int
    floats: int

    @property
    def added(self) -> int:
        return self.by_page + self.residuals + self.floats

    @property
    def relative(self) -> float:
        """Added bytes as a share of codes and scales."""
        return self.added / (self.codes + self.scales)


def overhead(cache: Mapping[str, Tensor | None], used: Sequence[int]) -> Overhead:
    """Counted from the tensors of a cache (the outputs of kv_residual by name) and `used_after`.

    Static channel scales are shared by all pages of a layer and not counted.
    """

    def whole(*names: str) -> int:
        return sum(v.numel() * v.element_size() for n in names if (v := cache.get(n)) is not None)

    def rows(count: int, *names: str) -> int:
        there = [v for n in names if (v := cache.get(n)) is not None]
        return count * sum(v.element_size() * (v.shape[1] if v.dim() > 1 else 1) for v in there)

    return Overhead(
        codes=whole("codes"),
        scales=whole("token_scale", "token_zero", "page_scale", "page_zero"),
        by_page=whole("mask", "rank", "fmask", "frank"),
        residuals=rows(used[0], "pool", "pool_scale"),
        floats=rows(used[1], "fpool"),
    )
