"""A drift sentinel: one config is timed again and again, so that a machine that changed shows.

Clocks fall, neighbours wake up: what was measured meanwhile is no value of its config. Between two
readings of the reference lies a window of configs; when the second reading is off by more than readings
differ by themselves, the window is discarded and its configs are measured again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

# Readings that make the first level, and those the level is the median of.
_FIRST, _KEPT = 3, 25
# A reading is off beyond this many of its own spreads, and this fraction in any case.
_SPREADS, _SHIFT = 4.0, 0.03
_MAD = 1.4826
# Readings until a machine that has changed is taken to stay so, and seconds between the first two; each pause
# is longer than the one before, 4 s in all.
_PATIENCE, _PAUSE_S, _LONGER = 12, 0.05, 1.3


@dataclass(frozen=True, slots=True)
class Look:
    """What a reading said. `ratio` is the reference over its level: 1.2 means a fifth slower than it was.

    `released` are the configs whose values stand, `disturbed` those to be measured again.
    """

    steady: bool
    ratio: float
    released: tuple[Hashable, ...]
    disturbed: tuple[Hashable, ...]


class Sentinel:
    """Readings of a reference, and the configs measured since the last good one.

    `take` times the reference once; `now` and `sleep` are clocks, real or simulated; a look is due
    `interval_s` after the last.
    """

    def __init__(
        self,
        take: Callable[[], float],
        interval_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._take, self._interval, self._now, self._sleep = take, interval_s, now, sleep
        self._good: list[float] = []
        self._steps: list[float] = []
        self._window: list[Hashable] = []
        self._last = -math.inf
        self._start = 0.0

    @property
    def level(self) -> float:
        """What the reference takes on this machine as it is."""
        return float(np.median(self._good))

    @property
    def shift(self) -> float:
        """The level over the one it began with: values taken now are this much too large to compare with the first."""
        return self.level / self._start

    @property
    def tolerance(self) -> float:
        """The log ratio from which on a reading is off: readings differ by themselves."""
        spread = float(np.median(self._steps)) * _MAD / math.sqrt(2) if self._steps else 0.0
        return max(math.log1p(_SHIFT), _SPREADS * spread)

    @property
    def due(self) -> bool:
        return self._now() - self._last >= self._interval

    def begin(self) -> None:
        """Take the first readings; before anything is measured."""
        while len(self._good) < _FIRST:
            self._accept(self._take())
        self._start = self._start or self.level
        self._last = self._now()

    def measured(self, config: Hashable) -> None:
        """A config was measured, in the window that the next look closes."""
        self._window.append(config)

    def look(self) -> Look:
        """Time the reference and close the window: its configs stand, or are to be measured again.

        A single reading that is off may be its own bad luck; a second one straight after decides.
        """
        self.begin()
        value = self._take()
        if self._off(value):
            value = min(value, self._take(), key=lambda v: abs(math.log(v / self.level)))
        ratio, steady = value / self.level, not self._off(value)
        window, self._window, self._last = tuple(self._window), [], self._now()
        if steady:
            self._accept(value)
        return Look(steady, ratio, window if steady else (), () if steady else window)

    def settle(self) -> float:
        """Wait until the reference is back, or rests on another level, which then counts; returns new over old level."""
        old, recent, pause = self.level, list[float](), _PAUSE_S
        for _ in range(_PATIENCE):
            self._sleep(pause)
            pause *= _LONGER
            recent.append(self._take())
            if not self._off(recent[-1]):
                self._accept(recent[-1])
                break
        else:
            self._good = recent[-_FIRST:]
        self._last = self._now()
        return self.level / old

    def _off(self, value: float) -> bool:
        return abs(math.log(value / self.level)) > self.tolerance

    def _accept(self, value: float) -> None:
        if self._good:
            self._steps.append(abs(math.log(value / self._good[-1])))
        self._good.append(value)
        del self._good[:-_KEPT], self._steps[:-_KEPT]
