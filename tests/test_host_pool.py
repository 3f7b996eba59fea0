"""The thread pool and the measured ceilings, through the library's own interface."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from native import host_gemm_cases as cases
from native import host_lib
from native.host_gemm_cases import NK, Problem

pytestmark = pytest.mark.alone

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def automatic_threads() -> Iterator[None]:
    yield
    host_lib.library().tw_set_threads(0)


def test_thread_count_is_settable() -> None:
    lib = host_lib.library()
    automatic = lib.tw_get_threads()
    assert automatic >= 1
    lib.tw_set_threads(3)
    assert lib.tw_get_threads() == 3
    lib.tw_set_threads(100000)
    assert lib.tw_get_threads() == 256
    lib.tw_set_threads(-1)
    assert lib.tw_get_threads() == automatic


def test_pool_grows_and_shrinks_between_calls() -> None:
    lib = host_lib.library()
    for threads in (2, 7, 1, 3, 16, 2, 0):
        lib.tw_set_threads(4)
        cases.check(lib, Problem(64, 400, 90, layout=NK, threads=threads, seed=threads))


def test_many_short_rounds_lose_no_work() -> None:
    """Rounds of changing width, back to back: late workers must not touch a later round."""
    lib = host_lib.library()
    problems = [Problem(9, 160 * t, 120, threads=t, seed=t) for t in (2, 5, 3, 8)]
    prepared = [(p, cases.make_data(p)) for p in problems]
    expected = [cases.launch(lib, p, data)[2].tobytes() for p, data in prepared]
    for _ in range(150):
        for (p, data), answer in zip(prepared, expected, strict=True):
            assert cases.launch(lib, p, data)[2].tobytes() == answer


def test_concurrent_callers() -> None:
    lib = host_lib.library()
    problem = Problem(33, 300, 200, threads=2)
    data = cases.make_data(problem)
    expected = cases.launch(lib, problem, data)[2].tobytes()
    failures: list[int] = []

    def work(index: int) -> None:
        for _ in range(40):
            if cases.launch(lib, problem, data)[2].tobytes() != expected:
                failures.append(index)

    callers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


FORK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from native import host_gemm_cases as cases, host_lib
from native.host_gemm_cases import Problem
lib, problem = host_lib.library(), Problem(64, 400, 300, threads=3)
data = cases.make_data(problem)
# No numpy product in the child: its BLAS does not survive a fork everywhere.
answer = cases.launch(lib, problem, data)[2].tobytes()
child = os.fork()
same = all(cases.launch(lib, problem, data)[2].tobytes() == answer for _ in range(3))
if child == 0:
    sys.exit(0 if same else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or (0 if same else 4))
"""


def test_works_on_both_sides_of_a_fork() -> None:
    host_lib.library()
    done = subprocess.run([sys.executable, "-c", FORK, str(TESTS)], timeout=60, check=False)
    assert done.returncode == 0


def test_ceilings_are_plausible() -> None:
    """Positive at every level; 1 PFLOP/s would be an optimised-away loop."""
    lib = host_lib.library()
    for level in host_lib.usable_levels():
        assert lib.tw_force_level(level.encode()) == 0
        for kind in (b"fp32", b"bf16", b"fp16", b"int8"):
            rate = lib.tw_ceiling_flops(kind, 1, 0.03)
            assert 0.5 < rate < 1e5
        assert 0.5 < lib.tw_ceiling_read_gbps(16384, 1, 0.02) < 1e4
        assert 0.1 < lib.tw_ceiling_write_gbps(1 << 22, 1, 0.02) < 1e4
    lib.tw_force_level(None)
    assert lib.tw_ceiling_flops(b"fp128", 1, 0.01) == -1.0
