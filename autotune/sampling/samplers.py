"""Optuna samplers over the pool: only legal configs, none twice, the default first."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from tilewright.autotune import trials
from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sampling.portfolio import Portfolio
from tilewright.autotune.sampling.proposers import (
    Exhaustive,
    History,
    Mask,
    Proposal,
    Proposer,
    Random,
)
from tilewright.autotune.sampling.transfer import Warm
from tilewright.autotune.store.donors import Donor
from tilewright.errors import Unavailable, UsageError, unknown

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

SAMPLERS = ("portfolio", "tpe", "random", "gp", "cmaes", "exhaustive")
_NEEDS = {"gp": ("scipy", "torch"), "cmaes": ("cmaes",)}


class PoolSampler(BaseSampler):
    """Proposes the default, then whatever a proposer picks from the untried legal configs.

    The generator of each proposal is seeded by the seed and the number of trials so far, so that a
    study resumed with the same history proposes the same sequence.
    """

    def __init__(self, pool: Pool, seed: int) -> None:
        self.pool = pool
        self.seed = seed
        self.last_arm = ""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.pool.distributions()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        past = trials.history(others, self.pool)
        proposal = self._first(past) or self._next(study, trial, past)
        self.last_arm = proposal.arm
        return dict(self.pool.config(proposal.index))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise UsageError(
            f"'{param_name}' is not a field of the pool; accepted: {', '.join(self.pool.names)}"
        )

    def _first(self, past: History) -> Proposal | None:
        for place in self.pool.first:
            if place not in past.tried and place not in past.pending:
                return Proposal(place, "default" if place == self.pool.first[0] else "tiling")
        return None

    def _next(self, study: Study, trial: FrozenTrial, past: History) -> Proposal:
        """The caller asks only while something is untried."""
        return self._pick(study, trial, past, past.free(self.pool), len(past))

    def _pick(
        self, study: Study, trial: FrozenTrial, past: History, free: Mask, place: int
    ) -> Proposal:
        raise NotImplementedError

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Nothing to learn here: everything is read from the study."""


class OwnSampler(PoolSampler):
    """One of our proposers."""

    def __init__(self, pool: Pool, seed: int, proposer: Proposer) -> None:
        super().__init__(pool, seed)
        self.proposer = proposer

    def _pick(
        self, study: Study, trial: FrozenTrial, past: History, free: Mask, place: int
    ) -> Proposal:
        return self.proposer.propose(
            self.pool, past, free, np.random.default_rng([self.seed, place])
        )


class StockSampler(PoolSampler):
    """A sampler of Optuna's: its point is moved to the nearest untried legal config."""

    def __init__(self, pool: Pool, seed: int, name: str) -> None:
        super().__init__(pool, seed)
        self.name = name

    def _pick(
        self, study: Study, trial: FrozenTrial, past: History, free: Mask, place: int
    ) -> Proposal:
        # A fresh sampler each time: its generator must depend on the place alone. What it learnt is in the study.
        inner = _stock(self.name, int(np.random.default_rng([self.seed, place]).integers(2**31)))
        space = {k: d for k, d in self.pool.distributions().items() if not d.single()}
        point: dict[str, Any] = dict(inner.sample_relative(study, trial, space))
        for name, distribution in space.items():
            if name not in point:
                point[name] = inner.sample_independent(study, trial, name, distribution)
        return Proposal(self.pool.nearest(self._complete(point), free), self.name)

    def _complete(self, point: Mapping[str, Any]) -> dict[str, float]:
        fixed = {n: float(v[0]) for n, v in zip(self.pool.names, self.pool.values, strict=True)}
        return {**fixed, **{k: float(v) for k, v in point.items()}}


def _stock(name: str, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def proposer(name: str, donors: Sequence[Donor] = ()) -> Proposer | None:
    """One of our proposers by name, starting warm where there are donors; None for Optuna's own samplers.

    Raises UsageError for an unknown name.
    """
    if name not in SAMPLERS:
        raise unknown("sampler", name, list(SAMPLERS))
    own: dict[str, Proposer] = {
        "portfolio": Portfolio(),
        "random": Random(),
        "exhaustive": Exhaustive(),
    }
    found = own.get(name)
    return Warm(found, donors) if donors and name == "portfolio" and found is not None else found


def sampler(name: str, pool: Pool, seed: int, donors: Sequence[Donor] = ()) -> PoolSampler:
    """A sampler by name; raises UsageError for an unknown one, Unavailable where a package is missing.

    Only the portfolio starts warm: the others are what they are elsewhere.
    """
    found = proposer(name, donors)
    missing = [p for p in _NEEDS.get(name, ()) if importlib.util.find_spec(p) is None]
    if missing:
        raise Unavailable(
            f"sampler {name} needs {missing[0]}; `pip install tilewright[samplers]` brings it"
        )
    return StockSampler(pool, seed, name) if found is None else OwnSampler(pool, seed, found)
