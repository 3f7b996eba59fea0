"""Every kind of finding, shown by a small faulty kernel: right kind, right line, nothing else."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
from twin_build import NATIVE, runner

SOURCE = NATIVE / "twin_faults.cpp"


def _expectations() -> dict[str, set[tuple[str, int]]]:
    expected: dict[str, set[tuple[str, int]]] = {}
    kernel = ""
    for number, line in enumerate(SOURCE.read_text().splitlines(), start=1):
        if start := re.match(r"KERNEL\((\w+)\)", line):
            kernel = start[1]
            expected[kernel] = set()
        if mark := re.search(r"// expect: ([\w-]+)$", line):
            expected[kernel].add((mark[1], number))
    return expected


EXPECTED = _expectations()


def run(
    kernel: str, x: np.ndarray, y: np.ndarray, blocks: int = 1, **options: object
) -> runner.TwinResult:
    buffers = [runner.Buffer.of("x", x), runner.Buffer.of("y", y)]
    return runner.run(
        twin_build.twin(),
        kernel,
        blocks,
        buffers,
        kernel_library=twin_build.kernels(SOURCE.name),
        **options,
    )


def _data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(7).standard_normal(2048).astype(np.float16)
    x[-2:] = 0
    return x, np.full(2048, np.nan, np.float16)


@pytest.mark.parametrize("kernel", EXPECTED)
def test_each_fault_is_reported_once_at_its_line(kernel: str) -> None:
    result = run(kernel, *_data())
    assert {(f.kind, f.line) for f in result.findings} == EXPECTED[kernel], [
        str(f) for f in result.findings
    ]
    assert result.ok == (not EXPECTED[kernel])
    assert all(f.file == "tests/native/twin_faults.cpp" for f in result.findings)


def test_kinds_are_all_shown() -> None:
    shown = {kind for marks in EXPECTED.values() for kind, _ in marks}
    assert shown == {
        "capacity",
        "out-of-bounds",
        "misaligned",
        "illegal-parameter",
        "illegal-memory",
        "unpaired-flag",
        "repeated-flag",
        "reserved-flag",
        "flag-range",
        "queue",
        "fault",
        "wrong-core",
        "illegal-event",
    }


def test_clean_kernels_compute() -> None:
    x, y = _data()
    assert run("clean_copy", x, y).ok
    np.testing.assert_array_equal(y[:64], x[:64])
    x, y = _data()
    assert run("clean_queue", x, y).ok
    np.testing.assert_array_equal(y[:512], x[:512])
    x, y = _data()
    assert run("clean_scalar", x, y).ok
    np.testing.assert_array_equal(y[:16], x[:16] * np.float16(2))


def test_out_of_bounds_access_is_not_carried_out() -> None:
    x, _ = _data()
    guard = np.full(4096, 5, np.float16)
    result = runner.run(
        twin_build.twin(),
        "gm_out_of_bounds",
        1,
        [runner.Buffer.of("x", x), runner.Buffer.of("y", guard[:2048])],
        kernel_library=twin_build.kernels(SOURCE.name),
    )
    (finding,) = result.findings
    assert (
        finding.memory == "gm"
        and finding.range == (2016 * 2, 2080 * 2)
        and finding.allowed == (0, 4096)
    )
    assert "'x'" in finding.message
    assert (guard == 5).all()


def test_capacity_tells_who_holds_what() -> None:
    (finding,) = run("capacity", *_data()).findings
    assert "512" in finding.message or "524288" in finding.message
    assert "[0..409600) TBuf" in finding.message and "[409600..614400) TBuf" in finding.message
    assert finding.memory == "l1" and finding.allowed == (0, 524288)


def test_wait_names_event_and_pipe() -> None:
    (finding,) = run("flag_never_set", *_data()).findings
    assert (
        "HardEvent::MTE1_MTE2" in finding.message
        and "event id 0" in finding.message
        and finding.pipe == "MTE2"
    )


def test_repeated_findings_are_counted_and_blocks_named() -> None:
    result = run("ub_misaligned", *_data(), blocks=30, threads=2)
    (finding,) = result.findings
    assert finding.count == 30 and finding.block == 0 and result.blocks == 30


def test_refused_launches_say_why() -> None:
    x, y = _data()
    with pytest.raises(runner.TwinError, match="no kernel 'nonsense'"):
        run("nonsense", x, y)
    with pytest.raises(runner.TwinError, match="unknown soc '910z'"):
        run("clean_copy", x, y, soc="910z")
    with pytest.raises(runner.TwinError, match="block_dim 0"):
        run("clean_copy", x, y, blocks=0)
    with pytest.raises(runner.TwinError, match="no data"):
        runner.run(
            twin_build.twin(),
            "clean_copy",
            1,
            [runner.Buffer.unbacked("x", 4096)] * 2,
            kernel_library=twin_build.kernels(SOURCE.name),
        )


def test_c_interface_reads_without_json() -> None:
    x, y = _data()
    lib = ctypes.CDLL(str(twin_build.twin()))
    run("clean_copy", x, y)  # declares the types of the functions that the runner uses
    args = (runner._Arg * 2)(
        runner._Arg(b"x", x.ctypes.data, 4096, 0, 0), runner._Arg(b"y", y.ctypes.data, 4096, 0, 0)
    )
    handle = ctypes.c_void_p()
    launch = runner._Launch(
        abi_version=runner.ABI_VERSION,
        library=str(twin_build.kernels(SOURCE.name)).encode(),
        kernel=b"ub_misaligned",
        soc=b"910b3",
        args=args,
        arg_count=2,
        block_dim=2,
        result=ctypes.pointer(handle),
    )
    assert lib.tw_twin_run(ctypes.byref(launch)) == 1
    lib.tw_twin_result_count.restype = lib.tw_twin_result_peak.restype = ctypes.c_uint64
    lib.tw_twin_result_findings.restype = ctypes.c_size_t
    rows = ctypes.c_void_p()
    assert lib.tw_twin_result_findings(handle, ctypes.byref(rows)) == 1
    assert ctypes.string_at(ctypes.cast(rows, ctypes.POINTER(ctypes.c_char_p))[0]) == b"misaligned"
    assert lib.tw_twin_result_count(handle, b"MTE2", b"Copy") == 2
    assert lib.tw_twin_result_count(handle, None, None) == 2
    assert lib.tw_twin_result_peak(handle, b"ub") == 128
    lib.tw_twin_result_free.argtypes = [ctypes.c_void_p]
    lib.tw_twin_result_free(handle)
    launch.abi_version = 99
    lib.tw_twin_error.restype = ctypes.c_char_p
    assert lib.tw_twin_run(ctypes.byref(launch)) == 2
    assert b"abi_version 99" in lib.tw_twin_error()
