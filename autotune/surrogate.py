"""A Gaussian process over the pool: what a history says about every config.

Hyperparameters are fitted at milestones, each from the trials before it alone, and the posterior is built
at the last milestone and extended from there. What is proposed therefore depends on the history and on
nothing else: a resumed study goes on as if it had not stopped.
"""

from __future__ import annotations

import math

import numpy as np

from tilewright.autotune import fitting
from tilewright.autotune.covariance import Axes, Floats, Hyper, Singles
from tilewright.autotune.pool import Indices, Pool
from tilewright.autotune.posterior import Posterior

# The first fit, and by how much the history grows between fits.
_FIRST_FIT, _GROWTH = 8, 1.35
# How much of the logarithms' upper half is left, relative to the lower half.
_SQUEEZE = 0.8
# A larger pool is seen through a part of it, drawn anew at each milestone.
VIEW = 20_000


def milestones(count: int) -> list[int]:
    """The sizes of the history at which hyperparameters are fitted, up to `count`."""
    found, size = [], _FIRST_FIT
    while size <= count:
        found.append(size)
        size = max(size + 3, int(size * _GROWTH))
    return found


def targets(values: Floats) -> Floats:
    """Standardised logarithms with the slow tail squeezed: how slow a bad config is teaches little.

    Infinite values (failures) count as a little worse than the worst.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(len(values))
    logs = np.full(len(values), np.nan)
    logs[finite] = np.log(np.maximum(values[finite], 1e-30))
    low, middle = float(np.nanmin(logs)), float(np.nanmedian(logs))
    room = max(middle - low, 1e-6) * _SQUEEZE
    slow = logs > middle
    logs[slow] = middle + room * np.log1p((logs[slow] - middle) / room)
    logs[~finite] = float(np.nanmax(logs)) + 0.25 * room
    spread = float(logs.std())
    return np.asarray((logs - logs.mean()) / (spread if spread > 1e-12 else 1.0), dtype=np.float64)


class Surrogate:
    """Kept up to date by `learn`; then answers for any config."""

    def __init__(self, pool: Pool, seed: int = 0) -> None:
        self.pool = pool
        self.seed = seed
        self._axes = Axes(pool)
        self._fits: dict[int, tuple[bytes, Hyper]] = {}
        self._posterior: Posterior | None = None
        self._built: bytes = b""
        self._whitened: Floats = np.zeros(0)
        self._best = 0.0
        self._scale = 1.0

    def learn(self, tried: Indices, values: Floats, pending: Indices) -> None:
        """Take in a history: finished trials in the order of their numbers, then configs being worked on.

        A pending config counts as giving what is expected of it: its surroundings become certain, nothing
        else changes (the kriging believer; Ginsbourger, Le Riche and Carraro 2010).
        """
        marks = milestones(len(tried))
        hyper = fitting.start(self._axes)
        for mark in marks:
            hyper = self._fit(tried[:mark], values[:mark], hyper)
        mark = marks[-1] if marks else 0
        built = _digest(tried[:mark], values[:mark])
        if self._posterior is None or built != self._built:
            view = self._view(tried[:mark], values[:mark])
            covariance = self._axes.covariance(hyper)
            self._posterior = Posterior(covariance, hyper.noise, view, tried[:mark])
            self._built, self._marks = built, [(mark, self._posterior.variance)]
        self._extend(tried, pending, mark)
        y = targets(values)
        self._whitened = self._posterior.whiten(y)
        self._best = float(y.min()) if len(y) else 0.0
        squares = float(self._whitened @ self._whitened)
        self._scale = math.sqrt(max(squares / max(len(y), 1), 1e-3))

    def _extend(self, tried: Indices, pending: Indices, mark: int) -> None:
        """Append what came since the milestone; rows of an earlier call stay where they agree."""
        found = self._posterior
        assert found is not None
        wanted = [int(i) for i in (*tried[mark:], *pending)]
        same = 0
        for one, other in zip(found.seen[mark:], wanted, strict=False):
            if one != other:
                break
            same += 1
        count, variance = self._marks[same]
        found.cut(count, variance)
        del self._marks[same + 1 :]
        for place in wanted[same:]:
            found.append([place])
            self._marks.append((len(found.seen), found.variance))

    def _fit(self, tried: Indices, values: Floats, before: Hyper) -> Hyper:
        """The fit at a milestone; kept while its prefix of the history stays what it was."""
        prefix = _digest(tried, values)
        kept = self._fits.get(len(tried))
        if kept is None or kept[0] != prefix:
            kept = (prefix, fitting.fit(self._axes, tried, targets(values), before))
            self._fits[len(tried)] = kept
        return kept[1]

    def _view(self, tried: Indices, values: Floats) -> Indices:
        """All of the pool; of a large one a random half and what surrounds the best."""
        count = len(self.pool)
        if count <= VIEW:
            return np.arange(count, dtype=np.int64)
        rng = np.random.default_rng([self.seed, len(tried)])
        parts = [rng.choice(count, VIEW // 2, replace=False), tried]
        room = VIEW // 2
        for best in tried[np.argsort(values, kind="stable")]:
            ring = self.pool.neighbours(int(best))
            second = [self.pool.neighbours(int(n)) for n in ring]
            around = np.unique(np.concatenate([ring, *second]))[:room]
            parts.append(around)
            room -= len(around)
            if room <= 0:
                break
        return np.unique(np.concatenate(parts)).astype(np.int64)

    @property
    def view(self) -> Indices:
        """The configs that `improvement` looks at."""
        assert self._posterior is not None, "learn comes first"
        return self._posterior.view

    def improvement(self, margin: float = 0.0) -> Singles:
        """Expected improvement of each config in view over the best observation (Jones et al. 1998).

        With a margin, in standard deviations of the targets, only what is better by more counts.
        """
        assert self._posterior is not None, "learn comes first"
        mean = self._posterior.means(self._whitened)
        deviation = np.sqrt(np.maximum(self._posterior.variance, 1e-7)) * np.float32(self._scale)
        z = (np.float32(self._best - margin) - mean) / deviation
        below = 0.5 * (1.0 + _erf(z * np.float32(math.sqrt(0.5))))
        density = np.exp(-0.5 * z * z) * np.float32(1 / math.sqrt(2 * math.pi))
        return np.asarray(deviation * (z * below + density), dtype=np.float32)

    def predict(self, places: Indices) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the standardised target at configs of the pool."""
        assert self._posterior is not None, "learn comes first"
        mean, variance = self._posterior.at(places, self._whitened)
        return mean, np.sqrt(np.maximum(variance, 1e-7)) * self._scale


def _digest(tried: Indices, values: Floats) -> bytes:
    return tried.tobytes() + values.tobytes()


def _erf(x: Singles) -> Singles:
    """Abramowitz and Stegun 7.1.26, absolute error below 2e-7."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    poly = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    return np.asarray(np.sign(x) * (1.0 - poly * np.exp(-x * x)), dtype=np.float32)
