"""gemm's Triton kernel lowered for the 910B by the real compilers, and workers that misbehave."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import itertools
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandLine
from tilewright import toolchains
from tilewright.aot.ascend import LoweredKernel, lower_pool
from tilewright.errors import Unavailable, UsageError
from tilewright.kernels.gemm import triton as gemm
from tilewright.targets import target

SMALL = {"tile_m": 32, "tile_n": 32, "tile_k": 32, "l1_buffers": 2, "unit_flag": 0}
REJECTING = 'import sys\nfor line in sys.stdin: print(\'{"ok":false,"stage":"triton","log":"no","status":1}\', flush=True)'
KN, NK = {"b_layout": "KN"}, {"b_layout": "NK"}
ON = "ascend:910b1"


def lowered(
    *configs: dict[str, int],
    precision: str = "fp16",
    flags: dict[str, str] = KN,
    on: str = ON,
    workers: int = 1,
) -> list[LoweredKernel]:
    return list(lower_pool(gemm, precision, flags, configs, on, workers=workers))


def tiles(m: int, n: int, k: int) -> dict[str, int]:
    return {**SMALL, "tile_m": m, "tile_n": n, "tile_k": k}


@pytest.mark.usefixtures("ascend_ir")
def test_the_default_config_plans_what_it_must() -> None:
    (row,) = lowered(SMALL)
    # Two 32x32 tiles of fp16 in L1, each twice; 32x32 floats in L0C; nothing for vector cores.
    assert (row.l1_bytes, row.l0c_bytes, row.ub_bytes) == (8192, 4096, 0)
    assert row.ok and row.cores == "cube" and row.workspace_bytes == 0 and row.block_syncs == 0
    assert row.cube_ops == 1 and row.vector_ops == 0 and row.operations is not None
    assert row.operations["nd2nz_half"] == 2 and row.operations["mma_tile_half_to_float"] == 1
    assert row.sync_flags and row.barriers
    (single,) = lowered({**SMALL, "l1_buffers": 1})
    assert (single.l1_bytes, single.l0c_bytes) == (4096, 4096)
    assert single.sync_flags is not None and single.sync_flags < row.sync_flags


@pytest.mark.usefixtures("ascend_ir")
def test_transposed_b_goes_through_the_vector_cores() -> None:
    (row,) = lowered(SMALL, flags=NK)
    assert row.cores == "mix" and row.ub_bytes == 2048 and row.l1_bytes == 8192
    assert row.workspace_bytes and row.block_syncs


@pytest.mark.usefixtures("ascend_ir")
@pytest.mark.parametrize("bias", ["no", "yes"])
@pytest.mark.parametrize("precision", list(gemm.PRECISIONS))
def test_every_precision_and_layout_lowers(precision: str, bias: str) -> None:
    for layout in gemm.LAYOUTS:
        flags = {"b_layout": layout, "bias": bias}
        (row,) = lowered(SMALL, precision=precision, flags=flags)
        assert row.ok and row.cube_ops == 1, row.error
        assert (row.cores == "mix") == (layout == "NK" or bias == "yes" or row.vector_ops != 0)


@pytest.mark.usefixtures("ascend_ir")
def test_bigger_tiles_never_lower_a_peak() -> None:
    """Without bias; with one, the planner of UB starts to share buffers when it gets tight."""
    sizes = (16, 32, 64)
    points = list(itertools.product(sizes, repeat=3))
    for flags in (KN, NK):
        rows = lowered(*(tiles(*p) for p in points), flags=flags, workers=2)
        by_tile = dict(zip(points, rows, strict=True))
        for (m, n, k), row in by_tile.items():
            assert row.ok and row.l0c_bytes == m * n * 4
            assert row.l1_bytes == 2 * (m + n) * k * 2
            for bigger in ((2 * m, n, k), (m, 2 * n, k), (m, n, 2 * k)):
                if (other := by_tile.get(bigger)) is not None:
                    assert (other.ub_bytes or 0) >= (row.ub_bytes or 0)


@pytest.mark.usefixtures("ascend_ir")
def test_an_overflow_is_a_row_in_words_and_bytes() -> None:
    good, bad, after = lowered(SMALL, tiles(256, 256, 32), SMALL)
    assert good.ok and after.ir_sha256 == good.ir_sha256
    assert not bad.ok and bad.error == "L0C overflow: 256 KiB needed, 128 KiB available"
    (over,) = bad.overflow
    assert (over.needed_bytes, over.available_bytes) == (262144, target(ON).limit("l0c_bytes"))
    assert bad.ir_sha256 is None and bad.l1_bytes is None and bad.evidence == "compiled"


@pytest.mark.usefixtures("ascend_ir")
def test_a_plan_without_the_double_buffers_it_was_asked_for_says_so() -> None:
    (row,) = lowered(tiles(256, 128, 256), precision="fp32")
    assert row.ok and row.l1_bytes == (256 + 128) * 256 * 4
    assert "enable-auto-multi-buffer" in row.fallbacks
    assert row.notes[0].startswith("L1 overflowed at first")


@pytest.mark.usefixtures("ascend_ir")
@pytest.mark.parametrize("chip", ["910b1", "910b2", "910b3", "910b4"])
def test_the_compiler_describes_the_chip_as_the_target_table_does(chip: str) -> None:
    (row,) = lowered(SMALL, on=f"ascend:{chip}")
    said = {k: int(v) for k, v in re.findall(r'dl_entry<"(\w+)", (\d+)', row.ir)}
    limits = target(f"ascend:{chip}").limit
    assert said["CUBE_CORE_COUNT"] == limits("aic_cores")
    assert said["VECTOR_CORE_COUNT"] == limits("aiv_cores")
    for memory in ("l1", "l0a", "l0b", "l0c"):
        assert said[f"{memory.upper()}_SIZE"] == 8 * limits(f"{memory}_bytes")
    # The compiler plans with the 256 bytes that AscendC keeps for itself.
    assert said["UB_SIZE"] == 8 * (limits("ub_bytes") + 256)


@pytest.mark.usefixtures("ascend_ir")
def test_what_the_family_or_the_front_end_refuses_is_a_row(tmp_path: Path) -> None:
    refused, taken = lowered(tiles(32, 32, 16), SMALL, precision="int8->int32")
    assert refused.error == "triton gemm takes tile_k >= 32 for int8 operands, not 16"
    assert taken.ok and refused.evidence is None and refused.family == "gemm"


@pytest.mark.usefixtures("ascend_ir")
def test_the_command_lowers_a_pool_and_says_there_is_no_binary(tilewright: CommandLine) -> None:
    ran = tilewright(
        *("compile", "gemm", "--target", "ascend:910b1,ascend:910b3", "--dtype", "fp16"),
        *("--flags", "b_layout=KN", "--pool", "--limit", "25", "--workers", "2", "--json", "-"),
    )
    assert ran.code == 0, ran.err
    rows = ran.document["rows"]
    documented = (
        "target config ok binary_sha256 regs spill_bytes shared_bytes matrix_instructions "
        "async_copies l0c_bytes l1_bytes ub_bytes error evidence toolchain sync_flags barriers "
        "cube_ops vector_ops copy_ops ir_sha256"
    )
    assert len(rows) == 50 and all(set(documented.split()) <= row.keys() for row in rows)
    assert all(r["binary_sha256"] is None and r["regs"] is None for r in rows)
    assert {r["evidence"] for r in rows} == {"compiled"}
    good, bad = [r for r in rows if r["ok"]], [r for r in rows if not r["ok"]]
    assert bad and all("overflow: " in r["error"] for r in bad)
    assert all(len(r["ir_sha256"]) == 64 and r["l1_bytes"] > 0 for r in good)
    assert rows[0]["toolchain"] == "triton-ascend 3.2.0, ascendnpu-ir 1.2.0"
    assert "planned HIVM, no binary: hivmc is CANN-only" in ran.err


@pytest.mark.usefixtures("ascend_ir")
def test_one_config_that_does_not_fit_is_exit_one_and_ignored_fields_are_named(
    tilewright: CommandLine,
) -> None:
    config = '{"tile_m":256,"tile_n":256,"num_warps":8,"step_ka":2}'
    ran = tilewright("compile", "gemm", "--target", ON, "--dtype", "fp16", "--config", config)
    assert ran.code == 1
    assert "L0C overflow: 256 KiB needed, 128 KiB available" in ran.out
    assert "ascend:910b1 ignores num_warps, step_ka" in ran.out


@pytest.mark.usefixtures("ascend_ir")
def test_the_matrix_and_doctor_know_the_toolchain(tilewright: CommandLine) -> None:
    rows = tilewright("list", "gemm", "--backend", "triton", "--json", "-").document["rows"]
    cells = [r for r in rows if r["target"].startswith("ascend:")]
    assert cells and all(r["state"] == "compile" and "hivmc" in r["reason"] for r in cells)
    doctor = tilewright("doctor", "--no-ceilings", "--json", "-").document["rows"]
    (found,) = [r for r in doctor if r["name"] == "ascend-ir toolchain"]
    assert found["ok"] is True and found["value"] == "triton-ascend 3.2.0, ascendnpu-ir 1.2.0"
    # The twin still is what values configs of the 910B.
    ran = tilewright("check", "gemm", "--backend", "triton", "--target", ON)
    assert ran.code == 3 and "triton on ascend:910b1 is 'compile'" in ran.err


@pytest.mark.usefixtures("ascend_ir")
def test_tuning_the_910b_still_goes_to_the_twin() -> None:
    from tilewright.autotune.valuing.objective import pick_backend
    from tilewright.registry import family

    assert pick_backend(family("gemm"), target(ON), "fp16").name == "ascendc"


FAKES = {
    "crash": "import os, signal, sys\nsys.stdin.readline()\nos.kill(os.getpid(), signal.SIGSEGV)",
    "traceback": "import sys\nsys.stdin.readline()\nraise MemoryError('out of it')",
    "gone": "raise SystemExit(4)",
    "hang": "import time\ntime.sleep(60)",
    "noise": "import sys\nsys.stdin.readline()\nprint('hello', flush=True)\nsys.stdin.readline()",
}


@pytest.mark.parametrize(
    ("fake", "error"),
    [
        ("crash", "the Ascend compiler crashed (SIGSEGV)"),
        ("traceback", "the Ascend compiler ended with status 1: MemoryError: out of it"),
        ("gone", "the Ascend compiler ended with status 4"),
        ("hang", "the Ascend compiler gave no answer within 0.5 s and was stopped"),
        ("noise", "the Ascend compiler answered with something else than JSON"),
    ],
)
def test_a_worker_that_misbehaves_fails_its_own_rows(fake: str, error: str) -> None:
    timeout = 0.5 if fake == "hang" else 30.0
    command = [sys.executable, "-c", FAKES[fake]]
    rows = list(
        lower_pool(gemm, "fp16", KN, [SMALL, SMALL], ON, command=command, timeout_s=timeout)
    )
    assert [r.ok for r in rows] == [False, False]
    assert {r.error for r in rows} == {error}


def test_a_worker_that_is_stopped_takes_its_compiler_along(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = (
        "import subprocess, sys\nsys.stdin.readline()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid))\nchild.wait()"
    )
    command = [sys.executable, "-c", program]
    (row,) = lower_pool(gemm, "fp16", KN, [SMALL], ON, command=command, timeout_s=3)
    assert "no answer within 3 s" in row.error
    status = Path("/proc") / pid.read_text() / "status"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and status.exists() and "State:\tZ" not in status.read_text():
        time.sleep(0.05)
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_pool_can_be_left_early_and_leaves_no_worker() -> None:
    rows = lower_pool(gemm, "fp16", KN, [SMALL] * 8, ON, command=[sys.executable, "-c", REJECTING])
    assert next(rows).error == "triton-ascend rejects it: no"
    rows.close()  # type: ignore[attr-defined]
    assert list(rows) == []


def test_requests_are_made_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 fails now and then where two threads parse; the compilers do the work side by side."""
    lower = importlib.import_module("tilewright.aot.ascend.lower")
    made, inside, most = lower.kernel_text, 0, 0

    def kernel_text(kernel: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)
        inside -= 1
        return made(kernel)

    class Fresh:
        """gemm with a kernel of its own for every config, so that each has a text to make."""

        __name__, kernel = gemm.__name__, gemm.kernel

        def aot(self, *given: Any, **named: Any) -> Any:
            source = gemm.aot(*given, **named)
            return dataclasses.replace(source, fn=copy.copy(source.fn))

    monkeypatch.setattr(lower, "kernel_text", kernel_text)
    command = [sys.executable, "-c", REJECTING]
    rows = list(lower_pool(Fresh(), "fp16", KN, [SMALL] * 6, ON, command=command, workers=4))  # type: ignore[arg-type]
    assert {r.error for r in rows} == {"triton-ascend rejects it: no"} and most == 1


