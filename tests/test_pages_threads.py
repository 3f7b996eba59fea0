"""The page pool under many threads: ThreadSanitizer, and linearizability of recorded histories."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import host_lib
from native.page_histories import Operation, after, first_wrong, linearizable, parse

pytestmark = pytest.mark.alone

SOURCES = (
    host_lib.KERNELS / "_pages" / "page_pool.cpp",
    Path(__file__).parent / "native" / "pages_stress.cpp",
)
TSAN = ("-O1", "-g", "-fsanitize=thread")


@cache
def program(sanitize: bool) -> Path:
    """The stress program, built once for each content of its sources."""
    flags = TSAN if sanitize else ("-O2",)
    name = "pages-tsan" if sanitize else "pages-stress"
    return host_lib.build(name, [(source, flags) for source in SOURCES], flags[2:])


def run(sanitize: bool, *arguments: object) -> subprocess.CompletedProcess[str]:
    # ThreadSanitizer's shadow has fixed places; some kernels randomise more than it can take.
    quiet = [shutil.which("setarch") or "", "-R"] if sanitize and shutil.which("setarch") else []
    return subprocess.run(
        [*quiet, str(program(sanitize)), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("pool", ["pool", "checked"])
@pytest.mark.parametrize(("threads", "pages"), [(1, 64), (2, 1), (3, 64), (4, 130), (8, 6000)])
def test_no_race_no_double_owner_no_loss(pool: str, threads: int, pages: int) -> None:
    """Few pages: exhausted all the time, everything on one word. Many: words, summary and hints."""
    ran = run(True, "stress", pool, threads, 12000 // threads, pages, threads)
    assert "ThreadSanitizer" not in ran.stderr, ran.stderr[:3000]
    assert ran.returncode == 0, ran.stderr


def test_a_pool_that_is_not_atomic_is_found_out() -> None:
    """What the tests above look with is able to see."""
    ran = run(True, "stress", "racy", 4, 4000, 64, 1)
    assert "data race" in ran.stderr and ran.returncode != 0
    ran = run(False, "history", "racy", 4, 4000, 64, 1)
    assert first_wrong(parse(ran.stdout)) is not None


@pytest.mark.parametrize("pool", ["pool", "checked"])
@pytest.mark.parametrize(
    ("threads", "pages", "seed"), [(2, 3, 1), (4, 64, 2), (4, 200, 3), (6, 1, 4)]
)
def test_histories_are_linearizable(pool: str, threads: int, pages: int, seed: int) -> None:
    seen, kinds = 0, set()
    for again in range(
        20
    ):  # one that holds the only page and is off its processor leaves the others nothing to do
        ran = run(False, "history", pool, threads, 2500, pages, seed + 100 * again)
        assert ran.returncode == 0, ran.stderr
        history = parse(ran.stdout)
        assert first_wrong(history) is None
        seen, kinds = seen + len(history), kinds | {o.kind for o in history}
        if seen > 500 and {"a", "f"} <= kinds:
            return
    raise AssertionError(f"{seen} operations of {kinds} in 20 runs")


def by_definition(operations: list[Operation]) -> bool:
    """Every order is tried."""
    for order in itertools.permutations(operations):
        if any(
            order[j].end < order[i].start
            for i in range(len(order))
            for j in range(i + 1, len(order))
        ):
            continue
        references: int | None = 0
        for operation in order:
            references = after(references, operation.kind) if references is not None else None
        if references is not None:
            return True
    return not operations


OPERATIONS = st.builds(
    lambda kind, start, length: Operation(kind, 0, start, start + length),
    st.sampled_from("aafffsk"),
    st.integers(0, 12),
    st.integers(0, 6),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(OPERATIONS, max_size=6))
def test_the_checker_agrees_with_the_definition(operations: list[Operation]) -> None:
    assert linearizable(operations) == by_definition(operations)
