"""The workbench module: raw kernels, timers, libraries."""

from __future__ import annotations

import inspect
import os
import threading
import time

import numpy as np
import pytest
import torch

from tilewright import native
from tilewright.backends.host import attributes, view
from tilewright.bindings.table import op_of
from tilewright.errors import Refused, TilewrightError, Unavailable, UsageError
from tilewright.registry import families, family
from tilewright.targets import CPU

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason=str(native.why_missing()))
GEMM = family("gemm")


def prepared(m: int = 5, n: int = 19, k: int = 33, **changes: torch.Tensor | None):  # type: ignore[no-untyped-def]
    """A prepared fp32 call with its tensors, kept alive by the caller."""
    values: dict[str, torch.Tensor | None] = {
        "a": torch.randn(m, k),
        "b": torch.randn(n, k),
        "bias": None,
        "row_scale": None,
        "col_scale": None,
        "c": torch.zeros(m, n),
        **changes,
    }
    case = GEMM.spec.case({"M": m, "N": n, "K": k}, "fp32")
    attrs = attributes(GEMM.spec, case, GEMM.spec.default_config(CPU))
    tensors = [view(name, value) for name, value in values.items()]
    return native.module().prepare(native.host_function(GEMM), tensors, attrs, 1), values


def test_every_family_has_its_raw_function() -> None:
    ops = native.module().ops
    for name, found in families().items():
        if not (found.built_in and found.has("host.cpp")):
            continue
        op = op_of(found)
        signature = inspect.getdoc(getattr(ops, name)) or ""
        heading = signature.splitlines()[0]
        for argument in op.raw_arguments():
            assert f"{argument.name}: " in heading
        assert op.summary in signature


def test_a_raw_call_on_numpy_and_on_torch() -> None:
    ops = native.module().ops
    rng = np.random.default_rng(3)
    a = rng.standard_normal((5, 33), dtype=np.float32)
    b = rng.standard_normal((33, 19), dtype=np.float32)
    c = np.zeros((5, 19), dtype=np.float32)
    ops.gemm(a, b, None, None, None, c, b_layout="KN")
    np.testing.assert_allclose(c, a @ b, atol=1e-4)
    out = torch.zeros(19, 5)
    ops.gemm(torch.from_numpy(a), torch.from_numpy(b).t(), None, None, None, out.t())
    torch.testing.assert_close(out.t(), torch.from_numpy(c))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"b": np.zeros((19, 32), np.float32)}, r"b has shape \[19, 32\]"),
        ({"a": "text"}, "a is a str; accepted: a buffer"),
        ({"c": None}, "the output c is missing"),
        ({"a": np.zeros((5, 33), np.complex64)}, "a is a buffer of format"),
    ],
)
def test_a_raw_call_refuses_in_one_sentence(changes: dict[str, object], sentence: str) -> None:
    values = {
        "a": np.ones((5, 33), np.float32),
        "b": np.ones((19, 33), np.float32),
        "bias": None,
        "row_scale": None,
        "col_scale": None,
        "c": np.zeros((5, 19), np.float32),
    }
    with pytest.raises(UsageError, match=sentence):
        native.module().ops.gemm(*{**values, **changes}.values())


def test_a_read_only_output_is_refused() -> None:
    out = np.zeros((5, 19), np.float32)
    out.flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        native.module().ops.gemm(
            np.ones((5, 33), np.float32), np.ones((19, 33), np.float32), None, None, None, out
        )


def test_prepared_runs_on_the_same_memory_again() -> None:
    call, values = prepared()
    call.run()
    first = values["c"].clone()
    values["a"].mul_(2)
    call.run()
    torch.testing.assert_close(values["c"], 2 * first)


def test_a_kernel_that_declines_raises_refused() -> None:
    call, _ = prepared(b=torch.randn(19, 12))
    with pytest.raises(Refused, match="b"):
        call.run()


def test_bad_views_are_refused() -> None:
    prepare = native.module().prepare
    address = native.host_function(GEMM)
    with pytest.raises(UsageError, match="a has 2 sizes and 1 strides"):
        prepare(address, [("a", 0, 0, (2, 2), (1,))], {}, 1)
    with pytest.raises(UsageError, match="negative size -3"):
        prepare(address, [("a", 0, 0, (-3, 2), (2, 1))], {}, 1)


def test_samples_are_times_of_batches() -> None:
    call, _values = prepared(m=64, n=256, k=256)
    call.run()
    single = call.time(9)
    batch = call.time(9, batch=8)
    assert len(single) == len(batch) == 9 and min(single) > 0
    assert sorted(batch)[4] > 3 * sorted(single)[4]
    assert len(call.time(2, flush_bytes=1 << 20)) == 2
    with pytest.raises(UsageError, match="batch 0"):
        call.time(1, batch=0)