def test_a_broken_family_fails_its_own_row() -> None:
    class Broken:
        __name__ = "families.broken.triton"
        kernel = None

        def aot(self, *_: object, **__: object) -> object:
            raise KeyError("num_warps")

    command = [sys.executable, "-c", ""]
    (row,) = lower_pool(Broken(), "fp16", {}, [SMALL], ON, command=command)  # type: ignore[arg-type]
    assert (
        row.family == "broken" and "does not take a config of ascend:910b1: KeyError" in row.error
    )


def test_only_ascend_targets_take_this_road(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="cuda:sm_90 is no Ascend target"):
        lowered(SMALL, on="cuda:sm_90")
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    wanted = (
        toolchains.unsupported(toolchains.toolchain("ascend-ir")) or "toolchain install ascend-ir"
    )
    with pytest.raises(Unavailable, match=wanted):
        lowered(SMALL)


FAMILY = '''"""A kernel of another family: a helper, a constant, and what another GPU's Triton knows."""

import triton
import triton.language as tl

from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, argument

EPS = tl.constexpr(1e-6)


@triton.jit
def largest(v):
    return EPS + tl.max(tl.abs(v), 0)


@triton.jit
def kernel(x, y, n, N: tl.constexpr, NEWER: tl.constexpr):
    at = tl.arange(0, N)
    if NEWER:
        v = tl.make_tensor_descriptor(x, [n], [1], [N]).load([0])
    else:
        v = tl.load(x + at, mask=at < n, other=0.0)
    tl.store(y + at, v / largest(v), mask=at < n)


def aot(precision, flags, config, target, *, aligned=True):
    pointers = (argument("x", "*fp32", "data:x", 16), argument("y", "*fp32", "data:y", 16))
    return AotSource(
        family="norm", fn=kernel, precision=precision, flags=flags, config=config, target=target,
        args=(*pointers, argument("n", "int32", "size:x:0")),
        constexprs={"N": config["tile_n"], "NEWER": config["tile_m"] == 2},
        options={}, grid=Grid("1"),
    )
'''


