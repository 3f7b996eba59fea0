"""How an AscendC paged_attention is tiled and dealt to cores: configs, limits, tasks, tiling bytes.

A task is a run of pages of one sequence, for a tile of queries and some neighbouring kv heads; what it
is to the kernel stands in ``paged_tiling.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, groupby
from types import MappingProxyType

from ...soc import Soc, find

PAGE = 16  # tokens
FRACTAL = 16
LANES = 64  # floats of a vector instruction's repeat
MOST_SPLITS = 128  # kMostSplits of paged_merge.h
MOST_HEADS = 8  # token scales of a task's heads take a block of 32 bytes
INVARIANT_SPLIT = 64  # pages; what batch_invariant splits at
_CODE_ELEMENTS, _WORK_FLOATS, _QUERY_ROWS = 8192, 4096, 8  # paged_keys.h
_MERGE_ROWS, _BLOCK = 8, 8
_RECORD = struct.Struct("<8i")
_UNIT = 512  # bytes of workspace offsets

KINDS: Mapping[str, int] = MappingProxyType({"float": 0, "c8s": 1, "c8d": 2})
_ITEM: Mapping[str, int] = MappingProxyType({"fp32": 4, "fp16": 2, "bf16": 2})


@dataclass(frozen=True, slots=True)
class Config:
    """A point of the tunable space; 0 lets ``tile_heads`` and ``split_pages`` be chosen for the shape.

    ``tile_pages`` of an L1 load, ``step_pages`` of one softmax step, ``tile_heads`` kv heads of a task,
    ``split_pages`` of one split of a sequence.
    """

    tile_pages: int = 2
    step_pages: int = 4
    tile_heads: int = 1
    split_pages: int = 0

    @classmethod
    def of(cls, values: Mapping[str, int] | None) -> Config:
        """From named integers. Raises ValueError for an unknown name."""
        given = dict(values or {})
        names = {f.name for f in fields(cls)}
        unknown = sorted(set(given) - names)
        if unknown:
            raise ValueError(
                f"unknown config field '{unknown[0]}', known are {', '.join(sorted(names))}"
            )
        return cls(**given)


DEFAULT_CONFIG = Config()


@dataclass(frozen=True, slots=True)
class Problem:
    """What a launch is about, but for its sequences. ``compute``: fp32, fp16 or bf16."""

    compute: str
    kind: str
    heads: int
    kv_heads: int
    dk: int
    dv: int
    table_width: int
    nz: bool = False
    residual: bool = False
    lse: bool = False
    alibi: bool = False
    invariant: bool = False
    scale: float = 1.0
    softcap: float = 0.0
    k_page: int = 0
    v_page: int = 0

    @property
    def group(self) -> int:
        """Query heads that share a kv head."""
        return self.heads // self.kv_heads

    @property
    def codes(self) -> bool:
        """Whether the caches hold codes, which the cube multiplies as half."""
        return self.kind != "float"

    @property
    def item(self) -> int:
        """Bytes of one element of q and o."""
        return _ITEM[self.compute]

    @property
    def cube_item(self) -> int:
        """Bytes of one element of what the cube multiplies."""
        return 2 if self.codes else self.item

    @property
    def kernel(self) -> str:
        return f"paged_attention_{self.compute}" + ("_codes" if self.codes else "")


@dataclass(frozen=True, slots=True)
class Tiles:
    """A config settled for a problem: ``row_blocks`` (kv head, query) pairs of a task at most."""

    heads: int
    queries: int
    tile_tokens: int
    step_tokens: int
    pass_rows: int

    @property
    def row_blocks(self) -> int:
        return self.heads * self.queries


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
    part: int = -1

    def words(self) -> bytes:
        return _RECORD.pack(*(getattr(self, f.name) for f in fields(self)))


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
        return _RECORD.pack(*(getattr(self, f.name) for f in fields(self)), 0, 0)


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


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _up(a: int, b: int) -> int:
    return _ceil(a, b) * b


def _padded(problem: Problem, heads: int, queries: int) -> int:
    """Rows of a task as fractals: of a head's queries together, or each query's for itself."""
    return max(
        heads * _up(queries * problem.group, FRACTAL), heads * queries * _up(problem.group, FRACTAL)
    )


def _capacity(problem: Problem, row_blocks: int) -> int:
    """Rows of a vector core, which takes half of a task's."""
    return _up(_ceil(row_blocks, 2) * problem.group, _BLOCK)


