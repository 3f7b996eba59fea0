"""What else the machine was doing while something was timed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tilewright.machine import usable_cores

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
# Above this share of the machine taken by others, the timing is marked as disturbed.
DISTURBED = 0.10


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Shares of the machine's processor time during a timing; None where the system does not say.

    `others` was used by other processes, `steal` was withheld by the hypervisor; `load` is the
    one-minute load average at the end.
    """

    others: float | None
    steal: float | None
    load: float | None

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


class Watch:
    """Readings from its creation to `read`."""

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._ours = time.process_time()
        self._start = _jiffies()

    def read(self) -> Disturbance:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        end, wall = _jiffies(), time.monotonic() - self._wall
        if self._start is None or end is None or wall < 0.05:
            return Disturbance(None, None, load)
        room = wall * max(usable_cores(), os.cpu_count() or 1)
        ours = time.process_time() - self._ours
        others = max(0.0, end[0] - self._start[0] - ours) / room
        return Disturbance(min(1.0, others), min(1.0, (end[1] - self._start[1]) / room), load)
