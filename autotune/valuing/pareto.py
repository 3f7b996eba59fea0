"""Several objectives at once: the front of configs that none beats in everything, and one number to search by.

`weighted` is the augmented Tchebycheff scalarisation with weights drawn anew for every proposal
(Knowles, "ParEGO", IEEE Trans. Evol. Comput. 10, 2006, eq. 2): any point of the front is best for
some weights, which a weighted sum alone does not give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Weight of the sum beside the maximum, as in the paper: tells points apart that the maximum does not.
_SUM = 0.05


def dominates(one: Sequence[float] | Floats, other: Sequence[float] | Floats) -> bool:
    """Whether `one` is nowhere larger and somewhere smaller."""
    a, b = np.asarray(one), np.asarray(other)
    return bool((a <= b).all() and (a < b).any())


def front(values: Floats) -> Mask:
    """Which rows of `values[point, objective]` no other row dominates; equal rows are all on it.

    Rows with a value that is not finite are not.
    """
    points = np.asarray(values, dtype=np.float64)
    best: Mask = np.array(np.isfinite(points).all(axis=1))
    for place in np.flatnonzero(best):
        others = points[best]
        no_larger = (others <= points[place]).all(axis=1)
        best[place] = not (no_larger & (others < points[place]).any(axis=1)).any()
    return best


def weights(place: int, count: int) -> Floats:
    """The weights of the proposal at this place of a study, uniform over the simplex; the same every time."""
    drawn = np.random.default_rng([count, place]).exponential(size=count)
    return np.asarray(drawn / drawn.sum())


def weighted(values: Floats, place: int) -> Floats:
    """One positive number per row of `values[point, objective]`, smaller is better; infinite where a value is missing.

    Objectives are put on [0, 1] between the least and the largest seen, on a logarithmic axis where all
    are positive.
    """
    points = np.asarray(values, dtype=np.float64)
    good = np.isfinite(points).all(axis=1)
    found = np.full(len(points), np.inf)
    if not good.any():
        return found
    scaled = np.column_stack([_unit(column) for column in points[good].T])
    terms = scaled * weights(place, points.shape[1])
    # A surrogate may take the logarithm: keep what it learns linear.
    found[good] = np.exp(terms.max(axis=1) + _SUM * terms.sum(axis=1))
    return found


def _unit(column: Floats) -> Floats:
    shown = np.log(column) if (column > 0).all() else column
    span = float(shown.max() - shown.min())
    return np.asarray((shown - shown.min()) / span if span > 0 else np.zeros(len(shown)))
