"""A Gaussian process over the pool: what a history says about every config.

Hyperparameters are fitted at milestones, each from the trials before it alone, and the posterior is built
at the last milestone and extended from there. What is proposed therefore depends on the history and on
nothing else: a resumed study goes on as if it had not stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from tilewright.autotune.sampling import fitting
from tilewright.autotune.sampling.covariance import Axes, Covariance, Floats, Hyper, Singles
from tilewright.autotune.sampling.pool import Indices, Pool
from tilewright.autotune.sampling.posterior import Posterior

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


class _Belief:
    """One set of hyperparameters, what it makes of a history, and the configs it looks at."""

    def __init__(self) -> None:
        self._posterior: Posterior | None = None
        self._built: tuple[Hyper, bytes] | None = None
        self._marks: list[tuple[int, Singles]] = []
        self._whitened: Floats = np.zeros(0)
        self.scale = 1.0

    @property
    def posterior(self) -> Posterior:
        assert self._posterior is not None, "learn comes first"
        return self._posterior

    def learn(
        self,
        covariance: Callable[[], Covariance],
        hyper: Hyper,
        view: Callable[[], Indices],
        built_from: tuple[Indices, bytes],
        later: Sequence[int],
        y: Floats,
    ) -> None:
        """Build from the history up to a milestone, unless that is done, and extend by what came later."""
        start, digest = built_from
        if self._posterior is None or self._built != (hyper, digest):
            self._posterior = Posterior(covariance(), hyper.noise, view(), start)
            self._built = (hyper, digest)
            self._marks = [(len(start), self._posterior.variance)]
        self._extend(len(start), later)
        self._whitened = self._posterior.whiten(y)
        squares = float(self._whitened @ self._whitened)
        self.scale = math.sqrt(max(squares / max(len(y), 1), 1e-3))

    def _extend(self, start: int, wanted: Sequence[int]) -> None:
        """Append; rows of an earlier call stay where they agree."""
        found = self.posterior
        same = 0
        for one, other in zip(found.seen[start:], wanted, strict=False):
            if one != other:
                break
            same += 1
        found.cut(*self._marks[same])
        del self._marks[same + 1 :]
        for place in wanted[same:]:
            found.append([place])
            self._marks.append((len(found.seen), found.variance))

    def improvement(self, best: float) -> Singles:
        """Expected improvement on `best` of each config in view (Jones, Schonlau and Welch 1998)."""
        mean = self.posterior.means(self._whitened)
        deviation = np.sqrt(np.maximum(self.posterior.variance, 1e-7)) * np.float32(self.scale)
        z = (np.float32(best) - mean) / deviation
        below = 0.5 * (1.0 + _erf(z * np.float32(math.sqrt(0.5))))
        density = np.exp(-0.5 * z * z) * np.float32(1 / math.sqrt(2 * math.pi))
        return np.asarray(deviation * (z * below + density), dtype=np.float32)

    def predict(self, places: Indices) -> tuple[Floats, Floats]:
        """Mean and standard deviation at configs of the pool."""
        mean, variance = self.posterior.at(places, self._whitened)
        return mean, np.sqrt(np.maximum(variance, 1e-7)) * self.scale


class Surrogate:
    """Kept up to date by `learn`; then answers for any config.

    Two beliefs: hyperparameters fitted to the history, and a smooth landscape whatever the history says. Few
    trials fit badly, and what both expect to be good is worth trying first.
    """

    def __init__(self, pool: Pool, seed: int = 0) -> None:
        self.pool = pool
        self.seed = seed
        self._axes = Axes(pool)
        self._smooth = fitting.smooth(self._axes)
        self._fits: dict[int, tuple[bytes, Hyper]] = {}
        self._fitted, self._fixed = _Belief(), _Belief()
        self._best = 0.0

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
        y = targets(values)
        self._best = float(y.min()) if len(y) else 0.0
        # What never changes is never built anew: only the view of a large pool asks for it.
        whole = len(self.pool) <= VIEW
        for belief, own, start in (
            (self._fitted, hyper, mark),
            (self._fixed, self._smooth, 0 if whole else mark),
        ):
            belief.learn(
                partial(self._axes.covariance, own),
                own,
                partial(self._view, tried[:mark], values[:mark]),
                (tried[:start], _digest(tried[:start], values[:start])),
                [int(i) for i in (*tried[start:], *pending)],
                y,
            )

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
        return self._fitted.posterior.view

    def improvement(self, margin: float = 0.0) -> Singles:
        """Expected improvement of each config in view over the best observation, the mean of both beliefs.

        With a margin, in standard deviations of the targets, only what is better by more counts.
        """
        wanted = self._best - margin
        both = self._fitted.improvement(wanted) + self._fixed.improvement(wanted)
        return np.asarray(both / 2, dtype=np.float32)

    def predict(self, places: Indices) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the standardised target at configs of the pool, as fitted."""
        return self._fitted.predict(places)


def _digest(tried: Indices, values: Floats) -> bytes:
    return tried.tobytes() + values.tobytes()


def _erf(x: Singles) -> Singles:
    """Abramowitz and Stegun 7.1.26, absolute error below 2e-7."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    poly = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    return np.asarray(np.sign(x) * (1.0 - poly * np.exp(-x * x)), dtype=np.float32)
