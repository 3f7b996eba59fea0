"""From a published row to launches of a kernel of its structure."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from math import ceil

from ..ops.attention import host as attention_host
from ..ops.attention import planning as attention_planning
from ..ops.beam_topk import host as topk_host
from ..ops.beam_topk import planning as topk_planning
from ..ops.gemm import host as gemm_host
from ..ops.gemm import planning
from ..soc import find
from ..twin.model import Launch
from ..twin.runner import Buffer
from . import variants
from .variants import Row, Unknown


@dataclass(frozen=True, slots=True)
class Plan:
    """One or more launches for a row, and how their times add up.

    ``scale``: the modelled part stands for so many like it, one after another. ``inner``: the
    published time is that of the instructions alone, as a counter in the kernel shows it.
    ``choices``: of each launch the fastest of several is meant. ``in_turn``: the launches work
    hand in hand on one tile at a time, else side by side.
    """

    choices: tuple[tuple[Launch, ...], ...]
    note: str = ""
    scale: float = 1
    inner: bool = False
    in_turn: bool = False


def _bytes(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}i", *words)


def _shares(total: int, parts: int) -> dict[int, int]:
    """Blocks that stand for all where `total` items are dealt out evenly."""
    more = total % parts
    if more in (0, parts):
        return {0: parts}
    return {0: more, more: parts - more}


def copies(row: Row) -> Plan:
    """``copy_gm_ub`` and ``copy_gm_l1``."""
    c = variants.copies(row)
    l1 = row["op"] == "copy_gm_l1"
    cores = row.number("cores_aic" if l1 else "cores_aiv", 1)
    room = 512 * 1024 if l1 else 192 * 1024 - 256
    if c.tile[0] * ceil(c.tile[1] / 16) * 32 > room:
        raise Unknown(f"tile [{c.tile[0]},{c.tile[1]}] does not fit {'L1' if l1 else 'UB'}")
    tiling = _bytes(c.rows, c.columns, *c.tile, c.passes, c.parts, c.order, int(c.bypass))
    blocks = _shares(c.rows, cores)
    if c.order != variants.OWN_ROWS and cores > 1:
        # A second block shows whether cores read the same addresses in step.
        blocks = {0: 1, 1: cores - 1}
    launch = Launch(
        f"bench_{row['op']}",
        cores,
        [Buffer.unbacked("src", c.rows * c.columns * 2)],
        tiling,
        blocks,
    )
    return Plan(((launch,),))


_SCALAR_ROWS = 64  # of a scalar loop are modelled, the rest is alike


def additions(row: Row) -> Plan:
    """``add``."""
    a = variants.additions(row)
    cores = row.number("cores_aiv", 1)
    rows, scale = a.rows, 1.0
    if a.scalar and a.rows > _SCALAR_ROWS * cores:
        rows = _SCALAR_ROWS * cores
        scale = a.rows / rows
    tiling = _bytes(
        rows, a.columns, a.elements, int(a.scalar), int(a.bypass), a.buffers, *a.x, *a.y, *a.z
    )
    nbytes = a.rows * a.columns * 2
    launch = Launch(
        "bench_add",
        cores,
        [Buffer.unbacked(name, nbytes) for name in "xyz"],
        tiling,
        _shares(rows, cores),
    )
    return Plan(((launch,),), scale=scale)


def additions_in_ub(row: Row) -> Plan:
    """``add_in_ub``."""
    a = variants.additions_in_ub(row)
    times = min(a.times, 1000)
    tiling = _bytes(
        a.elements, times, a.src0, a.src1, a.dst, a.src0_block_stride, a.src0_repeat_stride
    )
    return Plan(((Launch("bench_add_in_ub", 1, [], tiling),),), scale=a.times / times, inner=True)


def spreads(row: Row) -> Plan:
    """``nd2nz_in_ub``: rows over 6 of 48 cores, columns over 8, as asc-devkit's sample deals them."""
    s = variants.spreads(row)
    cores = row.number("cores_aiv", 48)
    column_parts = next(n for n in (8, 4, 2, 1) if cores % n == 0)
    if s.columns % (s.tile[1] * column_parts):
        raise Unknown(f"N is {s.columns}, it must be a multiple of {s.tile[1] * column_parts}")
    row_parts = cores // column_parts
    tiling = _bytes(s.rows, s.columns, *s.tile, s.pitch, row_parts, column_parts)
    shares = _shares(ceil(s.rows / s.tile[0]), row_parts)
    blocks = {first * column_parts: count * column_parts for first, count in shares.items()}
    nbytes = s.rows * s.columns * 2
    launch = Launch(
        "bench_nd2nz_in_ub",
        cores,
        [Buffer.unbacked("src", nbytes), Buffer.unbacked("dst", nbytes)],
        tiling,
        blocks,
    )
    return Plan(((launch,),))


