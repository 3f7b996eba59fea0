"""A warm start that cannot hurt much: other studies' best configs as some of the first trials.

At most a quarter of the first 32 trials are borrowed; the sampler's own go on between them, and learn from
them like from any other. A donor whose configs disappoint is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sampling.proposers import History, Mask, Proposal, Proposer
from tilewright.autotune.store.donors import Donor

# Within the first 32 trials every fourth is borrowed.
WINDOW, EVERY, _PHASE = 32, 4, 1
# A donor is dropped after this many borrowed configs in the slower half of what the sampler tried itself.
_PATIENCE = 2
_ARM = "donor "


@dataclass(frozen=True)
class Warm:
    """The proposals of another proposer, with a share of borrowed ones at the beginning."""

    inner: Proposer
    donors: Sequence[Donor]

    def propose(
        self, pool: Pool, history: History, free: Mask, rng: np.random.Generator
    ) -> Proposal:
        place = len(history)
        if place < WINDOW and place % EVERY == _PHASE:
            borrowed = self._borrow(pool, history, free)
            if borrowed is not None:
                return borrowed
        return self.inner.propose(pool, history, free, rng)

    def _borrow(self, pool: Pool, history: History, free: Mask) -> Proposal | None:
        """The next config of the donor that was asked least, the closest donor first."""
        used = {d.name: _used(history, d) for d in self.donors}
        kept = [d for d in self.donors if not _disappointing(history, used[d.name])]
        for donor in sorted(kept, key=lambda d: len(used[d.name])):
            place = _next(pool, history, donor, free)
            if place is not None:
                return Proposal(place, _ARM + donor.name)
        return None


def _used(history: History, donor: Donor) -> list[int]:
    """Which finished trials were borrowed from a donor."""
    return [i for i, arm in enumerate(history.arms) if arm == _ARM + donor.name]


def _disappointing(history: History, used: Sequence[int]) -> bool:
    own = [v for a, v in zip(history.arms, history.values, strict=True) if not a.startswith(_ARM)]
    finite = [v for v in own if np.isfinite(v)]
    if not finite:
        return False
    middle = float(np.median(finite))
    return sum(not history.values[i] <= middle for i in used) >= _PATIENCE


def _next(pool: Pool, history: History, donor: Donor, free: Mask) -> int | None:
    """The donor's best free config that is no neighbour of a tried one, if there is any; else its best free one."""
    available = [c for c in donor.configs if free[c]]
    known = np.concatenate([history.tried, history.pending]).astype(np.int64)
    for place in available[: 8 * EVERY]:
        apart = (pool.ordinals[known] != pool.ordinals[place]).sum(axis=1)
        if not len(apart) or apart.min() > 1:
            return place
    return available[0] if available else None
