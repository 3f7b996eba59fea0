"""Vector instructions of two sources: every type, form, stride and mask against numpy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_vec as vec

SOURCE = "twin_vec_arith.cpp"
Array = np.ndarray


def largest(a: Array, b: Array) -> Array:
    """NaN wins, and +0 is larger than -0."""
    zeros = (a == 0) & (b == 0)
    return np.where(zeros, a + b, np.maximum(a, b))


def smallest(a: Array, b: Array) -> Array:
    zeros = (a == 0) & (b == 0)
    return np.where(zeros, -((-a) + (-b)), np.minimum(a, b))


def relu(x: Array) -> Array:
    return np.where(np.isnan(x), x, np.where(x > 0, x, x.dtype.type(0)))


NUMBERS = ("f16", "f32", "s16", "s32")
CASES: dict[str, tuple[tuple[str, ...], Callable[[Array, Array], Array]]] = {
    "Add": (NUMBERS, lambda a, b: a + b),
    "Sub": (NUMBERS, lambda a, b: a - b),
    "Mul": (NUMBERS, lambda a, b: a * b),
    "Max": (NUMBERS, largest),
    "Min": (NUMBERS, smallest),
    "Div": (("f16", "f32"), lambda a, b: a / b),
    "And": (("s16", "u16"), lambda a, b: a & b),
    "Or": (("s16", "u16"), lambda a, b: a | b),
    "AddRelu": (("f16", "f32", "s16"), lambda a, b: relu(a + b)),
    "SubRelu": (("f16", "f32", "s16"), lambda a, b: relu(a - b)),
}


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize(
    ("op", "dtype"), [(op, t) for op, (types, _) in CASES.items() for t in types]
)
def test_two_sources(op: str, dtype: str, form: int) -> None:
    for seed in range(4):
        vec.check(SOURCE, "arith", op, (dtype, dtype, dtype), CASES[op][1], form, seed)


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize("alias", [1, 2])
@pytest.mark.parametrize(
    ("op", "dtype"), [("Add", "f16"), ("Sub", "f32"), ("Max", "s16"), ("Or", "u16")]
)
def test_in_place(op: str, dtype: str, alias: int, form: int) -> None:
    for seed in range(4):
        vec.check(SOURCE, "arith", op, (dtype,) * 3, CASES[op][1], form, seed, alias=alias)


def saturated(op: str, dtype: str, a: Array, b: Array) -> Array:
    wide = np.float32 if dtype == "f16" else np.int64
    x = CASES[op][1](a.astype(wide), b.astype(wide))
    if dtype == "f16":
        return np.clip(np.where(np.isnan(x), 0, x), -65504, 65504)
    info = np.iinfo(vec.NUMPY[dtype])
    return np.clip(x, info.min, info.max)


@pytest.mark.parametrize("dtype", ["f16", "s16", "s32"])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
def test_saturation_mode(op: str, dtype: str) -> None:
    def oracle(a: Array, b: Array) -> Array:
        return saturated(op, dtype, a, b)

    for seed in range(4):
        vec.check(SOURCE, "arith", op, (dtype,) * 3, oracle, vec.COUNT, seed, flag=1)


def fused(first: Array, second: Array, addend: Array, to: str) -> Array:
    """The product is rounded to the destination's type before the sum is."""
    wide = vec.NUMPY[to]
    return first.astype(wide) * second.astype(wide) + addend


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize(("src", "to"), [("f16", "f16"), ("f32", "f32"), ("f16", "f32")])
def test_mul_add_dst(src: str, to: str, form: int) -> None:
    def oracle(a: Array, b: Array, d: Array) -> Array:
        return fused(a, b, d, to)

    for seed in range(4):
        vec.check(SOURCE, "arith", "MulAddDst", (to, src, src), oracle, form, seed, reads_dst=True)


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("op", ["FusedMulAdd", "FusedMulAddRelu"])
def test_fused_mul_add(op: str, dtype: str, form: int) -> None:
    def oracle(a: Array, b: Array, d: Array) -> Array:
        x = fused(a, d, b, dtype)
        return relu(x) if op == "FusedMulAddRelu" else x

    for seed in range(4):
        vec.check(SOURCE, "arith", op, (dtype,) * 3, oracle, form, seed, reads_dst=True)


OPERATORS: tuple[Callable[[Array, Array], Array], ...] = (
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / b,
    lambda a, b: a & b,
    lambda a, b: a | b,
    lambda a, b: a < b,
    lambda a, b: a > b,
    lambda a, b: a == b,
    lambda a, b: a <= b,
    lambda a, b: a >= b,
    lambda a, b: (a < b) | (a > b),
)


@pytest.mark.parametrize("number", range(len(OPERATORS)))
def test_operators_on_whole_tensors(number: int) -> None:
    rng = np.random.default_rng(number)
    dtype = "s16" if number in (4, 5) else "f32"
    a, b = vec.image(rng, dtype, 1024), vec.image(rng, dtype, 1024)
    with np.errstate(all="ignore"):
        want = OPERATORS[number](a.view(vec.NUMPY[dtype]), b.view(vec.NUMPY[dtype]))
    if want.dtype == np.bool_:
        want = np.packbits(want, bitorder="little")
    got = np.zeros(want.nbytes, np.uint8)
    p = vec.Params(op=number)
    vec.launch(SOURCE, "operators", p, [got, a, b])
    vec.equal(got, np.ascontiguousarray(want).view(np.uint8), dtype if number < 6 else "u8")
