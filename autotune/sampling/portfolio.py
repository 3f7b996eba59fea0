"""The sampler of ours: a surrogate over the pool, moves around the best, crossings and restarts, chosen as evidence comes in."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from tilewright.autotune.sampling.pool import Indices, Pool
from tilewright.autotune.sampling.proposers import History, Mask, Proposal
from tilewright.autotune.sampling.surrogate import Surrogate

_SPREAD = 4  # trials that only explore, the default included
_ELITES = 3
_ELITE_WEIGHTS = np.array([0.6, 0.25, 0.15])
# Every other model move looks for much better configs, not for the last percent of the best one.
_MARGINS = (0.0, 0.3)
_DECAY = 0.85  # how fast an arm's old successes are forgotten
# The share of moves that do not follow the surrogate: at first, after this many trials without a new best more
# for each, at most.
_DOUBT, _PATIENCE, _DOUBT_GROWS, _MOST_DOUBT = 0.01, 15, 1 / 250, 0.25
# Successes and uses with which each of those starts.
_PRIOR = {"local": (2.0, 10.0), "cross": (1.0, 10.0), "restart": (0.5, 10.0)}


class Portfolio:
    """After a spread start each trial draws an arm. The surrogate has most of them while it finds better configs;
    the longer it does not, the more go to the others, each as often as its recent proposals landed among the
    best tenth of their time.

    `model` takes the largest expected improvement over the pool, `local` a neighbour of one of the best,
    `cross` a child of two good ones, `restart` goes far from everything.
    """

    def __init__(self) -> None:
        self._known: tuple[Pool, Surrogate] | None = None

    def propose(
        self, pool: Pool, history: History, free: Mask, rng: np.random.Generator
    ) -> Proposal:
        if len(history) < _SPREAD or not np.isfinite(history.values).any():
            return Proposal(_spread(pool, history, free, rng), "spread")
        arms: dict[str, Callable[[], int]] = {
            "model": lambda: self._model(pool, history, free),
            "local": lambda: self._local(pool, history, free, rng),
            "cross": lambda: _cross(pool, history, free, rng),
            "restart": lambda: _spread(pool, history, free, rng),
        }
        shares = credit(history)
        chosen = str(rng.choice(list(shares), p=list(shares.values())))
        with _blas().limit(limits=1, user_api="blas"):
            return Proposal(arms[chosen](), chosen)

    def _surrogate(self, pool: Pool, history: History) -> Surrogate:
        if self._known is None or self._known[0] is not pool:
            self._known = (pool, Surrogate(pool))
        found = self._known[1]
        found.learn(history.tried, history.values, history.pending)
        return found

    def _model(self, pool: Pool, history: History, free: Mask) -> int:
        found = self._surrogate(pool, history)
        margin = _MARGINS[len(history) % len(_MARGINS)]
        gain = np.where(free[found.view], found.improvement(margin), -1.0)
        if gain.max() < 0:
            return int(np.flatnonzero(free)[0])
        return int(found.view[np.argmax(gain)])

    def _local(self, pool: Pool, history: History, free: Mask, rng: np.random.Generator) -> int:
        """An untried neighbour of one of the best; the better, the likelier."""
        order = np.argsort(history.values, kind="stable")[:_ELITES]
        weights = _ELITE_WEIGHTS[: len(order)]
        first = int(rng.choice(len(order), p=weights / weights.sum()))
        for place in [first, *(p for p in range(len(order)) if p != first)]:
            around = pool.neighbours(int(history.tried[order[place]]))
            around = around[free[around]]
            if len(around):
                # Half of the moves trust the surrogate, half do not: it is blind to needles.
                if rng.random() < 0.5:
                    return int(rng.choice(around))
                mean, _ = self._surrogate(pool, history).predict(around)
                return int(around[np.argmin(mean)])
        return self._model(pool, history, free)


@cache
def _blas() -> ThreadpoolController:
    """Matrices this small take longer on several threads, which moreover spin beside what is timed next."""
    return ThreadpoolController()


def credit(history: History) -> dict[str, float]:
    """The share of each arm: doubt in the surrogate by how long it found nothing, divided by success."""
    success = {arm: prior[0] for arm, prior in _PRIOR.items()}
    uses = {arm: prior[1] for arm, prior in _PRIOR.items()}
    before: list[float] = []
    stalled = 0
    for arm, value in zip(history.arms, history.values, strict=True):
        better = not before or value < before[0]
        stalled = 0 if better else stalled + 1
        if arm in success and before:
            tenth = before[(len(before) - 1) // 10]
            success[arm] = success[arm] * _DECAY + float(better) + float(value <= tenth)
            uses[arm] = uses[arm] * _DECAY + 1.0
        if math.isfinite(value):
            bisect.insort(before, float(value))
    doubt = min(_MOST_DOUBT, _DOUBT + _DOUBT_GROWS * max(0, stalled - _PATIENCE))
    rates = {arm: success[arm] / uses[arm] for arm in _PRIOR}
    total = sum(rates.values())
    return {"model": 1 - doubt, **{arm: doubt * rate / total for arm, rate in rates.items()}}


def _spread(pool: Pool, history: History, free: Mask, rng: np.random.Generator) -> int:
    """Of some random configs, the one that differs from all that were tried in the most fields."""
    untried = np.flatnonzero(free)
    some = rng.choice(untried, min(len(untried), 32), replace=False)
    known = np.concatenate([history.tried, history.pending, list(pool.first)]).astype(np.int64)
    if not len(known):
        return int(some[0])
    apart = pool.ordinals[some][:, None, :] != pool.ordinals[known][None, :, :]
    return int(some[np.argmax(apart.sum(axis=2).min(axis=1))])


def _cross(pool: Pool, history: History, free: Mask, rng: np.random.Generator) -> int:
    """A child of two good configs, one field of it changed at times, moved to the nearest untried point."""
    good: Indices = np.argsort(history.values, kind="stable")[: max(4, len(history.values) // 8)]
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
