"""How the next config is chosen from the pool, given what was tried.

A proposal depends only on the history, the seed and how many trials came before, so a resumed study
goes on as if it had never stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tilewright.autotune.sampling.pool import Indices, Pool

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class History:
    """Finished trials in the order of their numbers (failures have the value infinity), and running ones."""

    tried: Indices
    values: Floats
    arms: tuple[str, ...]
    pending: Indices

    def __len__(self) -> int:
        return len(self.tried) + len(self.pending)

    def free(self, pool: Pool) -> Mask:
        """Which configs of the pool are neither tried nor running; what comes first counts as tried."""
        mask = np.ones(len(pool), dtype=bool)
        mask[self.tried] = False
        mask[self.pending] = False
        mask[list(pool.first)] = False
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
