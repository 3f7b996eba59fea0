"""Sort32 and MrgSort against Python's stable sort."""

from __future__ import annotations

import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_across as across
from twin_across import TYPES

SOURCE = "twin_vec_sort.cpp"


def generator(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


def scores(kind: np.dtype, count: int, rng: np.random.Generator, trial: int) -> np.ndarray:
    x = rng.standard_normal(count).astype(kind)
    if trial % 2:
        x = np.round(x).astype(kind)  # many equal ones, also -0 and 0
    x[rng.integers(0, count, count // 10)] = rng.choice([np.inf, -np.inf, 0.0, -0.0, 1e-7])
    return x


def descending(x: np.ndarray) -> list[int]:
    """Places of the scores, largest first, equal ones from left to right, NaN before all."""
    return sorted(range(x.size), key=lambda i: (not np.isnan(x[i]), -float(x[i])))


def entries(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Entries of 8 bytes: score low, index high, zeros between a half and its index."""
    out = np.zeros((x.size, 2), np.uint32)
    out[:, 0] = x.view(np.uint16 if x.itemsize == 2 else np.uint32)
    out[:, 1] = index
    return out


@pytest.mark.parametrize("dtype", ["half", "float"])
def test_sort32(dtype: str) -> None:
    code, kind = TYPES[dtype]
    rng = generator(dtype)
    for trial in range(12):
        repeat = int(rng.integers(1, 7)) if trial else 255
        x = scores(kind, 32 * repeat, rng, trial)
        if trial == 3:
            x[rng.integers(0, x.size, 5)] = np.nan
        index = rng.integers(0, 2**32, x.size, dtype=np.uint32)
        y = across.poison(repeat * 256 + 32, rng)
        guard = y[repeat * 256 :].copy()
        across.run(
            SOURCE, "sort32", [x, index, y], [code, x.nbytes, index.nbytes, y.nbytes, repeat]
        )
        for i in range(repeat):
            part, marks = x[32 * i : 32 * i + 32], index[32 * i : 32 * i + 32]
            order = descending(part)
            got = y[256 * i : 256 * i + 256].view(np.uint32).reshape(32, 2)
            np.testing.assert_array_equal(got, entries(part[order], marks[order]))
        np.testing.assert_array_equal(y[repeat * 256 :], guard)


def merged(
    lists: list[np.ndarray], kind: np.dtype, stops: bool
) -> tuple[list[np.ndarray], list[int]]:
    """What a merge writes, and how many entries it takes of each list."""
    taken = [0] * 4
    out: list[np.ndarray] = []
    half = kind.itemsize == 2

    def value(i: int) -> float:
        bits = lists[i][taken[i]][0]
        return float((np.uint16(bits) if half else bits).view(kind))

    while any(taken[i] < len(one) for i, one in enumerate(lists)):
        if stops and any(taken[i] == len(one) for i, one in enumerate(lists)):
            break
        ready = [i for i, one in enumerate(lists) if taken[i] < len(one)]
        pick = max(ready, key=lambda i: (value(i), -i))
        out.append(lists[pick][taken[pick]])
        taken[pick] += 1
    return out, taken


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("valid", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["half", "float"])
def test_mrgsort(dtype: str, valid: int, stops: bool) -> None:
    code, kind = TYPES[dtype]
    rng = generator(dtype, valid, stops)
    for trial in range(10):
        lists, starts, at = [], [], 0
        for _ in range(4):
            x = scores(kind, int(rng.integers(1, 50)), rng, trial)
            x = x[descending(x)]
            lists.append(entries(x, rng.integers(0, 2**32, x.size, dtype=np.uint32)))
            starts.append(at)
            at += 8 * (x.size + int(rng.integers(0, 4)))
        if trial == 0 and not stops:
            lists[1] = lists[1][:0]
        x = np.zeros(across.up(at), np.uint8)
        for start, one in zip(starts, lists, strict=True):
            x[start : start + one.nbytes] = one.reshape(-1).view(np.uint8)
        out, taken = merged(lists[:valid], kind, stops)
        total = sum(len(one) for one in lists[:valid])
        y = across.poison(across.up(8 * total) + 32, rng)
        before = y.copy()
        params = [code, x.nbytes, y.nbytes, *starts, *(len(one) for one in lists)]
        across.run(SOURCE, "mrgsort", [x, y], [*params, stops, (1 << valid) - 1, 1])
        np.testing.assert_array_equal(
            y[: 8 * len(out)].view(np.uint32).reshape(-1, 2), np.array(out).reshape(-1, 2)
        )
        np.testing.assert_array_equal(y[8 * len(out) : -32], before[8 * len(out) : -32])
        assert list(y[-32:-24].view(np.uint16)) == taken


def test_mrgsort_repeats() -> None:
    rng = generator("repeats")
    kind = np.dtype(np.float32)
    lists = []
    for _ in range(12):
        x = np.sort(rng.standard_normal(16).astype(kind))[::-1]
        lists.append(entries(x, np.arange(16)))
    x = np.concatenate(lists)
    y = np.zeros(12 * 128 + 32, np.uint8)
    across.run(
        SOURCE,
        "mrgsort",
        [x, y],
        [1, x.nbytes, y.nbytes, 0, 128, 256, 384, 16, 16, 16, 16, 0, 15, 3],
    )
    want = [merged(lists[i : i + 4], kind, False)[0] for i in (0, 4, 8)]
    np.testing.assert_array_equal(
        y[:-32].view(np.uint32).reshape(3, 64, 2), np.array(want).reshape(3, 64, 2)
    )


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({12: 5}, "illegal-parameter", "validBit"),
        ({7: 4096}, "illegal-parameter", "elementLengths is 4096"),
        ({13: 2, 8: 15}, "illegal-parameter", "repeatTimes beyond 1"),
        ({13: 2, 11: 1}, "illegal-parameter", "repeatTimes beyond 1"),
        ({3: 4}, "misaligned", "not a multiple of 8"),
        ({2: 288}, "out-of-bounds", "the buffer is 512..768"),
        ({10: 40}, "illegal-parameter", "source and destination overlap"),
    ],
)
def test_what_is_refused(changed: dict[int, int], kind: str, words: str) -> None:
    x, y = np.zeros(4 * 128, np.uint8), np.zeros(1024 + 32, np.uint8)
    params = [1, x.nbytes, y.nbytes, 0, 128, 256, 384, 16, 16, 16, 16, 0, 15, 1]
    for at, value in changed.items():
        params[at] = value
    assert words in across.refused(SOURCE, "mrgsort", [x, y], params, kind)


@pytest.mark.parametrize("op", [0, 1])
def test_speed(op: int) -> None:
    """A tenth of what a busy machine does, so that only a change of the order of work shows."""
    x = np.zeros((4, 2048, 2), np.float32)
    x[:, :, 0] = -np.sort(-generator("speed").standard_normal((4, 2048)), axis=1)
    y, times = np.zeros(32, np.uint8), 40
    start = time.process_time()
    across.run(SOURCE, "sort_speed", [x.reshape(-1), y], [op, times])
    assert times * 8192 / (time.process_time() - start) > 1e7
