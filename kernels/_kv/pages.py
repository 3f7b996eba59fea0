"""Page tables and caches for cases: who owns which page, and what lies where nobody may look.

Everything that no sequence covers is poisoned: NaN in floats and scales, numbers out of range in
tables and ranks. A kernel that lets one of them into an output shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._kv.reference import FLOAT, PLAIN, RESIDUAL, Stored, encode, encode_selected

OUT_OF_RANGE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Table:
    """Sequences on pages: `seq_lens` [NS], `block_table` [NS,MP], and what they cover.

    `covered` [P,16] are rows that some sequence holds; `full` [P] pages that are full in some sequence.
    """

    seq_lens: Tensor
    block_table: Tensor
    covered: Tensor
    full: Tensor


def draw_lengths(sequences: int, longest: int, generator: torch.Generator) -> Tensor:
    """[NS] int32: the first within a page of `longest` tokens, the others anywhere, one in eight empty."""
    lengths = torch.randint(0, longest + 1, (sequences,), generator=generator)
    empty = torch.randint(0, 8, (sequences,), generator=generator) == 0
    lengths = torch.where(empty, torch.zeros_like(lengths), lengths)
    if sequences:
        short = int(torch.randint(0, PAGE, (1,), generator=generator))
        lengths[0] = max(longest - short, min(longest, 1))
    return lengths.to(torch.int32)


def draw_starts(sequences: int, total: int, generator: torch.Generator) -> Tensor:
    """[NS+1] int32: `total` queries cut into sequences, evenly where that goes, anywhere else."""
    if sequences == 0 or total % sequences == 0:
        return torch.arange(sequences + 1, dtype=torch.int32) * (total // max(sequences, 1))
    cuts = torch.randint(0, total + 1, (sequences - 1,), generator=generator).sort().values
    return torch.cat([torch.tensor([0]), cuts, torch.tensor([total])]).to(torch.int32)


def table(lengths: Tensor, pages: int, width: int, generator: torch.Generator) -> Table:
    """Pages in random order; sequences share pages only where there are too few for all of them."""
    counts = [-(-int(n) // PAGE) for n in lengths]
    order = torch.randperm(pages, generator=generator)
    rows = torch.full((len(counts), width), OUT_OF_RANGE, dtype=torch.int32)
    rows[:, 1::2] = -1
    covered = torch.zeros((pages, PAGE), dtype=torch.bool)
    full = torch.zeros(pages, dtype=torch.bool)
    taken = 0
    for i, count in enumerate(counts):
        if taken + count > pages:
            order, taken = torch.randperm(pages, generator=generator), 0
        own = order[torch.arange(taken, taken + count) % max(pages, 1)]
        taken += count
        rows[i, :count] = own.to(torch.int32)
        last = int(lengths[i]) % PAGE
        whole = own[: count - 1] if last else own
        covered[whole], full[whole] = True, True
        if last:
            covered[own[-1], :last] = True
    return Table(lengths, rows, covered, full)


def draw_select(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A selection [N,16,HKV]: about one vector in seven with a residual, one in thirty as floats."""
    dice = torch.rand(shape, generator=generator)
    select = torch.full(shape, PLAIN, dtype=torch.uint8)
    select[dice < 0.15] = RESIDUAL
    select[dice > 0.97] = FLOAT
    return select


def static_scale(x: Tensor) -> Tensor:
    """c8s scales [HKV,D] of pages [P,16,HKV,D]: nine tenths of the largest value, so that some clip."""
    if x.shape[0] == 0:
        return torch.full(x.shape[2:], 0.01)
    amax = x.to(torch.float32).abs().amax((0, 1))
    return (amax * 0.9 / 127).clamp_min(2.0**-20)


def draw_cache(
    shape: tuple[int, int, int],
    where: Table,
    compute: torch.dtype,
    kv: str,
    residual: str,
    key: bool,
    pool_rows: tuple[int, int],
    generator: torch.Generator,
) -> Stored:
    """Pages [P,16,HKV,*] of normal values in a format, poisoned where no sequence looks.

    `shape` is (P, HKV, D); `pool_rows` the rows of the residual and the float pool.
    """
    p, heads, d = shape
    x = torch.randn((p, PAGE, heads, d), generator=generator).to(compute)
    if kv == "float":
        x[~where.covered] = math.nan
        return Stored(x)
    channel = static_scale(x) if kv == "c8s" else None
    if residual == "none":
        stored = encode(x, kv, key, channel)
    else:
        select = draw_select((p, PAGE, heads), generator)
        readable = where.full if kv == "kv4" and key else where.covered.any(1)
        select[~readable] = PLAIN
        pools = _poisoned_pools(pool_rows, d, compute, residual)
        stored, _ = encode_selected(x, kv, key, residual, select, pools, (0, 0), channel)
        _poison_ranks(stored, readable)
    return _poison_scales(stored, where)


def _poisoned_pools(rows: tuple[int, int], d: int, compute: torch.dtype, residual: str) -> Stored:
    return Stored(
        torch.empty(0),
        pool=torch.full((rows[0], d // 4), 0x7777, dtype=torch.int16),
        pool_scale=torch.full((rows[0],), math.nan) if residual == "e3m0" else None,
        fpool=torch.full((rows[1], d), math.nan, dtype=compute),
    )


def _poison_ranks(stored: Stored, readable: Tensor) -> None:
    """Pages that nobody reads have every bit set and ranks out of range."""
    for mask, rank in ((stored.mask, stored.rank), (stored.fmask, stored.frank)):
        assert mask is not None and rank is not None
        mask[~readable], rank[~readable] = -1, OUT_OF_RANGE


def _poison_scales(stored: Stored, where: Table) -> Stored:
    for by_token in (stored.token_scale, stored.token_zero):
        if by_token is not None:
            by_token[~where.covered] = math.nan
    for by_page in (stored.page_scale, stored.page_zero):
        if by_page is not None:
            by_page[~where.full] = math.nan
    return stored


def open_keys(
    where: Table, heads: int, d: int, compute: torch.dtype, generator: torch.Generator
) -> Tensor:
    """`k_open` [NS,16,HKV,D]: the keys of each sequence's partial page, NaN beyond its end."""
    x = torch.randn((len(where.seq_lens), PAGE, heads, d), generator=generator).to(compute)
    for i, length in enumerate(where.seq_lens):
        x[i, int(length) % PAGE :] = math.nan
    return x
