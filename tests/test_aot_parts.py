"""Grids, sources, metrics and judgements of ahead-of-time compilation, without compiling anything."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tilewright import aot
from tilewright.aot.compile import hidden_parameters
from tilewright.aot.metrics import _SASS_ASYNC, _SASS_LINE, _SASS_MATRIX, count, read_metrics
from tilewright.errors import UsageError
from tilewright.kernels.gemm import triton as gemm
from tilewright.targets import target

DEFAULT = {"tile_m": 32, "tile_n": 32, "tile_k": 32, "num_warps": 4, "num_stages": 2, "group_m": 8}


def test_importing_the_package_imports_no_compiler() -> None:
    program = "import sys, tilewright.aot; print(sorted({'triton', 'torch'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@given(m=st.integers(0, 10**6), n=st.integers(0, 10**6), tile=st.integers(1, 512))
def test_a_grid_covers_every_tile_and_its_postfix_means_the_same(m: int, n: int, tile: int) -> None:
    grid = aot.Grid(f"cdiv(M, {tile}) * max(N, 1)", "min(N, 7) + 2 - 1", "N // 1000000 + 1")
    assume_x = -(-m // tile) * max(n, 1)
    if assume_x > 2**31 - 1:
        with pytest.raises(UsageError, match="exceeds"):
            grid.evaluate({"M": m, "N": n})
        return
    assert grid.evaluate({"M": m, "N": n}) == (assume_x, min(n, 7) + 1, n // 10**6 + 1)


def test_postfix_is_what_a_stack_machine_needs() -> None:
    grid = aot.Grid("cdiv(M, 32) * cdiv(N, 64)")
    assert grid.postfix() == (("M", 32, "cdiv", "N", 64, "cdiv", "*"), (1,), (1,))


FORMULAS = st.recursive(
    st.sampled_from(["M", "N", "0", "7", "32"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", " * ", "//"]), inner).map("".join),
        st.tuples(st.sampled_from(["cdiv", "min", "max"]), inner, inner).map(
            lambda call: f"{call[0]}({call[1]}, {call[2]})"
        ),
        inner.map(lambda text: f"({text})"),
    ),
)


@given(text=FORMULAS, m=st.integers(0, 9), n=st.integers(0, 9))
def test_a_formula_is_worth_what_python_makes_of_it(text: str, m: int, n: int) -> None:
    names = {"M": m, "N": n, "min": min, "max": max, "cdiv": lambda a, b: -(-a // b)}
    try:
        want = eval(text, {"__builtins__": {}}, names)
    except ZeroDivisionError:
        with pytest.raises(UsageError, match="by zero"):
            aot.Grid(text).evaluate({"M": m, "N": n})
        return
    assume(want <= 65535)
    assert aot.Grid("1", text).evaluate({"M": m, "N": n})[1] == want


@pytest.fixture
def restless() -> Iterator[None]:
    """Python code runs, and threads take turns, wherever objects are made."""
    before, interval = gc.get_threshold(), sys.getswitchinterval()

    def nothing(phase: str, info: dict[str, int]) -> None:
        """Called by the collector."""

    gc.callbacks.append(nothing)
    gc.set_threshold(20)
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*before)
        gc.callbacks.remove(nothing)


@pytest.mark.usefixtures("restless")
def test_formulas_are_read_while_another_thread_parses_python() -> None:
    done = threading.Event()

    def parse() -> None:
        while not done.is_set():
            ast.parse("def f(x):\n    return [g(h(i + 2)) for i in x]\n" * 20)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(parse)
        try:
            for seed in range(2000):
                assert aot.Grid(f"cdiv(M, {seed} + 1)").evaluate({"M": seed + 2})[0] == 2
        finally:
            done.set()
        other.result()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("M +", "ends too early"),
        ("M ** 2", r"holds '\*\*' where it means nothing; accepted: names"),
        ("M / 2", "holds '/'"),
        ("-M", "holds '-'"),
        ("open(M, N)", "holds 'open'"),
        ("M.x", r"holds '\.'"),
        ("M N", "holds 'N'"),
        ("M)", r"holds '\)'"),
        ("cdiv(M)", "lacks a ','"),
        ("cdiv(M, N", r"lacks a '\)'"),
        ("cdiv", r"lacks a '\('"),
        ("max(M, N, 2)", r"lacks a '\)'"),
        ("True", "holds 'True'"),
        ("1.5", r"holds '\.'"),
        ("0x10", "holds '0x10'"),
        ("1_000", "holds '1_000'"),
        ("007", "holds '007'"),
        ("", "ends too early"),
        ("(" * 100_000 + "M", "nests too deeply"),
    ],
)
def test_other_formulas_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        aot.Grid(text)


def test_a_grid_says_what_is_missing_or_divides_by_zero() -> None:
    with pytest.raises(UsageError, match="needs 'N'; given: M"):
        aot.Grid("M * N").evaluate({"M": 1})
    with pytest.raises(UsageError, match="divides 3 by zero"):
        aot.Grid("cdiv(M, N)").evaluate({"M": 3, "N": 0})


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("layout", ["KN", "NK"])
@pytest.mark.parametrize("precision", list(gemm.PRECISIONS))
def test_every_parameter_of_gemm_is_accounted_for(
    precision: str, layout: str, aligned: bool
) -> None:
    source = gemm.aot(precision, {"b_layout": layout}, DEFAULT, "cuda:sm_80", aligned=aligned)
    assert list(source.signature) == list(source.fn.arg_names)
    scaled = precision.startswith("int8->") and precision != "int8->int32"
    assert ("row_scale" in {a.name for a in source.args}) == scaled
    assert next(a for a in source.args if a.name == "bias").nullable
    assert all((v > 1) == aligned for ((_, v),) in source.attrs.values()) and (
        bool(source.attrs) == aligned
    )
    steps = {a.multiple_of for a in source.args if a.source.startswith(("stride", "size"))}
    width = 1 if "int8" in precision else 4 if precision == "fp32" else 2
    assert steps == ({1, 16 // width} if aligned else {1})
    # Which stride of b is one follows from its layout; the other is an argument.
    assert ("stride_bn" in source.constexprs) == (layout == "KN")


def test_per_column_scale_drops_the_row_scale() -> None:
    source = gemm.aot("int8->fp16", {"scale": "col"}, DEFAULT, "cuda:sm_80")
    assert "row_scale" in source.constexprs and source.constexprs["SCALE"] == 2
    with pytest.raises(UsageError, match="unknown scale of int8->fp16 'none'"):
        gemm.aot("int8->fp16", {"scale": "none"}, DEFAULT, "cuda:sm_80")


def test_a_source_that_misses_or_misorders_parameters_is_refused() -> None:
    good = gemm.aot("fp16", {}, DEFAULT, "cuda:sm_80")

    def remade(args: tuple[aot.KernelArg, ...]) -> aot.AotSource:
        fields = {name: getattr(good, name) for name in aot.AotSource.__slots__}
        return aot.AotSource(**{**fields, "args": args})

    assert remade(good.args) == good
    with pytest.raises(UsageError, match="'a' is neither argument nor constexpr"):
        remade(good.args[1:])
    with pytest.raises(UsageError, match="not in the order"):
        remade(good.args[::-1])
    with pytest.raises(UsageError, match="'extra' is not a parameter"):
        remade((*good.args, aot.argument("extra", "int32", "size:a:0")))


def test_hidden_parameters_are_two_addresses_at_the_end() -> None:
    first, second = hidden_parameters((128, 16, 0, 1))
    assert (first.scratch_bytes, first.scratch_align, second.scratch_bytes) == (128, 16, 0)
    assert first.bytes == 8 and first.source == "scratch" and first.nullable


SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDGSTS.E.BYPASS.128 [R4], desc[UR6][R8.64] ;
        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0030*/         {         HGMMA.64x64x16.F32 R24, gdesc[UR8], R24, gsb0 ;
        /*0040*/             @UP1  UTMALDG.2D [UR8], [UR4] ;
        /*0050*/              @P0  UTCHMMA gdesc[UR8], gdesc[UR10], tmem[UR4] ;
        /*0060*/                   IMMA.16832.S8.S8 R4, R8.ROW, R12.COL, R4 ;
        /*0070*/                   FFMA R1, R2, R3, R4 ;  // HMMA in a comment
"""


