"""Vector instructions against numpy: random layouts, the answer for every byte of the destination.

A case is images of the operands' bytes in UB. ``expect`` computes what the destination's image must
be: the active lanes through an oracle, every other byte as it was.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import twin_build
from twin_build import runner

COUNT, MASK, BITS, COUNTER_OUTSIDE, COUNTER_INSIDE, BITS_OUTSIDE = range(6)
FORMS = (COUNT, MASK, BITS, COUNTER_OUTSIDE, COUNTER_INSIDE, BITS_OUTSIDE)
NAMES = ("count", "mask", "bits", "counter-outside", "counter-inside", "bits-outside")

# In the order of twin/record.h.
DTYPES = ("", "f32", "f16", "bf16", "s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "s4")
NUMPY = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": np.uint16,
    "s8": np.int8,
    "u8": np.uint8,
    "s16": np.int16,
    "u16": np.uint16,
    "s32": np.int32,
    "u32": np.uint32,
    "s64": np.int64,
    "u64": np.uint64,
}


def op_numbers() -> dict[str, int]:
    """VecOp by name, from the header that defines it."""
    text = (twin_build.ASCENDC / "include" / "twin" / "vec_op.h").read_text(encoding="utf-8")
    body = text[text.index("enum class VecOp") :].split("{", 1)[1].split("};", 1)[0]
    lines = (line.split("//", 1)[0] for line in body.splitlines())
    names = [name.strip() for line in lines for name in line.split(",") if name.strip()]
    return {name: number for number, name in enumerate(names)}


OPS = op_numbers()


class Params(ctypes.Structure):
    """``vec::Params`` of twin_vec.h."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("op", "type", "to", "form", "mode", "flag")),
        ("count", ctypes.c_int32),
        ("repeat", ctypes.c_int32),
        ("alias", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("mask", ctypes.c_uint64 * 2),
        ("scalar", ctypes.c_uint64),
        ("bytes", ctypes.c_uint32 * 4),
        ("block", ctypes.c_uint16 * 3),
        ("rep", ctypes.c_uint16 * 3),
    ]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Which elements a call computes and where they lie; strides of dst, src0, src1 in 32 bytes."""

    form: int
    lanes: int
    repeat: int
    active: np.ndarray  # [repeat, lanes]
    mask: tuple[int, int]
    count: int
    block: tuple[int, int, int]
    rep: tuple[int, int, int]

    def offsets(self, operand: int, bits: int) -> np.ndarray:
        """The byte each active element starts at, in order."""
        per_block = 256 // bits
        lane = np.arange(self.lanes)
        inside = lane // per_block * self.block[operand] * 32 + lane % per_block * bits // 8
        all_lanes = np.arange(self.repeat)[:, None] * self.rep[operand] * 32 + inside
        return all_lanes[self.active]

    def bytes(self, operand: int, bits: int) -> int:
        offsets = self.offsets(operand, bits)
        return -(-(int(offsets.max()) + max(bits // 8, 1)) // 32) * 32 if offsets.size else 32


def pack_bits(active: np.ndarray) -> tuple[int, int]:
    number = sum(1 << i for i, on in enumerate(active.tolist()) if on)
    return number & (2**64 - 1), number >> 64


def shape(rng: np.random.Generator, form: int, bits: Sequence[int], pairs: bool = False) -> Shape:
    """A random shape for operands of ``bits`` an element: dst and sources. ``pairs``: even masks."""
    lanes = 2048 // max(bits)
    repeat = int(rng.integers(1, 7))
    counted = form in (COUNT, COUNTER_OUTSIDE, COUNTER_INSIDE)
    count = int(rng.integers(1, repeat * lanes + 1))
    count += count % 2 if pairs else 0
    if counted:
        repeat = -(-count // lanes)
        active = (np.arange(repeat * lanes) < count).reshape(repeat, lanes)
    else:
        if form == MASK:
            n = int(rng.integers(1, lanes + 1)) if rng.random() < 0.7 else lanes
            row = np.arange(lanes) < n + (n % 2 if pairs else 0)
        else:
            row = rng.random(lanes) < rng.choice([0.1, 0.5, 0.9])
            row[rng.integers(lanes)] = True
            if pairs:
                row[1::2] = row[::2]
        active = np.repeat(row[None], repeat, axis=0)
    block, rep = [1, 1, 1], [8, 8, 8]
    for i, width in enumerate(bits):
        blocks = lanes * width // 256
        rep[i] = blocks
        if form != COUNT and rng.random() < 0.7:
            block[i] = int(rng.integers(1, 4)) if i == 0 else int(rng.integers(0, 4))
            reach = (blocks - 1) * block[i] + 1
            rep[i] = reach + int(rng.integers(0, 4)) if i == 0 else int(rng.integers(0, reach + 4))
    if form == COUNT and len(set(bits)) > 1:
        rep = [lanes * width // 256 for width in bits] + [8] * (3 - len(bits))
    mask = (int(active[0].sum()), 0) if form == MASK else pack_bits(active[0])
    return Shape(form, lanes, repeat, active, mask, count, tuple(block), tuple(rep))


SPECIAL = {
    "f16": np.array(
        [0, -0.0, np.inf, -np.inf, np.nan, 65504, -65504, 6e-8, -6e-8, 6.1e-5, 1, -1], np.float16
    ),
    "f32": np.array(
        [0, -0.0, np.inf, -np.inf, np.nan, 3.4028235e38, -3.4028235e38, 1e-45, -1e-40, 1.2e-38, 1],
        np.float32,
    ),
}


def values(rng: np.random.Generator, dtype: str, n: int) -> np.ndarray:
    """Random ones of every size, a third of them special."""
    if dtype in SPECIAL:
        spread = rng.standard_normal(n) * 2.0 ** rng.integers(-12, 12, n)
        out = spread.astype(NUMPY[dtype])
        special = SPECIAL[dtype]
    elif dtype == "bf16":
        spread = (rng.standard_normal(n) * 2.0 ** rng.integers(-12, 12, n)).astype(np.float32)
        return (spread.view(np.uint32) >> 16).astype(np.uint16)
    else:
        info = np.iinfo(NUMPY[dtype])
        out = rng.integers(info.min, info.max, n, dtype=NUMPY[dtype], endpoint=True)
        small = rng.random(n) < 0.4
        out[small] = rng.integers(max(info.min, -9), 10, int(small.sum())).astype(NUMPY[dtype])
        special = np.array([info.min, info.max, 0], NUMPY[dtype])
    where = rng.random(n) < 0.3
    out[where] = rng.choice(special, int(where.sum()))
    return out


def image(rng: np.random.Generator, dtype: str, nbytes: int) -> np.ndarray:
    return values(rng, dtype, nbytes // np.dtype(NUMPY[dtype]).itemsize).view(np.uint8)


def gather(image_: np.ndarray, offsets: np.ndarray, dtype: str) -> np.ndarray:
    size = np.dtype(NUMPY[dtype]).itemsize
    return image_[offsets[:, None] + np.arange(size)].copy().view(NUMPY[dtype])[:, 0]


def scatter(image_: np.ndarray, offsets: np.ndarray, data: np.ndarray) -> np.ndarray:
    out = image_.copy()
    raw = np.ascontiguousarray(data).view(np.uint8).reshape(data.size, -1)
    out[offsets[:, None] + np.arange(raw.shape[1])] = raw
    return out


def params(made: Shape, **fields: int) -> Params:
    p = Params(form=made.form, count=made.count, repeat=made.repeat, **fields)
    p.mask[:] = made.mask
    p.block[:] = made.block
    p.rep[:] = made.rep
    return p


def launch(
    source: str, kernel: str, p: Params, images: Sequence[np.ndarray], schedule: str = "program"
) -> runner.TwinResult:
    for i, one in enumerate(images):
        p.bytes[i] = one.size
    buffers = [runner.Buffer.of(f"image{i}", one) for i, one in enumerate(images)]
    result = runner.run(
        twin_build.twin(),
        kernel,
        1,
        buffers,
        tiling_bytes=bytes(p),
        kernel_library=twin_build.kernels(source),
        threads=1,
        schedule=schedule,
    )
    assert result.ok, "\n".join(map(str, result.findings))
    return result


def equal(got: np.ndarray, want: np.ndarray, dtype: str, ulps: int = 0) -> None:
    """The same bits, any NaN for a NaN; floats up to ``ulps`` apart where the bits are not public."""
    a, b = got.view(NUMPY[dtype]), want.view(NUMPY[dtype])
    same = a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")
    if dtype in ("f16", "f32"):
        same |= np.isnan(a) & np.isnan(b)
        if ulps:
            ordered = [x.view(f"i{x.itemsize}").astype(np.int64) for x in (a, b)]
            top = 1 << (8 * a.itemsize - 1)
            keys = [np.where(x < 0, -(x + top), x) for x in ordered]
            same |= ~np.isnan(a) & ~np.isnan(b) & (np.abs(keys[0] - keys[1]) <= ulps)
    elif dtype == "bf16":
        same |= ((a & 0x7FFF) > 0x7F80) & ((b & 0x7FFF) > 0x7F80)
    wrong = np.flatnonzero(~same)
    assert wrong.size == 0, (
        f"{wrong.size} of {a.size} wrong, first at {wrong[0]}: {a[wrong[0]]!r} for {b[wrong[0]]!r}"
    )


Oracle = Callable[..., np.ndarray]


def check(
    source: str,
    kernel: str,
    op: str,
    types: Sequence[str],
    oracle: Oracle,
    form: int,
    seed: int,
    *,
    ulps: int = 0,
    reads_dst: bool = False,
    alias: int = 0,
    **fields: int,
) -> None:
    """One random call of ``op``. ``types``: of dst and the sources; ``oracle`` takes theirs, then dst.

    ``alias``: the source that is the destination as well.
    """
    rng = np.random.default_rng(seed)
    widths = [8 * np.dtype(NUMPY[t]).itemsize for t in types]
    made = shape(rng, form, widths)
    if alias:
        block, rep = list(made.block), list(made.rep)
        block[alias], rep[alias] = block[0], rep[0]
        made = dataclasses.replace(made, block=tuple(block), rep=tuple(rep))
    images = [image(rng, t, made.bytes(i, widths[i])) for i, t in enumerate(types)]
    if alias:
        images[alias] = images[0]
    offsets = [made.offsets(i, widths[i]) for i in range(len(types))]
    sources = [gather(images[i], offsets[i], types[i]) for i in range(1, len(types))]
    if reads_dst:
        sources.append(gather(images[0], offsets[0], types[0]))
    with np.errstate(all="ignore"):
        result = oracle(*sources).astype(NUMPY[types[0]])
    want = scatter(images[0], offsets[0], result)
    got = [one.copy() for one in images] + [np.zeros(0, np.uint8)] * (3 - len(images))
    numbers = {"op": OPS[op], "type": DTYPES.index(types[-1]), "to": DTYPES.index(types[0])}
    p = params(made, alias=alias, **numbers, **fields)
    launch(source, kernel, p, got, ("program", "random")[seed % 2])
    equal(got[0], want, types[0], ulps)
