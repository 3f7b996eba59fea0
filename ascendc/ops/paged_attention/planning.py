"""What the AscendC paged_attention takes, and how it is tiled: problems, configs, limits of a core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from ...soc import Soc

PAGE = 16  # tokens
FRACTAL = 16
LANES = 64  # floats of a vector instruction's repeat
MOST_HEADS = 8  # token scales of a task's heads take a block of 32 bytes
_CODE_ELEMENTS, _WORK_FLOATS, _QUERY_ROWS = 8192, 4096, 8  # paged_keys.h
BLOCK = 8  # floats of 32 bytes
_SYSTEM: Mapping[str, int] = MappingProxyType({"l1": 256})  # what a mix kernel leaves to the system
_MERGE_ROWS, _MOST_SPLITS = 8, 128  # paged_merge.h

KINDS: Mapping[str, int] = MappingProxyType({"float": 0, "c8s": 1, "c8d": 2})
_ITEM: Mapping[str, int] = MappingProxyType({"fp32": 4, "fp16": 2, "bf16": 2})


@dataclass(frozen=True, slots=True)
class Config:
    """A point of the tunable space; 0 lets ``tile_heads`` and ``split_pages`` be chosen for the shape.

    ``tile_pages`` of an L1 load, ``step_pages`` of one softmax step, ``tile_heads`` kv heads of a task,
    ``split_pages`` of one split of a sequence; ``cores`` cube cores at most, 0 for all.
    """

    tile_pages: int = 2
    step_pages: int = 4
    tile_heads: int = 1
    split_pages: int = 0
    cores: int = 0

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
    window: float = 0.0
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


def ceil(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def _up(a: int, b: int) -> int:
    return ceil(a, b) * b


def _padded(problem: Problem, heads: int, queries: int) -> int:
    """Rows of a task as fractals: of a head's queries together, or each query's for itself."""
    return max(
        heads * _up(queries * problem.group, FRACTAL), heads * queries * _up(problem.group, FRACTAL)
    )


def _capacity(problem: Problem, row_blocks: int) -> int:
    """Rows of a vector core, which takes half of a task's."""
    return _up(ceil(row_blocks, 2) * problem.group, BLOCK)


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
    used += rows * (7 * 4 + 2 * BLOCK * 4 + problem.dv * (8 + problem.item))
    used += 32 * (problem.softcap != 0)
    if problem.alibi:
        used += 4 * (step + LANES + rows * BLOCK)
    if problem.codes:
        columns = t.heads * d
        codes = _CODE_ELEMENTS // PAGE * (PAGE + 1)
        used += 2 * (codes + 2 * (_CODE_ELEMENTS + columns) + 4 * rows + 256)
        used += 4 * _WORK_FLOATS + PAGE * d * problem.item + 2 * _QUERY_ROWS * problem.dk
        used += 4 * rows * BLOCK + 32 + problem.residual * _CODE_ELEMENTS
        by_channel = 4 * 2 * columns
        used += by_channel if problem.kind == "c8s" else 4 * step * (BLOCK + 2 * t.heads + 1)
    return used


def _ub_merge(problem: Problem) -> int:
    rows = _MERGE_ROWS
    return 4 * rows * BLOCK * (_MOST_SPLITS + 3) + rows * problem.dv * (12 + problem.item)


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
        room = getattr(soc, name) - _SYSTEM.get(name, 0)
        if size > room:
            return (
                f"{name}: {what}, tiles of {t.tile_tokens} and steps of {t.step_tokens} tokens"
                f" take {size} bytes, {room} are there"
            )
    if ceil(problem.dk, 32 // problem.cube_item) * (t.tile_tokens // FRACTAL) > 255:
        return (
            f"tile_pages={t.tile_tokens // PAGE}: a LoadData takes 255 fractals of DK={problem.dk}"
        )
    if problem.codes and t.heads * max(problem.dk, problem.dv) * PAGE > _CODE_ELEMENTS:
        return (
            f"tile_heads={t.heads}: a page of codes of these heads exceeds {_CODE_ELEMENTS} bytes"
        )
    return None


def _with_pass(problem: Problem, t: Tiles, soc: Soc) -> Tiles | str:
    """The tiles with the most rows of a pass that fit, or why none do."""
    rows = min(_capacity(problem, t.row_blocks), 64)
    for pass_rows in range(rows, 0, -BLOCK):
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
    if not 0 <= config.cores <= soc.cube_cores:
        return f"cores is {config.cores}, {soc.name} has {soc.cube_cores}"
    if config.tile_heads and (
        problem.kv_heads % config.tile_heads or config.tile_heads > MOST_HEADS
    ):
        return (
            f"tile_heads is {config.tile_heads}, allowed are divisors of HKV={problem.kv_heads}"
            f" up to {MOST_HEADS}"
        )
    # What lies before a window is silenced for a task as a whole.
    most = 1 if problem.window else max(most_queries, 1)
    divisors = [h for h in range(MOST_HEADS, 0, -1) if problem.kv_heads % h == 0]
    tile = min(config.tile_pages, config.step_pages) * PAGE
    best: Tiles | None = None
    why = ""
    for heads in [config.tile_heads] if config.tile_heads else divisors:
        for queries in range(min(most, 128), 0, -1):
            found = _with_pass(
                problem, Tiles(heads, queries, tile, config.step_pages * PAGE, BLOCK), soc
            )
            if isinstance(found, Tiles):
                if best is None or found.queries > best.queries:
                    best = found
                break
            why = found
    return best or why
