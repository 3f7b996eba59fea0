"""How alike two configs are: the covariance of the surrogate, as tables over the values of the fields.

Fields with more than two numeric values lie on a logarithmic axis, and two values are also told apart by how
often 2 divides them (a tile of 48 is not simply between 32 and 64: alignment, warps and banks go by powers of
two) and by being different at all; other fields are categories. Each is a covariance, and so is their product.
Over the fields, the covariance sums what single fields do, what pairs of them do, and what all do together: the first learn from few
trials, the last from many (Duvenaud, Nickisch and Rasmussen 2011, additive Gaussian processes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.autotune.sampling.pool import Indices, Pool

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

# How much being different, and dividing differently by 2, weigh beside the whole logarithmic axis.
_STEP, _CATEGORY, _TWOS = 0.06, 0.55, 0.5
# Beyond this many factors of 2 (a warp) one more makes no difference.
_MOST_TWOS = 5
# Fields are looked up together while their tables stay this small: one gather instead of several.
_MOST_VALUES = 72
_ROOT3 = math.sqrt(3.0)


@dataclass(frozen=True, slots=True)
class Hyper:
    """Length scale of each field, shares of single fields, pairs and all together, noise variance (of 1)."""

    scales: tuple[float, ...]
    shares: tuple[float, float, float]
    noise: float


class Axes:
    """The fields of a pool that vary, with the distances between their values."""

    def __init__(self, pool: Pool) -> None:
        self.fields = [f for f, values in enumerate(pool.values) if len(values) > 1]
        self.ordinals: Indices = pool.ordinals[:, self.fields]
        self._counts = [len(pool.values[f]) for f in self.fields]
        self._axes = [pool.coordinates[f] for f in self.fields]
        self._twos = [_twos(pool.values[f]) for f in self.fields]
        self._groups = _grouped(self._counts)
        self._codes = [self._code(group) for group in self._groups]

    def __len__(self) -> int:
        return len(self.fields)

    def _code(self, group: Sequence[int]) -> Indices:
        code = np.zeros(len(self.ordinals), dtype=np.int64)
        for place in group:
            code = code * self._counts[place] + self.ordinals[:, place]
        return code

    def table(self, place: int, scale: float) -> Floats:
        """Between the values of one field: Matern 3/2 along its axes, exponential in being different."""
        apart = 1.0 - np.eye(self._counts[place])
        axis = self._axes[place]
        if axis is None:
            return np.asarray(np.exp(-_ROOT3 * _CATEGORY * apart / scale), dtype=np.float64)
        found = np.exp(-_ROOT3 * _STEP * apart / scale) * _matern(axis, scale)
        return np.asarray(found * _matern(self._twos[place], scale / _TWOS), dtype=np.float64)

    def covariance(self, hyper: Hyper) -> Covariance:
        """The covariance under these hyperparameters, ready to be looked up."""
        products, sums, squares = [], [], []
        for group in self._groups:
            tables = [self.table(place, hyper.scales[place]) for place in group]
            products.append(reduce(_outer_product, tables).astype(np.float32))
            sums.append(reduce(_outer_sum, tables).astype(np.float32))
            squares.append(reduce(_outer_sum, [t * t for t in tables]).astype(np.float32))
        return Covariance(self._codes, products, sums, squares, hyper.shares, len(self))


@dataclass(frozen=True, slots=True)
class Covariance:
    """Prior covariance between configs, by their numbers in the pool."""

    codes: Sequence[Indices]
    products: Sequence[Singles]
    sums: Sequence[Singles]
    squares: Sequence[Singles]
    shares: tuple[float, float, float]
    fields: int

    @property
    def size(self) -> int:
        """Configs of the pool."""
        return len(self.codes[0])

    def between(self, one: int, others: Indices | None) -> Singles:
        """Of one config with others (all of the pool for None)."""
        product, total, square = np.float32(1.0), np.float32(0.0), np.float32(0.0)
        tables = zip(self.codes, self.products, self.sums, self.squares, strict=True)
        for code, p, s, q in tables:
            own, their = code[one], code if others is None else code[others]
            product = product * p[own][their]
            total = total + s[own][their]
            square = square + q[own][their]
        found = mixed(product, total, square, self.shares, self.fields)
        return np.asarray(found, dtype=np.float32)


def mixed(
    product: Any, total: Any, square: Any, shares: tuple[float, float, float], fields: int
) -> Any:
    """The covariance from the product, sum and sum of squares of the fields' own; each share is of a mean of 1."""
    single, pair, every = shares
    if fields < 2:
        single, pair = single + pair, 0.0
    # The sum over pairs is (sum^2 - sum of squares) / 2.
    paired = (total * total - square) * (pair / max(1, fields * (fields - 1)))
    return every * product + (single / fields) * total + paired


def _matern(axis: Floats, scale: float) -> Floats:
    q = _ROOT3 * np.abs(axis[:, None] - axis[None, :]) / scale
    return np.asarray((1.0 + q) * np.exp(-q), dtype=np.float64)


def _twos(values: Sequence[int]) -> Floats:
    """How often 2 divides each value, scaled to at most 1; all 0 where a value is not positive."""
    if min(values) <= 0:
        return np.zeros(len(values))
    found = np.array([min((v & -v).bit_length() - 1, _MOST_TWOS) for v in values], dtype=np.float64)
    return found / max(1.0, float(np.ptp(found)))


def _outer_product(one: Floats, other: Floats) -> Floats:
    return np.asarray(np.kron(one, other), dtype=np.float64)


def _outer_sum(one: Floats, other: Floats) -> Floats:
    """Like the Kronecker product, with a sum in place of the product."""
    shape = len(one) * len(other)
    return (one[:, None, :, None] + other[None, :, None, :]).reshape(shape, shape)


def _grouped(counts: Sequence[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    size = 1
    for place, count in enumerate(counts):
        if groups and size * count <= _MOST_VALUES:
            groups[-1].append(place)
            size *= count
        else:
            groups.append([place])
            size = count
    return groups
