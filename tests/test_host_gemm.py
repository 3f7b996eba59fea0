"""The host gemm at every ISA level: those this CPU has, and all of them emulated."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from native import host_gemm_cases as cases
from native import host_lib
from native.host_gemm_cases import KN, NK, PANEL16, Problem
from native.host_lib import LEVELS, Array

OUTS = {
    "fp32": ("fp32",),
    "bf16": ("bf16",),
    "fp16": ("fp16",),
    "int8": ("int32", "fp32", "bf16", "fp16"),
}
RUNS = [("native", level) for level in LEVELS]
RUNS += [("emulated", level) for level in LEVELS if level != "scalar"]
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=RUNS, ids=lambda run: "-".join(run))
def run(request: pytest.FixtureRequest) -> tuple[ctypes.CDLL, str]:
    build, level = request.param
    if build == "native" and level not in host_lib.usable_levels():
        pytest.skip(f"this CPU lacks {level}; its algorithms run emulated")
    return host_lib.library(emulate=build == "emulated"), level


@st.composite
def problems(draw: Callable[..., int]) -> Problem:
    dtype = draw(st.sampled_from(sorted(OUTS)))
    step = st.sampled_from((1, 1, 1, 2, -1, -3))
    layout = draw(st.sampled_from((KN, NK, PANEL16)))
    return Problem(
        m=draw(st.integers(0, 70) | st.integers(1, 14)),
        n=draw(st.integers(0, 150)),
        k=draw(st.integers(0, 200)),
        dtype=dtype,
        out=draw(st.sampled_from(OUTS[dtype])),
        layout=layout,
        bias=draw(st.booleans()),
        row_scale=draw(st.booleans()),
        a_steps=(draw(step), draw(step)),
        b_steps=(draw(step), draw(step)),
        c_steps=(draw(step), draw(step)),
        transposed=(draw(st.booleans()), draw(st.booleans()), draw(st.booleans())),
        tile_m=draw(st.sampled_from((1, 8, 13, 32, 64, 256))),
        tile_n=draw(st.sampled_from((16, 32, 48, 128, 512))),
        tile_k=draw(st.sampled_from((32, 64, 96, 1024))),
        stages=draw(st.integers(1, 2)),
        threads=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 2**16)),
        split_k=(split := draw(st.sampled_from((1, 1, 1, 2, 3, 8)))),
        batch_invariant=split == 1 and draw(st.booleans()),
    )


@QUICK
@given(problem=problems())
def test_matches_float64(run: tuple[ctypes.CDLL, str], problem: Problem) -> None:
    cases.check(run[0], problem, run[1])


@pytest.mark.parametrize("layout", (KN, NK, PANEL16))
@pytest.mark.parametrize("dtype", sorted(OUTS))
def test_larger_than_every_block(run: tuple[ctypes.CDLL, str], dtype: str, layout: int) -> None:
    """Several bands of rows, column tiles and K blocks, shared by two threads."""
    problem = Problem(150, 210, 330, dtype, OUTS[dtype][0], layout, threads=2)
    for stages in (1, 2):
        cases.check(run[0], replace(problem, stages=stages), run[1])


@pytest.mark.parametrize("n", (9, 40))
@pytest.mark.parametrize(("dtype", "k"), (("bf16", 520), ("int8", 1040)))
def test_rows_in_bands(run: tuple[ctypes.CDLL, str], dtype: str, k: int, n: int) -> None:
    """More rows than are packed at a time, and fewer panels than threads."""
    problem = Problem(600, n, k, dtype, OUTS[dtype][0], PANEL16, tile_k=1024, threads=3, bias=True)
    cases.check(run[0], problem, run[1])


@pytest.mark.parametrize("m", (1, 5, 40))
@pytest.mark.parametrize("layout", (KN, NK, PANEL16))
@pytest.mark.parametrize("values", ((-128, -128), (-128, 127), (127, 127), (127, -128)))
def test_int8_extremes_are_exact(
    run: tuple[ctypes.CDLL, str], m: int, layout: int, values: tuple[int, int]
) -> None:
    k, n = 517, 35
    problem = Problem(m, n, k, "int8", "int32", layout, tile_k=96)
    data = cases.make_data(problem)
    data.a[...], data.b[...] = values
    status, error, c = cases.launch(run[0], problem, data, run[1])
    assert status == 0, error
    assert (c == values[0] * values[1] * k).all()


@pytest.mark.parametrize("layout", (KN, NK, PANEL16))
@pytest.mark.parametrize("m", (2, 20))
def test_not_a_number_and_infinity_propagate(
    run: tuple[ctypes.CDLL, str], m: int, layout: int
) -> None:
    for dtype in ("fp32", "bf16", "fp16"):
        problem = Problem(m, 33, 70, dtype, dtype, layout)
        data = cases.make_data(problem)
        a, b = host_lib.widen(data.a, dtype), host_lib.widen(data.b, dtype)
        a[0, 3], b[5, 32] = np.nan, np.inf
        data.a[...], data.b[...] = host_lib.store(a, dtype), host_lib.store(b, dtype)
        status, error, c = cases.launch(run[0], problem, data, run[1])
        assert status == 0, error
        got = host_lib.widen(c, dtype)
        assert np.isnan(got[0]).all()
        assert (got[1:, 32] == np.sign(a[1:, 5]) * np.inf).all()
        assert np.isfinite(got[1:, :32]).all()


@pytest.mark.parametrize("dtype", sorted(OUTS))
@pytest.mark.parametrize("layout", (KN, NK, PANEL16))
def test_bits_do_not_depend_on_threads(
    run: tuple[ctypes.CDLL, str], dtype: str, layout: int
) -> None:
    for m in (1, 4, 11, 75):
        problem = Problem(m, 300, 200, dtype, OUTS[dtype][-1], layout, bias=True)
        data = cases.make_data(problem)
        results = []
        for threads in (1, 2, 3, 5):
            status, error, c = cases.launch(run[0], replace(problem, threads=threads), data, run[1])
            assert status == 0, error
            results.append(np.ascontiguousarray(c).tobytes())
        assert len(set(results)) == 1, f"m={m}"


@pytest.mark.parametrize("split_k", (2, 3, 8, 64))
@pytest.mark.parametrize("dtype", sorted(OUTS))
@pytest.mark.parametrize("layout", (KN, NK, PANEL16))
def test_split_sums_are_right_and_do_not_depend_on_threads(
    run: tuple[ctypes.CDLL, str], dtype: str, layout: int, split_k: int
) -> None:
    for m, n, k in ((1, 40, 700), (13, 17, 129), (70, 33, 65), (2, 5, 3)):
        problem = Problem(m, n, k, dtype, OUTS[dtype][-1], layout, bias=True, row_scale=True)
        problem = replace(problem, split_k=split_k, tile_m=16, tile_k=64)
        cases.check(run[0], replace(problem, threads=2), run[1])
        data = cases.make_data(problem)
        results = set()
        for threads in (1, 2, 5, 17):
            status, error, c = cases.launch(run[0], replace(problem, threads=threads), data, run[1])
            assert status == 0, error
            results.add(np.ascontiguousarray(c).tobytes())
        assert len(results) == 1


def test_a_split_sums_nothing_that_no_part_has_written(run: tuple[ctypes.CDLL, str]) -> None:
    """Columns that fill a panel up are read as what an earlier call left there: here infinities of both signs."""
    libm = ctypes.CDLL("libm.so.6")

    def multiply(m: int, parts: list[float], n: int) -> None:
        b = np.repeat(np.array(parts, np.float32), 64)[None].repeat(n, axis=0)
        operands = {
            "a": np.ones((m, b.shape[1]), np.float32),
            "b": b,
            "c": np.ones((m, n), np.float32),
        }
        tensors = {name: Array(x, "fp32") for name, x in operands.items()}
        libm.feclearexcept(1)  # FE_INVALID
        done = host_lib.call(run[0], tensors, {"b_layout": NK, "split_k": len(parts)})
        assert done == (0, "")

    assert run[0].tw_force_level(run[1].encode()) == 0
    try:
        multiply(1, [0, 3e38, 0, -3e38], 32)  # parts of one row are rows of parts in the next call
        assert libm.fetestexcept(1)
        multiply(2, [1, 1], 17)
        assert not libm.fetestexcept(1)
    finally:
        run[0].tw_force_level(None)


def alone_and_among_others(
    run: tuple[ctypes.CDLL, str], whole: Problem, rows: slice
) -> tuple[bytes, bytes]:
    """The bits of some rows of a problem computed by themselves, and with all the others."""
    data = cases.make_data(whole)
    scale = None if data.row_scale is None else data.row_scale[rows]
    part = replace(data, a=data.a[rows], row_scale=scale)
    got = []
    for problem, values in ((replace(whole, m=part.a.shape[0]), part), (whole, data)):
        status, error, c = cases.launch(run[0], problem, values, run[1])
        assert status == 0, error
        got.append(np.ascontiguousarray(c[rows] if values is data else c).tobytes())
    return got[0], got[1]


@QUICK
@given(problem=problems(), data=st.data())
def test_with_batch_invariant_bits_of_rows_do_not_depend_on_the_others(
    run: tuple[ctypes.CDLL, str], problem: Problem, data: st.DataObject
) -> None:
    problem = replace(
        problem, m=data.draw(st.integers(1, 90)), split_k=1, batch_invariant=True, seed=problem.seed
    )
    first = data.draw(st.integers(0, problem.m - 1))
    rows = slice(first, data.draw(st.integers(first + 1, problem.m)))
    alone, among = alone_and_among_others(run, problem, rows)
    assert alone == among


@pytest.mark.parametrize("dtype", sorted(OUTS))
@pytest.mark.parametrize("layout", (KN, NK, PANEL16))
def test_every_schedule_gives_a_row_its_bits(
    run: tuple[ctypes.CDLL, str], dtype: str, layout: int
) -> None:
    """Row counts on either side of what each schedule is for, long and odd sums, every output."""
    for k, out in ((1037, OUTS[dtype][0]), (96, OUTS[dtype][-1])):
        whole = Problem(40, 70, k, dtype, out, layout, row_scale=True, batch_invariant=True)
        for tile in (16, 256):
            problem = replace(whole, tile_m=tile, tile_n=64, tile_k=tile * 2)
            for first, last in ((0, 1), (7, 9), (3, 11), (1, 14), (5, 21), (2, 35)):
                alone, among = alone_and_among_others(run, problem, slice(first, last))
                assert alone == among, f"rows {first}..{last} of {problem}"


def test_blocking_does_not_change_sums() -> None:
    """Packed sums run in ascending k whatever the tiles are."""
    data = cases.make_data(Problem(40, 64, 500, layout=PANEL16))
    results = set()
    for tile_m, tile_n, tile_k in ((8, 16, 32), (32, 32, 32), (256, 512, 1024)):
        problem = Problem(40, 64, 500, layout=PANEL16, tile_m=tile_m, tile_n=tile_n, tile_k=tile_k)
        results.add(cases.launch(host_lib.library(), problem, data)[2].tobytes())
    assert len(results) == 1


def fp32(*shape: int) -> Array:
    return Array(np.ones(shape, np.float32), "fp32")


REFUSALS: dict[str, tuple[dict[str, Array | None], dict[str, int], str]] = {
    "tile_m": ({}, {"tile_m": 0}, "tile_m is 0; accepted: 1 to 1024"),
    "tile_n": ({}, {"tile_n": 24}, "tile_n is 24; accepted: multiples of 16 from 16 to 1024"),
    "tile_k": ({}, {"tile_k": 33}, "tile_k is 33; accepted: multiples of 32 from 32 to 4096"),
    "stages": ({}, {"stages": 3}, "stages is 3; accepted: 1 to 2"),
    "split_k": ({}, {"split_k": 0}, "split_k is 0; accepted: 1 to 64"),
    "split of much": (
        {"a": fp32(4096, 8), "b": fp32(8, 4097), "c": fp32(4096, 4097)},
        {"split_k": 4},
        "split_k is 4 and takes 269484032 bytes of partial sums; accepted: at most 268435456",
    ),
    "split of narrow rows": (
        {"a": fp32(262145, 1), "b": fp32(1, 1), "c": fp32(262145, 1)},
        {"split_k": 16},
        "split_k is 16 and takes 268436480 bytes of partial sums; accepted: at most 268435456",
    ),
    "split of a row": (
        {},
        {"split_k": 2, "batch_invariant": 1},
        "split_k is 2; accepted with batch_invariant: 1, as a split may follow from M",
    ),
    "layout": ({}, {"b_layout": 7}, "b_layout is 7; accepted: 0 (KN), 1 (NK) or 2 (panel16)"),
    "invariant": ({}, {"batch_invariant": 7}, "batch_invariant is 7; accepted: 0 (no) or 1 (yes)"),
    "negative": ({}, {"batch_invariant": -1}, "batch_invariant is -1; accepted: 0 (no) or 1"),
    "missing": ({"b": None}, {}, 'tensor "b" is missing'),
    "rank": ({"a": fp32(4, 8, 1)}, {}, '"a" has 3 dimensions, expected 2'),
    "k": ({"b": fp32(9, 6)}, {}, 'dimension 0 of "b" is 9, expected 8'),
    "n": ({"bias": fp32(5)}, {}, 'dimension 0 of "bias" is 5, expected 6'),
    "dtype": ({"b": Array(np.ones((8, 6), np.int8), "int8")}, {}, '"b" is int8, expected fp32'),
    "out": ({"c": Array(np.ones((4, 6), np.int32), "int32")}, {}, '"c" is int32, expected fp32'),
    "scale": ({"col_scale": fp32(6)}, {}, '"col_scale" is for int8'),
    "overlap": (
        {
            "c": Array(
                np.lib.stride_tricks.as_strided(np.ones(64, np.float32), (4, 6), (0, 4)), "fp32"
            )
        },
        {},
        'make elements of "c" overlap',
    ),
    "panel": ({"b": fp32(8, 1, 16, 1)}, {"b_layout": 2}, 'dimension 0 of "b" is 8, expected 1'),
}


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_refuses_in_one_sentence(name: str) -> None:
    tensors, attrs, sentence = REFUSALS[name]
    all_tensors = {"a": fp32(4, 8), "b": fp32(8, 6), "c": fp32(4, 6)} | tensors
    status, error = host_lib.call(host_lib.library(), all_tensors, attrs)
    assert status == host_lib.REFUSED
    assert sentence in error


def test_broadcast_inputs_are_handled() -> None:
    """Zero strides of inputs repeat one row or column."""
    row = np.arange(8, dtype=np.float32)
    a = np.lib.stride_tricks.as_strided(row, (40, 8), (0, 4))
    c = np.zeros((40, 6), np.float32)
    tensors = {"a": Array(a, "fp32"), "b": fp32(8, 6), "c": Array(c, "fp32")}
    assert host_lib.call(host_lib.library(), tensors, {}) == (0, "")
    assert (c == 28).all()


@pytest.mark.parametrize("m, n", ((0, 5), (5, 0), (0, 0)))
def test_empty_outputs_are_a_no_op(m: int, n: int) -> None:
    for layout in (KN, NK, PANEL16):
        cases.check(host_lib.library(), Problem(m, n, 7, layout=layout))


PROBE = """
import ctypes, sys
lib = ctypes.CDLL(sys.argv[1])
lib.tw_cpu_level.restype = lib.tw_cpu_level_error.restype = ctypes.c_char_p
print(lib.tw_cpu_level().decode())
print((lib.tw_cpu_level_error() or b"").decode())
"""


@pytest.mark.parametrize("wanted", ("", *LEVELS, "avx1024"))
def test_environment_chooses_the_level(wanted: str) -> None:
    library = host_lib.library()
    command = [sys.executable, "-c", PROBE, library._name]
    environment = {**os.environ, "TILEWRIGHT_ISA": wanted}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    level, error = done.stdout.split("\n")[:2]
    usable = host_lib.usable_levels()
    if wanted == "":
        assert (level, error) == (usable[-1], "")
    elif wanted in usable:
        assert (level, error) == (wanted, "")
    else:
        assert level == "none"
        assert f'TILEWRIGHT_ISA is "{wanted}"' in error
        assert ",".join(usable) in error
