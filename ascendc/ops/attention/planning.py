"""What the AscendC attention takes and how it is tiled: precisions, configs, limits, tiling bytes.

The kernel (``attention.cpp``) computes softmax(scale Q K^T) V for prefill on blocks of one cube core
and two vector cores.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from ...soc import Soc, find

_INT32_MAX = 2**31 - 1
_EXACT = 2**24  # positions are compared as floats
_FRACTAL = 16
_SMALL = 9 * 1024  # UB bytes of what belongs to queries (kSmall of attention_vector.h)
_OTHER_SLOTS = 3  # of weights and of sums in the workspace (Workspace of attention_steps.h)
_MOST_QUERIES = 128  # of a tile
_GROUP = 64  # rows that a fold keeps in the scratch (kGroup of attention_vector.h)

KERNELS: Mapping[str, str] = MappingProxyType({"fp16": "attention_fp16", "bf16": "attention_bf16"})
BYTES = 2  # of an element of q, k, v and o


@dataclass(frozen=True, slots=True)
class Config:
    """A point of the tunable space.

    ``tile_m`` queries of a block, ``tile_n`` keys of a step. ``preload``: steps that QK^T runs ahead of PV. ``stagger``: 1 lets cores begin at different
    keys, so that they do not read the same addresses at the same time. ``blocks``: at most so many
    cube cores; 0: all. ``invariant``: 1 where no field may change a bit; see ``settled``.
    """

    tile_m: int = 32
    tile_n: int = 32
    preload: int = 1
    stagger: int = 0
    blocks: int = 0
    invariant: int = 0

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


DEFAULT_CONFIG = Config()


@dataclass(frozen=True, slots=True)
class Problem:
    """A case in numbers. ``queries`` and ``keys`` are the lengths of each sequence.

    Sizes count elements; ``ragged``: sequences lie one behind the other. ``scale`` 0 stands for
    1/sqrt(dk), ``softcap`` and ``window`` 0 for none.
    """

    queries: Sequence[int]
    keys: Sequence[int]
    hq: int
    hkv: int
    dk: int
    dv: int
    ragged: bool = False
    causal: bool = True
    scale: float = 0.0
    softcap: float = 0.0
    window: int = 0
    alibi: bool = False
    lse: bool = False

    @property
    def factor(self) -> float:
        """What scores are multiplied with."""
        return self.scale or self.dk**-0.5


# Elements from one sequence, one token and one head to the next.
Strides = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Strides of q, k, v, o and lse, in elements."""

    q: Strides
    k: Strides
    v: Strides
    o: Strides
    lse: Strides

    @classmethod
    def dense(cls, problem: Problem) -> Layout:
        """Of tensors without gaps."""

        def of(length: int, heads: int, lanes: int) -> Strides:
            return length * heads * lanes, heads * lanes, lanes

        p = problem
        longest = (max(p.queries, default=0), max(p.keys, default=0))
        return cls(
            of(longest[0], p.hq, p.dk),
            of(longest[1], p.hkv, p.dk),
            of(longest[1], p.hkv, p.dv),
            of(longest[0], p.hq, p.dv),
            of(longest[0], p.hq, 1),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A launch, ready but for its buffers."""

    kernel: str
    block_dim: int
    tiling: bytes
    workspace_bytes: int


def refusal(precision: str, dk: int, dv: int, *, int8_compute: bool = False) -> str | None:
    """Why this kind of case is not done by the ascendc attention, or None if it is."""
    if int8_compute:
        return "compute=int8: the ascendc attention multiplies in the type of q, k and v"
    if precision not in KERNELS:
        return (
            f"{precision}: the ascendc attention takes {' and '.join(KERNELS)}; the cube multiplies "
            "fp32 at a quarter of the rate and cannot transpose it from L1 to L0A"
        )
    for name, value in (("DK", dk), ("DV", dv)):
        if value % _FRACTAL or not _FRACTAL <= value <= 256:
            return f"{name} is {value}, the ascendc attention takes multiples of 16 up to 256"
    return None


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def chunk(config: Config, dk: int, dv: int, soc: Soc) -> int:
    """Keys of one Mmad: as many as two buffers of everything leave room for; 0 if none do."""
    half_a, half_b, half_c = soc.l0a // 2 // BYTES, soc.l0b // 2 // BYTES, soc.l0c // 2 // 4
    queries = _MOST_QUERIES if config.invariant else config.tile_m
    most = min(half_a // dk, half_a // queries, half_b // dv, half_c // queries)
    return min(most // _FRACTAL * _FRACTAL, config.tile_n, 255 * _FRACTAL)


def settled(config: Config, dk: int, dv: int) -> Config:
    """The config of a batch-invariant case: what the bits of a row depend on follows from its lanes alone.

    Keys of a step are as many as every ``tile_m`` has room for, and are walked in their order.
    """
    return replace(config, tile_n=256 if dk + dv <= 320 else 128, stagger=0, invariant=1)


def unified_buffer(config: Config, dv: int) -> int:
    """Bytes of UB that a vector core takes (``AllocateBuffers`` of attention_vector.h)."""
    lanes = config.tile_m // 2
    weights = lanes // _FRACTAL * (config.tile_n + 1) * 32
    sums = lanes * dv * 4
    scratch = max(_GROUP * lanes * 4, lanes * dv * BYTES)
    return (
        _ceil_div(config.tile_n * lanes * 4 + weights + 2 * sums, 512) * 512
        + 256
        + scratch
        + _SMALL
    )


def illegal(config: Config, dk: int, dv: int, soc: str = "910b1") -> list[str]:
    """Every reason why ``config`` can not run, empty if it can. Does not depend on the lengths."""
    part = find(soc)
    c = config
    why = []
    for name, allowed in (
        ("tile_m", (32, 64, _MOST_QUERIES)),
        ("tile_n", (16, 32, 64, 128, 256, 512)),
        ("preload", (1, 2, 3)),
        ("stagger", (0, 1)),
        ("invariant", (0, 1)),
    ):
        value = getattr(c, name)
        if value not in allowed:
            why.append(f"{name} is {value}, allowed are {', '.join(map(str, allowed))}")
    if not 0 <= c.blocks <= part.cube_cores:
        why.append(f"blocks is {c.blocks}, {soc} has {part.cube_cores} cube cores")
    if why:
        return why

    def fits(memory: str, used: int, what: str) -> None:
        room = part.room(memory, mixed=True)
        if used > room:
            why.append(f"{memory}: {what} take {used} bytes, {room} are there")

    two = 2 * BYTES
    fits("l0b", c.tile_m * dk * two, f"2 x Q tile {c.tile_m}x{dk}")
    fits("l0c", 2 * c.tile_m * dv * 4, f"2 x PV tile {c.tile_m}x{dv}")
    if chunk(c, dk, dv, part) < _FRACTAL:
        why.append(f"no 16 keys of {dk} and {dv} lanes fit L0 beside {c.tile_m} queries")
    fits(
        "l1",
        two * (c.tile_n * (dk + dv + c.tile_m) + c.tile_m * dk),
        f"2 x (Q {c.tile_m}x{dk} + K {c.tile_n}x{dk} + V {c.tile_n}x{dv} + P {c.tile_n}x{c.tile_m})",
    )
    fits("ub", unified_buffer(c, dv), f"scores {c.tile_n}x{c.tile_m // 2}, weights and 2 x sums")
    return why


def workspace_bytes(config: Config, dv: int) -> int:
    """Bytes of the workspace of one block."""
    tile = config.tile_m * config.tile_n
    return tile * 4 * (config.preload + 1) + (tile * BYTES + config.tile_m * dv * 4) * _OTHER_SLOTS


def tiles(problem: Problem, config: Config) -> int:
    """Tiles of queries, over all sequences and heads."""
    return problem.hq * sum(_ceil_div(n, config.tile_m) for n in problem.queries)


def _blocks(problem: Problem, config: Config, soc: Soc) -> int:
    return max(1, min(config.blocks or soc.cube_cores, tiles(problem, config)))


def steps(problem: Problem, config: Config, queries: int, keys: int, tile: int) -> int:
    """Steps of a tile of queries (``SetItem`` of attention_steps.h)."""
    first = keys - queries + tile * config.tile_m
    last = min(first + config.tile_m, keys) - 1
    end = keys
    if problem.causal:
        end = min(keys, last + 1)
    elif problem.window:
        end = min(keys, last + problem.window)
    begin = max(0, first - problem.window + 1) if problem.window else 0
    if end <= begin:
        return 1
    return _ceil_div(end, config.tile_n) - begin // config.tile_n


def representatives(problem: Problem, config: Config, soc: Soc) -> dict[int, int]:
    """Blocks that stand for all: each the first of those with as many tiles and steps.

    Mirrors the order in which the kernel deals tiles out (``Walk`` of attention_steps.h).
    """
    blocks = _blocks(problem, config, soc)
    dealt = [[0, 0] for _ in range(blocks)]
    item = 0
    for queries, keys in zip(problem.queries, problem.keys, strict=True):
        for tile in reversed(range(_ceil_div(queries, config.tile_m))):
            length = steps(problem, config, queries, keys, tile)
            for _ in range(problem.hq):
                turn, place = divmod(item, blocks)
                block = dealt[place if turn % 2 == 0 else blocks - 1 - place]
                block[0] += 1
                block[1] += length
                item += 1
    found: dict[tuple[int, int], int] = {}
    counts: dict[int, int] = {}
    for number, (items, total) in enumerate(dealt):
        first = found.setdefault((items, total), number)
        counts[first] = counts.get(first, 0) + 1
    return counts


def plan(
    problem: Problem,
    layout: Layout,
    precision: str,
    config: Config = DEFAULT_CONFIG,
    soc: str = "910b1",
) -> Plan:
    """Kernel, blocks, tiling bytes and workspace of a case with at least one query.

    Raises ValueError with every reason if it can not run.
    """
    p = problem
    part = find(soc)
    why = illegal(config, p.dk, p.dv, soc)
    if p.hkv < 1 or p.hq % p.hkv:
        why.append(f"HQ is {p.hq}, it must be a multiple of HKV, which is {p.hkv}")
    numbers = {
        **{f"strides of {n}": max(getattr(layout, n)) for n in ("q", "k", "v", "o", "lse")},
        "queries": max(sum(p.queries), 1),
        "keys": max(sum(p.keys), 1),
    }
    why += [
        f"{name}: {value} is beyond {_INT32_MAX}"
        for name, value in numbers.items()
        if value > _INT32_MAX
    ]
    longest = max((*p.queries, *p.keys), default=0)
    if longest > _EXACT:
        why.append(f"a sequence of {longest} tokens; positions are exact up to {_EXACT}")
    if not 0 <= p.window <= _INT32_MAX:
        why.append(f"window is {p.window}, it must be between 0 and {_INT32_MAX}")
    if p.softcap < 0:
        why.append(f"softcap is {p.softcap}, it must not be negative")
    if why:
        raise ValueError("; ".join(why))
    # A maximum of scores is one of scaled scores only where the scale is positive.
    prescale = p.softcap > 0 or p.alibi or p.factor <= 0
    words = struct.pack(
        "<11i2f",
        len(p.queries),
        0 if p.ragged else max(p.queries, default=0),
        0 if p.ragged else max(p.keys, default=0),
        p.hq,
        p.hkv,
        p.dk,
        p.dv,
        int(p.ragged),
        int(p.causal),
        p.window,
        int(prescale),
        p.factor,
        p.softcap,
    )
    words += struct.pack("<2i", int(p.alibi), int(p.lse))
    for strides in (layout.q, layout.k, layout.v, layout.o, layout.lse):
        words += struct.pack("<3i", *strides)
    words += struct.pack(
        "<5i",
        config.tile_m,
        config.tile_n,
        chunk(config, p.dk, p.dv, part),
        config.preload,
        config.stagger,
    )
    blocks = _blocks(p, config, part)
    return Plan(KERNELS[precision], blocks, words, blocks * workspace_bytes(config, p.dv))
