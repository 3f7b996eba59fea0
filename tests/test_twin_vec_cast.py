"""Conversions: every documented pair of types and round mode against exact arithmetic."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_vec as vec

SOURCE = "twin_vec_cast.cpp"
Array = np.ndarray
NONE, RINT, FLOOR, CEIL, ROUND, TRUNC, ODD = range(7)
FIVE = (RINT, FLOOR, CEIL, ROUND, TRUNC)
# 类型转换/Cast.md, the column of the A2.
PAIRS: dict[tuple[str, str], tuple[int, ...]] = {
    ("s8", "f16"): (NONE,),
    ("u8", "f16"): (NONE,),
    ("s16", "f16"): (*FIVE, NONE),
    ("s16", "f32"): (NONE,),
    ("f16", "s8"): (*FIVE, NONE),
    ("f16", "u8"): (*FIVE, NONE),
    ("f16", "s16"): FIVE,
    ("f16", "s32"): FIVE,
    ("f16", "f32"): (NONE,),
    ("bf16", "s32"): FIVE,
    ("bf16", "f32"): (NONE,),
    ("s32", "s16"): (NONE,),
    ("s32", "f32"): (*FIVE, NONE),
    ("s32", "s64"): (NONE,),
    ("f32", "s16"): FIVE,
    ("f32", "f16"): (*FIVE, ODD, NONE),
    ("f32", "bf16"): FIVE,
    ("f32", "s32"): FIVE,
    ("f32", "f32"): FIVE,
    ("f32", "s64"): FIVE,
    ("s64", "s32"): (NONE,),
    ("s64", "f32"): FIVE,
}
FLOATS = {"f16": (11, -14, 15), "bf16": (8, -126, 127), "f32": (24, -126, 127)}


def whole(x: Fraction, mode: int) -> int:
    low = math.floor(x)
    rest = x - low
    if mode in (NONE, RINT):
        return round(x)
    if mode == FLOOR or rest == 0:
        return low
    if mode == CEIL:
        return low + 1
    if mode == ROUND:
        return low + 1 if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and x > 0) else low
    if mode == TRUNC:
        return low if x > 0 else low + 1
    return low if low % 2 else low + 1  # ODD


def rounded(x: Fraction, kind: str, mode: int) -> float:
    """``x`` as a float of ``kind``, by exact arithmetic; too large gives inf or the largest."""
    digits, low, high = FLOATS[kind]
    if x == 0:
        return 0.0
    exponent = math.frexp(float(x))[1] - 1
    if abs(x) < Fraction(2) ** exponent:
        exponent -= 1
    step = Fraction(2) ** (max(exponent, low) - digits + 1)
    out = whole(x / step, mode) * step
    largest = (2 - Fraction(2) ** (1 - digits)) * Fraction(2) ** high
    if abs(out) > largest:
        inward = mode in (TRUNC, ODD) or (mode == FLOOR and x > 0) or (mode == CEIL and x < 0)
        return math.copysign(float(largest) if inward else math.inf, x)
    return float(out)


def decode(x: Array, kind: str) -> list[float | int]:
    if kind == "bf16":
        return [float(v) for v in (x.astype(np.uint32) << 16).view(np.float32)]
    return [v.item() for v in x]


def encode(x: list[float], kind: str) -> Array:
    if kind == "bf16":
        return (np.array(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.array(x, np.float64).astype(vec.NUMPY[kind])


def one(v: float | int, src: str, to: str, mode: int) -> float | int:
    is_float = isinstance(v, float)
    if to in FLOATS and is_float and not math.isfinite(v):
        return v
    if to in FLOATS:
        if src == to:  # rounds to a whole number; -0 becomes +0
            return float(whole(Fraction(v), mode))
        out = rounded(Fraction(v), to, mode)
        return math.copysign(out, v) if is_float and out == 0 else out
    info = np.iinfo(vec.NUMPY[to])
    if is_float and math.isnan(v):
        return 0
    if is_float and math.isinf(v):
        return info.max if v > 0 else info.min
    return min(max(whole(Fraction(v), mode), info.min), info.max)


def convert(x: Array, src: str, to: str, mode: int) -> Array:
    out = [one(v, src, to, mode) for v in decode(x, src)]
    if to in FLOATS:
        return encode([float(v) for v in out], to)
    return np.array(out, dtype=object).astype(vec.NUMPY[to])


CASES = [(s, t, mode) for (s, t), modes in PAIRS.items() for mode in modes]


@pytest.mark.parametrize(("src", "to", "mode"), CASES)
def test_cast(src: str, to: str, mode: int) -> None:
    for form in vec.FORMS:
        vec.check(
            SOURCE,
            "cast",
            "Cast",
            (to, src),
            lambda x: convert(x, src, to, mode),
            form,
            form,
            mode=mode,
        )


@pytest.mark.parametrize("mode", [*FIVE, ODD])
def test_every_kind_of_tie_to_half(mode: int) -> None:
    """Halfway points and their neighbours, normal, denormal and beyond the largest half."""
    halves = np.array([0x0001, 0x0002, 0x03FF, 0x0400, 0x3C00, 0x3C01, 0x7BFE, 0x7BFF], np.uint16)
    base = halves.view(np.float16).astype(np.float32)
    step = np.ldexp(np.float32(1), np.maximum(np.frexp(base)[1] - 12, -25))
    points = np.concatenate(
        [base, base + step, base + step * np.float32(0.999), base + step * 1.001]
    )
    x = np.concatenate([points, -points]).astype(np.float32)
    x = np.resize(x, 64)
    got = [np.zeros(128, np.uint8), x.view(np.uint8).copy(), np.zeros(0, np.uint8)]
    made = vec.Params(op=vec.OPS["Cast"], type=1, to=2, form=vec.COUNT, count=64, mode=mode)
    vec.launch(SOURCE, "cast", made, got)
    want = convert(x, "f32", "f16", mode)
    vec.equal(got[0], want.view(np.uint8), "f16")


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
def test_int4_to_half(form: int) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        made = vec.shape(rng, form, (16, 4), pairs=True)
        dst = vec.image(rng, "f16", made.bytes(0, 16))
        src = rng.integers(0, 256, made.bytes(1, 4), dtype=np.uint8)
        nibbles = np.stack([src & 15, src >> 4], axis=1).reshape(-1)
        at = (
            made.offsets(1, 4) * 2
            + np.arange(made.lanes)[None].repeat(made.repeat, 0)[made.active] % 2
        )
        values = nibbles[at].astype(np.int8)
        values = np.where(values > 7, values - 16, values)
        want = vec.scatter(dst, made.offsets(0, 16), values.astype(np.float16))
        p = vec.params(made, op=vec.OPS["Cast"], type=12, to=2)
        vec.launch(SOURCE, "cast", p, [dst, src, np.zeros(0, np.uint8)])
        vec.equal(dst, want, "f16")


@pytest.mark.parametrize("mode", [*FIVE, NONE])
@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
def test_half_to_int4(form: int, mode: int) -> None:
    rng = np.random.default_rng(form * 10 + mode)
    made = vec.shape(rng, form, (4, 16), pairs=True)
    dst = rng.integers(0, 256, made.bytes(0, 4), dtype=np.uint8)
    src = vec.image(rng, "f16", made.bytes(1, 16))
    small = (rng.integers(-80, 80, src.size // 2) / 4).astype(np.float16)
    src.view(np.float16)[::2] = small[::2]
    values = vec.gather(src, made.offsets(1, 16), "f16")
    out = []
    for v in values.tolist():
        finite = 0 if math.isnan(v) else v
        if math.isinf(finite):
            out.append(7 if finite > 0 else -8)
        else:
            out.append(min(max(whole(Fraction(finite), mode), -8), 7))
    want = np.stack([dst & 15, dst >> 4], axis=1).reshape(-1)
    at = (
        made.offsets(0, 4) * 2 + np.arange(made.lanes)[None].repeat(made.repeat, 0)[made.active] % 2
    )
    want[at] = np.array(out) & 15
    packed = (want[::2] | want[1::2] << 4).astype(np.uint8)
    p = vec.params(made, op=vec.OPS["Cast"], type=2, to=12, mode=mode)
    vec.launch(SOURCE, "cast", p, [dst, src, np.zeros(0, np.uint8)])
    vec.equal(dst, packed, "u8")


def half_bits(x: float) -> int:
    return int(np.float16(x).view(np.uint16))


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize("scale", [1.0, 0.003, 37.5])
def test_int32_to_half_with_a_scale(scale: float, form: int) -> None:
    used = float(np.float16(scale))

    def oracle(x: Array) -> Array:
        return (x.astype(np.float64) * used).astype(np.float32).astype(np.float16)

    fields = {"scalar": half_bits(scale)}
    vec.check(SOURCE, "cast", "Cast", ("f16", "s32"), oracle, form, form, **fields)

    def after_sum(a: Array, b: Array) -> Array:
        return np.maximum(oracle(a + b), np.float16(0))

    vec.check(SOURCE, "cast", "AddDeqRelu", ("f16", "s32", "s32"), after_sum, form, form, **fields)


@pytest.mark.parametrize(("src", "to"), [("f32", "f16"), ("f32", "bf16")])
def test_saturation_of_floats(src: str, to: str) -> None:
    largest = rounded(Fraction(10) ** 39, to, TRUNC)

    def oracle(x: Array) -> Array:
        out = [one(v, src, to, RINT) for v in decode(x, src)]
        return encode([0.0 if math.isnan(v) else min(max(v, -largest), largest) for v in out], to)

    vec.check(SOURCE, "cast", "Cast", (to, src), oracle, vec.COUNT, 3, mode=RINT, flag=1)


@pytest.mark.parametrize(("src", "to"), [("s64", "s32"), ("s32", "s16")])
def test_truncation_of_integers(src: str, to: str) -> None:
    def oracle(x: Array) -> Array:
        return x.astype(vec.NUMPY[to])

    vec.check(SOURCE, "cast", "Cast", (to, src), oracle, vec.COUNT, 5, mode=NONE, flag=2)


def to_int(x: Array, to: str) -> Array:
    info = np.iinfo(vec.NUMPY[to])
    return np.clip(np.rint(np.nan_to_num(x.astype(np.float64), nan=0.0)), info.min, info.max)


def relu_cast(total: Array, to: str) -> Array:
    kept = np.where(total > 0, total, 0)  # a NaN is 0 as well
    return kept if to == "f16" else to_int(kept, to)


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize(("src", "to"), [("f16", "s8"), ("s16", "s8"), ("f32", "f16")])
@pytest.mark.parametrize("op", ["AddReluCast", "SubReluCast"])
def test_relu_cast(op: str, src: str, to: str, form: int) -> None:
    def oracle(a: Array, b: Array) -> Array:
        if src == "s16":
            a, b = a.astype(np.int64), b.astype(np.int64)
        return relu_cast(a + b if op == "AddReluCast" else a - b, to)

    for seed in range(3):
        vec.check(SOURCE, "cast", op, (to, src, src), oracle, form, seed)


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize("to", ["s8", "u8"])
def test_mul_cast(to: str, form: int) -> None:
    for seed in range(3):
        vec.check(
            SOURCE,
            "cast",
            "MulCast",
            (to, "f16", "f16"),
            lambda a, b: to_int(a * b, to),
            form,
            seed,
        )


def quantised(x: Array, scales: Array, offsets: Array, to: str) -> Array:
    used = (scales.view(np.uint32) & ~np.uint32(0x1FFF)).view(np.float32)
    value = x.astype(np.float32) * used + offsets.astype(np.float32)
    return to_int(value, to).astype(vec.NUMPY[to])


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize("half_block", [0, 1])
@pytest.mark.parametrize("vector", [0, 1])
@pytest.mark.parametrize("to", ["s8", "u8"])
def test_dequant_to_8_bits(to: str, vector: int, half_block: int, form: int) -> None:
    rng = np.random.default_rng(form * 8 + vector * 2 + half_block)
    made = vec.shape(rng, form, (16, 16))
    dst = rng.integers(0, 256, made.bytes(0, 16), dtype=np.uint8)
    src = vec.image(rng, "s16", made.bytes(1, 16))
    table = (rng.random(16) * 0.02).astype(np.float32)
    column = (np.arange(made.lanes) % 16)[None].repeat(made.repeat, 0)[made.active]
    scales = table[column] if vector else np.repeat(table[:1], column.size)
    offsets = column * 3 - 20 if vector else np.full(column.size, -7)
    # Sixteen results of a block fill one half of a block.
    at = made.offsets(0, 16) // 32 * 32 + half_block * 16 + column
    values = vec.gather(src, made.offsets(1, 16), "s16")
    want = vec.scatter(dst, at, quantised(values, scales, offsets, to))
    p = vec.params(
        made, op=vec.OPS["CastDeq"], type=6, to=vec.DTYPES.index(to), mode=vector + 2 * half_block
    )
    vec.launch(SOURCE, "dequant", p, [dst, src, table.view(np.uint8)])
    vec.equal(dst, want, "u8")


def test_dequant_to_half() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**31), 2**31, 192, dtype=np.int32)
    got = np.zeros(384, np.uint8)
    p = vec.Params(op=vec.OPS["CastDeq"], type=8, to=2, count=192, scalar=half_bits(1e-5))
    vec.launch(SOURCE, "dequant", p, [got, x.view(np.uint8), np.zeros(64, np.uint8)])
    want = (x.astype(np.float64) * float(np.float16(1e-5))).astype(np.float32).astype(np.float16)
    vec.equal(got, want.view(np.uint8), "f16")
