"""The Monte Carlo of page sizes: against what can be derived, and what it refuses."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import CommandLine
from tilewright.errors import UsageError
from tilewright.pages import lengths, simulate
from tilewright.pages.simulate import Plan

pytestmark = pytest.mark.alone


def plan(**fields: object) -> Plan:
    known: dict[str, object] = {
        "lengths": lengths.Normal(600, 150),
        "sequences": 128,
        "steps": 300,
        "trials": 8,
    }
    return Plan(**{**known, **fields})  # type: ignore[arg-type]


def test_waste_is_half_a_page_and_falls_without_end() -> None:
    """Of smoothly spread lengths, the last page's fill is uniform: (page - 1) / 2 tokens are wasted."""
    sizes = (1, 2, 4, 8, 16, 32)
    result = simulate.simulate(plan(page_sizes=sizes))
    for size, row in zip(sizes, result.rows, strict=True):
        assert row.waste_tokens == pytest.approx((size - 1) / 2, rel=0.05, abs=1e-9)
        assert row.waste_tokens_low <= row.waste_tokens <= row.waste_tokens_high
    bookkeeping = [row.bookkeeping_bytes for row in result.rows]
    assert bookkeeping == sorted(bookkeeping, reverse=True)
    assert result.minimum["waste"] == 1 and result.minimum["bookkeeping"] == 32


def test_sixteen_is_the_minimum_only_for_a_range_of_costs() -> None:
    """What a page costs decides: the sum is least at 16 exactly inside its own range of `best_for`."""
    small = simulate.simulate(plan(token_bytes=100.0, table_bytes=0.0, pool_bytes=4.27))
    (sixteen,) = [b for b in small.best_for if b.page_tokens == 16]
    assert sixteen.to_bytes is not None
    for cost, best in (
        (sixteen.from_bytes * 0.9, 8),
        (sixteen.from_bytes * 1.1, 16),
        (sixteen.to_bytes * 0.9, 16),
        (sixteen.to_bytes * 1.1, 32),
    ):
        again = simulate.simulate(plan(token_bytes=100.0, table_bytes=0.0, pool_bytes=cost))
        assert again.minimum["overhead"] == best
    # The derived place of the change from one size to the next: equal sums of waste and cost.
    mean = float(np.mean([r.table_entries * r.page_tokens for r in small.rows])) / 128
    assert sixteen.from_bytes == pytest.approx(8 * 16 * 100.0 / (2 * mean), rel=0.1)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 1000), st.integers(0, 1000)), min_size=1, max_size=6, unique=True
    ),
    st.floats(0, 50),
)
def test_best_for_is_the_lower_envelope(lines: list[tuple[int, int]], cost: float) -> None:
    base = simulate.simulate(plan(page_sizes=(8,), trials=1, steps=1)).rows[0]
    rows = [
        replace(base, page_tokens=i + 1, table_entries=float(slope), waste_bytes=float(waste))
        for i, (slope, waste) in enumerate(lines)
    ]
    found = simulate.best_for(rows)
    assert found[0].from_bytes == 0 and found[-1].to_bytes is None
    assert all(a.to_bytes == b.from_bytes for a, b in zip(found, found[1:], strict=False))
    (chosen,) = [
        b for b in found if b.from_bytes <= cost and (b.to_bytes is None or cost < b.to_bytes)
    ]
    sums = {r.page_tokens: r.waste_bytes + cost * r.table_entries for r in rows}
    assert sums[chosen.page_tokens] == pytest.approx(min(sums.values()))


def test_trials_of_a_seed_are_the_same_and_sizes_see_the_same_sequences() -> None:
    one, two = (simulate.simulate(plan(trials=2, steps=50, seed=7)) for _ in range(2))
    assert one == two
    assert simulate.simulate(plan(trials=2, steps=50, seed=8)) != one
    alone = simulate.simulate(plan(trials=2, steps=50, seed=7, page_sizes=(16,)))
    assert alone.rows[0] == one.rows[1]


def test_a_peak_is_at_least_what_the_tokens_take() -> None:
    result = simulate.simulate(plan(lengths=lengths.Lognormal(300, 1.0)))
    for row in result.rows:
        assert row.peak_bytes >= row.peak_token_bytes > 0
        assert row.most_pages >= row.peak_pages >= row.table_entries


