"""Comparison and selection in every mode against numpy."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_vec as vec

SOURCE = "twin_vec_select.cpp"
Array = np.ndarray
# In the order of CMPMODE. A NaN is not even different from another number.
MODES: tuple[Callable[[Array, Array], Array], ...] = (
    np.less,
    np.greater,
    np.equal,
    np.less_equal,
    np.greater_equal,
    lambda a, b: (a < b) | (a > b),
)
COMPARED = [(t, m) for t in ("f16", "f32") for m in range(6)] + [("s32", 2)]


def whole(made: vec.Shape) -> vec.Shape:
    """All lanes: the mask of a comparison has no effect on 2201, and a count fills its repeats."""
    active = np.ones((made.repeat, made.lanes), bool)
    return dataclasses.replace(made, active=active, count=active.size)


@pytest.mark.parametrize("with_scalar", [0, 1])
@pytest.mark.parametrize("form", [vec.COUNT, vec.MASK, vec.BITS])
@pytest.mark.parametrize(("dtype", "mode"), COMPARED)
def test_compare(dtype: str, mode: int, form: int, with_scalar: int) -> None:
    width = 8 * np.dtype(vec.NUMPY[dtype]).itemsize
    for seed in range(3):
        rng = np.random.default_rng(seed)
        made = whole(vec.shape(rng, form, (8, width, width)))
        made = dataclasses.replace(made, **lanes_of(made, width))
        images = [vec.image(rng, dtype, made.bytes(i, width)) for i in (1, 2)]
        a, b = (vec.gather(images[i], made.offsets(i + 1, width), dtype) for i in (0, 1))
        b[::3] = a[::3]
        images[1] = vec.scatter(images[1], made.offsets(2, width), b)
        b = vec.gather(images[1], made.offsets(2, width), dtype)
        s = vec.values(rng, dtype, 1)
        bits = np.packbits(MODES[mode](a, s if with_scalar else b), bitorder="little")
        dst = np.full(-(-bits.size // 32) * 32 + 32, 0xA5, np.uint8)
        want = dst.copy()
        want[: bits.size] = bits
        p = vec.params(
            made,
            type=vec.DTYPES.index(dtype),
            mode=mode,
            flag=with_scalar,
            scalar=int.from_bytes(s.tobytes(), "little"),
        )
        vec.launch(SOURCE, "compare", p, [dst, *images, np.zeros(0, np.uint8)])
        vec.equal(dst, want, "u8")


def lanes_of(made: vec.Shape, width: int) -> dict[str, object]:
    lanes = 2048 // width
    active = np.ones((made.repeat, lanes), bool)
    return {"lanes": lanes, "active": active, "count": active.size}


@pytest.mark.parametrize("form", [vec.MASK, vec.BITS])
@pytest.mark.parametrize("mode", range(6))
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_compare_to_the_register(dtype: str, mode: int, form: int) -> None:
    width = 8 * np.dtype(vec.NUMPY[dtype]).itemsize
    rng = np.random.default_rng(mode)
    made = vec.shape(rng, form, (width, width, width))
    made = dataclasses.replace(made, repeat=1, active=made.active[:1])
    images = [vec.image(rng, dtype, made.bytes(i, width)) for i in (1, 2)]
    a, b = (vec.gather(images[i], made.offsets(i + 1, width), dtype) for i in (0, 1))
    flags = np.zeros(128, bool)
    flags[: made.lanes][made.active[0]] = MODES[mode](a, b)
    dst = np.full(128, 0xA5, np.uint8)
    want = dst.copy()
    want[:16] = np.packbits(flags, bitorder="little")
    p = vec.params(made, type=vec.DTYPES.index(dtype), mode=mode)
    vec.launch(SOURCE, "compare_to_register", p, [dst, *images, np.zeros(0, np.uint8)])
    vec.equal(dst, want, "u8")


def chosen(made: vec.Shape, bits: Array, mode: int) -> Array:
    """The bit that decides on each active element: those of one repeat in mode 0, its own else."""
    lane = np.arange(made.repeat * made.lanes).reshape(made.repeat, made.lanes)
    index = (lane % made.lanes if mode == 0 else lane)[made.active]
    return np.unpackbits(bits, bitorder="little")[index].astype(bool)


def select(dtype: str, mode: int, form: int, seed: int, register: int) -> None:
    width = 8 * np.dtype(vec.NUMPY[dtype]).itemsize
    rng = np.random.default_rng(seed)
    made = vec.shape(rng, form, (width, width, width))
    images = [vec.image(rng, dtype, made.bytes(i, width)) for i in range(3)]
    bits = rng.integers(0, 256, 128, dtype=np.uint8)
    a, b = (vec.gather(images[i], made.offsets(i, width), dtype) for i in (1, 2))
    s = vec.values(rng, dtype, 1)
    second = np.broadcast_to(s, a.shape) if mode == 1 else b
    result = np.where(chosen(made, bits, mode), a, second)
    want = vec.scatter(images[0], made.offsets(0, width), result)
    p = vec.params(
        made,
        type=vec.DTYPES.index(dtype),
        mode=mode,
        flag=register,
        scalar=int.from_bytes(s.tobytes(), "little"),
    )
    vec.launch(SOURCE, "select", p, [*images, bits])
    vec.equal(images[0], want, dtype)


@pytest.mark.parametrize("form", vec.FORMS, ids=vec.NAMES)
@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_select(dtype: str, mode: int, form: int) -> None:
    for seed in range(3):
        select(dtype, mode, form, seed, 0)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_select_by_registers(dtype: str, mode: int) -> None:
    for seed in range(3):
        select(dtype, mode, vec.BITS, seed, 1)