def test_instructions_are_counted_by_name() -> None:
    names = _SASS_LINE.findall(SASS)
    assert count(names, _SASS_MATRIX) == {"HGMMA": 1, "HMMA": 1, "IMMA": 1, "UTCHMMA": 1}
    assert count(names, _SASS_ASYNC) == {"LDGSTS": 1, "UTMALDG": 1}


AMD = """
	v_mfma_f32_32x32x8_f16 a[0:15], v[0:1], v[2:3], a[0:15]
	v_mfma_f32_32x32x8_f16 a[0:15], v[4:5], v[2:3], a[0:15]
	global_load_lds_dword v[0:1], off
	buffer_load_dword v1, s[0:3], 0 offen lds
	buffer_load_dword v1, s[0:3], 0 offen
    .private_segment_fixed_size: 24
    .group_segment_fixed_size: 0
    .vgpr_count:     52
"""


def test_amd_metrics_come_from_the_assembly() -> None:
    metrics = read_metrics(target("hip:gfx942"), b"", AMD, 4096)
    assert metrics.matrix_instructions == {"v_mfma_f32_32x32x8_f16": 2}
    assert metrics.async_copies == {"buffer_load_dword": 1, "global_load_lds_dword": 1}
    assert (metrics.regs, metrics.spill_bytes, metrics.shared_bytes) == (52, 24, 4096)


