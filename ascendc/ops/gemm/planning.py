"""What the AscendC gemm takes and how it is tiled: precisions, configs, limits, tiling bytes.

The kernel (``gemm.cpp``) computes C[M,N] = A[M,K] @ B (+ bias[N]); B is [K,N] ("KN") or [N,K]
("NK").
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from ...soc import Soc, find

_INT32_MAX = 2**31 - 1
_MOST_PARTS = 65535  # of M; part x tiles of a part stays an int32 in the kernel

_BYTES: Mapping[str, int] = MappingProxyType(
    {"float32": 4, "float16": 2, "uint16": 2, "int8": 1, "int32": 4}
)


@dataclass(frozen=True, slots=True)
class Precision:
    """A kernel entry: types by numpy name, bfloat16 as uint16; ``acc``: of L0C and the bias."""

    kernel: str
    inputs: str
    acc: str
    output: str
    per_column_scale: bool = False

    @property
    def input_bytes(self) -> int:
        """Bytes of one element of A and B."""
        return _BYTES[self.inputs]

    @property
    def output_bytes(self) -> int:
        """Bytes of one element of C."""
        return _BYTES[self.output]


PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        "fp32": Precision("gemm_fp32", "float32", "float32", "float32"),
        "fp16": Precision("gemm_fp16", "float16", "float32", "float16"),
        "fp16->fp32": Precision("gemm_fp16_fp32", "float16", "float32", "float32"),
        "bf16": Precision("gemm_bf16", "uint16", "float32", "uint16"),
        "int8->int32": Precision("gemm_int8", "int8", "int32", "int32"),
        "int8->fp16": Precision(
            "gemm_int8_fp16", "int8", "int32", "float16", per_column_scale=True
        ),
    }
)

B_LAYOUTS = ("KN", "NK")
# Of the kernel alone, no layout of the family: B [K,N] in fractals of 16 rows, as weights are kept.
NZ = "NZ"
_KERNEL_LAYOUTS = (*B_LAYOUTS, NZ)


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


@dataclass(frozen=True, slots=True)
class Dims:
    """The shape in elements, and row pitches of A, B and C (0: dense)."""

    m: int
    n: int
    k: int
    lda: int = 0
    ldb: int = 0
    ldc: int = 0

    def pitches(self, b_layout: str) -> tuple[int, int, int]:
        """lda, ldb, ldc with the dense ones filled in."""
        return (
            self.lda or self.k,
            self.ldb or (self.n if b_layout == "KN" else self.k),  # NZ: rows of a fractal column
            self.ldc or self.n,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A launch, ready but for its buffers."""

    kernel: str
    block_dim: int
    tiling: bytes
    config: Config


def refusal(
    precision: str,
    *,
    b_layout: str = "KN",
    bias: bool = False,
    row_scale: bool = False,
    col_scale: bool = False,
) -> str | None:
    """Why this kind of case is not done by the ascendc gemm, or None if it is."""
    if b_layout not in B_LAYOUTS:
        return f"b_layout '{b_layout}' is a host format; the ascendc gemm takes KN and NK"
    if row_scale:
        return (
            "per-row scales need a vector core after the cube; this gemm runs on cube cores alone"
        )
    if precision in ("int8->fp32", "int8->bf16"):
        return f"{precision}: Fixpipe on 2201 scales int32 to fp16 only (VDEQF16)"
    if precision not in PRECISIONS:
        return f"precision '{precision}' is unknown here, known are {', '.join(PRECISIONS)}"
    scaled = PRECISIONS[precision].per_column_scale
    if scaled and not col_scale:
        return f"{precision} needs col_scale"
    if col_scale and not scaled:
        return f"{precision} takes no col_scale"
    if scaled and bias:
        return f"{precision} with a bias: the spec adds it after scaling, the cube adds it before"
    return None


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def l0c_buffers(config: Config, soc: Soc) -> int:
    """2 where two output tiles fit L0C, else 1."""
    return 2 if 2 * config.tile_m * config.tile_n * 4 <= soc.l0c else 1


def illegal(
    precision: str, b_layout: str, config: Config, soc: str = "910b1", *, bias: bool = False
) -> list[str]:
    """Every reason why ``config`` can not run, empty if it can. Does not depend on the shape."""
    part, kind = find(soc), PRECISIONS[precision]
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
        room = getattr(part, memory)
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


