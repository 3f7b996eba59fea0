"""Screening: one to three counted repeats of a config, as many as the noise seen so far and its rank call for.

Screening only has to keep the good ones for the race. A config far behind the best is left after one
repeat; one near it is repeated until its value is worth ranking. The first repeat of a config often
differs from the others (cold caches, a clock that has not settled, slow or fast), sometimes the next ones
too: where they do, they are flagged and not counted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

MOST_REPEATS = 3
# Further behind the best than a slow start explains: one repeat is enough.
_HOPELESS = 5.0
# One that becomes slower while it settles matters up to here.
_NEAR = 1.1
# Leading repeats that may be warm-up: each of them off from the next the same way.
_MOST_WARM = 4
# Standard error of a value, as a fraction, from which on ranking gains nothing: the race tells the rest.
_ENOUGH = 0.01
_SPREADS = 3.0
# A first repeat that departs by less than this is as good as the others.
_WARM_SHIFT = 0.02
_MAD = 1.4826


@dataclass(slots=True)
class Noise:
    """What repeats of one config differ by, learnt from all configs so far: a fraction, one standard deviation."""

    assumed: float = 0.02
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=200))

    def saw(self, first: float, second: float) -> None:
        """Two repeats of one config, one after the other."""
        self._steps.append(_apart(first, second))

    @property
    def spread(self) -> float:
        """The assumed value counts for four pairs, so that the first few decide nothing."""
        known = [*self._steps, *[self.assumed * math.sqrt(2) / _MAD] * 4]
        return float(np.median(known)) * _MAD / math.sqrt(2)


@dataclass(frozen=True, slots=True)
class Screened:
    """The value of a config by screening, in the unit of its repeats.

    `repeats` are all that were taken, `warm` how many leading ones do not count, `spread` the fraction by
    which one repeat may be off.
    """

    value: float
    repeats: tuple[float, ...]
    warm: int
    spread: float

    @property
    def counted(self) -> tuple[float, ...]:
        return self.repeats[self.warm :]

    @property
    def reach(self) -> float:
        """Half the 95 % interval of the value as a fraction, by the noise of all configs."""
        return 1.96 * self.spread / math.sqrt(len(self.counted))


def screen(take: Callable[[], float], noise: Noise, best: float | None = None) -> Screened:
    """Screen one config: `take` gives its next repeat, `best` is the value of the best config so far."""
    repeats = [take()]
    if best is not None and repeats[0] > _HOPELESS * best:
        return Screened(repeats[0], tuple(repeats), 0, noise.spread)
    repeats.append(take())
    spread = noise.spread
    unusual = max(_WARM_SHIFT, _SPREADS * spread * math.sqrt(2))
    warm = _warm(repeats, unusual)
    while (_unsettled(repeats, warm) and _may_matter(repeats, best)) or (
        len(repeats) - warm < MOST_REPEATS and _worth(repeats[warm:], spread, best)
    ):
        repeats.append(take())
        warm = _warm(repeats, unusual)
    counted = repeats[warm:]
    for first, second in zip(counted, counted[1:], strict=False):
        noise.saw(first, second)
    return Screened(_middle(counted), tuple(repeats), warm, noise.spread)


def _warm(repeats: list[float], unusual: float) -> int:
    """How many leading repeats do not count: each off from the next by more than noise, all the same way.

    Where the first agrees with the last it was another one that was odd, and all count.
    """
    steps = [math.log(a / b) for a, b in zip(repeats, repeats[1:], strict=False)]
    warm = 0
    for step in steps[:_MOST_WARM]:
        if abs(step) <= unusual or step * steps[0] < 0:
            break
        warm += 1
    return 0 if len(repeats) > 2 and _apart(repeats[0], repeats[-1]) <= unusual else warm


def _unsettled(repeats: list[float], warm: int) -> bool:
    """Whether the last repeat still moved the way the first did."""
    return 0 < warm < _MOST_WARM and warm == len(repeats) - 1


def _may_matter(repeats: list[float], best: float | None) -> bool:
    """Whether a config that has not settled can come out near the best: it becomes faster, or was near it."""
    falling = repeats[-1] < repeats[0]
    return best is None or falling or min(repeats) < _NEAR * best


def _apart(first: float, second: float) -> float:
    return abs(math.log(first / second))


def _worth(counted: list[float], spread: float, best: float | None) -> bool:
    """Whether one more repeat may change the rank of a config that matters."""
    error = spread / math.sqrt(len(counted))
    near = best is None or min(counted) < best * math.exp(_SPREADS * error)
    split = len(counted) > 1 and _apart(*counted[:2]) > _SPREADS * spread * math.sqrt(2)
    return near and (error > _ENOUGH or split)


def _middle(values: list[float]) -> float:
    """The median; of two the geometric mean."""
    return float(np.exp(np.median(np.log(values))))
