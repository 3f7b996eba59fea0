"""What the Ascend road reads and writes as text: planned HIVM, compiler logs, kernels that travel."""

from __future__ import annotations

import textwrap
from types import ModuleType
from typing import Any

import pytest
import triton
import triton.language as tl

from tilewright.aot.ascend import failure, honoured, project
from tilewright.aot.ascend.hivm import read_plan
from tilewright.aot.ascend.kernel_text import kernel_text
from tilewright.errors import BuildFailed
from tilewright.kernels.gemm import triton as gemm

HALF = tl.constexpr(0.5)
LIMIT = tl.constexpr(7)
WIDE = tl.float32
NOT_FOR_KERNELS = {"a": 1}

MODULE = """
module attributes {dlti.x = #dlti.dl_entry<"UB_SIZE", 1572864 : i32>} {
  func.func @k_infer_workspace_shape_function() -> index attributes {hacc.function_kind = #hacc.function_kind<HOST>} {
    %c96 = arith.constant 96 : index
    return %c96 : index
  }
  func.func private @mma_tile_half_to_float(memref<?xf16, #hivm.address_space<cbuf>>) attributes {hivm.func_core_type = #hivm.func_core_type<AIC>}
  func.func private @nd2nz_half(memref<?xf16, #hivm.address_space<gm>>) attributes {hivm.func_core_type = #hivm.func_core_type<AIC>}
  func.func private @vadd_1d_float(memref<?xf32, #hivm.address_space<ub>>) attributes {hivm.func_core_type = #hivm.func_core_type<AIV>}
  func.func private @arange_1d_int32_t(memref<?xi32, #hivm.address_space<ub>>) attributes {hivm.func_core_type = #hivm.func_core_type<AIV>}
  func.func private @print_scalar_float_gm(f32) attributes {hivm.func_core_type = #hivm.func_core_type<AIV>}
  func.func @k_mix_aic(%arg0: memref<?xf16, #hivm.address_space<gm>>) attributes {hivm.func_core_type = #hivm.func_core_type<AIC>} {
    %c0_i64 = arith.constant 0 : i64
    %c64_i64 = arith.constant 64 : i64
    %0 = hivm.hir.pointer_cast(%c0_i64, %c64_i64) : memref<2x16xf16, #hivm.address_space<cbuf>>
    %1 = hivm.hir.pointer_cast(%c0_i64) : memref<2x2x4x4xf32, #hivm.address_space<cc>>
    hivm.hir.set_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID0>]
    %2 = scf.for %arg1 = %c0 to %c4 step %c1 iter_args(%arg2 = %arg0) -> (index) {
      hivm.hir.wait_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID0>]
      %7 = memref.load %0[%arg1] {DiscreteMemAccess} : memref<2x16xf16, #hivm.address_space<cbuf>>
      func.call @nd2nz_half(%arg2) : (memref<?xf16, #hivm.address_space<gm>>) -> ()
      func.call @mma_tile_half_to_float(%0) : (memref<?xf16, #hivm.address_space<cbuf>>) -> ()
    }
    hivm.hir.sync_block_set[<CUBE>, <PIPE_FIX>, <PIPE_S>] flag = 0
    hivm.hir.pipe_barrier[<PIPE_ALL>]
    return
  }
  func.func @k_mix_aiv(%arg0: memref<?xf16, #hivm.address_space<gm>>) attributes {hivm.func_core_type = #hivm.func_core_type<AIV>} {
    %c0_i64 = arith.constant 128 : i64
    %0 = hivm.hir.pointer_cast(%c0_i64) : memref<20xi1, #hivm.address_space<ub>>
    %1 = hivm.hir.pointer_cast(%c0_i64) : memref<4x8xf32, strided<[16, 1]>, #hivm.address_space<ub>>
    %2 = hivm.hir.pointer_cast(%c0_i64)[%n] : memref<?xf32, #hivm.address_space<ub>>
    %3 = hivm.hir.pointer_cast(%c9_i64) : memref<4xf32, #hivm.address_space<ub>>
    hivm.hir.sync_block_wait[<VECTOR>, <PIPE_FIX>, <PIPE_S>] flag = 0
    call @arange_1d_int32_t(%0) : (memref<?xi32, #hivm.address_space<ub>>) -> ()
    call @vadd_1d_float(%1) : (memref<?xf32, #hivm.address_space<ub>>) -> ()
    call @print_scalar_float_gm(%x) : (f32) -> ()
    hivm.hir.vexp ins(%1 : memref<?xf32>) outs(%1 : memref<?xf32>)
    return
  }
}
"""


def test_a_plan_has_peaks_flags_and_operations() -> None:
    plan = read_plan(MODULE)
    assert plan.cores == "mix"
    # L1: two buffers of 64 bytes; L0C: 64 floats; UB: 128 + strided 4x8 floats, (3 * 16 + 7 + 1) * 4.
    assert plan.peaks == {"cbuf": 128, "cc": 256, "ub": 128 + 56 * 4}
    assert plan.workspace_bytes == 96
    assert (plan.sync_flags, plan.barriers, plan.block_syncs) == (2, 1, 2)
    assert (plan.cube_ops, plan.copy_ops, plan.vector_ops, plan.other_ops) == (1, 1, 3, 1)
    assert plan.scalar_ops == plan.operations["memref.load"] == 1
    assert plan.operations["arange_1d_int32_t"] == 1 and plan.operations["vexp"] == 1
    # A size known at run time, and an address that is no constant of the function.
    assert plan.unplaced == 2