def _gemm_launch(
    dims: planning.Dims, precision: str, layout: str, config: planning.Config, soc: str
) -> Launch:
    part = find(soc)
    grid = (
        (config.grid_m, config.grid_n)
        if config.grid_m
        else planning.choose_grid(dims, config, part)
    )
    ready = planning.plan(dims, precision, layout, config, soc)
    kind = planning.PRECISIONS[precision]
    return Launch(
        ready.kernel,
        ready.block_dim,
        [
            Buffer.unbacked("a", dims.m * dims.k * kind.input_bytes),
            Buffer.unbacked("b", dims.n * dims.k * kind.input_bytes),
            Buffer.unbacked("bias", 0),
            Buffer.unbacked("scale", 8 * dims.n * kind.per_column_scale),
            Buffer.unbacked("c", dims.m * dims.n * kind.output_bytes),
            Buffer("workspace", 0, 0),
        ],
        ready.tiling,
        planning.representatives(dims, config, grid),
    )


# Tiles our kernel would choose from where a row leaves them open.
_TILES = ((128, 256), (256, 128), (128, 128), (64, 256), (64, 128), (128, 64), (64, 64), (32, 128))


def gemm_configs(row: Row, dims: planning.Dims, size: int, soc: str) -> list[planning.Config]:
    """What the columns say; what they leave open, as our kernel would choose it."""
    fixed = row.number("tile_m"), row.number("tile_n")
    tiles = [(fixed[0] or m, fixed[1] or n) for m, n in _TILES]
    tile_k = row.number("tile_k") or 128 // size
    cores = row.number("cores_aic", 1)
    found: dict[planning.Config, None] = {}
    for tile_m, tile_n in dict.fromkeys(tiles):
        if (
            all(fixed)
            or (tile_m <= 2 * dims.m and tile_n <= 2 * dims.n)
            or (tile_m, tile_n) == _TILES[-1]
        ):
            base = planning.Config(
                tile_m=tile_m,
                tile_n=tile_n,
                tile_k=tile_k,
                step_ka=row.number("step_ka", 4),
                step_kb=row.number("step_kb", 4),
                l1_buffers=row.number("l1_buffers", 2),
                l0_buffers=row.number("l0_buffers", 2),
                grid_m=row.number("grid_m"),
                grid_n=row.number("grid_n"),
                unit_flag=row.number("unit_flag"),
                l2_split_m=row.number("l2_split_m", 1),
            )
            found[_with_grid(base, dims, cores, soc)] = None
    return list(found)


def _with_grid(
    config: planning.Config, dims: planning.Dims, cores: int, soc: str
) -> planning.Config:
    """The grid as the kernel would choose it, on no more than `cores`."""
    if config.grid_m and config.grid_n:
        return config
    part = find(soc)
    part = replace(part, cube_cores=max(1, min(cores, part.cube_cores)))
    grid_m, grid_n = planning.choose_grid(dims, config, part)
    return replace(config, grid_m=grid_m, grid_n=grid_n)


def _layout(row: Row) -> str:
    layouts = {"": "KN", "ND": "KN", "KN": "KN", "NZ": planning.NZ, "NK": "NK", "DN": "NK"}
    layout = row["b_layout"].upper()
    if layout not in layouts:
        raise Unknown(f"b_layout '{layout}', known are {', '.join(filter(None, layouts))}")
    return layouts[layout]


