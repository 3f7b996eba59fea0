"""What observations say about every config in view, at the cost of one row an observation.

The posterior is held as the rows of V = L^-1 K, where L is the Cholesky factor of the observations' own
covariance and K theirs with the view: one more observation adds one row, a mean is one product with V.
Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, ch. 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tilewright.autotune.sampling.covariance import Covariance, Floats, Singles
from tilewright.autotune.sampling.pool import Indices

_JITTER = 1e-6
_ROOM = 64


class Posterior:
    """Means and deviations over `view` (numbers of configs) after the configs `seen`, in order."""

    def __init__(self, covariance: Covariance, noise: float, view: Indices, seen: Indices) -> None:
        self.view = view
        self._covariance = covariance
        self._diagonal = 1.0 + noise + _JITTER
        self._whole = len(view) == covariance.size
        self.seen: list[int] = [int(i) for i in seen]
        count = len(seen)
        self._v: Singles = np.empty((count + _ROOM, len(view)), dtype=np.float32)
        self._factor: Floats = np.zeros((count + _ROOM, count + _ROOM))
        self.variance: Singles = np.ones(len(view), dtype=np.float32)
        if count:
            own = np.stack([covariance.between(i, seen) for i in self.seen]).astype(np.float64)
            own = (own + own.T) / 2
            own[np.diag_indices(count)] = self._diagonal
            self._factor[:count, :count] = np.linalg.cholesky(own)
            inverse = np.linalg.inv(self._factor[:count, :count]).astype(np.float32)
            self._v[:count] = inverse @ np.stack([self._with_view(i) for i in self.seen])
            self.variance = 1 - np.einsum("ij,ij->j", self._v[:count], self._v[:count])

    def _with_view(self, place: int) -> Singles:
        return self._covariance.between(place, None if self._whole else self.view)

    def append(self, places: Iterable[int]) -> None:
        """One more observation each."""
        for place in places:
            count = len(self.seen)
            if count == len(self._v):
                self._v = np.concatenate([self._v, np.empty_like(self._v[:_ROOM])])
                self._factor = np.pad(self._factor, (0, _ROOM))
            left = self._left_of(place)
            pivot = math.sqrt(max(self._diagonal - float(left @ left), _JITTER))
            self._factor[count, :count] = left
            self._factor[count, count] = pivot
            row = self._with_view(place) - left.astype(np.float32) @ self._v[:count]
            self._v[count] = row / np.float32(pivot)
            self.variance = self.variance - self._v[count] ** 2
            self.seen.append(int(place))

    def _left_of(self, place: int) -> Floats:
        """L^-1 k of a config: a column of V where it is in view."""
        column = int(np.searchsorted(self.view, place))
        if column < len(self.view) and self.view[column] == place:
            return self._v[: len(self.seen), column].astype(np.float64)
        own = self._covariance.between(place, np.array(self.seen, dtype=np.int64))
        return self._forward(own.astype(np.float64))

    def cut(self, count: int, variance: Singles) -> None:
        """Forget all but the first `count` observations; `variance` is what it was then."""
        del self.seen[count:]
        self.variance = variance

    def whiten(self, targets: Floats) -> Floats:
        """L^-1 y of the first observations; the rest (pending ones) give what is expected of them: zeros."""
        return self._forward(targets)

    def means(self, whitened: Floats) -> Singles:
        """Posterior means over the view."""
        return np.asarray(whitened.astype(np.float32) @ self._v[: len(whitened)], dtype=np.float32)

    def at(self, places: Indices, whitened: Floats) -> tuple[Floats, Floats]:
        """Mean and variance of any configs of the pool, in view or not."""
        cross = np.stack([self._covariance.between(i, places) for i in self.seen])
        half = self._forward(cross.astype(np.float64))
        return whitened @ half[: len(whitened)], 1.0 - (half * half).sum(axis=0)

    def _forward(self, right: Floats) -> Floats:
        count = len(right)
        if not count:
            return right
        return np.asarray(np.linalg.solve(self._factor[:count, :count], right), dtype=np.float64)
