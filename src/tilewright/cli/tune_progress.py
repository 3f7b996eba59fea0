"""What `tilewright tune` shows while it works: a bar on a terminal, plain lines elsewhere; on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tilewright.autotune.watch import Watch
from tilewright.evidence import Evidence

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tilewright.autotune.trials import Stage, TrialRow

_DOING = {"gate": "gating", "check": "checking", "time": "timing"}


class Tally:
    """What is known so far: the best, the default, and how fast trials go. `clock` gives seconds."""

    def __init__(
        self,
        trials: int | None,
        seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trials, self.seconds = trials, seconds
        self._clock = clock
        self.began = clock()
        self.known = 0
        self.done = 0
        self.failed = 0
        self.best: TrialRow | None = None
        self.default: TrialRow | None = None

    def begin(self, rows: Sequence[TrialRow]) -> None:
        """Trials of an earlier run: they count for the best, and not for the pace."""
        for row in rows:
            self._take(row)
        self.known = len(rows)
        self.began = self._clock()

    def add(self, row: TrialRow) -> bool:
        """A finished trial; says whether it is the best so far."""
        self.done += 1
        return self._take(row)

    def _take(self, row: TrialRow) -> bool:
        if row.value is None:
            self.failed += 1
            return False
        if row.number == 0:
            self.default = row
        better = self.best is None or self.best.value is None or row.value < self.best.value
        if better:
            self.best = row
        return better

    @property
    def finished(self) -> int:
        return self.known + self.done

    def note(self) -> str:
        """The best so far, and against the default: of times how much faster, of scores the ratio."""
        best, default = self.best, self.default
        if best is None or best.value is None:
            return "nothing works yet"
        text = f"best {best.value:.4g} {best.unit}"
        if default is None or not default.value or not best.value or best is default:
            return text
        ratio = default.value / best.value
        timed = best.evidence == str(Evidence.MEASURED)
        return f"{text}, {ratio:.2f}x the default{'' if timed else ' by score'}"

    def pace(self) -> str:
        """Trials a second in this run (or seconds a trial); empty before the first."""
        spent = self._clock() - self.began
        if not self.done or spent <= 0:
            return ""
        rate = self.done / spent
        return f"{rate:.1f} trials/s" if rate >= 1 else f"{1 / rate:.1f} s/trial"

    def left(self) -> str:
        """Time until the nearer of both limits; empty where nothing is known."""
        spent = self._clock() - self.began
        ends = []
        if self.trials is not None and self.done:
            ends.append(spent / self.done * max(0, self.trials - self.finished))
        if self.seconds is not None:
            ends.append(max(0.0, self.seconds - spent))
        return f"{_duration(min(ends))} left" if ends else ""


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d} min" if whole < 5400 else f"{whole / 3600:.1f} h"


class Lines(Watch):
    """One line a trial; `prefix` names the size of a sweep."""

    def __init__(self, tally: Tally, prefix: str = "") -> None:
        self._tally, self._prefix = tally, prefix

    def begin(self, rows: Sequence[TrialRow]) -> None:
        self._tally.begin(rows)
        if rows:
            self._say(f"{len(rows)} trials are known from before ({self._tally.note()})")

    def trial(self, row: TrialRow) -> None:
        self._tally.add(row)
        of = f"/{self._tally.trials}" if self._tally.trials is not None else ""
        what = (
            f"{row.value:.4g} {row.unit}"
            if row.value is not None
            else f"failed at {row.stage}: {row.reason}"
        )
        facts = ", ".join(f for f in (self._tally.note(), self._tally.left()) if f)
        self._say(f"trial {row.number + 1}{of}: {what} ({facts}) {row.config}")

    def phase(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        print(f"{self._prefix}{text}", file=sys.stderr, flush=True)


class Bar(Watch):
    """A bar with the stage of the trial in work, the best so far, its gain, the pace and the time left."""

    def __init__(self, tally: Tally, bar: Progress, task: TaskID) -> None:
        self._tally, self._bar, self._task = tally, bar, task

    def begin(self, rows: Sequence[TrialRow]) -> None:
        self._tally.begin(rows)
        self._show()

    def stage(self, number: int, stage: Stage) -> None:
        self._bar.update(self._task, doing=f"{_DOING.get(str(stage), stage)} {number}")

    def trial(self, row: TrialRow) -> None:
        self._tally.add(row)
        self._show()

    def phase(self, text: str) -> None:
        self._bar.update(self._task, doing=text)

    def _show(self) -> None:
        tally = self._tally
        failed = f"{tally.failed} failed" if tally.failed else ""
        facts = [f for f in (tally.note(), tally.pace(), tally.left(), failed) if f]
        self._bar.update(self._task, completed=tally.finished, note=" | ".join(facts))


@contextmanager
def watching(trials: int | None, seconds: float | None, label: str = "") -> Iterator[Watch]:
    """A display for one tuning with these limits."""
    tally = Tally(trials, seconds)
    if not sys.stderr.isatty():
        yield Lines(tally, f"{label}: " if label else "")
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn(label or "tune"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[doing]}", style="dim"),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        yield Bar(tally, bar, bar.add_task("tune", total=trials, note="", doing=""))