def test_lengths_of_a_file(tmp_path: Path) -> None:
    place = tmp_path / "lengths.txt"
    place.write_text("100 100, 16 # of a log\n\n17\n")
    found = lengths.parse(str(place))
    assert isinstance(found, lengths.Listed) and found.lengths == (100, 100, 16, 17)
    assert set(found.draw(1000, np.random.default_rng(0))) == {16, 17, 100}
    one = tmp_path / "one.txt"
    one.write_text("33")
    row = simulate.simulate(
        Plan(lengths.read(one), page_sizes=(16,), sequences=5, steps=4, trials=1, prompt=1.0)
    ).rows[0]
    assert row.waste_tokens == 15 and row.most_pages == 15 and row.waste_share == 15 / 48


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("normal:5", "is not two numbers after normal:"),
        ("normal:0,1", "the first number must be 1 to"),
        ("lognormal:5,-1", "the second 0 or more"),
        ("uniform:1,2", "there is no distribution and no file 'uniform:1,2'"),
    ],
)
def test_distributions_that_are_none(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        lengths.parse(text)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"12\nx\n", "line 2: 'x' is not a whole number"),
        (b"0", "line 1: a length of 0"),
        (b"# none\n", "holds no lengths"),
        (b"\xff\xfe\x00", "is not a text file"),
    ],
)
def test_files_that_hold_no_lengths(tmp_path: Path, content: bytes, sentence: str) -> None:
    place = tmp_path / "lengths"
    place.write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        lengths.read(place)


def test_the_command_and_its_document(tilewright: CommandLine, tmp_path: Path) -> None:
    plot = tmp_path / "curve.svg"
    ran = tilewright(
        *("pages", "simulate", "--trials", "3", "--steps", "64", "--lengths", "normal:500,100"),
        *("--plot", str(plot), "--json", "-"),
    )
    assert ran.code == 0, ran.err
    document = ran.document
    assert document["schema"] == "tilewright/pages/1" and document["what"] == "simulate"
    assert [r["page_tokens"] for r in document["rows"]] == [8, 16, 32, 64, 128]
    assert {r["evidence"] for r in document["rows"]} == {"modelled"}
    assert document["minimum"]["waste"] == 8 and document["minimum"]["bookkeeping"] == 128
    assert (
        document["best_for"][0]["from_bytes"] == 0 and document["best_for"][-1]["to_bytes"] is None
    )
    drawn = ET.parse(plot).getroot()
    assert drawn.tag.endswith("svg")
    described = "".join(e.text or "" for e in drawn.iter() if e.tag.endswith("desc"))
    assert "waste: least at 8 tokens" in described


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("simulate", "--page-sizes", "8,x"),
            "--page-sizes takes whole numbers such as 8,16, not '8,x'",
        ),
        (("simulate", "--page-sizes", "0"), "--page-sizes 0: one or more numbers from 1 on"),
        (("simulate", "--prompt", "2"), "--prompt 2: a share from 0 to 1"),
        (("simulate", "--trials", "0"), "--trials 0: at least 1"),
        (("simulate", "--plot", "a.png"), "name it FILE.svg"),
        (("simulate", "--token-bytes", "-1"), "--token-bytes -1: 0 or more"),
        (("bench", "--allocator", "malloc"), "unknown allocator 'malloc'; accepted: bitmap"),
        (("bench", "--scenario", "calm"), "unknown scenario 'calm'; accepted: striped"),
        (("bench", "--threads", "99", "--scenario", "one-word"), "threads from 1 to 64"),
        (("bench", "--turns", "0"), "--turns 0: at least 1"),
    ],
)
def test_wrong_requests(tilewright: CommandLine, arguments: tuple[str, ...], sentence: str) -> None:
    ran = tilewright("pages", *arguments)
    assert ran.code == 2 and sentence in ran.err and "Traceback" not in ran.err


def test_bench_measures_what_it_says(tilewright: CommandLine) -> None:
    ran = tilewright(
        *("pages", "bench", "--turns", "6", "--scenario", "striped,one-word,full-99"),
        *("--threads", "1,3", "--json", "-"),
    )
    assert ran.code == 0, ran.err
    rows = ran.document["rows"]
    assert ran.document["schema"] == "tilewright/pages/1" and len(rows) == 3 * 2 * 2 * 5
    for row in rows:
        assert row["evidence"] == "measured" and row["target"] == "cpu"
        assert 0 < row["fastest_ns"] <= row["pair_ns"] <= row["ci_high_ns"]
        assert (row["ratio"] is None) == (row["allocator"] == "bitmap")
        assert 0 < row["running"] <= 1.01
    # A locked instruction each for alloc and free takes nanoseconds; anything below was not done.
    single = [r for r in rows if r["allocator"] == "bitmap" and r["batch"] == 1]
    assert min(r["fastest_ns"] for r in single) > 1
