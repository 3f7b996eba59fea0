"""Reductions of pipe V, every one against plain Python: which lanes, in which order, what is left alone."""

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

SOURCE = "twin_vec_reduce.cpp"
OPS = (
    "WholeReduceSum",
    "WholeReduceMax",
    "WholeReduceMin",
    "BlockReduceSum",
    "BlockReduceMax",
    "BlockReduceMin",
    "PairReduceSum",
    "RepeatReduceSum",
)
NEW = {
    "WholeReduceSum": "ReduceRepeat",
    "WholeReduceMax": "ReduceRepeat",
    "WholeReduceMin": "ReduceRepeat",
    "BlockReduceSum": "ReduceDataBlock",
    "BlockReduceMax": "ReduceDataBlock",
    "BlockReduceMin": "ReduceDataBlock",
    "PairReduceSum": "ReducePairElem",
}
ORDERS = ("value_index", "index_value", "only_value", "only_index")


def tree(values: list[np.generic | None]) -> np.generic | None:
    """Neighbours added, then the sums' neighbours; None takes no part."""
    while len(values) > 1:
        if len(values) % 2:
            values = [*values, None]
        values = [
            b if a is None else a if b is None else a + b
            for a, b in zip(values[::2], values[1::2], strict=True)
        ]
    return values[0]


def best(values: list[np.generic | None], smallest: bool) -> int:
    """The first of the best; a NaN is better than any number."""
    found = -1
    for i, v in enumerate(values):
        if v is None:
            continue
        if found < 0:
            found = i
            continue
        old = values[found]
        if np.isnan(old):
            continue
        if np.isnan(v) or (v < old if smallest else v > old):
            found = i
    return found


