"""What the documentation of vector instructions forbids is reported at its line, and atomics combine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
import twin_vec as vec
from twin_build import runner

SOURCE = "twin_vec_faults.cpp"
LINES = (twin_build.NATIVE / SOURCE).read_text(encoding="utf-8").splitlines()

FAULTS = {
    "mask_beyond_a_repeat": ("illegal-parameter", "mask is 128, one repeat has 64"),
    "repeat_beyond_a_byte": ("illegal-parameter", "repeatTime is 300"),
    "negative_count": ("illegal-parameter", "count is -16"),
    "len_beyond_a_repeat": ("illegal-parameter", "SetVectorMask is 65"),
    "type_not_for_2201": ("illegal-parameter", "is not documented for 2201"),
    "pair_not_for_2201": ("illegal-parameter", "is not documented for 2201"),
    "mode_not_for_this_pair": ("illegal-parameter", "does not take CAST_RINT"),
    "operand_in_l1": ("illegal-memory", "pipe V works on UB"),
    "misaligned_source": ("misaligned", "not a multiple of 32"),
    "count_beyond_the_buffer": ("out-of-bounds", "writes ub bytes"),
    "overlap_in_part": ("illegal-parameter", "overlap in part"),
    "reads_what_an_earlier_repeat_wrote": ("illegal-parameter", "an earlier one wrote"),
    "int16_does_not_accumulate": ("illegal-parameter", "an earlier one wrote"),
    "shift_beyond_the_width": ("illegal-parameter", "scalarValue is 17"),
    "compare_of_a_part": ("illegal-parameter", "multiple of 256 bytes"),
    "compare_of_int32": ("illegal-parameter", "CMPMODE::EQ alone"),
    "half_a_byte": ("illegal-parameter", "share a byte"),
    "blocks_on_one": ("illegal-parameter", "dstBlkStride is 0"),
    "sign_of_another_type": ("illegal-parameter", "signMode"),
    "atomic_of_another_type": ("illegal-parameter", "atomic in another type"),
}


def launch(
    kernel: str, *args: np.ndarray | int, blocks: int = 1, **options: object
) -> runner.TwinResult:
    made = [
        runner.Buffer.of(f"arg{i}", a) if isinstance(a, np.ndarray) else runner.Scalar(f"arg{i}", a)
        for i, a in enumerate(args)
    ]
    library = twin_build.kernels(SOURCE)
    return runner.run(twin_build.twin(), kernel, blocks, made, kernel_library=library, **options)


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_fault_is_found_where_it_is(kernel: str) -> None:
    kind, words = FAULTS[kernel]
    result = launch(kernel, np.zeros(64, np.float32))
    start = next(i for i, line in enumerate(LINES) if line.startswith(f"KERNEL {kernel}("))
    end = next(i for i in range(start, len(LINES)) if LINES[i] == "}")
    # A call may go over two lines; it is found at its first.
    fault = next(i for i in range(start, end) if "// FAULT" in LINES[i]) + 1
    assert [f.kind for f in result.findings] == [kind], "\n".join(map(str, result.findings))
    finding = result.findings[0]
    assert words in finding.message and finding.line in (fault - 1, fault)


def test_what_is_allowed_is_not_reported() -> None:
    y = np.zeros(64, np.float32)
    result = launch("allowed", y)
    assert result.ok, "\n".join(map(str, result.findings))
    np.testing.assert_array_equal(y, np.full(64, 25, np.float32))


COMBINE: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    np.add,
    np.maximum,
    np.minimum,
)


@pytest.mark.parametrize("padded", [0, 1])
@pytest.mark.parametrize("what", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "s8", "s16", "s32"])
def test_atomic_copies_of_many_cores(dtype: str, what: int, padded: int) -> None:
    """Whole numbers, so that the order in which cores come does not show in the sum."""
    blocks, count = 8, 128
    rng = np.random.default_rng(what)
    numbers = rng.integers(-9, 10, (blocks + 1, count))
    wide = COMBINE[what].reduce(numbers, axis=0)

    def encode(x: np.ndarray) -> np.ndarray:
        if dtype == "bf16":
            return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return x.astype(vec.NUMPY[dtype])

    y, x = encode(numbers[0]), np.ascontiguousarray(encode(numbers[1:]))
    args = (vec.DTYPES.index(dtype), what, count, padded)
    result = launch("atomic_copy", y, x, *args, blocks=blocks)
    assert result.ok, "\n".join(map(str, result.findings))
    np.testing.assert_array_equal(y, encode(wide))


def test_atomic_fixpipe_of_many_cores() -> None:
    rng = np.random.default_rng(0)
    x, eye = rng.integers(-9, 10, (16, 16)).astype(np.float16), np.eye(16, dtype=np.float16)
    y = np.full((16, 16), 5, np.float32)
    result = launch("atomic_fixpipe", y, x, eye, blocks=6)
    assert result.ok, "\n".join(map(str, result.findings))
    np.testing.assert_array_equal(y, 5 + 6 * x.astype(np.float32))


def test_a_large_add_takes_microseconds() -> None:
    """Plain loops over contiguous data; the bound is loose, for hosts that are busy."""
    x = np.ones(16384, np.float16)

    def seconds(times: int) -> float:
        start = time.perf_counter()
        assert launch("many", x, 0, times, threads=1, hazards=False).ok
        return time.perf_counter() - start

    spent = [seconds(220) - seconds(20) for _ in range(5)]
    assert min(spent) / 200 < 100e-6


def test_atomic_registers() -> None:
    x, y = np.arange(64, dtype=np.float32), np.full(64, 3, np.float32)
    state = np.full(8, -1, np.int32)
    result = launch("atomic_registers", y, x, state)
    assert result.ok, "\n".join(map(str, result.findings))
    assert state.tolist() == [4, 0, 0, 1, 1, 0, 0, -1]
    np.testing.assert_array_equal(y, x + 3)
