"""The vector layer: instructions against their emulation, scalar conversions against numpy, linkage."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from native import host_lib
from native.host_lib import KERNELS, LEVEL_FLAGS, LEVELS

SOURCE = Path(__file__).parent / "native" / "host_layer.cpp"
FLOAT_OPS = ("add_f", "mul", "bcast", "bf16_even", "bf16_odd", "load_bf16", "load_fp16", "to_float")
# Unsigned bytes whose products with signed ones add up without saturating.
CODES = np.uint32(0x0F0F0F0F)
INT_OPS = (
    *("add_i", "madd16", "madd16_add", "dot_bytes16", "bytes_even", "bytes_odd", "flip_sign_bits8"),
    *("load_i8_as_i16", "store_bf16", "store_fp16", "sum_i"),
)
SPECIALS = np.array(
    [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0x00000001]
    + [0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x3F808000, 0x3F818000, 0x477FEFFF, 0x477FF000]
    + [0x33000000, 0x33000001, 0x38800000, 0x387FFFFF, 0x80008000, 0x7FFF8000, 0x80808080],
    dtype=np.uint32,
)


@cache
def layer(level: str, *, emulate: bool) -> ctypes.CDLL:
    flags = ("-DTW_EMULATE",) if emulate and level != "scalar" else LEVEL_FLAGS[level]
    name = f"layer-{level}{'-emulated' if emulate else ''}.so"
    lib = ctypes.CDLL(
        str(host_lib.build(name, [(SOURCE, (*flags, f"-DTW_ISA={level}"))], ("-shared",)))
    )
    lib.layer_float_to_bf16.argtypes = lib.layer_float_to_fp16.argtypes = [ctypes.c_float]
    lib.layer_float_to_bf16.restype = lib.layer_float_to_fp16.restype = ctypes.c_uint16
    lib.layer_fp16_to_float.argtypes = [ctypes.c_uint16]
    lib.layer_fp16_to_float.restype = ctypes.c_float
    return lib


def apply(lib: ctypes.CDLL, op: str, *operands: NDArray[np.uint32]) -> NDArray[np.uint32]:
    out = np.full(16, 0xDEADBEEF, np.uint32)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in operands]
    assert lib.layer_apply(op.encode(), *pointers, ctypes.c_void_p(out.ctypes.data)) == 0
    return out


def words(rng: np.random.Generator, round_: int) -> NDArray[np.uint32]:
    """32 words: any bits, ordinary floats, or values at the edges of the formats."""
    if round_ % 3 == 0:
        return rng.integers(0, 2**32, 32, dtype=np.uint32)
    if round_ % 3 == 1:
        return rng.standard_normal(32).astype(np.float32).view(np.uint32)
    return rng.choice(SPECIALS, 32)


def same_floats(x: NDArray[np.uint32], y: NDArray[np.uint32]) -> bool:
    """Equal bits, or both NaN."""
    a, b = x.view(np.float32), y.view(np.float32)
    return bool(((x == y) | (np.isnan(a) & np.isnan(b))).all())


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "scalar"])
def test_instructions_match_their_emulation(level: str) -> None:
    if level not in host_lib.usable_levels():
        pytest.skip(f"this CPU lacks {level}")
    native, emulated = layer(level, emulate=False), layer(level, emulate=True)
    assert native.layer_lanes() == emulated.layer_lanes()
    assert native.layer_has_dpbusd() == emulated.layer_has_dpbusd()
    assert native.layer_has_dpbf16() == emulated.layer_has_dpbf16()
    rng = np.random.default_rng(7)
    for round_ in range(90):
        a, b, c = (words(rng, round_) for _ in range(3))
        for op in FLOAT_OPS:
            assert same_floats(apply(native, op, a, b, c), apply(emulated, op, a, b, c)), op
        for op in (*INT_OPS, *(("dpbusd",) if native.layer_has_dpbusd() else ())):
            first = a & CODES if op == "dot_bytes16" else a
            mine, theirs = apply(native, op, first, b, c), apply(emulated, op, first, b, c)
            if op == "store_fp16":  # a NaN's payload is not specified
                halves = mine.view(np.float16), theirs.view(np.float16)
                assert ((halves[0] == halves[1]) | np.isnan(halves[0]) & np.isnan(halves[1])).all()
            else:
                assert (mine == theirs).all(), op
        if round_ % 3 == 1:
            lanes = native.layer_lanes()
            inexact = ("fma", "sum_f", *(("dpbf16",) if native.layer_has_dpbf16() else ()))
            for op in inexact:
                mine = apply(native, op, a, b, c)[:lanes].view(np.float32)
                theirs = apply(emulated, op, a, b, c)[:lanes].view(np.float32)
                count = 1 if op == "sum_f" else lanes
                assert np.allclose(
                    mine[:count], theirs[:count], rtol=1e-6, atol=1e-6, equal_nan=True
                ), op


def tile_dot(
    lib: ctypes.CDLL,
    kind: str,
    a: NDArray[np.generic],
    b: NDArray[np.generic],
    c: NDArray[np.generic],
) -> NDArray[np.generic]:
    """c[16,16] + a[16,64 bytes] b[16 groups, 16 columns, KR], operands in rows of 80 bytes."""
    rows = [np.zeros((16, 80), np.uint8) for _ in range(2)]
    for row, operand in zip(rows, (a, b), strict=True):
        row[:, :64] = operand.reshape(16, -1).view(np.uint8)
    out = c.copy()
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (*rows, out)]
    lib.layer_tile_dot(int(kind == "bf16"), *pointers, ctypes.c_int64(80))
    return out


TILE_BUILDS = [pytest.param(True, id="emulated"), pytest.param(False, id="native")]


@pytest.mark.parametrize("emulate", TILE_BUILDS)
def test_tile_products(emulate: bool) -> None:
    if not emulate and "amx" not in host_lib.usable_levels():
        pytest.skip("this CPU lacks amx")
    lib = layer("amx", emulate=emulate)
    rng = np.random.default_rng(5)
    a8, b8 = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((16, 64), (16, 16, 4)))
    c32 = rng.integers(-(2**31), 2**31, (16, 16), dtype=np.int64).astype(np.int32)
    wide = a8.astype(np.int64) @ b8.astype(np.int64).transpose(0, 2, 1).reshape(64, 16)
    assert (tile_dot(lib, "int8", a8, b8, c32) == (c32 + wide).astype(np.int32)).all(), "sums wrap"
    a16, b16 = (host_lib.to_bf16(rng.standard_normal(n).astype(np.float32)) for n in (512, 512))
    c = rng.standard_normal((16, 16)).astype(np.float32)
    af = host_lib.widen(a16, "bf16").reshape(16, 32)
    bf = host_lib.widen(b16, "bf16").reshape(16, 16, 2).transpose(0, 2, 1).reshape(32, 16)
    got = tile_dot(lib, "bf16", a16, b16, c)
    assert np.abs(got - (c + af @ bf)).max() <= 2.0**-20 * (np.abs(af) @ np.abs(bf)).max()


def test_tile_products_at_the_edges_of_bf16() -> None:
    """NaN, infinities, subnormals and huge values: the instruction and its emulation agree."""
    if "amx" not in host_lib.usable_levels():
        pytest.skip("this CPU lacks amx")
    native, emulated = layer("amx", emulate=False), layer("amx", emulate=True)
    rng = np.random.default_rng(6)
    halves = np.unique(SPECIALS.view(np.uint16))
    for round_ in range(60):
        a, b = (rng.choice(halves, 512) for _ in range(2))
        if round_ % 2:  # rows with few special values have finite sums
            for x in (a, b):
                x[rng.random(512) < 0.95] = 0x3F80
        c = rng.choice(SPECIALS, (16, 16)).view(np.float32)
        mine, theirs = (tile_dot(lib, "bf16", a, b, c) for lib in (native, emulated))
        with np.errstate(invalid="ignore"):
            assert np.allclose(mine, theirs, rtol=1e-5, atol=1e-37, equal_nan=True)


@pytest.mark.parametrize("level", LEVELS)
def test_layer_does_what_its_names_say(level: str) -> None:
    """The emulation against numpy, so that two equal mistakes do not pass."""
    lib = layer(level, emulate=True)
    lanes = lib.layer_lanes()
    rng = np.random.default_rng(11)
    a, b, c = (rng.integers(0, 2**32, 32, dtype=np.uint32) for _ in range(3))
    i16a, i16b = (x.view(np.int16).astype(np.int64).reshape(-1, 2)[:lanes] for x in (a, b))
    assert (apply(lib, "madd16", a, b, c)[:lanes] == (i16a * i16b).sum(1).astype(np.uint32)).all()
    codes = a & CODES
    pairs = codes.view(np.uint8).astype(np.int64) * b.view(np.int8)
    sums = c.view(np.int16) + pairs.reshape(-1, 2).sum(1)
    got = apply(lib, "dot_bytes16", codes, b, c).view(np.int16)[: 2 * lanes]
    assert (got == sums.astype(np.int16)[: 2 * lanes]).all()
    i8 = a.view(np.int8).astype(np.int16).reshape(-1, 4)[:lanes]
    for op, at in (("bytes_even", (0, 2)), ("bytes_odd", (1, 3))):
        got = apply(lib, op, a, b, c).view(np.int16).reshape(-1, 2)[:lanes]
        assert (got == i8[:, at]).all(), op
    wide = apply(lib, "load_i8_as_i16", a, b, c).view(np.int16)[: 2 * lanes]
    assert (wide == a.view(np.int8)[: 2 * lanes]).all()
    if lib.layer_has_dpbusd():
        u8 = a.view(np.uint8).astype(np.int64).reshape(-1, 4)[:lanes]
        s8 = b.view(np.int8).astype(np.int64).reshape(-1, 4)[:lanes]
        expected = (c[:lanes].astype(np.int64) + (u8 * s8).sum(1)) % 2**32
        assert (apply(lib, "dpbusd", a, b, c)[:lanes] == expected).all()
    if lib.layer_has_dpbf16():
        f = [host_lib.to_bf16(rng.standard_normal(32).astype(np.float32)) for _ in range(2)]
        x, y = (h.view(np.uint32) for h in f)
        start = rng.standard_normal(32).astype(np.float32)
        products = host_lib.widen(f[0], "bf16") * host_lib.widen(f[1], "bf16")
        expected = start[:lanes] + products.reshape(-1, 2).sum(1)[:lanes]
        got = apply(lib, "dpbf16", x, y, start.view(np.uint32))[:lanes].view(np.float32)
        assert np.allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_transpose_moves_every_word() -> None:
    rows = np.arange(8 * 11, dtype=np.uint32).reshape(8, 11)
    for level in LEVELS:
        lib = layer(level, emulate=level not in host_lib.usable_levels())
        out = np.zeros((8, 16), np.uint32)
        lib.layer_transpose(
            ctypes.c_void_p(rows.ctypes.data), ctypes.c_int64(44), ctypes.c_void_p(out.ctypes.data)
        )
        assert (out[:, :8] == rows[:, :8].T).all(), level


def test_scalar_conversions_round_like_numpy() -> None:
    lib = layer("scalar", emulate=False)
    rng = np.random.default_rng(3)
    bits = np.concatenate([SPECIALS, rng.integers(0, 2**32, 3000, dtype=np.uint32)])
    near_halves = rng.integers(0, 2**16, 2000).astype(np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        beside = near_halves * np.float32(1.0002)
        values = np.concatenate([bits.view(np.float32), near_halves, beside])
        halves = values.astype(np.float16)
    brains = host_lib.to_bf16(values)
    for value, half, brain in zip(values, halves, brains, strict=True):
        got = np.array([lib.layer_float_to_fp16(value)], np.uint16).view(np.float16)[0]
        assert got == half or (np.isnan(got) and np.isnan(half)), value
        stored = lib.layer_float_to_bf16(value)
        if np.isnan(value):
            assert stored & 0x7FFF > 0x7F80
        else:
            assert stored == brain, value
    for half_bits in range(2**16):
        expected = np.array([half_bits], np.uint16).view(np.float16)[0]
        got = lib.layer_fp16_to_float(half_bits)
        assert got == expected or (np.isnan(got) and np.isnan(expected))


def test_levels_share_no_code() -> None:
    """A level's objects define one outside function each and nothing the linker may merge or pick."""
    for source, name in (("gemm/host_simd.cpp", "kernels"), ("_host/ceilings_simd.cpp", "loops")):
        for level in ("avx2", "avx512"):
            flags = (*LEVEL_FLAGS[level], f"-DTW_ISA={level}")
            path = host_lib.build(
                f"level-{level}.o", [(KERNELS / source, flags)], ("-r", "-nostdlib")
            )
            listing = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True)
            symbols = [
                line.split(maxsplit=2 if line[0] != " " else 1)
                for line in listing.stdout.splitlines()
            ]
            defined = [entry for entry in symbols if len(entry) == 3]
            outside = [entry[2] for entry in defined if entry[1] in "TDBR"]
            assert len(outside) == 1 and f"::{level}::{name}()" in outside[0]
            assert not [entry for entry in defined if entry[1] in "WVuwv"]


def test_library_exports_only_its_interface() -> None:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", host_lib.library()._name],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {line.split()[2] for line in listing.stdout.splitlines()}
    assert "tw_host_gemm" in names
    assert all(name.startswith("tw_") for name in names)
    undefined = subprocess.run(
        ["nm", "-D", "--undefined-only", host_lib.library()._name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "__libc_single_threaded" not in undefined.stdout
