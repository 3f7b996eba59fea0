"""A Gaussian process over scaled ordinals, small enough to fit at every trial.

Matern 5/2 with one length scale per field; hyperparameters by coordinate descent on the log
marginal likelihood over a fixed grid, so that equal histories give equal predictions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SCALES = (0.15, 0.35, 0.8, 2.0, 5.0)
_NOISES = (1e-3, 1e-2, 1e-1)
# Beyond this many observations the fit takes a subset: the best, and an even sample of the rest.
_MOST = 192


@dataclass(frozen=True, slots=True)
class Hyper:
    """Length scale per field and noise variance, for targets of unit variance."""

    scales: tuple[float, ...]
    noise: float


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A fitted process: predicts the standardised target at feature rows."""

    x: Floats
    hyper: Hyper
    cholesky: Floats
    weights: Floats
    best: float

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation at `points[n, fields]`."""
        cross = _kernel(points, self.x, self.hyper.scales)
        mean = cross @ self.weights
        half = np.linalg.solve(self.cholesky, cross.T)
        variance = np.maximum(1.0 - (half * half).sum(axis=0), 1e-9)
        return mean, np.sqrt(variance)

    def expected_improvement(self, points: Floats) -> Floats:
        """How far below the best observation each point is expected to fall."""
        mean, deviation = self.predict(points)
        z = (self.best - mean) / deviation
        density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        below = 0.5 * (1.0 + _erf(z / math.sqrt(2)))
        return np.asarray((self.best - mean) * below + deviation * density, dtype=np.float64)


def fit(x: Floats, values: Floats, start: Hyper | None = None, refine: bool = True) -> Surrogate:
    """Fit to `x[n, fields]` and positive values; infinite values (failures) count as just worse than the worst."""
    x, values = _subset(x, values)
    y = targets(values)
    hyper = start or Hyper((0.8,) * x.shape[1], 1e-2)
    if refine:
        hyper = _descend(x, y, hyper)
    cholesky = _factor(x, hyper)
    weights = np.linalg.solve(cholesky.T, np.linalg.solve(cholesky, y))
    return Surrogate(x, hyper, cholesky, weights, float(y.min()))


def targets(values: Floats) -> Floats:
    """Standardised logarithms with the slow tail squeezed: how slow a bad config is teaches little."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(len(values))
    logs = np.full(len(values), np.nan)
    logs[finite] = np.log(np.maximum(values[finite], 1e-30))
    low, middle = float(np.nanmin(logs)), float(np.nanmedian(logs))
    room = max(middle - low, 1e-6)
    slow = logs > middle
    logs[slow] = middle + room * np.log1p((logs[slow] - middle) / room)
    logs[~finite] = float(np.nanmax(logs)) + 0.25 * room
    spread = float(logs.std())
    return np.asarray((logs - logs.mean()) / (spread if spread > 1e-12 else 1.0), dtype=np.float64)


def _subset(x: Floats, values: Floats) -> tuple[Floats, Floats]:
    if len(values) <= _MOST:
        return x, values
    order = np.argsort(values, kind="stable")
    best = order[: _MOST // 2]
    rest = order[_MOST // 2 :]
    kept = np.sort(
        np.concatenate([best, rest[np.linspace(0, len(rest) - 1, _MOST - len(best)).astype(int)]])
    )
    return x[kept], values[kept]


def _kernel(a: Floats, b: Floats, scales: tuple[float, ...]) -> Floats:
    inverse = 1.0 / np.array(scales)
    left, right = a * inverse, b * inverse
    squared = (left * left).sum(1)[:, None] + (right * right).sum(1)[None, :] - 2 * left @ right.T
    r = np.sqrt(5.0 * np.maximum(squared, 0.0))
    return np.asarray((1.0 + r + r * r / 3.0) * np.exp(-r), dtype=np.float64)


def _factor(x: Floats, hyper: Hyper) -> Floats:
    covariance = _kernel(x, x, hyper.scales)
    covariance[np.diag_indices_from(covariance)] += hyper.noise
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


def _likelihood(x: Floats, y: Floats, hyper: Hyper) -> float:
    factor = _factor(x, hyper)
    half = np.linalg.solve(factor, y)
    return float(-0.5 * half @ half - np.log(np.diag(factor)).sum())


def _descend(x: Floats, y: Floats, start: Hyper) -> Hyper:
    best, score = start, _likelihood(x, y, start)
    for noise in _NOISES:
        trial = Hyper(best.scales, noise)
        if (value := _likelihood(x, y, trial)) > score:
            best, score = trial, value
    for field in range(x.shape[1]):
        for scale in _SCALES:
            scales = tuple(scale if i == field else s for i, s in enumerate(best.scales))
            trial = Hyper(scales, best.noise)
            if (value := _likelihood(x, y, trial)) > score:
                best, score = trial, value
    return best


def _erf(x: Floats) -> Floats:
    """Abramowitz and Stegun 7.1.26, absolute error below 2e-7."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    poly = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    return np.asarray(np.sign(x) * (1.0 - poly * np.exp(-x * x)), dtype=np.float64)
