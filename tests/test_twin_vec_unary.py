"""Vector instructions of one source, with a scalar or none, and those that fill."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_vec as vec
from test_twin_vec_binary import largest, relu, smallest

SOURCE = "twin_vec_arith.cpp"
Array = np.ndarray
NUMBERS = ("f16", "f32", "s16", "s32")


def through_double(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: f(x.astype(np.float64)).astype(np.float32).astype(x.dtype)


UNARY: dict[str, tuple[tuple[str, ...], Callable[[Array], Array]]] = {
    "Abs": (("f16", "f32"), np.abs),
    "Relu": (("f16", "f32", "s32"), relu),
    "Not": (("s16", "u16"), lambda x: ~x),
    "Exp": (("f16", "f32"), through_double(np.exp)),
    "Ln": (("f16", "f32"), through_double(np.log)),
    "Sqrt": (("f16", "f32"), through_double(np.sqrt)),
    "Rsqrt": (("f16", "f32"), through_double(lambda x: 1 / np.sqrt(x))),
    "Reciprocal": (("f16", "f32"), through_double(lambda x: 1 / x)),
}
# The silicon's last bits of these are not public: the twin rounds the exact value, 1 ulp is allowed.
INEXACT = ("Exp", "Ln", "Rsqrt", "Reciprocal")


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize(("op", "dtype"), [(op, t) for op, (ts, _) in UNARY.items() for t in ts])
def test_one_source(op: str, dtype: str, form: int) -> None:
    for seed in range(4):
        ulps = int(op in INEXACT)
        vec.check(SOURCE, "arith", op, (dtype, dtype), UNARY[op][1], form, seed, ulps=ulps)


def leaky(x: Array, s: Array) -> Array:
    return np.where(np.signbit(x), x * s, x)


SCALAR: dict[str, tuple[tuple[str, ...], Callable[[Array, Array], Array]]] = {
    "Adds": (NUMBERS, lambda x, s: x + s),
    "Muls": (NUMBERS, lambda x, s: x * s),
    "Maxs": (NUMBERS, largest),
    "Mins": (NUMBERS, smallest),
    "LeakyRelu": (("f16", "f32"), leaky),
}


def scalar(dtype: str, seed: int) -> tuple[Array, int]:
    value = vec.values(np.random.default_rng(seed + 100), dtype, 1)
    return value, int.from_bytes(value.tobytes(), "little")


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize(("op", "dtype"), [(op, t) for op, (ts, _) in SCALAR.items() for t in ts])
def test_with_a_scalar(op: str, dtype: str, form: int) -> None:
    for seed in range(6):
        s, bits = scalar(dtype, seed)
        f = SCALAR[op][1]
        vec.check(
            SOURCE,
            "arith",
            op,
            (dtype, dtype),
            lambda x, f=f, s=s: f(x, s),
            form,
            seed,
            scalar=bits,
        )


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize(("src", "to"), [("f16", "f16"), ("f32", "f32"), ("f16", "f32")])
def test_axpy(src: str, to: str, form: int) -> None:
    for seed in range(6):
        s, bits = scalar(src, seed)

        def oracle(x: Array, d: Array, s: Array = s) -> Array:
            wide = vec.NUMPY[to]
            return x.astype(wide) * s.astype(wide) + d

        vec.check(
            SOURCE, "arith", "Axpy", (to, src), oracle, form, seed, reads_dst=True, scalar=bits
        )


def shifted(op: str, x: Array, n: int, rounded: bool) -> Array:
    bits = 8 * x.itemsize
    wide = x.astype(np.int64)
    if op == "ShiftRight":
        up = (wide >> (n - 1)) & 1 if rounded and n > 0 and x.dtype.kind == "i" else 0
        return ((wide >> n) + up).astype(x.dtype)
    moved = (wide << n) & ((1 << bits) - 1)
    if x.dtype.kind == "i":  # the sign stays where it is
        moved = (moved & ((1 << (bits - 1)) - 1)) | np.where(wide < 0, 1 << (bits - 1), 0)
    return moved.astype(np.uint64).astype(f"u{x.itemsize}").view(x.dtype)


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize("dtype", ["s16", "u16", "s32", "u32"])
@pytest.mark.parametrize("op", ["ShiftLeft", "ShiftRight"])
def test_shifts(op: str, dtype: str, form: int) -> None:
    bits = 8 * np.dtype(vec.NUMPY[dtype]).itemsize
    for seed, n in enumerate((0, 1, 5, bits - 1, bits)):
        rounded = seed % 2 == 1 and form == vec.MASK and op == "ShiftRight"
        vec.check(
            SOURCE,
            "arith",
            op,
            (dtype, dtype),
            lambda x, n=n, r=rounded: shifted(op, x, n, r),
            form,
            seed,
            scalar=n,
            mode=int(rounded),
        )


@pytest.mark.parametrize("form", vec.FORMS[:4], ids=vec.NAMES[:4])
@pytest.mark.parametrize("dtype", [*NUMBERS, "bf16", "u16", "u32"])
def test_duplicate(dtype: str, form: int) -> None:
    for seed in range(4):
        s, bits = scalar(dtype, seed)
        fill(
            seed, "Duplicate", dtype, form, bits, lambda index, s=s: np.broadcast_to(s, index.shape)
        )


@pytest.mark.parametrize("form", vec.FORMS[:3], ids=vec.NAMES[:3])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_create_vec_index(dtype: str, form: int) -> None:
    for seed in range(4):
        first = vec.NUMPY[dtype](seed * 7 - 9)
        bits = int.from_bytes(np.array([first]).tobytes(), "little")

        def indices(index: Array, first: object = first) -> Array:
            return (np.float32(first) + index) if dtype in ("f16", "f32") else first + index

        fill(seed, "CreateVecIndex", dtype, form, bits, indices)


def fill(
    seed: int, op: str, dtype: str, form: int, bits: int, oracle: Callable[[Array], Array]
) -> None:
    rng = np.random.default_rng(seed)
    width = 8 * np.dtype(vec.NUMPY[dtype]).itemsize
    made = vec.shape(rng, form, (width,))
    got = vec.image(rng, dtype, made.bytes(0, width))
    index = np.arange(made.active.size).reshape(made.active.shape)[made.active]
    want = vec.scatter(got, made.offsets(0, width), oracle(index).astype(vec.NUMPY[dtype]))
    p = vec.params(made, op=vec.OPS[op], type=vec.DTYPES.index(dtype), scalar=bits)
    none = np.zeros(0, np.uint8)
    vec.launch(SOURCE, "arith", p, [got, none, none])
    vec.equal(got, want, dtype)