@pytest.mark.usefixtures("ascend_ir")
def test_another_family_lowers_and_its_failures_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "norm_triton.py"
    path.write_text(FAMILY)
    spec = importlib.util.spec_from_file_location("families.norm.triton", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    configs = [{"tile_m": 1, "tile_n": 1024}, {"tile_m": 2, "tile_n": 1024}]
    configs += [{"tile_m": 1, "tile_n": 65536}]
    good, newer, huge = lower_pool(module, "fp32", {}, configs, ON)
    assert good.ok and good.cores == "vector" and good.cube_ops == 0, good.error
    # A thousand floats, and what the reduction needs.
    assert good.ub_bytes is not None and 4096 < good.ub_bytes < 16384
    assert not newer.ok and newer.error.startswith("triton-ascend rejects it: ")
    assert huge.error.startswith("UB overflow: ") and huge.overflow[0].memory == "UB"


def test_a_kernel_that_cannot_be_lowered_says_why(tilewright: CommandLine) -> None:
    listed = tilewright("list", "beam_topk", "--json", "-")
    cells = [r for r in listed.document["rows"] if r["backend"] == "triton"]
    ascend = [r for r in cells if r["target"].startswith("ascend")]
    assert ascend and all(r["state"] == "absent" and "64 bits" in r["reason"] for r in ascend)
    assert any(r["state"] == "compile" for r in cells if r not in ascend)
    both = tilewright("compile", "beam_topk", "--target", f"cuda:sm_90,{ON}", "--dtype", "fp32")
    assert both.code == 0 and "not lowered for Ascend: AscendNPU-IR sorts" in both.out + both.err
    alone = tilewright("compile", "beam_topk", "--target", ON)
    assert (
        alone.code == 3 and "not lowered for Ascend" in alone.err and "Traceback" not in alone.err
    )
