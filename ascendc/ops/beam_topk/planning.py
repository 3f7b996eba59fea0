"""Tilings of beam_topk: `beam_topk_tiling.h`. Standard library only."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ...soc import find
from .._kv.planning import BLOCK, VECTOR_CORES, Plan, round_up, share

SORTED = 32  # entries of a list that one instruction sorts
GROUP = 8  # elements that a maximum stands for
ENTRY = 8  # bytes of a score and its id
RECORD = 64  # bytes of a share's largest logit and sum
MOST_KEPT = 4092  # entries of a list that a merge takes, whole blocks of 32 bytes
MOST_SORTED = 255 * SORTED  # elements that one instruction sorts
_MOST_MET = 2048  # entries of a row's shares that meet in a beam step
_LANES = 64  # fp32 elements of one repeat
_WINDOW = 16.0 / 255.0  # a step of an int8 code


def survivors(k: int, columns: int) -> int:
    """Logits of a row that are kept by their code, to be ranked again; the spec's number, as a test holds."""
    return min(columns, 2 * k)


@dataclass(frozen=True, slots=True)
class Launch:
    """Sizes, elements from row to row, bytes of a logit (1: a code), what probabilities are of, and survivors.

    `kept`: survivors of a row, k; more where they are found by codes of floats and ranked again (`coded`).
    `beams`: rows of a group whose continuations are ranked together, `results` of them; 0: rows stand alone.
    """

    rows: int
    columns: int
    k: int
    kept: int
    row: int
    element: int
    temperature: float
    whole_row: bool
    invariant: bool
    coded: bool = False
    beams: int = 0
    results: int = 0
    eos: int = 0

    @property
    def keep(self) -> int:
        return round_up(self.kept, BLOCK // ENTRY)

    @property
    def groups(self) -> int:
        return round_up(self.kept, SORTED)

    @property
    def inverse(self) -> float:
        return (_WINDOW if self.element == 1 else 1.0) / self.temperature


@dataclass(frozen=True, slots=True)
class Tile:
    """Elements of a tile, of what is sorted whole, and groups that survive in longer tiles (0: none are)."""

    size: int
    direct: int
    groups: int

    def capacity(self, launch: Launch, parts: int) -> int:
        """Entries that are sorted at once."""
        most = max(self.direct, self.groups * GROUP, parts * launch.keep, launch.groups)
        most = max(most, step_entries(launch), round_up(launch.results, BLOCK // ENTRY))
        return max(most, self.size // GROUP) if self.groups else most


def tile_of(launch: Launch, wanted: int) -> Tile:
    """A tile of at most `wanted` elements, no longer than a row, that holds what is kept of it."""
    size = min(wanted, round_up(launch.columns, SORTED * GROUP))
    size = max(size, round_up(launch.kept, SORTED * GROUP))
    direct = 2 * launch.groups * GROUP
    if direct >= size:
        return Tile(size, size, 0)
    return Tile(size, direct, launch.groups)


def step_entries(launch: Launch) -> int:
    """Continuations of a group that are sorted together, those that pad lists among them."""
    return round_up(launch.beams * round_up(launch.keep, GROUP), _LANES)


def step_bytes(launch: Launch) -> int:
    """UB of a beam step (`step.h`)."""
    if not launch.beams:
        return 0
    one, out = round_up(launch.keep, _LANES), round_up(launch.results, _LANES)
    return 12 * step_entries(launch) + 4 * one + 16 * out + round_up(max(one, out) // 8, BLOCK)


def ub_bytes(launch: Launch, tile: Tile, parts: int) -> int:
    """UB that a launch takes."""
    size, groups = tile.size, tile.groups
    total = 2 * size * launch.element + size // GROUP
    total += 4 * size if launch.element != 4 else 0
    total += 2 * size if launch.element == 1 else 0
    total += 4 * max(tile.direct, size // GROUP if groups else 0)
    total += 4 * max(tile.direct, groups * GROUP)
    total += 4 * (size // GROUP + groups * GROUP + 3 * groups) if groups else 0
    total += 2 * ENTRY * tile.capacity(launch, parts)
    total += 2 * (2 * ENTRY + 2 * 4) * round_up(launch.keep, GROUP)
    if launch.coded:
        total += 4 * size + 4 * _LANES + (8 + launch.element) * round_up(launch.kept, _LANES)
    return total + 2 * 4 * _LANES + RECORD + RECORD * parts + step_bytes(launch)


def parts_of(launch: Launch, tile: Tile, cores: int) -> int:
    """Cores that share a row: none, where there are rows enough; by V alone where rows must not matter."""
    tiles = -(-launch.columns // tile.size)
    if launch.beams:  # lists of a row meet where those of its group already lie
        tiles = min(tiles, max(1, _MOST_MET // launch.keep))
    if launch.invariant and launch.whole_row:
        return min(tiles, cores)
    return share(launch.rows, tiles, cores)[1]


def refusal(launch: Launch, wanted: int, soc: str, cores: int) -> str | None:
    """Why a launch does not fit, or None."""
    ub = find(soc).ub
    tile = tile_of(launch, wanted)
    if launch.kept > MOST_KEPT:
        return f"K={launch.k}; accepted: up to {MOST_KEPT}"
    if tile.direct > MOST_SORTED:
        return f"K={launch.k} with tiles of {tile.size} elements, of which {tile.direct} are sorted at once; accepted: {MOST_SORTED}"
    needed = ub_bytes(launch, tile, parts_of(launch, tile, cores))
    if needed > ub:
        group = f" in groups of {launch.beams}" if launch.beams else ""
        return f"tiles of {tile.size} elements with K={launch.k}{group} take {needed} bytes of UB; accepted: {ub}"
    return None


def plan(launch: Launch, precision: str, wanted: int, soc: str, cores: int = 0) -> Plan:
    """A launch on at most `cores` vector cores (0: all); ValueError where it does not fit."""
    cores = cores or VECTOR_CORES * find(soc).cube_cores
    reason = refusal(launch, wanted, soc, cores)
    if reason:
        raise ValueError(reason)
    tile = tile_of(launch, wanted)
    parts = parts_of(launch, tile, cores)
    blocks = min(cores, launch.rows * parts)
    tiling = struct.pack(
        "<13if4i",
        *(launch.rows, launch.columns, launch.row, launch.k, launch.kept, launch.keep),
        *(tile.size, -(-launch.columns // tile.size), parts, blocks),
        *(tile.direct, tile.groups, tile.capacity(launch, parts)),
        *(launch.inverse, int(launch.whole_row), launch.beams, launch.results, launch.eos),
    )
    record = launch.keep * ENTRY + RECORD
    workspace = launch.rows * parts * record if parts > 1 or launch.beams else 0
    workspace += launch.rows * parts * BLOCK if launch.coded else 0
    kernel = f"beam_topk_{precision}_codes" if launch.coded else f"beam_topk_{precision}"
    return Plan(kernel, blocks, tiling, workspace)
