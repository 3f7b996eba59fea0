"""What `tune` shows while it works: on a terminal and elsewhere, also when cut off or resumed."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tilewright.autotune.trials import Stage, State, TrialRow
from tilewright.cli.tune_progress import Bar, Lines, Tally, watching
from tilewright.space import Config

pytestmark = pytest.mark.alone


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def row(number: int, value: float | None, unit: str = "us", evidence: str = "measured") -> TrialRow:
    state, stage = (State.OK, Stage.TIME) if value else (State.FAILED, Stage.CHECK)
    reason = "" if value else "element (0, 0) is 1 instead of 2"
    return TrialRow(
        number, "cpu", Config(tile=number), state, value, value, unit, stage, reason, "", evidence
    )


def test_the_best_the_gain_the_pace_and_the_time_left() -> None:
    clock = Clock()
    tally = Tally(10, None, clock)
    assert (tally.note(), tally.pace(), tally.left()) == ("nothing works yet", "", "")
    for i, value in enumerate((100.0, 80.0, None, 90.0)):
        clock.now += 0.5
        tally.add(row(i, value))
    assert tally.note() == "best 80 us, 1.25x the default"
    assert tally.pace() == "2.0 trials/s"
    assert tally.left() == "3 s left"
    assert tally.failed == 1
    clock.now += 38
    assert tally.pace() == "10.0 s/trial"
    assert tally.left() == "60 s left"


def test_what_was_known_counts_for_the_best_and_not_for_the_pace() -> None:
    clock = Clock()
    tally = Tally(100, None, clock)
    clock.now = 50.0
    tally.begin([row(0, 100.0), row(1, 50.0), row(2, None)])
    assert tally.note() == "best 50 us, 2.00x the default" and tally.pace() == ""
    clock.now += 2.0
    tally.add(row(3, 70.0))
    assert tally.finished == 4 and tally.left() == "3:12 min left"


def test_scores_of_models_are_no_times() -> None:
    tally = Tally(None, None)
    tally.add(row(0, 4.0, "score", "modelled"))
    assert tally.note() == "best 4 score"
    tally.add(row(1, 2.0, "score", "modelled"))
    assert tally.note() == "best 2 score, 2.00x the default by score"


def test_the_nearer_of_both_limits_is_told() -> None:
    clock = Clock()
    tally = Tally(1000, 30.0, clock)
    clock.now = 10.0
    tally.add(row(0, 1.0))
    assert tally.left() == "20 s left"
    clock.now = 60.0
    assert tally.left() == "0 s left"


def test_plain_lines_say_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Tally(5, None), "M=16: ")
    lines.begin([row(0, 100.0)])
    lines.stage(1, Stage.CHECK)
    lines.trial(row(1, 50.0))
    lines.trial(row(2, None))
    lines.phase("timing the best and the default again, in turns")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "M=16: 1 trials are known from before (best 100 us)"
    assert said[1].startswith("M=16: trial 2/5: 50 us (best 50 us, 2.00x the default, ")
    assert "failed at check: element (0, 0) is 1 instead of 2" in said[2]
    assert said[3].endswith("in turns") and len(said) == 4


def test_the_bar_shows_the_stage_in_work() -> None:
    from rich.progress import Progress

    bar = Progress(disable=True)
    shown = Bar(Tally(4, None), bar, bar.add_task("tune", total=4, note="", doing=""))
    shown.begin([row(0, 10.0)])
    shown.stage(1, Stage.TIME)
    task = bar.tasks[0]
    assert (task.completed, task.fields["doing"]) == (1, "timing 1")
    shown.trial(row(1, None))
    assert (
        task.completed == 2
        and "1 failed" in task.fields["note"]
        and "best 10 us" in task.fields["note"]
    )


def test_elsewhere_than_on_a_terminal_there_are_lines() -> None:
    with watching(3, None) as watch:
        assert isinstance(watch, Lines)


START = "import sys; from tilewright.cli.main import main; sys.exit(main())"
TUNE = [sys.executable, "-c", START, "tune", "gemm", "--shape", "M=8,N=32,K=32"]


def test_a_terminal_shows_it_and_ctrl_c_keeps_what_was_found(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "TILEWRIGHT_DATA": str(tmp_path / "data"),
        "TILEWRIGHT_CACHE": str(tmp_path / "cache"),
        "COLUMNS": "200",
        "TERM": "xterm",
    }
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*TUNE, "--seconds", "300", "--json", str(tmp_path / "tune.json")],
        stdout=theirs, stderr=theirs, stdin=theirs, env=environment,
    )  # fmt: skip
    os.close(theirs)
    text, cut = "", False
    shown = (
        r"best [\d.]+ us(, [\d.]+x the default)? \| .*/",  # nothing of the default where nothing beats it
        r"(gating|checking|timing) ([5-9]|\d\d)",  # the default, and what the tiling says, are behind it
        r"[\d.]+ (trials/s|s/trial) \| [\d:]+ (s|min) left",
    )
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if not select.select([ours], [], [], 1.0)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            text += os.read(ours, 65536).decode(errors="replace")
        except OSError:
            break
        if not cut and all(re.search(one, text) for one in shown):
            process.send_signal(signal.SIGINT)
            cut = True
    assert process.wait(60) == 0, text[-2000:]
    os.close(ours)
    assert cut, text[-2000:]
    assert "interrupted: the same command resumes the study" in text and "kept in" in text
    assert (tmp_path / "tune.json").stat().st_size > 1000
