"""A published row as numbers: what its columns and the words of its variant say about the kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..soc import SOCS

OPS = (
    "gemm",
    "gemm_int8",
    "attention",
    "topk",
    "add",
    "add_in_ub",
    "copy_gm_ub",
    "copy_gm_l1",
    "nd2nz_in_ub",
)


class Unknown(ValueError):
    """The row cannot be turned into a kernel; the message says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One published measurement, its columns by name; blanks are empty strings."""

    columns: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return (self.columns.get(name) or "").strip()

    def number(self, name: str, default: int = 0) -> int:
        """The whole number of a column, ``default`` where it is blank. Raises Unknown otherwise."""
        text = self[name]
        if not text:
            return default
        try:
            return int(float(text))
        except ValueError:
            raise Unknown(f"{name} is '{text}', it must be a number") from None

    @property
    def soc(self) -> str:
        """The part, as targets name it; a variant such as 910B2C is its base part."""
        name = (self["soc"] or "910B1").lower().removeprefix("ascend").strip(" :-_")
        return name if name in SOCS or name[:5] not in SOCS else name[:5]

    @property
    def published_us(self) -> float | None:
        """Task time, None where none is given."""
        try:
            return float(self["task_us"])
        except ValueError:
            return None

    @property
    def words(self) -> str:
        """The variant in words, in small letters."""
        return self["variant"].lower().replace("×", "x")


def _found(pattern: str, text: str) -> re.Match[str] | None:
    return re.search(pattern, text)


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies of a matrix of half, tile by tile; see ``copy.cpp``."""

    rows: int
    columns: int
    tile: tuple[int, int]
    passes: int
    parts: int
    order: int
    bypass: bool


OWN_ROWS, SAME, STAGGERED = 0, 1, 2