def _dims(row: Row) -> planning.Dims:
    m, n, k = (row.number(name) for name in "MNK")
    if min(m, n, k) < 1:
        raise Unknown(f"M, N, K are {m}, {n}, {k}: all must be at least 1")
    return planning.Dims(m, n, k)


def gemm(row: Row) -> Plan:
    """``gemm``: our kernel with the row's tiles, loads, buffers, grid and L2 split."""
    dtype = row["dtype"].replace(" ", "") or "fp16"
    precision = "int8->int32" if dtype == "int8" else dtype
    if precision not in planning.PRECISIONS:
        raise Unknown(f"dtype '{dtype}', known are {', '.join(planning.PRECISIONS)}")
    dims, layout = _dims(row), _layout(row)
    size = planning.PRECISIONS[precision].input_bytes
    launches, why = [], ""
    for config in gemm_configs(row, dims, size, row.soc):
        wrong = planning.illegal(precision, layout, config, row.soc)
        if wrong:
            why = why or wrong[0]
            continue
        launches.append(_gemm_launch(dims, precision, layout, config, row.soc))
    if not launches:
        raise Unknown(f"our gemm has no such tiling: {why}")
    return Plan((tuple(launches),))


def gemm_int8(row: Row) -> Plan:
    """``gemm_int8``: our mixed kernel, cube and vector cores side by side on tiles of a ring.

    What ours does not do (an activation behind the scales, one vector core a cube core) is modelled
    as two launches.
    """
    d = variants.dequantised(row)
    if not d.gelu and d.vector_cores == 2 * row.number("cores_aic", 1):
        return _gemm_scaled(row, _dims(row), _layout(row))
    return two_launches(row)


def two_launches(row: Row) -> Plan:
    """``gemm_int8`` without our mixed kernel: cube cores write int32, vector cores scale it."""
    d, dims, layout = variants.dequantised(row), _dims(row), _layout(row)
    cube = [
        _gemm_launch(dims, "int8->int32", layout, config, row.soc)
        for config in gemm_configs(row, dims, 1, row.soc)
        if not planning.illegal("int8->int32", layout, config, row.soc)
    ]
    if not cube:
        raise Unknown("our gemm has no such tiling")
    m, n = dims.m, dims.n
    if n % 16:
        raise Unknown(f"N is {n}, the kernel that scales takes multiples of 16")
    tile_m, tile_n = min(32, m), min(256, n)
    sizes = {"products": 4 * m * n, "column_scale": 4 * n, "row_scale": 4 * m, "dst": 2 * m * n}
    vector = Launch(
        "bench_dequant",
        d.vector_cores,
        [Buffer.unbacked(name, size) for name, size in sizes.items()],
        _bytes(m, n, tile_m, tile_n, int(d.gelu)),
        _shares(ceil(m / tile_m) * ceil(n / tile_n), d.vector_cores),
        warm=frozenset({"products"}),
    )
    how = "one after the other" if d.in_turn else "side by side"
    note = f"cube and vector cores modelled as two launches, {how}, not as one mixed kernel"
    return Plan((tuple(cube), (vector,)), note=note, in_turn=d.in_turn)


def _gemm_scaled(row: Row, dims: planning.Dims, layout: str) -> Plan:
    """The mixed kernel with row and column scales, to fp16, on all cores of the row, idle ones too."""
    launches, why = [], ""
    kind = planning.precision_of("int8->fp16", row_scale=True)
    for config in gemm_configs(row, dims, 1, row.soc):
        wrong = planning.illegal("int8->fp16", layout, config, row.soc, row_scale=True)
        if wrong:
            why = why or wrong[0]
            continue
        ready = planning.plan(dims, "int8->fp16", layout, config, row.soc, row_scale=True)
        blocks = planning.representatives(dims, config, (config.grid_m, config.grid_n))
        idle = row.number("cores_aic") - ready.block_dim
        if idle > 0:
            blocks[ready.block_dim] = idle
        launches.append(
            Launch(
                ready.kernel,
                ready.block_dim + max(0, idle),
                gemm_host.unbacked(dims.m, dims.n, dims.k, kind, ready, row_scale=True),
                ready.tiling,
                blocks,
            )
        )
    if not launches:
        raise Unknown(f"our gemm has no such tiling: {why}")
    return Plan((tuple(launches),), note="our mixed kernel, not the published one's")


