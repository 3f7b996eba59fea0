"""Configs of the AscendC gemm, and what a part has room for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from ...soc import Soc, find
from .precisions import precision_of

_MOST_PARTS = 65535  # of M; part x tiles of a part stays an int32 in the kernel
_RING_SLOTS = 2  # of `gemm_ring.h`
_PIECE = 8192  # elements that a vector core works on at once
_MOST_REPEATS = (
    248  # rows of a piece, which one instruction scales: whole blocks of 8, repeats are a byte
)
_MOST_SCALED_COLUMNS = 1024  # of a tile: repeats of a vector instruction step over whole rows


@dataclass(frozen=True, slots=True)
class Config:
    """A point of the tunable space. Tiles in elements, ``step_*`` in tiles, ``grid_*`` in cores.

    A grid of 0 x 0 is chosen for the shape.
    """

    tile_m: int = 32
    tile_n: int = 32
    tile_k: int = 32
    step_ka: int = 1
    step_kb: int = 1
    l1_buffers: int = 2
    l0_buffers: int = 2
    grid_m: int = 0
    grid_n: int = 0
    unit_flag: int = 0
    l2_split_m: int = 1

    @classmethod
    def of(cls, values: Mapping[str, int] | None) -> Config:
        """From named integers; ``stages`` sets both buffer counts.

        Raises ValueError for an unknown name.
        """
        given = dict(values or {})
        stages = given.pop("stages", None)
        if stages is not None:
            given.setdefault("l1_buffers", stages)
            given.setdefault("l0_buffers", stages)
        names = {f.name for f in fields(cls)}
        unknown = sorted(set(given) - names)
        if unknown:
            raise ValueError(
                f"unknown config field '{unknown[0]}', known are stages, {', '.join(sorted(names))}"
            )
        return cls(**given)


DEFAULT_CONFIG = Config()


def l0c_buffers(config: Config, soc: Soc) -> int:
    """2 where two output tiles fit L0C, else 1."""
    return 2 if 2 * config.tile_m * config.tile_n * 4 <= soc.l0c else 1


def illegal(
    precision: str,
    b_layout: str,
    config: Config,
    soc: str = "910b1",
    *,
    bias: bool = False,
    row_scale: bool = False,
    mixed: bool = False,
) -> list[str]:
    """Every reason why ``config`` can not run, empty if it can. Does not depend on the shape.

    ``mixed``: the product is part of a kernel of both kinds of cores, whatever its precision.
    """
    part, kind = find(soc), precision_of(precision, bias=bias, row_scale=row_scale)
    bias = bias and not kind.mix  # else the vector cores add it
    size = kind.input_bytes
    step_k = 32 if size == 1 else 16
    step_n = 32 if size == 1 and b_layout != "NK" else 16
    why: list[str] = []

    def need(good: bool, text: str) -> None:
        if not good:
            why.append(text)

    for name, step in (("tile_m", 16), ("tile_n", step_n), ("tile_k", step_k)):
        value = getattr(config, name)
        need(
            value > 0 and value % step == 0,
            f"{name} is {value}, it must be a positive multiple of {step}",
        )
        need(value <= 4095, f"{name} is {value}, Mmad takes at most 4095")
    for name in ("l1_buffers", "l0_buffers"):
        need(
            getattr(config, name) in (1, 2),
            f"{name} is {getattr(config, name)}, allowed are 1 and 2",
        )
    for name in ("step_ka", "step_kb"):
        need(
            getattr(config, name) >= 1, f"{name} is {getattr(config, name)}, it must be at least 1"
        )
    need(
        1 <= config.l2_split_m <= _MOST_PARTS,
        f"l2_split_m is {config.l2_split_m}, allowed are 1..{_MOST_PARTS}",
    )
    need(
        not kind.mix or config.tile_n <= _MOST_SCALED_COLUMNS,
        f"tile_n is {config.tile_n}, vector cores scale at most {_MOST_SCALED_COLUMNS} columns",
    )
    need(config.unit_flag in (0, 1), f"unit_flag is {config.unit_flag}, allowed are 0 and 1")
    need(config.grid_m >= 0 and config.grid_n >= 0, "grid_m and grid_n must not be negative")
    need(
        (config.grid_m == 0) == (config.grid_n == 0),
        f"grid {config.grid_m}x{config.grid_n}: give both sides or neither",
    )
    cores = config.grid_m * config.grid_n
    need(
        cores <= part.cube_cores,
        f"grid {config.grid_m}x{config.grid_n} needs {cores} cores, {soc} has {part.cube_cores}",
    )
    if why:
        return why

    def fits(memory: str, used: int, what: str) -> None:
        room = part.room(memory, mixed=mixed or kind.mix)
        need(used <= room, f"{memory}: {what} take {used} bytes, {room} are there")

    c = config
    chunk_a, chunk_b = c.tile_k * c.step_ka, c.tile_k * c.step_kb
    extra = c.tile_n * 8 * kind.per_column_scale + c.tile_n * 4 * bias
    fits(
        "l0a",
        c.tile_m * c.tile_k * size * c.l0_buffers,
        f"{c.l0_buffers} x A tile {c.tile_m}x{c.tile_k}",
    )
    fits(
        "l0b",
        c.tile_k * c.tile_n * size * c.l0_buffers,
        f"{c.l0_buffers} x B tile {c.tile_k}x{c.tile_n}",
    )
    fits("l0c", c.tile_m * c.tile_n * 4, f"C tile {c.tile_m}x{c.tile_n}")
    fits(
        "l1",
        (c.tile_m * chunk_a + c.tile_n * chunk_b) * size * c.l1_buffers + extra,
        f"{c.l1_buffers} x (A {c.tile_m}x{chunk_a} + B {chunk_b}x{c.tile_n})",
    )
    if bias:
        fits("bt", c.tile_n * 4, f"{c.tile_n} bias values")
    if kind.per_column_scale:
        fits("fb", c.tile_n * 8, f"{c.tile_n} column scales")
    need(chunk_b <= 16384, f"step_kb x tile_k is {chunk_b}, one ND2NZ takes at most 16384 rows")
    return why


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def piece_rows(config: Config) -> int:
    """Rows of a tile that a vector core works on at once."""
    return max(1, min(_PIECE // config.tile_n, _ceil_div(config.tile_m, 2), _MOST_REPEATS))


def ring_bytes(config: Config) -> int:
    """Workspace of a block: tiles of 4-byte sums between cube and vector cores."""
    return _RING_SLOTS * config.tile_m * config.tile_n * 4
