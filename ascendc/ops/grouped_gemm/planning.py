"""What the AscendC grouped_gemm takes and how it is tiled. Standard library only.

Precisions, configs and limits are gemm's, whose parts it is made of; groups are known to the kernel alone.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...soc import find
from .._kv.planning import Plan
from ..gemm import planning as gemm

_INT32_MAX = 2**31 - 1
_ZEROS = 4096  # elements written at once: `kZeros` of zeros.h
_PAD = 32  # columns that rows of the cube's bias are padded to
_WORDS = 4  # of the part of the tiling that is this family's
_LAYOUT = "NK"

# Fields of the space; a grid and parts of M are nothing to groups.
FIELDS = (
    *("tile_m", "tile_n", "tile_k", "step_ka", "step_kb", "l1_buffers", "l0_buffers", "unit_flag"),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What decides which instructions a case takes."""

    precision: str
    bias: bool
    scaled: bool
    invariant: bool = False

    @property
    def gemm(self) -> gemm.Precision:
        return gemm.precision_of(self.precision, bias=self.bias, row_scale=self.scaled)


@dataclass(frozen=True, slots=True)
class Dims:
    """Rows, experts, columns and depth; elements from row to row of a, b and c and from expert to expert of b."""

    rows: int
    experts: int
    n: int
    k: int
    lda: int = 0
    ldb: int = 0
    ldc: int = 0
    b_step: int = 0

    @property
    def step(self) -> int:
        return self.b_step or self.n * (self.ldb or self.k)


def refusal(precision: str, b_layout: str) -> str | None:
    """Why this kind of case is not done, or None if it is."""
    if b_layout != _LAYOUT:
        return f"b_layout={b_layout} is a host format; the ascendc grouped_gemm takes {_LAYOUT}"
    if precision not in gemm.PRECISIONS:
        return f"precision '{precision}' is unknown here, known are {', '.join(gemm.PRECISIONS)}"
    return None


def config_of(config: Mapping[str, int]) -> tuple[gemm.Config, int]:
    """gemm's config and the most blocks (0: all cores). Raises ValueError for an unknown name."""
    given = dict(config)
    blocks = given.pop("blocks", 0)
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown config field '{unknown[0]}', known are {', '.join(FIELDS)}")
    return gemm.Config.of(given), blocks


def illegal(config: Mapping[str, int], kind: Kind, soc: str) -> list[str]:
    """Every reason why ``config`` can not run, empty if it can."""
    chosen, blocks = config_of(config)
    part = find(soc)
    why = gemm.illegal(
        kind.precision,
        _LAYOUT,
        chosen,
        soc,
        bias=kind.bias,
        row_scale=kind.scaled,
        mixed=True,
    )
    if not 0 <= blocks <= part.cube_cores:
        why.append(f"blocks is {blocks}, {soc} has {part.cube_cores} cube cores")
    return why


def padded(columns: int) -> int:
    """Elements from one expert's bias to the next, where the cube adds it."""
    return -(-columns // _PAD) * _PAD


def plan(dims: Dims, kind: Kind, config: Mapping[str, int], soc: str) -> Plan:
    """A launch of a case without a size of 0. ValueError, with every reason, where it can not run."""
    why = illegal(config, kind, soc)
    why += [
        f"{name} is {value}, accepted are 1..{most}"
        for name, value, most in (
            ("E", dims.experts, _INT32_MAX),
            # Columns of zeros are counted up to a run behind the last.
            ("N", dims.n, _INT32_MAX - _ZEROS),
            ("the pitch of experts of b", dims.step, 2**62),
        )
        if not 1 <= value <= most
    ]
    if why:
        raise ValueError("; ".join(why))
    chosen, most = config_of(config)
    one = gemm.plan(
        gemm.Dims(dims.rows, dims.n, dims.k, dims.lda, dims.ldb, dims.ldc),
        kind.precision,
        _LAYOUT,
        replace(chosen, grid_m=1, grid_n=1),
        soc,
        bias=kind.bias,
        row_scale=kind.scaled,
        invariant=kind.invariant,
    )
    scaled = one.tiling if one.mix else one.tiling + bytes(3 * 4)
    tiles = dims.rows // chosen.tile_m + min(dims.experts, dims.rows)
    blocks = min(most or find(soc).cube_cores, tiles * -(-dims.n // chosen.tile_n))
    step = dims.step
    words = (dims.experts, _signed(step & 0xFFFFFFFF), step >> 32, padded(dims.n))
    return Plan(
        f"grouped_{one.kernel}",
        blocks,
        scaled + struct.pack(f"<{_WORDS}i", *words),
        blocks * gemm.ring_bytes(chosen) if one.mix else 0,
    )


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def tiling(rows: int, experts: int, n: int, k: int, kind: Kind, soc: str) -> dict[str, int] | None:
    """A config for groups of `rows` rows: tiles as high as they are, wide ones where that leaves work even.

    Where rows keep their bits, steps along K are those of the largest tile: they alone reach the bits.
    """
    part, size = find(soc), kind.gemm.input_bytes
    height = next((m for m in (16, 32, 64) if m >= rows), 128)
    most = part.l0a // 2 // size

    def cost(width: int) -> tuple[int, int]:
        tiles = experts * -(-rows // height) * -(-n // width)
        return -(-tiles // part.cube_cores) * (width + height), -width

    for width in sorted((32, 64, 128, 256), key=cost):
        side = 256 if kind.invariant else max(width, height)
        depth = 1 << (min(256, most // side, max(32, k)).bit_length() - 1)
        for step in (8, 4, 2, 1):
            if step > 1 and (step - 1) * depth >= k:
                continue
            for flag in (1, 0):
                found = dict(
                    zip(FIELDS, (height, width, depth, step, step, 2, 2, flag), strict=True)
                )
                if not illegal(found, kind, soc):
                    return found
    return None