def copies(row: Row) -> Copies:
    """Of ``copy_gm_ub`` and ``copy_gm_l1``.

    Tiles that the words leave out are those of asc-devkit's data_copy sample: [64,1024], and
    [128,64] (UB) or [256,64] (L1) where cores read the same matrix.
    """
    words = row.words
    rows, columns = row.number("M"), row.number("N")
    if rows < 1 or columns < 1:
        raise Unknown(f"M x N is {rows} x {columns}, both must be at least 1")
    order = OWN_ROWS
    if _found(r"stagger|offset|rotat|shift|different (order|addresses)|skew", words):
        order = STAGGERED
    elif _found(r"same (gm )?addr|same order", words):
        order = SAME
    tile = (64, 1024)
    if order != OWN_ROWS:
        tile = (256, 64) if row["op"] == "copy_gm_l1" else (128, 64)
    if shape := _found(r"\[\s*(\d+)\s*,\s*(\d+)\s*\]", words):
        tile = int(shape[1]), int(shape[2])
    elif shape := _found(r"(\d+)\s*(?:rows?)?\s*x\s*(\d+)\s*b(?:ytes?)?\b", words):
        tile = int(shape[1]), max(int(shape[2]) // 2, 1)
    if _found(r"unaligned|non-?aligned|misaligned|not aligned", words) and columns % 16 == 0:
        columns -= 1
    passes = int(found[1]) if (found := _found(r"(\d+)\s*(?:passes|times|rounds)", words)) else 1
    if passes == 1 and order == OWN_ROWS and _found(r"^x\d+$", row["K"].lower()):
        passes = int(row["K"][1:])
    parts = 1
    if passes > 1 and _found(r"quarter|split|slice|hit|in 4|parts|pieces", words):
        parts = (
            int(found[1])
            if (found := _found(r"(\d+)\s*(?:parts|slices|pieces|splits)", words))
            else 4
        )
    if (
        parts > 1
        and _found(r"miss", words)
        and not _found(r"quarter|split|slice|part|piece", words)
    ):
        parts = 1
    bypass = order != OWN_ROWS or "bypass" in words
    return Copies(rows, columns, tile, passes, parts, order, bypass)


@dataclass(frozen=True, slots=True)
class Additions:
    """z = x + y of half; see ``add.cpp``. Addresses in UB per set of buffers."""

    rows: int
    columns: int
    elements: int
    scalar: bool
    bypass: bool
    buffers: int
    x: tuple[int, int]
    y: tuple[int, int]
    z: tuple[int, int]


_SET = 16384 * 2  # bytes of asc-devkit's largest buffer in add_high_performance


def additions(row: Row) -> Additions:
    """Of ``add``; the layout of UB is that of asc-devkit's add_high_performance."""
    words = row.words
    rows, columns = row.number("M"), row.number("N")
    if rows < 1 or columns < 1:
        raise Unknown(f"M x N is {rows} x {columns}, both must be at least 1")
    scalar = "scalar" in words
    double = bool(_found(r"double|ping|two buffers|2 buffers", words))
    sizes = [int(n) for n in re.findall(r"\b(\d{3,6})\b", words)]
    elements = sizes[0] if sizes else (16384 if double else 4096)
    if not 16 <= elements <= 32640:
        raise Unknown(f"copies of {elements} elements: three buffers of them do not fit UB")
    apart = bool(
        _found(
            r"different banks|no (bank )?conflict|without (bank )?conflict|bank placement", words
        )
    )
    size = max(_SET, (elements * 2 + 255) // 256 * 256)
    if double and not apart and 6 * size > 192 * 1024 - 256:
        size = elements * 2 // 32 * 32
    if apart:
        step = elements * 2
        x, y, z = (0, 2 * size), (step, 2 * size + step), (4 * size, 4 * size + step)
    else:
        x, y, z = (0, 3 * size), (size, 4 * size), (2 * size, 5 * size)
    return Additions(
        rows, columns, elements, scalar, "bypass" in words, 2 if double else 1, x, y, z
    )


@dataclass(frozen=True, slots=True)
class AdditionsInUb:
    """``times`` additions of ``elements`` floats in UB at these addresses."""

    elements: int
    times: int
    src0: int
    src1: int
    dst: int
    src0_block_stride: int = 1
    src0_repeat_stride: int = 8


def additions_in_ub(row: Row) -> AdditionsInUb:
    """Of ``add_in_ub``; the addresses behind the words are those of asc-devkit's bank_conflict_ub."""
    words = row.words
    elements = row.number("N") or row.number("M") or 4096
    times = (
        int(found[1])
        if (found := _found(r"(\d+)\s*(?:instructions|additions|times)", words))
        else 1000
    )
    if found := _found(r"(\d+)\s*repeats", words):
        elements = int(found[1]) * 64
    block, repeat = 1, 8
    given = [int(text, 16) for text in re.findall(r"0x[0-9a-f]+", words)]
    if len(given) == 3:
        src0, src1, dst = given
    elif _found(
        r"repeat(s|ed|edly)? (read(s|ing)?|the same|one)|(same|one) (data)?block|stride|mixed",
        words,
    ):
        src0, src1, dst, block = 0, 0x10100, 0x10100, 0
        repeat = 8 if _found(r"(stride|step)\D{0,6}8|no conflict", words) else 1
    elif _found(r"overlap|in place|onto (src|a source)|src1\s*=\s*dst|dst\s*=\s*src1", words):
        src0, src1, dst = 0, 0x10100, 0x10100
    elif _found(r"write-write", words):
        raise Unknown("an addition writes each bank once; no addresses make its writes meet")
    elif _found(r"read-?\s*write|src0?\W+(and\W+)?dst", words):
        aligned = _found(r"no (read-write )?conflict|hardware|avoid|same row|aligned", words)
        src0, src1, dst = 0, 0x10100, 0x4000 if aligned else 0x4020
    elif _found(r"read-?\s*read", words):
        group = _found(r"group", words)
        src0, src1, dst = (0, 0x10000, 0x14100) if group else (0, 0x4000, 0x10000)
    elif _found(r"no conflict|conflict-?free|without conflict", words):
        src0, src1, dst = 0, 0x10100, 0x20000
    else:
        raise Unknown(
            f"variant '{row['variant']}' names no placement of operands that is known here"
        )
    return AdditionsInUb(elements, times, src0, src1, dst, block, repeat)


def results(row: Row) -> int:
    """How many of each row ``topk`` finds."""
    found = _found(r"\bk\s*=\s*(\d+)", row.words)
    if found is None:
        raise Unknown(f"variant '{row['variant']}' does not say k=")
    return int(found[1])


@dataclass(frozen=True, slots=True)
class Spreads:
    """Rows to fractals by way of UB; see ``nd2nz.cpp``."""

    rows: int
    columns: int
    tile: tuple[int, int]
    pitch: int


def spreads(row: Row) -> Spreads:
    """Of ``nd2nz_in_ub``: the pitch is the distance of two 32 B columns in UB, in blocks."""
    words = row.words
    found = _found(r"(?:stride|pitch)\D{0,8}(\d+)", words) or _found(r"(\d+)", words)
    if found is None:
        raise Unknown(f"variant '{row['variant']}' gives no row stride")
    pitch = int(found[1])
    # A pitch beyond a multiple of 16 pads the tile by what is over.
    height = pitch if pitch % 16 == 0 else pitch // 16 * 16
    if shape := _found(r"\[\s*(\d+)\s*,\s*(\d+)\s*\]|tile\D{0,4}(\d+)\s*x\s*(\d+)", words):
        height = int(shape[1] or shape[3])
    if not 1 <= height <= 255 or height > pitch:
        raise Unknown(f"row stride {pitch} with tiles of {height} rows: 1..255 rows fit a stride")
    return Spreads(row.number("M"), row.number("N"), (height, 128), pitch)


@dataclass(frozen=True, slots=True)
class Dequantised:
    """What vector cores do behind an int8 gemm, and how the two halves are tied."""

    gelu: bool
    vector_cores: int
    in_turn: bool  # cube and vector cores hand over one tile at a time


def dequantised(row: Row) -> Dequantised:
    """Of ``gemm_int8``."""
    words = row.words
    mix = _found(r"mix\D{0,4}(\d)\s*[:,-]\s*(\d)", words)
    cube = row.number("cores_aic", 1)
    vector = row.number("cores_aiv") or cube * (int(mix[2]) if mix else 2)
    gelu = "gelu" in words or "quant_group_matmul" in f"{row['source']} {row['notes']}".lower()
    deep = _found(r"pipelin|[2-9][- ]?(stage|slot|level|deep)|depth\D{0,3}[2-9]", words)
    return Dequantised(gelu, vector, mix is not None and deep is None)