def choose_grid(dims: Dims, config: Config, soc: Soc) -> tuple[int, int]:
    """The core grid with the fewest tiles on its busiest core, then the one that reads least."""
    m_tiles, n_tiles = _ceil_div(dims.m, config.tile_m), _ceil_div(dims.n, config.tile_n)

    def cost(grid: tuple[int, int]) -> tuple[int, int, int]:
        rows, columns = _ceil_div(m_tiles, grid[0]), _ceil_div(n_tiles, grid[1])
        return rows * columns, rows * config.tile_m + columns * config.tile_n, grid[0] * grid[1]

    grids = [
        (gm, gn)
        for gm in range(1, min(soc.cube_cores, m_tiles) + 1)
        for gn in range(1, min(soc.cube_cores // gm, n_tiles) + 1)
    ]
    return min(grids, key=cost)


def plan(
    dims: Dims,
    precision: str,
    b_layout: str = "KN",
    config: Config = DEFAULT_CONFIG,
    soc: str = "910b1",
    *,
    bias: bool = False,
) -> Plan:
    """Kernel, blocks and tiling bytes of a non-empty case.

    Raises ValueError with every reason if it can not run.
    """
    part = find(soc)
    why = illegal(precision, b_layout, config, soc, bias=bias)
    lda, ldb, ldc = dims.pitches(b_layout)
    why += [
        f"{name} is {value}, allowed are 1..{_INT32_MAX}"
        for name, value in (
            ("M", dims.m),
            ("N", dims.n),
            ("K", dims.k),
            ("lda", lda),
            ("ldb", ldb),
            ("ldc", ldc),
        )
        if not 1 <= value <= _INT32_MAX
    ]
    if why:
        raise ValueError("; ".join(why))
    grid_m, grid_n = (
        (config.grid_m, config.grid_n) if config.grid_m else choose_grid(dims, config, part)
    )
    words = (
        dims.m,
        dims.n,
        dims.k,
        lda,
        ldb,
        ldc,
        _KERNEL_LAYOUTS.index(b_layout),
        int(bias),
        config.tile_m,
        config.tile_n,
        config.tile_k,
        config.step_ka,
        config.step_kb,
        config.l1_buffers,
        config.l0_buffers,
        l0c_buffers(config, part),
        grid_m,
        grid_n,
        config.unit_flag,
        config.l2_split_m,
    )
    return Plan(
        PRECISIONS[precision].kernel,
        grid_m * grid_n,
        struct.pack(f"<{len(words)}i", *words),
        config,
    )


def representatives(dims: Dims, config: Config, grid: tuple[int, int]) -> dict[int, int]:
    """Blocks that stand for all: each the first of those with its number and shape of tiles.

    Mirrors the kernel's partition (``Partition`` and ``EnterSplit`` of ``gemm.cpp``).
    """
    m_tiles, n_tiles = _ceil_div(dims.m, config.tile_m), _ceil_div(dims.n, config.tile_n)
    split = _ceil_div(m_tiles, config.l2_split_m)
    share_n = _ceil_div(n_tiles, grid[1])

    def rows(core: int) -> tuple[tuple[int, bool], ...]:
        parts = []
        for part in range(config.l2_split_m):
            begin = min(part * split, m_tiles)
            end = min(begin + split, m_tiles)
            share = _ceil_div(end - begin, grid[0])
            first = min(begin + core * share, end)
            last = min(first + share, end)
            parts.append((last - first, first < last == m_tiles and dims.m % config.tile_m != 0))
        return tuple(parts)

    def columns(core: int) -> tuple[int, bool]:
        first = min(core * share_n, n_tiles)
        last = min(first + share_n, n_tiles)
        return last - first, first < last == n_tiles and dims.n % config.tile_n != 0

    row_kinds = [rows(core) for core in range(grid[0])]
    column_kinds = [columns(core) for core in range(grid[1])]
    found: dict[tuple[object, object], int] = {}
    counts: dict[int, int] = {}
    for block in range(grid[0] * grid[1]):
        kind = row_kinds[block // grid[1]], column_kinds[block % grid[1]]
        first = found.setdefault(kind, block)
        counts[first] = counts.get(first, 0) + 1
    return counts


def tiling(
    dims: Dims,
    precision: str,
    b_layout: str,
    config: Config,
    soc: str = "910b1",
    *,
    bias: bool = False,
) -> bytes:
    """The bytes of ``TwGemmTiling``."""
    return plan(dims, precision, b_layout, config, soc, bias=bias).tiling