def judged(name: str, warps: int = 4, **fields: int) -> aot.Judgement:
    values = {"regs": 32, "spill_bytes": 0, "shared_bytes": 0, "tmem_columns": 0, **fields}
    metrics = aot.Metrics(**values, matrix_instructions={}, async_copies={})
    return aot.judge(metrics, target(name), warps)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("cuda:sm_80", 166912),
        ("cuda:sm_90", 232448),
        ("cuda:sm_100", 232448),
        ("hip:gfx942", 65536),
    ],
)
def test_shared_memory_is_judged_to_the_byte(name: str, most: int) -> None:
    assert judged(name, shared_bytes=most).ok
    over = judged(name, shared_bytes=most + 1)
    assert not over.ok and over.occupancy == 0
    assert f"{name} has {most}" in over.error


def test_threads_registers_and_tensor_memory_are_judged() -> None:
    assert judged("cuda:sm_80", warps=32).ok
    assert "threads per block" in judged("cuda:sm_80", warps=64).error
    assert "threads per block" in judged("hip:gfx942", warps=32).error
    assert judged("cuda:sm_80", warps=8, regs=255).ok
    assert "registers per block" in judged("cuda:sm_80", warps=16, regs=255).error
    assert "registers per thread" in judged("cuda:sm_90", regs=256).error
    assert judged("cuda:sm_100", tmem_columns=512).ok
    assert "tensor memory" in judged("cuda:sm_90", tmem_columns=128).error


def test_occupancy_is_bound_by_the_scarcest_resource() -> None:
    # sm_80: 64 warps, 65536 registers, 164 KiB of which each block's share grows by 1 KiB.
    assert judged("cuda:sm_80", regs=32).occupancy == 1.0
    assert judged("cuda:sm_80", regs=128).blocks_per_sm == 4
    assert judged("cuda:sm_80", shared_bytes=40 * 1024).blocks_per_sm == 4
    assert judged("cuda:sm_80", shared_bytes=41 * 1024).blocks_per_sm == 3
    assert judged("cuda:sm_80", warps=1).blocks_per_sm == 32
    assert judged("cuda:sm_100", tmem_columns=256).blocks_per_sm == 2
    assert judged("hip:gfx942", shared_bytes=32 * 1024).blocks_per_sm == 2


def test_spills_are_remarked_on_but_launch() -> None:
    verdict = judged("cuda:sm_80", spill_bytes=16)
    assert verdict.ok and verdict.notes == (
        "16 bytes of stack per thread: registers spill to memory",
    )
