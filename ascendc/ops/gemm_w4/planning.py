"""What the AscendC gemm_w4 takes and how it is tiled: configs, limits, tiling bytes. Standard library only."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from ...soc import Soc, find
from .._kv.planning import BLOCK, VECTOR_CORES, Plan, round_up

KERNELS = {"fp16": "gemm_w4_fp16", "bf16": "gemm_w4_bf16"}
ZEROS = ("sym", "asym", "min")
BYTES = 2  # of an element of a, c and the bias
_INT32_MAX = 2**31 - 1
_MOST_CHUNK = 1024
_FRACTAL = 16
_LINE = 8  # columns: shares of the two vector cores are whole ones
_SHARED = 16  # halves of a block: places of what the groups of a row share
_REPEAT = 128  # 16-bit elements
_CODES = 64  # of a block
_ALIGN = 512  # bytes of a slot
_MOST_ROWS = 64  # of a part of a chunk
_MOST_REPEATS = 255
_INVARIANT_K = 64  # k of an Mmad where rows keep their bits
_TILE_M = (16, 32, 64, 128, 256)
# By the model, for each column and k of a tile: cycles in which two vector cores dequantise, in fp32 or in halves;
# of the cube core's 4096 multiply-accumulates and 84 bytes a cycle.
_DEQUANTISE = {True: 0.065, False: 0.037}
_MACS, _LOADED = 4096, 84
# A tile's fixed cost, in columns that take as long.
_START = 16


@dataclass(frozen=True, slots=True)
class Config:
    """A point of the tunable space.

    ``tile_m`` rows and ``tile_n`` columns of a tile of C, ``tile_k`` of a step through L0, ``step_k`` steps of a load of L1, ``chunk`` k that the vector cores hand over at once,
    ``slots`` chunks of the ring between them. ``blocks``: at most so many cube cores; 0: all.
    """

    tile_m: int = 16
    tile_n: int = 16
    tile_k: int = 32
    step_k: int = 4
    chunk: int = 256
    slots: int = 2
    blocks: int = 0

    @classmethod
    def of(cls, values: Mapping[str, int] | None) -> Config:
        """From named integers. Raises ValueError for an unknown name."""
        names = {f.name for f in fields(cls)}
        unknown = sorted(set(values or {}) - names)
        if unknown:
            raise ValueError(
                f"unknown config field '{unknown[0]}', known are {', '.join(sorted(names))}"
            )
        return cls(**(values or {}))

    def fields(self) -> dict[str, int]:
        """What can be tuned, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "blocks"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What decides which instructions a case takes: precision, k of a group, zeros, and the bias."""

    precision: str
    group: int
    zero: str
    bias: bool

    @property
    def wide(self) -> bool:
        """Whether weights are computed in fp32."""
        return self.precision != "fp16" or self.zero == "min"


@dataclass(frozen=True, slots=True)
class Dims:
    """The shape, and elements from row to row of a, b (words), c, scale, zero and minimum (0: dense)."""

    m: int
    n: int
    k: int
    a_row: int = 0
    b_row: int = 0
    c_row: int = 0
    scale_row: int = 0
    zero_row: int = 0
    minimum_row: int = 0

    def rows(self, group: int) -> tuple[int, ...]:
        """The pitches with the dense ones filled in."""
        groups = -(-self.k // group)
        return (
            *(self.a_row or self.k, self.b_row or -(-self.k // 8), self.c_row or self.n),
            *(self.scale_row or groups, self.zero_row or groups, self.minimum_row or groups),
        )


def refusal(precision: str, b_layout: str, activations: str) -> str | None:
    """Why this kind of case is not done, or None if it is."""
    if b_layout != "rows":
        return f"b_layout={b_layout} is a host format; the ascendc gemm_w4 takes rows"
    if activations == "int8":
        return (
            f"{precision}: the cube sums int8 over all of K in int32, and scales by groups need a sum a "
            "group; the ascendc gemm_w4 takes float activations"
        )
    if precision not in KERNELS:
        return (
            f"{precision}: the cube multiplies fp32 at a quarter of the rate; the ascendc gemm_w4 takes "
            f"{' and '.join(KERNELS)}"
        )
    return None


def settled(config: Config) -> Config:
    """The config of a batch-invariant case: of what decides the order of a sum, none depends on the rows."""
    steps = config.tile_k * config.step_k // _INVARIANT_K
    return replace(config, tile_k=_INVARIANT_K, step_k=min(max(1, steps), 8))


def ub_bytes(config: Config, kind: Kind, rows: int) -> int:
    """UB that parts of so many rows take (``Allocate`` of dequantise.h)."""
    count = rows * config.chunk
    shared = rows * round_up(config.chunk // kind.group, _SHARED)
    sym, asym = kind.zero == "sym", kind.zero == "asym"
    slot = count // 2 + 2 * shared + 2 * count
    slot += 2 * shared if kind.zero == "min" else 0
    slot += rows * BLOCK if asym else 0
    total = 2 * slot + 2 * count + BLOCK * shared * (1 if sym else 2)
    total += 4 * count + 4 * shared if kind.wide else 0
    total += 2 * shared if asym else 0
    return total + 2 * 2 * _REPEAT + (6 * config.tile_n if kind.bias else 0)


def part_rows(config: Config, kind: Kind, soc: Soc) -> int:
    """Rows of a chunk that a vector core dequantises at once: as many as UB holds, 0 if none."""
    pitch = round_up(config.chunk // kind.group, _SHARED)
    most = min(_MOST_ROWS, _MOST_REPEATS * _LINE // pitch) // _LINE * _LINE
    share = round_up(-(-config.tile_n // VECTOR_CORES), _LINE)
    rows = min(most, share)
    while rows > 0 and ub_bytes(config, kind, rows) > soc.ub:
        rows -= _LINE
    return rows


def illegal(config: Config, kind: Kind, soc: str = "910b1") -> list[str]:
    """Every reason why ``config`` can not run, empty if it can. Does not depend on the shape."""
    part, c = find(soc), config
    why = []
    for name, allowed in (
        ("tile_m", _TILE_M),
        ("tile_n", tuple(range(16, 257, 16))),
        ("tile_k", (32, 64, 128)),
        ("step_k", (1, 2, 4, 8)),
        ("chunk", (128, 256, 512, _MOST_CHUNK)),
        ("slots", (2, 3, 4)),
    ):
        value = getattr(c, name)
        if value not in allowed:
            why.append(f"{name} is {value}, allowed are {', '.join(map(str, allowed))}")
    if not 0 <= c.blocks <= part.cube_cores:
        why.append(f"blocks is {c.blocks}, {soc} has {part.cube_cores} cube cores")
    if why:
        return why
    piece = c.tile_k * c.step_k
    if c.chunk % piece:
        why.append(f"chunk is {c.chunk}, it must be a multiple of tile_k x step_k, {piece}")

    def fits(memory: str, used: int, what: str) -> None:
        room = part.room(memory, mixed=True)
        if used > room:
            why.append(f"{memory}: {what} take {used} bytes, {room} are there")

    n = c.tile_n
    fits("l0a", 2 * c.tile_m * c.tile_k * BYTES, f"2 x A tile {c.tile_m}x{c.tile_k}")
    fits("l0b", 2 * n * c.tile_k * BYTES, f"2 x B tile {n}x{c.tile_k}")
    fits("l0c", c.tile_m * n * 4, f"C tile {c.tile_m}x{n}")
    loads = 2 * (c.tile_m + n) * piece * BYTES
    fits("l1", loads + 8 * n * kind.bias, f"2 x (A {c.tile_m}x{piece} + B {n}x{piece})")
    if not part_rows(c, kind, part):
        why.append(f"ub: no 8 rows of {c.chunk} weights fit")
    return why


def tiling(dims: Dims, kind: Kind, soc: str) -> Config | None:
    """A config for a shape: no more rows than there are, and columns such that work is even.

    Chosen is what gives the busiest core least to do, then the widest; None where none fits.
    """
    cores = find(soc).cube_cores
    # Groups that fill the places of a row need one instruction for all rows.
    chunk = 512 if kind.wide and kind.group == 32 else 256
    most = next((m for m in _TILE_M if m >= dims.m), _TILE_M[-1])
    found = []
    for rows in {min(most, 128), most}:
        for columns in range(_FRACTAL, 257, _FRACTAL):
            one = Config(rows, columns, _INVARIANT_K, 4, chunk, 3)
            if not illegal(one, kind, soc):
                m_tiles, n_tiles = tiles(dims, one)
                loads = BYTES * (rows + columns) / columns / _LOADED
                each = max(_DEQUANTISE[kind.wide], rows / _MACS, loads)
                busiest = -(-m_tiles * n_tiles // cores)
                found.append((busiest * (columns + _START) * each, -columns, one))
    return min(found, key=lambda f: f[:2])[2] if found else None


def slot_bytes(config: Config) -> int:
    """Of a chunk of the ring, with its bias."""
    return round_up(config.tile_n * (config.chunk * BYTES + 4), _ALIGN)


def tiles(dims: Dims, config: Config) -> tuple[int, int]:
    return -(-dims.m // config.tile_m), -(-dims.n // config.tile_n)


def plan(dims: Dims, kind: Kind, config: Config, soc: str) -> Plan:
    """A launch of a case that is not empty. ValueError, with every reason, where it can not run."""
    part = find(soc)
    why = illegal(config, kind, soc)
    pitches = dims.rows(kind.group)
    names = (
        "M",
        "N",
        "K",
        *(f"the row pitch of {n}" for n in ("a", "b", "c", "scale", "zero", "minimum")),
    )
    # Places along K are counted up to a chunk behind the last.
    most = {"K": _INT32_MAX - _MOST_CHUNK}
    why += [
        f"{name} is {value}, accepted are 1..{most.get(name, _INT32_MAX)}"
        for name, value in zip(names, (dims.m, dims.n, dims.k, *pitches), strict=True)
        if not 1 <= value <= most.get(name, _INT32_MAX)
    ]
    if why:
        raise ValueError("; ".join(why))
    c = config
    m_tiles, n_tiles = tiles(dims, c)
    blocks = min(c.blocks or part.cube_cores, m_tiles * n_tiles)
    words = (
        *(dims.m, dims.n, dims.k, *pitches, kind.group, ZEROS.index(kind.zero), int(kind.bias)),
        *(c.tile_m, c.tile_n, c.tile_k, c.tile_k * c.step_k, c.chunk),
        *(part_rows(c, kind, part), c.slots, m_tiles, n_tiles, blocks),
        2 if 2 * c.tile_m * c.tile_n * 4 <= part.l0c else 1,
    )
    workspace = blocks * c.slots * slot_bytes(c)
    return Plan(KERNELS[kind.precision], blocks, struct.pack(f"<{len(words)}i", *words), workspace)


def representatives(dims: Dims, config: Config, soc: str) -> dict[int, int]:
    """Blocks that stand for all: each the first of those with as many tiles, as many of them cut short.

    Mirrors ``Tiles`` of ring.h.
    """
    c = config
    m_tiles, n_tiles = tiles(dims, c)
    total = m_tiles * n_tiles
    blocks = min(c.blocks or find(soc).cube_cores, total)
    found: dict[tuple[int, int, int], int] = {}
    counts: dict[int, int] = {}
    for block in range(blocks):
        begin, end = total * block // blocks, total * (block + 1) // blocks
        short_n = max(0, end - max(begin, total - m_tiles))
        short_m = end // m_tiles - begin // m_tiles
        first = found.setdefault((end - begin, short_n, short_m), block)
        counts[first] = counts.get(first, 0) + 1
    return counts