def test_a_flush_runs_on_every_processor_of_this_process() -> None:
    flush = native.module().flush_caches
    assert sorted(flush(1 << 20)) == sorted(os.sched_getaffinity(0))
    with pytest.raises(UsageError, match="-1 bytes to flush; accepted: 0 or more"):
        flush(-1)


def test_pairs_are_interleaved_and_told_apart() -> None:
    small, _a = prepared(m=8, n=64, k=64)
    large, _b = prepared(m=64, n=512, k=512)
    for call in (small, large):
        call.run()
    first, second = small.time_pair(large, 6)
    assert len(first) == len(second) == 12
    assert sorted(first)[6] < sorted(second)[6]


def test_timing_lets_other_threads_run() -> None:
    call, _values = prepared(m=64, n=512, k=512)
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    other = threading.Thread(target=tick)
    other.start()
    call.time(40)
    done.set()
    other.join()
    assert ticks > 3


def test_libraries_and_symbols() -> None:
    module = native.module()
    with pytest.raises(Unavailable, match="cannot load a native library"):
        module.load_library("/nowhere/libnothing.so")
    with pytest.raises(TilewrightError, match="does not export tw_host_nothing"):
        module.symbol(str(native.library("host")), "tw_host_nothing")


def test_levels_can_be_forced_and_compute_the_same() -> None:
    module = native.module()
    before = module.cpu_level()
    try:
        for level in module.cpu_levels():
            module.force_level(level)
            assert module.cpu_level() == level
            call, values = prepared()
            call.run()
            torch.testing.assert_close(
                values["c"], values["a"] @ values["b"].t(), atol=1e-4, rtol=1e-4
            )
        with pytest.raises(
            UsageError, match="ISA level 'sse9' cannot be had on this CPU; accepted: scalar"
        ):
            module.force_level("sse9")
    finally:
        module.force_level(None)
    assert module.cpu_level() == before


needs_twin = pytest.mark.skipif(
    "twin" not in native.library_paths(), reason="the twin is not built"
)


@needs_twin
def test_a_kernel_runs_on_the_twin() -> None:
    from tilewright.ascendc.ops.gemm import planning

    m, n, k = 20, 40, 48
    plan = planning.plan(
        planning.Dims(m, n, k), "fp16", "KN", planning.DEFAULT_CONFIG, "910b1", bias=False
    )
    rng = np.random.default_rng(5)
    a = rng.standard_normal((m, k)).astype(np.float16)
    b = rng.standard_normal((k, n)).astype(np.float16)
    c = np.full((m, n), np.nan, np.float16)
    tiling = np.frombuffer(plan.tiling, np.uint8).copy()
    buffers = {
        "a": a,
        "b": b,
        "bias": None,
        "scale": None,
        "c": c,
        "workspace": None,
        "tiling": tiling,
    }
    args = [
        (name, "buffer", 0 if v is None else v.ctypes.data, 0 if v is None else v.nbytes)
        for name, v in buffers.items()
    ]
    report = native.module().twin_run(plan.kernel, "910b1", args, plan.block_dim)
    assert report["ok"] and report["findings"] == []
    np.testing.assert_allclose(
        c.astype(np.float32), a.astype(np.float32) @ b.astype(np.float32), rtol=2e-2, atol=2e-2
    )
    args[1] = ("b", "buffer", b.ctypes.data, b.nbytes // 2)
    report = native.module().twin_run(plan.kernel, "910b1", args, plan.block_dim)
    assert not report["ok"] and report["findings"]


@needs_twin
def test_the_twin_refuses_in_one_sentence() -> None:
    module = native.module()
    with pytest.raises(TilewrightError, match="no kernel 'nothing'"):
        module.twin_run("nothing", "910b1", [], 1)
    with pytest.raises(UsageError, match="argument 'a' of kind 'address' with 3 parts; accepted"):
        module.twin_run("gemm_fp16", "910b1", [("a", "address", 1)], 1)
    with pytest.raises(UsageError, match="no parameters for '950'"):
        module.twin_soc("950")
    assert module.twin_soc("910b1")["cube_cores"] == 24


def test_ceilings_are_rates_of_this_machine() -> None:
    module = native.module()
    assert module.ceiling_read_gbps(1 << 14, 1, 0.01) > 0.1
    assert module.ceiling_write_gbps(1 << 14, 1, 0.01) > 0.1
    assert module.ceiling_flops("fp32", 1, 0.01) > 0.1
    with pytest.raises(
        UsageError, match="no compute ceiling for 'fp4'; accepted: fp32, bf16, fp16, int8"
    ):
        module.ceiling_flops("fp4", 1, 0.01)