@pytest.mark.parametrize(
    ("memref", "size"),
    [
        ("memref<1024xi1, #hivm.address_space<ub>>", 128),
        ("memref<3xi1, #hivm.address_space<ub>>", 1),
        ("memref<0xf32, #hivm.address_space<ub>>", 0),
        ("memref<f32, #hivm.address_space<ub>>", 4),
        ("memref<2x3xbf16, #hivm.address_space<ub>>", 12),
        ("memref<5xi64, #hivm.address_space<ub>>", 40),
        ("memref<5xf8E4M3FN, #hivm.address_space<ub>>", 5),
        ("memref<2x4xi8, strided<[8, 1], offset: 16>, #hivm.address_space<ub>>", 12),
    ],
)
def test_sizes_of_buffers(memref: str, size: int) -> None:
    text = f"""
func.func @k() attributes {{hivm.func_core_type = #hivm.func_core_type<AIV>}} {{
  %c32_i64 = arith.constant 32 : i64
  %0 = hivm.hir.pointer_cast(%c32_i64) : {memref}
  return
}}
"""
    plan = read_plan(text)
    assert plan.peaks == {"ub": 32 + size} and plan.cores == "vector" and plan.unplaced == 0


@pytest.mark.parametrize("text", ["", "module {\n}\n", "no MLIR at all"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(BuildFailed, match="without a device function"):
        read_plan(text)


def test_overflows_are_words_and_bytes() -> None:
    log = (
        "[NOTE] Cc overflow detected; automatically set enable-code-motion to false and retrying compilation.\n"
        'loc("/x/kernel.mlir":2:3): error: cc overflow, requires 2097152 bits while 1048576 bits available! (why)\n'
        'loc("/x/kernel.mlir":2:3): error: ub overflow, requires 1585664 bits while 1572864 available\n'
        'loc("/x/kernel.mlir":2:3): error: cc overflow, requires 2097152 bits while 1048576 bits available! (why)\n'
    )
    assert failure.sentence("bishengir", log, 1) == (
        "L0C overflow: 256 KiB needed, 128 KiB available; "
        "UB overflow: 193.56 KiB needed, 192 KiB available"
    )
    assert failure.overflows(log)[1] == failure.Overflow("UB", 198208, 196608)


def test_a_plan_that_needed_a_fallback_says_which() -> None:
    log = (
        "[NOTE] Due to Cbuf overflow, automatically set enable-code-motion to false, "
        "set enable-auto-multi-buffer to false; compilation then succeeded.\n"
    )
    assert failure.fallbacks(log) == ("enable-code-motion", "enable-auto-multi-buffer")
    assert failure.fallback_notes(log)[0].startswith("L1 overflowed at first; the compiler turned")
    assert failure.fallbacks(log.replace("then succeeded", "still failed")) == ()


@pytest.mark.parametrize(
    ("stage", "log", "status", "sentence"),
    [
        ("bishengir", "", -11, "bishengir-compile crashed (SIGSEGV)"),
        ("adapter", "", -6, "triton-ascend's adapter crashed (SIGABRT)"),
        (
            "bishengir",
            "error: External hivmc run fails\nx: error: no such op\n",
            1,
            "bishengir-compile rejects it: no such op",
        ),
        ("triton", "at 3:4:\n  x = y\n  ^\nno y\n", 1, "triton-ascend rejects it: no y"),
        (
            "adapter",
            "",
            3,
            "triton-ascend's adapter rejects it: it ended with status 3 without a word",
        ),
    ],
)
def test_failures_are_one_sentence(stage: str, log: str, status: int, sentence: str) -> None:
    assert failure.sentence(stage, log, status) == sentence


def test_only_fields_that_the_road_honours_are_kept() -> None:
    config = {"tile_m": 32, "num_warps": 4, "step_ka": 2, "l1_buffers": 1, "unit_flag": 1}
    assert dict(project(config)) == {"tile_m": 32, "l1_buffers": 1, "unit_flag": 1}
    assert not honoured("num_stages") and honoured("tile_k")


@triton.jit
def twice(x):
    return x * LIMIT


@triton.jit
def caller(x, y, N: tl.constexpr):
    """Calls, names constants, and has a local that shares its name with a global of this module."""
    at = tl.arange(0, N)
    textwrap = twice(tl.load(x + at)).to(WIDE)  # noqa: F841
    tl.store(y + at, twice(tl.load(x + at)) * HALF)


@triton.jit
def stray(x):
    tl.store(x, len(NOT_FOR_KERNELS))


def executed(text: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The module of a text, with decorators that leave functions alone."""
    monkeypatch.setattr(triton, "jit", lambda fn: fn)
    module = ModuleType("travelled")
    exec(compile(text, "travelled", "exec"), module.__dict__)
    return module.__dict__


def test_a_kernel_travels_with_what_it_calls_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    text = kernel_text(caller)
    names = executed(text, monkeypatch)
    assert {"caller", "twice", "tl"} <= names.keys()
    assert names["HALF"].value == 0.5 and names["LIMIT"].value == 7
    assert names["WIDE"] == tl.float32
    assert text.index("def twice") < text.index("def caller")
    assert "tilewright" not in text and "import textwrap" not in text


def test_the_kernel_of_gemm_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    text = kernel_text(gemm.kernel)
    assert "tilewright" not in text.replace("see tilewright.interpret", "")
    assert callable(executed(text, monkeypatch)["kernel"])


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(BuildFailed, match="stray uses 'NOT_FOR_KERNELS', a dict"):
        kernel_text(stray)


def test_text_of_indented_kernels_is_dedented() -> None:
    assert textwrap.dedent(kernel_text(caller)) == kernel_text(caller)
