"""What the machine was doing while something was timed: its clock, and who else used it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tilewright.machine import usable_cores
from tilewright.perf import clock as clocks
from tilewright.perf.statistics import Samples

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
# Above this share of the machine taken by others, the timing is marked as disturbed.
DISTURBED = 0.10
# Counters of the system advance in ticks of 10 ms: readings closer than this say little.
_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine since the reading before, `at_s` seconds after the start; None where the system does not say.

    `mhz` is the clock at that moment; `others` and `steal` are shares of the machine's processor time.
    """

    at_s: float
    mhz: float | None
    others: float | None
    steal: float | None
    load: float | None


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Shares of the machine's processor time during a timing; None where the system does not say.

    `others` was used by other processes, `steal` was withheld by the hypervisor; `load` is the
    one-minute load average at the end. `readings` are the same over time, and `clock_source` says who read the clock.
    """

    others: float | None
    steal: float | None
    load: float | None
    readings: tuple[Reading, ...] = ()
    clock_source: str = "none"

    @property
    def taken(self) -> float | None:
        """The share of the machine that was not ours to use; None when that cannot be read."""
        if self.others is None or self.steal is None:
            return None
        return min(1.0, self.others + self.steal)

    @property
    def quiet(self) -> bool | None:
        """Whether the machine was ours; None when that cannot be read."""
        return None if self.taken is None else self.taken < DISTURBED

    def mhz(self) -> tuple[float, float] | None:
        """The lowest and the highest clock that was read; None where it cannot be."""
        found = [r.mhz for r in self.readings if r.mhz is not None]
        return (min(found), max(found)) if found else None

    def table(self) -> Samples:
        """The readings as rows of at_s, MHz, others, steal, load; NaN for what is not known."""
        rows = [[r.at_s, r.mhz, r.others, r.steal, r.load] for r in self.readings]
        filled = [[np.nan if v is None else v for v in row] for row in rows]
        return np.array(filled, dtype=np.float64).reshape(-1, 5)


READING_COLUMNS = ("at_s", "mhz", "others", "steal", "load")


def merged(parts: Sequence[Disturbance]) -> Disturbance:
    """Of several timings of one thing: the most disturbed shares, the last load, every reading."""

    def worst(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return max(known) if known else None

    return Disturbance(
        worst([p.others for p in parts]),
        worst([p.steal for p in parts]),
        parts[-1].load if parts else None,
        tuple(r for p in parts for r in p.readings),
        parts[-1].clock_source if parts else "none",
    )


@dataclass(frozen=True, slots=True)
class _Point:
    """Seconds: of the wall, of this process, busy and stolen ones of all processors (None if not told)."""

    wall: float
    ours: float
    jiffies: tuple[float, float] | None


def _jiffies() -> tuple[float, float] | None:
    """Busy and stolen seconds of all processors since boot."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    except OSError:
        return None
    fields = [int(v) / _TICK for v in first.split()[1:9]]
    if len(fields) < 8:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return user + nice + system + irq + softirq, steal


def _spent(process: int) -> float:
    """Processor seconds of a process so far; 0 once it is gone."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[
        11:13
    ]  # its name, which may hold blanks, stands in brackets
    return (int(user) + int(system)) / _TICK


def _point(processes: Sequence[int] = ()) -> _Point:
    ours = time.process_time() + sum(map(_spent, processes))
    return _Point(time.monotonic(), ours, _jiffies())


def _shares(start: _Point, end: _Point) -> tuple[float | None, float | None]:
    """Shares used by others and stolen between two points; None where too short or not told."""
    wall = end.wall - start.wall
    if start.jiffies is None or end.jiffies is None or wall < 0.05:
        return None, None
    room = wall * max(usable_cores(), os.cpu_count() or 1)
    others = max(0.0, end.jiffies[0] - start.jiffies[0] - (end.ours - start.ours)) / room
    return min(1.0, others), min(1.0, (end.jiffies[1] - start.jiffies[1]) / room)


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


class Watch:
    """Readings from its creation to `read`; `tick` between samples keeps them over time, cheap when called often.

    `processes` are others that work for us, such as peers that are timed: they disturb nobody.
    """

    def __init__(
        self,
        clock: Callable[[], clocks.Clock] = clocks.clock,
        processes: Sequence[int] = (),
    ) -> None:
        self._clock, self._processes = clock(), tuple(processes)
        self._start = self._last = _point(self._processes)
        self._readings: list[Reading] = []
        self._note(self._start)

    def _note(self, point: _Point) -> None:
        others, steal = _shares(self._last, point)
        at = round(point.wall - self._start.wall, 3)
        self._readings.append(Reading(at, self._clock.mhz(), others, steal, _load()))
        self._last = point

    def tick(self) -> None:
        """A reading, unless the last one is fresh."""
        if time.monotonic() - self._last.wall >= _EVERY_S:
            self._note(_point(self._processes))

    def read(self) -> Disturbance:
        """The shares since the start, with all readings, the last one taken now."""
        point = _point(self._processes)
        self._note(point)
        others, steal = _shares(self._start, point)
        return Disturbance(others, steal, _load(), tuple(self._readings), self._clock.source)
