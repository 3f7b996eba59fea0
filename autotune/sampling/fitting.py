"""Hyperparameters of the surrogate: log marginal likelihood, coordinate descent over a fixed grid.

Rasmussen and Williams, 2006, ch. 5.4.1, with the signal variance solved for. A normal prior on the
logarithm of each length scale keeps few observations from saying that a field does not matter.
"""

from __future__ import annotations

import math

import numpy as np

from tilewright.autotune.sampling.covariance import Axes, Floats, Hyper, mixed
from tilewright.autotune.sampling.pool import Indices

PRIOR_SCALE = 0.8
_SMOOTH_SCALE = 3.0
# Precision of the prior of a scale's logarithm.
_PRIOR_WEIGHT = 4.0
_START_NOISE = 1e-3
_START_SHARES = (0.2, 0.3, 0.5)
_NOISES = (1e-4, 1e-3, 1e-2, 5e-2)
_SHARES = (
    (0.3, 0.0, 0.7),
    (0.2, 0.3, 0.5),
    (0.1, 0.6, 0.3),
    (0.05, 0.05, 0.9),
    (0.3, 0.5, 0.2),
    (0.1, 0.3, 0.6),
)
_FACTORS = (0.5, 2.0)
_SCALES = (0.08, 10.0)
# Of a long history a fit looks at this many of the best, and at this many of the rest, evenly.
_BEST, _REST = 60, 50
_JITTER = 1e-6


def start(axes: Axes) -> Hyper:
    """What is believed before the first fit."""
    return Hyper((PRIOR_SCALE,) * len(axes), _START_SHARES, _START_NOISE)


def smooth(axes: Axes) -> Hyper:
    """A landscape on which every field matters gently."""
    return Hyper((_SMOOTH_SCALE,) * len(axes), _START_SHARES, _START_NOISE)


def fit(axes: Axes, tried: Indices, targets: Floats, before: Hyper) -> Hyper:
    """One round of coordinate descent from `before`: noise, shares, then each length scale."""
    chosen = _chosen(targets)
    likelihood = _Likelihood(axes, axes.ordinals[tried[chosen]], targets[chosen])
    best = before
    score = likelihood.start(best)
    for noise in _NOISES:
        best, score = likelihood.better(Hyper(best.scales, best.shares, noise), best, score)
    for shares in _SHARES:
        best, score = likelihood.better(Hyper(best.scales, shares, best.noise), best, score)
    for place in range(len(axes)):
        centre = best.scales[place]
        for factor in _FACTORS:
            scale = min(max(centre * factor, _SCALES[0]), _SCALES[1])
            scales = (*best.scales[:place], scale, *best.scales[place + 1 :])
            best, score = likelihood.better(Hyper(scales, best.shares, best.noise), best, score)
    return best


def _chosen(targets: Floats) -> Indices:
    order = np.argsort(targets, kind="stable")
    if len(order) <= _BEST + _REST:
        return order
    rest = np.linspace(_BEST, len(order) - 1, _REST).astype(np.int64)
    return np.concatenate([order[:_BEST], order[rest]])


class _Likelihood:
    """The likelihood of some observations; tables of fields are kept while their scales stay."""

    def __init__(self, axes: Axes, ordinals: Indices, targets: Floats) -> None:
        self._axes, self._ordinals, self._targets = axes, ordinals, targets
        self._scales: list[float] = []
        self._tables: list[Floats] = []
        self._parts: tuple[Floats, Floats, Floats] = (np.ones(0), np.zeros(0), np.zeros(0))

    def start(self, hyper: Hyper) -> float:
        self._scales = list(hyper.scales)
        self._tables = [self._table(p, s) for p, s in enumerate(hyper.scales)]
        self._parts = _parts(self._tables)
        return self._score(hyper, self._parts)

    def better(self, trial: Hyper, best: Hyper, score: float) -> tuple[Hyper, float]:
        """The better of a trial, which differs from the best in one thing, and the best."""
        moved = [p for p, s in enumerate(trial.scales) if s != self._scales[p]]
        tables = list(self._tables)
        for place in moved:
            tables[place] = self._table(place, trial.scales[place])
        parts = _parts(tables) if moved else self._parts
        value = self._score(trial, parts)
        if value <= score:
            return best, score
        self._tables, self._scales, self._parts = tables, list(trial.scales), parts
        return trial, value

    def _table(self, place: int, scale: float) -> Floats:
        own = self._ordinals[:, place]
        return self._axes.table(place, scale)[np.ix_(own, own)]

    def _score(self, hyper: Hyper, parts: tuple[Floats, Floats, Floats]) -> float:
        count = len(self._targets)
        own: Floats = mixed(*parts, hyper.shares, len(self._axes))
        own[np.diag_indices(count)] += hyper.noise + _JITTER
        try:
            factor = np.linalg.cholesky(own)
        except np.linalg.LinAlgError:
            return -math.inf
        whitened = np.linalg.solve(factor, self._targets)
        variance = max(float(whitened @ whitened) / count, 1e-12)
        prior = (
            0.5 * _PRIOR_WEIGHT * float((np.log(np.array(hyper.scales) / PRIOR_SCALE) ** 2).sum())
        )
        log_det = float(np.log(np.diag(factor)).sum())
        return -0.5 * count * math.log(variance) - log_det - prior


def _parts(tables: list[Floats]) -> tuple[Floats, Floats, Floats]:
    """Product, sum and sum of squares of the fields' own covariances."""
    product, total, square = tables[0].copy(), tables[0].copy(), tables[0] ** 2
    for table in tables[1:]:
        product *= table
        total += table
        square += table * table
    return product, total, square