# Tiles our kernel would choose from: queries of a block, keys of a step.
_ATTENTION_TILES = ((128, 256), (64, 256), (128, 128), (32, 256))


def attention(row: Row) -> Plan:
    """``attention``: our own kernel, as the rows say nothing of the published one's structure.

    Queries, keys and values lie in L2 from the start: the published benchmark runs the kernel ten
    times on them before it times it (pto-isa, demos/torch_jit/util/bench.py).
    """
    dtype = row["dtype"].replace(" ", "") or "fp16"
    queries, keys, lanes = (row.number(name) for name in "MNK")
    why = attention_planning.refusal(dtype, lanes, lanes)
    if why or min(queries, keys) < 1:
        raise Unknown(why or f"M, N are {queries}, {keys}: both must be at least 1")
    problem = attention_planning.Problem(
        [queries], [keys], 1, 1, lanes, lanes, causal="causal" in row.words
    )
    launches = []
    for tile_m, tile_n in _ATTENTION_TILES:
        config = attention_planning.Config(
            tile_m, tile_n, preload=2, stagger=1, blocks=row.number("cores_aic")
        )
        if attention_planning.illegal(config, lanes, lanes, row.soc):
            continue
        if config.tile_m >= 2 * queries and tile_m > _ATTENTION_TILES[-1][0]:
            continue
        ready = attention_planning.plan(
            problem, attention_planning.Layout.dense(problem), dtype, config, row.soc
        )
        launches.append(
            Launch(
                ready.kernel,
                ready.block_dim,
                attention_host.unbacked(problem, ready.workspace_bytes),
                ready.tiling,
                attention_planning.representatives(problem, config, find(row.soc)),
                warm=frozenset("qkv"),
            )
        )
    if not launches:
        raise Unknown("our attention has no tiling for it")
    return Plan(
        (tuple(launches),),
        note="our kernel, not the published one's; inputs in L2, as warmed up there",
    )


def topk(row: Row) -> Plan:
    """``topk``: values become weights of a softmax here, the published kernel writes them as they are."""
    rows, columns, k = row.number("M"), row.number("N"), variants.results(row)
    if rows < 1 or not 1 <= k <= columns:
        raise Unknown(f"the {k} largest of {rows} rows of {columns} cannot be had")
    precision = row["dtype"] or "fp32"
    if precision not in _FLOATS:
        raise Unknown(f"dtype '{precision}' is unknown, known are {', '.join(_FLOATS)}")
    problem = topk_planning.Launch(
        rows, columns, k, k, columns, _FLOATS[precision], 1.0, whole_row=False, invariant=False
    )
    try:
        ready = topk_planning.plan(problem, precision, _TOPK_TILE, row.soc, row.number("cores_aiv"))
    except ValueError as error:
        raise Unknown(str(error)) from None
    arguments = [
        *topk_host.unbacked(problem),
        Buffer.unbacked("workspace", ready.workspace),
    ]
    launch = Launch(ready.kernel, ready.block_dim, arguments, ready.tiling)
    return Plan(((launch,),), note="our kernel, not the published one's, and probabilities as well")


_TOPK_TILE = 4096
_FLOATS = {"fp32": 4, "fp16": 2, "bf16": 2}

_BUILDERS = {
    "attention": attention,
    "gemm": gemm,
    "gemm_int8": gemm_int8,
    "add": additions,
    "add_in_ub": additions_in_ub,
    "copy_gm_ub": copies,
    "copy_gm_l1": copies,
    "nd2nz_in_ub": spreads,
    "topk": topk,
}


def plan(row: Row) -> Plan:
    """The launches of a row. Raises Unknown with the reason where there are none."""
    op = row["op"]
    if op not in _BUILDERS:
        raise Unknown(f"op '{op}' is unknown, known are {', '.join(variants.OPS)}")
    return _BUILDERS[op](row)
