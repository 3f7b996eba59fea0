"""Tasks and cores: how the sequences of an AscendC paged_attention are cut, and the bytes of its launch.

A task is a run of pages of one sequence, for a tile of queries and some neighbouring kv heads; what it
is to the kernel stands in ``paged_tiling.h``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, groupby

from ...soc import find
from .planning import BLOCK, DEFAULT_CONFIG, KINDS, PAGE, Config, Problem, Tiles, ceil, settle

MOST_SPLITS = 128  # kMostSplits of paged_merge.h
INVARIANT_SPLIT = 64  # pages; what batch_invariant splits at
_TASK, _MERGE = struct.Struct("<9i"), struct.Struct("<8i")
_UNIT = 512  # bytes of workspace offsets


@dataclass(frozen=True, slots=True)
class Task:
    """`paged_tiling.h` says what the fields mean; ``part`` is -1 for a task that is whole."""

    sequence: int
    row: int
    queries: int
    head: int
    page: int
    tokens: int
    position: int
    skip: int = 0
    part: int = -1

    def words(self) -> bytes:
        return _TASK.pack(*(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Merge:
    """Rows that ``splits`` partial results make, ``stride`` rows apart; without any, no key is visible."""

    row: int
    queries: int
    head: int
    part: int
    splits: int
    stride: int

    def words(self) -> bytes:
        return _MERGE.pack(*(getattr(self, f.name) for f in fields(self)), 0, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """A launch, ready but for its buffers. ``by_core``: the tasks of each cube core."""

    kernel: str
    tiles: Tiles
    by_core: tuple[tuple[Task, ...], ...]
    merges: tuple[Merge, ...]
    tiling: bytes
    workspace: int

    @property
    def block_dim(self) -> int:
        return len(self.by_core)

    def words(self) -> bytes:
        """The plan as the kernel reads it."""
        starts = [0]
        for tasks in self.by_core:
            starts.append(starts[-1] + len(tasks))
        records = [t.words() for tasks in self.by_core for t in tasks]
        return b"".join(
            (struct.pack(f"<{len(starts)}i", *starts), *records, *(m.words() for m in self.merges))
        )


@dataclass(frozen=True, slots=True)
class _Item:
    """Queries of a sequence and heads that walk over the same tokens, ``first`` to ``last`` exclusive."""

    whole: Task
    first: int
    last: int

    @property
    def begin(self) -> int:
        """The first page."""
        return self.first // PAGE

    @property
    def end(self) -> int:
        """Behind the last page."""
        return ceil(self.last, PAGE) if self.first < self.last else self.begin

    def cut(self, begin: int, end: int) -> Task:
        """The pages from `begin` to `end`."""
        w, start = self.whole, begin * PAGE
        return replace(
            w,
            page=begin,
            tokens=min(end * PAGE, self.last) - start,
            position=w.position - start,
            skip=max(self.first - start, 0),
        )


def _items(
    problem: Problem, t: Tiles, cu_q: Sequence[int], seq_lens: Sequence[int]
) -> Iterator[_Item]:
    for i, length in enumerate(seq_lens):
        queries = cu_q[i + 1] - cu_q[i]
        for first in range(0, queries, t.queries):
            n = min(t.queries, queries - first)
            position = length - queries + first
            last = max(min(position + n, length), 0)
            seen = 0
            if problem.window:
                seen = min(max(math.floor(position - problem.window) + 1, 0), last)
            for head in range(0, problem.kv_heads, t.heads):
                yield _Item(Task(i, cu_q[i] + first, n, head, 0, 0, position), seen, last)


def _share(items: Sequence[_Item], step: int, cores: int) -> list[list[tuple[int, int, int]]]:
    """(item, first page, last page) for each core: all items in a row, cut evenly at steps."""
    ends = list(accumulate(ceil(item.end - item.begin, step) for item in items))
    total = ends[-1] if ends else 0
    dealt: list[list[tuple[int, int, int]]] = [[] for _ in range(cores)]
    i = 0
    for core, runs in enumerate(dealt):
        at, stop = core * total // cores, (core + 1) * total // cores
        while at < stop:
            while ends[i] <= at:
                i += 1
            item, before = items[i], ends[i - 1] if i else 0
            end = min(ends[i], stop)
            first = item.begin + (at - before) * step
            runs.append((i, first, min(item.begin + (end - before) * step, item.end)))
            at = end
    return dealt


def _deal(items: Sequence[_Item], split: int, cores: int) -> list[list[tuple[int, int, int]]]:
    """The same with splits at multiples of `split` pages, the longest first to the core with least."""
    runs = [
        (i, max(first, item.begin), min(first + split, item.end))
        for i, item in enumerate(items)
        for first in range(item.begin // split * split, item.end, split)
    ]
    dealt: list[list[tuple[int, int, int]]] = [[] for _ in range(cores)]
    load = [0] * cores
    for run in sorted(runs, key=lambda r: r[1] - r[2]):
        core = load.index(min(load))
        dealt[core].append(run)
        load[core] += run[2] - run[1]
    return [sorted(runs) for runs in dealt]


def plan(
    problem: Problem,
    cu_q: Sequence[int],
    seq_lens: Sequence[int],
    config: Config = DEFAULT_CONFIG,
    soc: str = "910b1",
) -> Plan:
    """Kernel, tasks and tiling of a launch. Raises ValueError if it can not run."""
    part = find(soc)
    most = max((b - a for a, b in zip(cu_q, cu_q[1:], strict=False)), default=1)
    tiles = settle(problem, config, part, most)
    if isinstance(tiles, str):
        raise ValueError(tiles)
    items = list(_items(problem, tiles, cu_q, seq_lens))
    split = config.split_pages or (INVARIANT_SPLIT if problem.invariant else 0)
    longest = max((item.end for item in items), default=0)
    if split and ceil(longest, split) > MOST_SPLITS:
        raise ValueError(
            f"{longest} pages in splits of {split} are more than {MOST_SPLITS} splits of one sequence"
        )
    step = config.step_pages
    work = sum(ceil(item.end - item.begin, split or step) for item in items)
    cores = max(min(config.cores or part.cube_cores, work), 1)
    dealt = _deal(items, split, cores) if split else _share(items, step, cores)
    by_core, merges, parts = _parts(
        lambda task: tiles.heads * task.queries * problem.group, items, dealt
    )
    offsets, workspace = _workspace(problem, tiles, cores, parts)
    words = _tiling(problem, tiles, cores, len(merges), offsets)
    return Plan(problem.kernel, tiles, by_core, merges, words, workspace)


def _parts(
    rows_of: Callable[[Task], int],
    items: Sequence[_Item],
    dealt: Sequence[Sequence[tuple[int, int, int]]],
) -> tuple[tuple[tuple[Task, ...], ...], tuple[Merge, ...], int]:
    """Tasks with their rows among the partial results, what to merge, and how many rows there are.

    Splits lie in the order of their pages, so that sums run the same way whoever took them.
    """
    order = sorted((i, first) for runs in dealt for i, first, _ in runs)
    splits = {i: [first for _, first in runs] for i, runs in groupby(order, key=lambda run: run[0])}
    rows, merges = 0, []
    part: dict[tuple[int, int], int] = {}
    for i, item in enumerate(items):
        firsts, w, stride = splits.get(i, []), item.whole, rows_of(item.whole)
        if len(firsts) == 1:
            continue
        merges.append(Merge(w.row, w.queries, w.head, rows, len(firsts), stride))
        part |= {(i, first): rows + k * stride for k, first in enumerate(firsts)}
        rows += len(firsts) * stride
    by_core = tuple(
        tuple(
            replace(items[i].cut(first, last), part=part.get((i, first), -1))
            for i, first, last in runs
        )
        for runs in dealt
    )
    return by_core, tuple(merges), rows


def _workspace(problem: Problem, t: Tiles, cores: int, parts: int) -> tuple[tuple[int, ...], int]:
    """Where each kind of data begins, in 512 bytes, and the bytes of all. Slots as in paged_walk.h."""
    rows, step, size = t.row_blocks * problem.group, t.step_tokens, problem.cube_item
    sizes = (
        cores * 2 * rows * step * 4,
        cores * 2 * rows * step * size,
        cores * 2 * rows * problem.dv * 4,
        cores * 2 * rows * problem.dk * size * problem.codes,
        cores * 3 * t.heads * step * (problem.dk + problem.dv) * size * problem.codes,
        parts * problem.dv * 4,
        parts * BLOCK * 4,
    )
    offsets, at = [], 0
    for bytes_ in sizes:
        offsets.append(at)
        at += ceil(bytes_, _UNIT)
    return tuple(offsets), at * _UNIT


def _tiling(problem: Problem, t: Tiles, cores: int, merges: int, offsets: Sequence[int]) -> bytes:
    """The bytes of ``TwPagedTiling``."""
    p = problem
    head = struct.pack(
        "<13i2f",
        *(p.heads, p.kv_heads, p.group, p.dk, p.dv, p.table_width, p.k_page, p.v_page),
        *(int(p.nz), KINDS[p.kind], int(p.residual), int(p.lse), int(p.alibi)),
        *(p.scale, p.softcap),
    )
    return head + struct.pack(
        f"<{7 + len(offsets)}i",
        *(t.heads, t.tile_tokens, t.step_tokens, t.row_blocks, t.pass_rows, cores, merges),
        *offsets,
    )