def memory(problem: Problem, t: Tiles) -> dict[str, int]:
    """Bytes that the kernel takes of each memory of a core."""
    size, d = problem.cube_item, max(problem.dk, problem.dv)
    padded, rows = _padded(problem, t.heads, t.queries), _up(t.queries * problem.group, FRACTAL)
    tile, step = t.tile_tokens, t.step_tokens
    return {
        "l1": 2 * size * (t.heads * d * tile + padded * (problem.dk + step)),
        "l0a": 2 * size * rows * max(problem.dk, tile),
        "l0b": 2 * size * d * tile,
        "l0c": 4 * (2 * rows * tile + padded * problem.dv),
        "ub": max(_ub(problem, t), _ub_merge(problem)),
    }


def _ub(problem: Problem, t: Tiles) -> int:
    rows, step = _capacity(problem, t.row_blocks), t.step_tokens
    size, d = problem.cube_item, max(problem.dk, problem.dv)
    used = 2 * t.pass_rows * step * (4 + size) + t.pass_rows * LANES * 4
    used += rows * (7 * 4 + 2 * _BLOCK * 4 + problem.dv * (8 + problem.item))
    used += 32 * (problem.softcap != 0)
    if problem.alibi:
        used += 4 * (step + LANES + rows * _BLOCK)
    if problem.codes:
        columns = t.heads * d
        used += 2 * (_CODE_ELEMENTS + 2 * (_CODE_ELEMENTS + columns) + 4 * rows + 256)
        used += 4 * _WORK_FLOATS + PAGE * d * problem.item + 2 * _QUERY_ROWS * problem.dk
        used += 4 * rows * _BLOCK + 32 + problem.residual * _CODE_ELEMENTS
        by_channel = 4 * 2 * columns
        used += by_channel if problem.kind == "c8s" else 4 * step * (_BLOCK + 2 * t.heads + 1)
    return used


def _ub_merge(problem: Problem) -> int:
    rows = _MERGE_ROWS
    return 4 * rows * _BLOCK * (MOST_SPLITS + 3) + rows * problem.dv * (12 + problem.item)


def refusal(problem: Problem, values: str = "separate", residual: str = "none") -> str | None:
    """Why the kernel does not do this kind of problem, or None if it does."""
    if values != "separate":
        return f"values={values}: this kernel gathers keys and values from caches of their own"
    if problem.kind not in KINDS:
        return f"kv={problem.kind}: this kernel reads float and int8 caches"
    if residual not in ("none", "nested"):
        return f"residual={residual}: this kernel decodes nested residuals"
    if problem.codes and problem.compute == "fp32":
        return "codes are multiplied as half, which is not enough for fp32 queries"
    if problem.heads % max(problem.kv_heads, 1) or problem.kv_heads < 1:
        return f"HQ={problem.heads} is not a multiple of HKV={problem.kv_heads}"
    step, most = (64, 128) if problem.codes else (16, 256)
    for name, d in (("DK", problem.dk), ("DV", problem.dv)):
        if d % step or not step <= d <= most:
            return f"{name}={d}: this kernel takes multiples of {step} from {step} to {most}"
    return None


