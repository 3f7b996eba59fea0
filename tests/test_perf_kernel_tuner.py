"""Kernel Tuner's strategies beside ours: the page, what is kept, and (marker `peers`) the real thing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tilewright.perf.peers import kernel_tuner
from tilewright.perf.peers.kernel_tuner import Run, cache_content, page, peer_runs
from tilewright.perf.recorded import parse, read
from tilewright.toolchains import toolchain, why_missing

SPACES = Path(__file__).parent / "data" / "spaces"
needs_peer = pytest.mark.skipif(
    bool(why_missing(toolchain("kernel-tuner"))),
    reason="the kernel-tuner toolchain is not installed",
)


def test_a_recording_survives_the_way_through_kernel_tuners_format() -> None:
    """KTT results become a cache that reads back as the same space."""
    ktt = read(SPACES / "ktt-convolution-RTX3090.json.gz")
    back = parse(ktt.name, json.loads(json.dumps(cache_content(ktt))))
    assert [back.config(i) for i in range(0, len(back), 97)] == [
        ktt.config(i) for i in range(0, len(ktt), 97)
    ]
    assert np.array_equal(back.times_ms, ktt.times_ms)


def test_the_page_orders_by_the_end_and_names_what_failed() -> None:
    runs = [
        Run("s.json.gz", "slow", 0, (0.5,) * 50, 1.0),
        Run("s.json.gz", "tilewright portfolio", 0, (0.25,) * 24 + (0.75,) * 26, 2.0),
        Run("s.json.gz", "broken", 0, (0.0,) * 50, 1.0, "ValueError: no"),
    ]
    text = page(runs, 50, 1)
    overview, _, table = text.partition("## s")
    assert "| s | 0.750 | 0.750 | 0.500 slow |" in overview
    lines = [line for line in table.splitlines() if line.startswith("| ") and "method" not in line]
    assert [line.split("|")[1].strip() for line in lines] == [
        "**tilewright portfolio**",
        "slow",
        "broken",
    ]
    assert "| 0.750 | 0.750 |" in lines[0]
    assert "broken on s.json.gz raised ValueError: no" in text


@needs_peer
@pytest.mark.peers
def test_runs_are_independent_of_what_ran_before_and_kept(tmp_path: Path) -> None:
    """A searchspace that was shared between runs told later ones where earlier ones had ended."""
    space = read(SPACES / "convolution-A4000.json.gz")
    names = ("adaptive_tabu_greywolf", "simulated_annealing")
    first = list(peer_runs(space, names, 2, 60, tmp_path / "a.jsonl"))
    alone = list(peer_runs(space, names[1:], 2, 60, tmp_path / "b.jsonl"))
    assert sorted(r.best for r in alone) == sorted(r.best for r in first if r.method == names[1])
    assert len(first) == 4
    again = list(peer_runs(space, names, 2, 60, tmp_path / "a.jsonl"))
    assert sorted(r.best for r in again) == sorted(r.best for r in first)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 4


@needs_peer
@pytest.mark.peers
def test_ours_is_not_behind_on_a_few_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    path = SPACES / "convolution-A100.json.gz"
    ours = kernel_tuner.our_runs(path, "portfolio", 6, 100)
    chance = kernel_tuner.our_runs(path, "random", 6, 100)
    ends = [np.mean([r.best[-1] for r in runs]) for runs in (ours, chance)]
    assert ends[0] > ends[1] + 0.1