def repeats(x: np.ndarray, mask: across.Mask, blk: int, rep: int) -> list[list[np.generic | None]]:
    """Every repeat's elements by lane, None where masked."""
    per, width = 32 // x.itemsize, 256 // x.itemsize
    out = []
    for i, lanes in enumerate(mask.lanes(width)):
        row: list[np.generic | None] = [None] * width
        for lane in lanes:
            row[lane] = x[(i * rep + lane // per * blk) * per + lane % per]
        out.append(row)
    return out


def seed(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


def same(a: np.ndarray, b: np.ndarray) -> None:
    """Equal bytes."""
    np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))


@pytest.mark.parametrize("how", across.HOWS)
@pytest.mark.parametrize("dtype", ["half", "float"])
@pytest.mark.parametrize("op", OPS)
def test_conformance(op: str, dtype: str, how: str) -> None:
    rng = seed(op, dtype, how)
    code, kind = TYPES[dtype]
    width, size = 256 // kind.itemsize, kind.itemsize
    for trial in range(12):
        mask = across.masks(how, width, rng)
        rows = len(list(mask.lanes(width)))
        blk, rep = int(rng.integers(0, 4)), int(rng.integers(0, 20))
        order = int(rng.integers(0, 4)) if op in ("WholeReduceMax", "WholeReduceMin") else 2
        x = across.elements(dtype, (rows * rep + 8 * max(blk, 1) + 8) * 32 // size, rng)
        if trial % 3 == 0:
            x[rng.integers(0, x.size, 3)] = np.nan
        if trial % 4 == 1:
            x = np.round(x).astype(kind)  # many equal ones
        unit = {"B": 8 * size, "P": 128}.get(op[0], (2 * size, 2 * size, size, 4)[order])
        dst_rep = int(rng.integers(1, 4))
        align = unit if op[0] != "P" else 32
        offset = int(rng.integers(0, 4)) * align
        y = across.poison(across.up(offset + rows * dst_rep * unit + 256), rng)
        want = y.copy()
        with np.errstate(all="ignore"):
            for i, row in enumerate(repeats(x, mask, blk, rep)):
                at = offset + i * dst_rep * unit
                if op[0] in "BP":
                    group = 32 // size if op[0] == "B" else 2
                    for g in range(width // group):
                        part = row[g * group : (g + 1) * group]
                        if all(v is None for v in part):
                            continue
                        got = tree(part) if "Sum" in op else part[best(part, "Min" in op)]
                        want[at + g * size : at + (g + 1) * size] = kind.type(got).view(
                            (np.uint8, size)
                        )
                elif "Sum" in op:
                    want[at : at + size] = kind.type(tree(row)).view((np.uint8, size))
                else:
                    lane = best(row, "Min" in op)
                    value = row[lane].tobytes()
                    index = lane.to_bytes(size, "little")
                    text = (value + index, index + value, value, lane.to_bytes(4, "little"))[order]
                    want[at : at + len(text)] = list(text)
        old = op not in NEW or trial % 2 == 0
        params = [code, x.nbytes, y.nbytes, OPS.index(op), 0 if old else 1, *mask.params()]
        across.run(
            SOURCE, "reduce_lanes", [x, y], [*params, mask.repeat, dst_rep, blk, rep, order, offset]
        )
        if "Sum" in op:
            # NaN is NaN whatever its bits.
            touched = y != want
            a, b = y.view(kind), want.view(kind)
            assert (np.isnan(a) == np.isnan(b))[touched.reshape(-1, size).any(axis=1)].all()
            y.view(kind)[np.isnan(b)] = b[np.isnan(b)]
        same(y, want)


@pytest.mark.parametrize("how", ["count-form", *across.HOWS[:3]])
@pytest.mark.parametrize("dtype", ["half", "float"])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceMin"])
def test_one_result(op: str, dtype: str, how: str) -> None:
    rng = seed(op, dtype, how, "all")
    code, kind = TYPES[dtype]
    width, size = 256 // kind.itemsize, kind.itemsize
    for trial in range(14):
        rep = 8
        if how == "count-form":
            mask = across.Mask("counter", (int(rng.integers(1, 20 * width)), 0), 1)
        else:
            mask = across.masks(how, width, rng)
            rep = int(rng.integers(8, 12))
            if trial == 0 and how == "count":  # more than a byte counts
                mask, rep = across.Mask(how, (width, 0), 300), 8
        rows = len(list(mask.lanes(width)))
        x = across.elements(dtype, (rows * rep + 8) * 32 // size, rng)
        if op == "ReduceSum" and trial > 2:
            x[np.isinf(x)] = 1
        index = bool(trial % 2)
        y = across.poison(64, rng)
        work = across.up(2 * rows * size + 64) * 2
        params = [code, x.nbytes, work, ("ReduceSum", "ReduceMax", "ReduceMin").index(op), index]
        params += [how == "count-form", *mask.params(), mask.repeat, rep]
        before = y.copy()
        across.run(SOURCE, "reduce_all", [x, y], params)
        flat: list[list[np.generic | None]] = repeats(x, mask, 1, rep)
        got = y.view(kind)
        written = size
        with np.errstate(all="ignore"):
            if op == "ReduceSum":
                sums = [tree(row) for row in flat]
                total = sums[0]
                if how == "count-form":
                    for s in sums[1:]:
                        total = total + s
                else:
                    total = tree(sums)
                np.testing.assert_equal(got[0], total)
                assert (
                    got[32 // size].tobytes() == got[32 // size + 1].tobytes() == got[0].tobytes()
                )
            else:
                lane = best([v for row in flat for v in row], op == "ReduceMin")
                value = flat[lane // width][lane % width]
                assert got[0].tobytes() == value.tobytes()
                assert got[32 // size].tobytes() == value.tobytes()
                if index:
                    assert got[1].tobytes() == lane.to_bytes(size, "little")
                    assert got[32 // size + 1].tobytes() == lane.to_bytes(size, "little")
                    written = 2 * size
        same(y[written:32], before[written:32])


def test_halves_are_rounded_at_every_sum() -> None:
    """60000 + 60000 is inf in half before -60000 twice comes in; a wider sum would not see it."""
    x = np.zeros(128, np.float16)
    x[:4] = 60000, 60000, -60000, -60000
    y = np.zeros(32, np.uint8)
    across.run(SOURCE, "reduce_lanes", [x, y], [0, 256, 32, 0, 0, 0, 128, 0, 1, 1, 1, 8, 2, 0])
    assert np.isnan(y.view(np.float16)[0])


def test_nothing_to_do_writes_nothing() -> None:
    for mask, repeat in ((0, 3), (64, 0)):
        x, y = np.ones(512, np.float32), np.full(64, 7, np.uint8)
        across.run(
            SOURCE, "reduce_lanes", [x, y], [1, 2048, 64, 1, 0, 0, mask, 0, repeat, 1, 1, 8, 0, 0]
        )
        assert (y == 7).all()


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({13: 4}, "misaligned", "not a multiple of 8"),
        ({8: 256}, "illegal-parameter", "repeatTime is 256"),
        ({6: 65}, "illegal-parameter", "mask is 65"),
        ({9: 65536}, "illegal-parameter", "a stride is 65536"),
        ({8: 9}, "out-of-bounds", "the buffer is 0..2048"),
        ({12: 4}, "illegal-parameter", "order is 4"),
    ],
)
def test_what_is_refused(changed: dict[int, int], kind: str, words: str) -> None:
    x, y = np.ones(512, np.float32), np.zeros(128, np.uint8)
    params = [1, 2048, 128, 1, 0, 0, 64, 0, 8, 1, 1, 8, 0, 0]
    for at, value in changed.items():
        params[at] = value
    assert words in across.refused(SOURCE, "reduce_lanes", [x, y], params, kind)


@pytest.mark.parametrize("op", range(4))
@pytest.mark.parametrize("dtype", ["half", "float"])
def test_speed(dtype: str, op: int) -> None:
    """A tenth of what a busy machine does, so that only a change of the order of work shows."""
    code, kind = TYPES[dtype]
    x = seed("speed").standard_normal(65280 // kind.itemsize).astype(kind)
    y, times = np.zeros(32, np.uint8), 20
    start = time.process_time()
    across.run(SOURCE, "reduce_speed", [x, y], [code, op, times])
    assert times * x.size / (time.process_time() - start) > 2e7