def _limits(problem: Problem, t: Tiles, soc: Soc) -> str | None:
    used = memory(problem, t)
    what = f"{t.heads} kv heads x {t.queries} queries x {problem.group} heads a group"
    for name, size in used.items():
        if size > getattr(soc, name):
            return (
                f"{name}: {what}, tiles of {t.tile_tokens} and steps of {t.step_tokens} tokens"
                f" take {size} bytes, {getattr(soc, name)} are there"
            )
    if _ceil(problem.dk, 32 // problem.cube_item) * (t.tile_tokens // FRACTAL) > 255:
        return (
            f"tile_pages={t.tile_tokens // PAGE}: a LoadData takes 255 fractals of DK={problem.dk}"
        )
    if problem.codes and t.heads * max(problem.dk, problem.dv) * PAGE > _CODE_ELEMENTS:
        return f"tile_heads={t.heads}: a page of codes of these heads exceeds {_CODE_ELEMENTS} bytes"
    return None


def _with_pass(problem: Problem, t: Tiles, soc: Soc) -> Tiles | str:
    """The tiles with the most rows of a pass that fit, or why none do."""
    rows = min(_capacity(problem, t.row_blocks), 64)
    for pass_rows in range(rows, 0, -_BLOCK):
        ready = replace(t, pass_rows=pass_rows)
        why = _limits(problem, ready, soc)
        if why is None or not why.startswith("ub"):
            break
    return ready if why is None else why


def settle(problem: Problem, config: Config, soc: Soc, most_queries: int) -> Tiles | str:
    """The tiles of a config, or why it can not run. Tiles with the most queries come first, since each
    tile reads all pages, then those with the most heads."""
    for name, step, most in (("tile_pages", 1, 64), ("step_pages", 4, 124)):
        value = getattr(config, name)
        if value < 1 or value > most or value % step:
            return f"{name} is {value}, allowed are multiples of {step} up to {most}"
    if config.split_pages < 0 or config.tile_heads < 0:
        return "split_pages and tile_heads must not be negative"
    if config.tile_heads and (
        problem.kv_heads % config.tile_heads or config.tile_heads > MOST_HEADS
    ):
        return (
            f"tile_heads is {config.tile_heads}, allowed are divisors of HKV={problem.kv_heads}"
            f" up to {MOST_HEADS}"
        )
    divisors = [h for h in range(MOST_HEADS, 0, -1) if problem.kv_heads % h == 0]
    tile = min(config.tile_pages, config.step_pages) * PAGE
    best: Tiles | None = None
    why = ""
    for heads in [config.tile_heads] if config.tile_heads else divisors:
        for queries in range(min(max(most_queries, 1), 128), 0, -1):
            found = _with_pass(
                problem, Tiles(heads, queries, tile, config.step_pages * PAGE, _BLOCK), soc
            )
            if isinstance(found, Tiles):
                if best is None or found.queries > best.queries:
                    best = found
                break
            why = found
    return best or why


@dataclass(frozen=True, slots=True)
class _Item:
    """Queries of a sequence and heads that walk over the same pages."""

    whole: Task

    def pages(self) -> int:
        return _ceil(self.whole.tokens, PAGE)

    def cut(self, first: int, last: int) -> Task:
        w = self.whole
        tokens = min(last * PAGE, w.tokens) - first * PAGE
        return replace(w, page=first, tokens=tokens, position=w.position - first * PAGE)


def _items(
    problem: Problem, t: Tiles, cu_q: Sequence[int], seq_lens: Sequence[int]
) -> Iterator[_Item]:
    for i, length in enumerate(seq_lens):
        queries = cu_q[i + 1] - cu_q[i]
        for first in range(0, queries, t.queries):
            n = min(t.queries, queries - first)
            position = length - queries + first
            for head in range(0, problem.kv_heads, t.heads):
                tokens = max(min(position + n, length), 0)
                yield _Item(Task(i, cu_q[i] + first, n, head, 0, tokens, position))


def _share(items: Sequence[_Item], step: int, cores: int) -> list[list[tuple[int, int, int]]]:
    """(item, first page, last page) for each core: all items in a row, cut evenly at steps."""
    ends = list(accumulate(_ceil(item.pages(), step) for item in items))
    total = ends[-1] if ends else 0
    dealt: list[list[tuple[int, int, int]]] = [[] for _ in range(cores)]
    i = 0
    for core, runs in enumerate(dealt):
        at, stop = core * total // cores, (core + 1) * total // cores
        while at < stop:
            while ends[i] <= at:
                i += 1
            begin = ends[i - 1] if i else 0
            end = min(ends[i], stop)
            runs.append((i, (at - begin) * step, min((end - begin) * step, items[i].pages())))
            at = end
    return dealt


def _deal(items: Sequence[_Item], split: int, cores: int) -> list[list[tuple[int, int, int]]]:
    """The same with splits at multiples of `split` pages, the longest first to the core with least."""
    runs = [
        (i, first, min(first + split, item.pages()))
        for i, item in enumerate(items)
        for first in range(0, item.pages(), split)
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
    longest = max((item.pages() for item in items), default=0)
    if split and _ceil(longest, split) > MOST_SPLITS:
        raise ValueError(
            f"{longest} pages in splits of {split} are more than {MOST_SPLITS} splits of one sequence"
        )
    step = config.step_pages
    work = sum(_ceil(item.pages(), split or step) for item in items)
    cores = max(min(part.cube_cores, work), 1)
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
        tuple(replace(items[i].cut(first, last), part=part.get((i, first), -1)) for i, first, last in runs)
        for runs in dealt
    )
    return by_core, tuple(merges), rows


def _workspace(
    problem: Problem, t: Tiles, cores: int, parts: int
) -> tuple[tuple[int, ...], int]:
    """Where each kind of data begins, in 512 bytes, and the bytes of all. Slots as in paged_walk.h."""
    rows, step, size = t.row_blocks * problem.group, t.step_tokens, problem.cube_item
    sizes = (
        cores * 2 * rows * step * 4,
        cores * 2 * rows * step * size,
        cores * 2 * rows * problem.dv * 4,
        cores * 2 * rows * problem.dk * size * problem.codes,
        cores * 3 * t.heads * step * (problem.dk + problem.dv) * size * problem.codes,
        parts * problem.dv * 4,
        parts * _BLOCK * 4,
    )
    offsets, at = [], 0
    for bytes_ in sizes:
        offsets.append(at)
        at += _ceil(bytes_, _UNIT)
    return tuple(offsets), at * _UNIT


def _tiling(
    problem: Problem, t: Tiles, cores: int, merges: int, offsets: Sequence[int]
) -> bytes:
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
