"""Mixed kernels, flags between cores, deadlocks and the schedules of the twin."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
from twin_build import runner

RNG = np.random.default_rng(5)
PROGRAM, RANDOM = {"schedule": "program"}, {"schedule": "random"}


def run(kernel: str, blocks: int, *args: np.ndarray | int, **options: object) -> runner.TwinResult:
    made = [
        runner.Scalar(f"arg{i}", arg) if isinstance(arg, int) else runner.Buffer.of(f"arg{i}", arg)
        for i, arg in enumerate(args)
    ]
    library = twin_build.kernels("twin_mixed.cpp")
    return runner.run(twin_build.twin(), kernel, blocks, made, kernel_library=library, **options)


def kinds(result: runner.TwinResult) -> list[str]:
    return sorted(f.kind for f in result.findings)


def tiles(blocks: int) -> np.ndarray:
    return RNG.integers(-3, 4, (blocks, 16, 16)).astype(np.float16)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([1, 2]))
def test_a_cube_core_feeds_its_vector_cores(
    blocks: int, rounds: int, seed: int, threads: int
) -> None:
    x = tiles(blocks)
    want = np.einsum("bij,bjk->bik", x.astype(np.float32), x.astype(np.float32))
    for how in (PROGRAM, RANDOM):
        work, y = np.full_like(want, np.nan), np.full_like(want, np.nan)
        result = run(
            "cube_to_vector", blocks, x, work, y, rounds, 1, seed=seed, threads=threads, **how
        )
        assert result.ok, [str(f) for f in result.findings]
        assert (result.kind, result.cores, result.blocks) == ("mix", 3 * blocks, blocks)
        np.testing.assert_array_equal(y, want)


def test_a_workspace_reused_too_early_is_a_race_between_cores() -> None:
    x = tiles(2)
    work, y = np.zeros((2, 16, 16), np.float32), np.zeros((2, 16, 16), np.float32)
    result = run("cube_to_vector", 2, x, work, y, 3, 0)
    assert set(kinds(result)) == {"race"}
    for finding in result.findings:
        assert "CrossCoreSetFlag" in finding.missing and finding.memory == "gm"
        assert "'arg1'" in finding.message and "cube core of block" in finding.message
        assert finding.other_line > 0 and finding.core in ("aic", "aiv")


@pytest.mark.parametrize("how", [PROGRAM, RANDOM], ids=["program", "random"])
@pytest.mark.parametrize("meet", [1, 2], ids=["SyncAll", "mode 0"])
def test_all_cores_meet(meet: int, how: dict[str, object]) -> None:
    work, y = np.zeros((40, 8), np.int32), np.zeros((40, 8), np.int32)
    result = run("neighbours", 40, work, y, meet, **how)
    assert result.ok, [str(f) for f in result.findings]
    np.testing.assert_array_equal(y[:, 0], (np.arange(40) + 1) % 40)


def test_cores_that_do_not_meet_race() -> None:
    work, y = np.zeros((8, 8), np.int32), np.zeros((8, 8), np.int32)
    result = run("neighbours", 8, work, y, 0)
    assert kinds(result) and set(kinds(result)) == {"race"}
    assert all("not ordered after" in f.message for f in result.findings)


def test_more_blocks_than_cores_cannot_meet() -> None:
    """48 vector cores: a 49th block starts when one has ended, and none ends before all have come."""
    work, y = np.zeros((49, 8), np.int32), np.zeros((49, 8), np.int32)
    result = run("neighbours", 49, work, y, 1)
    assert "deadlock" in kinds(result)
    assert run("neighbours", 48, work[:48], y[:48], 1).ok


def test_vector_cores_of_a_group_meet() -> None:
    work, y = np.zeros((10, 8), np.int32), np.zeros((10, 8), np.int32)
    for how in (PROGRAM, RANDOM):
        result = run("swap_halves", 5, work, y, **how)
        assert result.ok, [str(f) for f in result.findings]
        np.testing.assert_array_equal(y[:, 0], np.arange(10) ^ 1)


@pytest.mark.parametrize(("declared", "vectors"), [(12, 2), (11, 1), (0, 2)])
def test_cores_know_who_they_are(declared: int, vectors: int) -> None:
    blocks = 3
    y = np.zeros((blocks * (1 + vectors), 16), np.int32)
    result = run("who", blocks, y, declared)
    assert result.ok and result.cores == blocks * (1 + vectors)
    for b in range(blocks):
        assert y[b, :5].tolist() == [b, blocks, 0, 1, 1]
        for v in range(vectors):
            assert y[blocks + vectors * b + v, :5].tolist() == [
                vectors * b + v,
                blocks,
                v,
                vectors,
                2,
            ]


@pytest.mark.parametrize(
    ("kernel", "blocks", "expected"),
    [
        ("cube_waits_for_nothing", 2, ["deadlock"]),
        ("one_vector_core_forgets", 1, ["cross-flag", "deadlock"]),
        ("flag_for_nobody", 1, ["cross-flag"]),
        ("too_many_flags", 1, ["cross-flag"]),
        ("all_but_one_meet", 3, ["deadlock"]),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_flags_between_cores_that_go_wrong(
    kernel: str, blocks: int, expected: list[str], threads: int
) -> None:
    result = run(kernel, blocks, np.zeros(8, np.int32), threads=threads)
    assert kinds(result) == expected, [str(f) for f in result.findings]


def test_a_missing_flag_is_found_though_the_values_are_right_and_random_order_shows_it() -> None:
    x, y = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    result = run("copy", 1, x, y, 0)
    (finding,) = result.findings
    assert (finding.kind, finding.missing) == ("race", "HardEvent::MTE2_MTE3")
    np.testing.assert_array_equal(y, x)
    wrong = 0
    for seed in range(10):
        y = np.zeros(64, np.int32)
        result = run("copy", 1, x, y, 0, seed=seed, **RANDOM)
        assert kinds(result) == ["race"], "findings do not depend on the schedule"
        wrong += not np.array_equal(x, y)
        again = np.zeros(64, np.int32)
        run("copy", 1, x, again, 0, seed=seed, **RANDOM)
        np.testing.assert_array_equal(again, y), "a seed repeats its order"
    assert wrong > 0
    for seed in range(10):
        y = np.zeros(64, np.int32)
        assert run("copy", 1, x, y, 1, seed=seed, **RANDOM).ok
        np.testing.assert_array_equal(y, x)


def test_auto_sync_inserts_what_the_compiler_would() -> None:
    x = np.arange(64, dtype=np.int32)
    y = np.zeros(64, np.int32)
    plain = run("add_one", 1, x, y, 0)
    assert {f.missing for f in plain.findings} == {"HardEvent::MTE2_S", "HardEvent::S_MTE3"}
    assert plain.inserted_syncs == 0
    for how in (PROGRAM, RANDOM):
        y = np.zeros(64, np.int32)
        helped = run("add_one", 1, x, y, 0, auto_sync=True, **how)
        assert helped.ok and helped.inserted_syncs >= 2
        np.testing.assert_array_equal(y, x + 1)
    # It does not reach between two pipes that move data.
    assert kinds(run("copy", 1, x, y, 0, auto_sync=True)) == ["race"]


def test_a_deadlock_is_told_as_a_cycle() -> None:
    x, y = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    (finding,) = run("cycle", 1, x, y).findings
    assert finding.kind == "deadlock"
    for part in ("pipe MTE2 waits", "HardEvent::MTE3_MTE2 with event id 0", "pipe MTE3 waits"):
        assert part in finding.message


def test_a_wait_may_come_before_its_set() -> None:
    x = np.arange(64, dtype=np.int32)
    for how in (PROGRAM, RANDOM):
        y = np.zeros(64, np.int32)
        assert run("wait_first", 1, x, y, **how).ok
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("how", [PROGRAM, RANDOM], ids=["program", "random"])
def test_one_vector_core_tells_another(how: dict[str, object]) -> None:
    work, y = np.zeros(256, np.int32), np.zeros(8, np.int32)
    assert run("tell", 2, work, y, 1, **how).ok
    assert (y == 41).all()
    assert kinds(run("tell", 2, work, y, 0, **how)) == ["deadlock"]


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_take_turns(threads: int) -> None:
    work, y = np.zeros(256, np.int32), np.zeros(8, np.int32)
    result = run("in_turn", 5, y, work, threads=threads)
    assert result.ok, [str(f) for f in result.findings]
    want = 0
    for block in [*range(5), *range(5)]:
        want = want * 2 + block
    assert y[0] == want


def test_a_meeting_tells_a_core_of_its_own_work_too() -> None:
    y = np.zeros((6, 8), np.int32)
    assert run("write_again", 6, y).ok


@pytest.mark.parametrize("how", ["program", "timeline", "random"])
def test_the_system_counter_runs_in_simulated_time(how: str) -> None:
    """16 copies of 64 KiB by one core: at 20 to 130 bytes a cycle of 1.85 GHz, seen at 50 MHz."""
    x, y = np.zeros(16384, np.float32), np.zeros(1, np.int64)
    result = run("ticks", 1, x, y, schedule=how)
    assert result.ok, [str(f) for f in result.findings]
    slow, fast = (16 * 65536 / rate / 1850 * 50 for rate in (20, 130))
    assert fast < y[0] < slow
    assert result.cycles >= y[0] / 50 * 1850 * 0.9


def test_the_timeline_shows_what_a_missing_flag_lets_happen() -> None:
    """The copy out takes effect before the copy in has arrived: in simulated time it reads what was there."""
    x, y = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    result = run("copy", 1, x, y, 0, schedule="timeline")
    assert kinds(result) == ["race"]
    assert run("copy", 1, x, y, 1, schedule="timeline").ok
    np.testing.assert_array_equal(y, x)
    work, z = np.zeros((4, 16, 16), np.float32), np.zeros((4, 16, 16), np.float32)
    data = tiles(4)
    assert run("cube_to_vector", 4, data, work, z, 3, 1, schedule="timeline").ok
    want = np.einsum("bij,bjk->bik", data.astype(np.float32), data.astype(np.float32))
    np.testing.assert_array_equal(z, want)


@pytest.mark.parametrize("how", [PROGRAM, RANDOM], ids=["program", "random"])
@pytest.mark.parametrize(
    ("cleaning", "stale"),
    [(0, (0, 64)), (1, ()), (2, ()), (3, (0, 32)), (4, (0, 64)), (5, (12, 16)), (6, ())],
)
def test_what_a_scalar_unit_wrote_is_read_after_its_cache_is_cleaned(
    cleaning: int, stale: tuple[int, int] | tuple[()], how: dict[str, object]
) -> None:
    x, y = np.zeros(16, np.int32), np.zeros(16, np.int32)
    result = run("cached", 2, x, y, cleaning, **how)
    assert kinds(result) == (["stale-cache"] if stale else [])
    for finding in result.findings:
        assert finding.range == stale and finding.missing == "DataCacheCleanAndInvalid"
        assert finding.block == 1 and "ScalarSet on pipe S of block 0" in finding.message
        assert finding.other_line > 0


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (0, 1)])
def test_ids_of_sync_all_are_free_where_nobody_calls_it(before: int, after: int) -> None:
    result = run("ids_of_sync_all", 4, np.zeros(8, np.int32), before, after)
    assert set(kinds(result)) == ({"reserved-flag"} if before or after else set())
    assert len({f.line for f in result.findings}) == (2 if before or after else 0)


def test_accesses_beyond_those_kept_are_counted_not_hidden() -> None:
    """8 cores write, read and write: 24 accesses. What is not looked at is said."""
    work, y = np.zeros((8, 8), np.int32), np.zeros((8, 8), np.int32)
    full = run("neighbours", 8, work, y, 0)
    assert full.unchecked_gm == 0 and kinds(full)
    few = run("neighbours", 8, work, y, 0, gm_accesses=5, threads=1)
    assert few.unchecked_gm == 24 - 5
    assert run("neighbours", 8, work, y, 0, gm_accesses=24).unchecked_gm == 0


def test_launches_of_a_host_function_add_up() -> None:
    """Of several launches nothing is that of the last alone."""
    x, y = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    one = run("add_one", 1, x, y, 0, auto_sync=True)
    two = runner.merged([one, one])
    assert one.cycles > 0 and one.inserted_syncs > 0
    for name in ("cycles", "inserted_syncs", "blocks", "cores", "macs"):
        assert getattr(two, name) == 2 * getattr(one, name), name
    noisy = replace(one, printed=("a",)), replace(one, printed=("b", "c"))
    assert runner.merged(noisy).printed == ("a", "b", "c")
