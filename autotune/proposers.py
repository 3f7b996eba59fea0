"""How the next config is chosen from the pool, given what was tried.

A proposal depends only on the history, the seed and how many trials came before, so a resumed study
goes on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tilewright.autotune.pool import Indices, Pool
from tilewright.autotune.surrogate import Hyper, Surrogate, fit

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class History:
    """Finished trials in the order of their numbers (failures have the value infinity), and running ones."""

    tried: Indices
    values: Floats
    arms: tuple[str, ...]
    pending: Indices

    def free(self, pool: Pool) -> Mask:
        """Which configs of the pool are neither tried nor running; the default counts as tried."""
        mask = np.ones(len(pool), dtype=bool)
        mask[self.tried] = False
        mask[self.pending] = False
        mask[pool.default] = False
        return mask


@dataclass(frozen=True, slots=True)
class Proposal:
    """A config of the pool and which part of the sampler chose it."""

    index: int
    arm: str


class Proposer(Protocol):
    """Chooses an untried config. `free` has at least one True."""

    def propose(
        self, pool: Pool, history: History, free: Mask, rng: np.random.Generator
    ) -> Proposal: ...


class Random:
    """Uniform over the untried legal configs."""

    def propose(
        self, pool: Pool, history: History, free: Mask, rng: np.random.Generator
    ) -> Proposal:
        return Proposal(int(rng.choice(np.flatnonzero(free))), "random")


class Exhaustive:
    """Every legal config once, in the order of the space."""

    def propose(
        self, pool: Pool, history: History, free: Mask, rng: np.random.Generator
    ) -> Proposal:
        return Proposal(int(np.flatnonzero(free)[0]), "exhaustive")


_SPREAD = 8  # trials that only explore, the default included
_SUBSET = 1500  # points the surrogate looks at besides the neighbourhoods
_ELITES = 3
_REFINE_EVERY = 8
_DECAY = 0.85  # how fast an arm's old successes are forgotten
# The share each arm keeps whatever its luck; the rest follows success.
_SHARES = {"local": 0.20, "model": 0.20, "cross": 0.10, "restart": 0.03}


class Portfolio:
    """Neighbour moves around the best, expected improvement over the pool, and restarts elsewhere.

    After a spread start, each trial draws an arm with a probability that follows from how often the
    arm's recent proposals landed among the best tenth.
    """

    def __init__(self) -> None:
        self._hyper: dict[int, Hyper] = {}

    def propose(
        self, pool: Pool, history: History, free: Mask, rng: np.random.Generator
    ) -> Proposal:
        finite = int(np.isfinite(history.values).sum())
        if len(history.tried) + len(history.pending) < _SPREAD or finite < 3:
            return Proposal(_spread(pool, history, free, rng), "spread")
        arms: dict[str, Callable[[], int]] = {
            "local": lambda: self._local(pool, history, free, rng),
            "model": lambda: self._model(pool, history, free, rng),
            "cross": lambda: _cross(pool, history, free, rng),
            "restart": lambda: _spread(pool, history, free, rng),
        }
        shares = credit(history, tuple(arms))
        chosen = str(rng.choice(list(arms), p=shares))
        return Proposal(arms[chosen](), chosen)

    def _surrogate(self, pool: Pool, history: History) -> Surrogate:
        """Fit to the history; hyperparameters are refined at every eighth trial, from its own prefix.

        Before the eighth finished trial (others may be running) the starting ones serve.
        """
        x = pool.features[history.tried]
        milestone = len(history.tried) // _REFINE_EVERY * _REFINE_EVERY
        if milestone == 0:
            return fit(x, history.values, refine=False)
        if milestone not in self._hyper:
            self._hyper[milestone] = fit(x[:milestone], history.values[:milestone]).hyper
        return fit(x, history.values, self._hyper[milestone], refine=False)

    def _local(self, pool: Pool, history: History, free: Mask, rng: np.random.Generator) -> int:
        """The most promising untried neighbour of one of the best; the better, the likelier."""
        order = np.argsort(history.values, kind="stable")[:_ELITES]
        weights = np.array([0.6, 0.25, 0.15])[: len(order)]
        first = int(rng.choice(len(order), p=weights / weights.sum()))
        for place in [first, *(p for p in range(len(order)) if p != first)]:
            around = pool.neighbours(int(history.tried[order[place]]))
            around = around[free[around]]
            if len(around):
                mean, _ = self._surrogate(pool, history).predict(pool.features[around])
                # Half of the moves trust the surrogate, half do not: it is blind to needles.
                return int(around[np.argmin(mean)] if rng.random() < 0.5 else rng.choice(around))
        return self._model(pool, history, free, rng)

    def _model(self, pool: Pool, history: History, free: Mask, rng: np.random.Generator) -> int:
        """The largest expected improvement over a random part of the pool and the best's neighbourhoods."""
        untried = np.flatnonzero(free)
        if len(untried) > _SUBSET:
            best = np.argsort(history.values, kind="stable")[:_ELITES]
            near = np.concatenate([pool.neighbours(int(history.tried[b])) for b in best])
            untried = np.unique(
                np.concatenate([rng.choice(untried, _SUBSET, replace=False), near[free[near]]])
            )
        gain = self._surrogate(pool, history).expected_improvement(pool.features[untried])
        return int(untried[np.argmax(gain)])


def credit(history: History, arms: tuple[str, ...]) -> Floats:
    """The share of each arm: decayed successes over decayed uses, with a floor."""
    success = np.full(len(arms), 1.0)
    uses = np.full(len(arms), 2.0)
    values = history.values
    for i, (arm, value) in enumerate(zip(history.arms, values, strict=True)):
        if arm not in arms or i == 0:
            continue
        place = arms.index(arm)
        success[place] *= _DECAY
        uses[place] *= _DECAY
        before = values[:i]
        threshold = (
            np.quantile(before[np.isfinite(before)], 0.1) if np.isfinite(before).any() else np.inf
        )
        success[place] += float(value < np.min(before)) + float(value <= threshold)
        uses[place] += 1.0
    rate = success / uses
    kept = np.array([_SHARES[arm] for arm in arms])
    return np.asarray(kept + (1 - kept.sum()) * rate / rate.sum(), dtype=np.float64)


def _spread(pool: Pool, history: History, free: Mask, rng: np.random.Generator) -> int:
    """Of some random configs, the one furthest from all that were tried."""
    untried = np.flatnonzero(free)
    some = rng.choice(untried, min(len(untried), 48), replace=False)
    known = pool.features[
        np.concatenate([history.tried, history.pending, [pool.default]]).astype(np.int64)
    ]
    distance = np.abs(pool.features[some][:, None, :] - known[None, :, :]).sum(axis=2).min(axis=1)
    return int(some[np.argmax(distance)])


def _cross(pool: Pool, history: History, free: Mask, rng: np.random.Generator) -> int:
    """A child of two good configs, one field of it changed at times, moved to the nearest untried point."""
    good = np.argsort(history.values, kind="stable")[: max(4, len(history.values) // 8)]
    good = good[np.isfinite(history.values[good])]
    one, two = rng.choice(history.tried[good], 2, replace=len(good) < 2)
    take = rng.random(len(pool.names)) < 0.5
    child = np.where(take, pool.ordinals[one], pool.ordinals[two])
    if rng.random() < 0.6:
        field = int(rng.integers(len(pool.names)))
        child[field] = rng.integers(len(pool.values[field]))
    point = {
        name: float(values[o])
        for name, values, o in zip(pool.names, pool.values, child, strict=True)
    }
    return pool.nearest(point, free)
