"""How well races choose on recordings that kept every repeat: by themselves, and at the end of a whole tuning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilewright.autotune.choosing.final import FINALISTS, WITHIN
from tilewright.autotune.choosing.racing import race_recorded
from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sampling.proposers import History
from tilewright.autotune.sampling.samplers import proposer
from tilewright.autotune.simulation import Recorded, load
from tilewright.autotune.valuing.screening import Noise, Screened, screen
from tilewright.errors import UsageError

# Candidates as they are after a good screening: the truly best of the space.
TOP = 50
FROM_BEST, FROM_TUNING = f"best {TOP}", "tuning"


@dataclass(frozen=True, slots=True)
class RaceRow:
    """One race on a recording.

    `regret` is the chosen config's mean recorded time over the best candidate's, less 1; `share` the part
    of the candidates' recorded repeats that the race used. After a tuning `regret` is against the best
    config tried, `screened` the mean repeats a trial took, `fraction_of_optimum` that of the whole space.
    """

    space: str
    candidates: str
    seed: int
    regret: float
    share: float
    tied: int
    warm: int
    screened: float | None
    fraction_of_optimum: float


def race_best(path: Path, seed: int) -> RaceRow:
    """Race the truly best configs, in an order that says nothing."""
    space = _space(path)
    best = np.argsort(space.times_ms, kind="stable")[: min(TOP, _working(space))]
    who = np.random.default_rng([seed, TOP]).permutation(best)
    return _race(space, path, FROM_BEST, seed, who, best, None)


def race_tuned(path: Path, seed: int, budget: int, sampler: str = "portfolio") -> RaceRow:
    """Tune with values of one to three recorded repeats, in the order in which they were taken, and race the finalists."""
    space = _space(path)
    chosen = proposer(sampler)
    if chosen is None:
        raise UsageError(f"{sampler} needs a study; accepted here: portfolio, random, exhaustive")
    count = min(budget, len(space.pool))
    tried, values = np.zeros(count, dtype=np.int64), np.full(count, np.inf)
    noise, repeats, arms = Noise(), list[int](), list[str]()
    for place in range(count):
        past = History(tried[:place], values[:place], tuple(arms), np.zeros(0, dtype=np.int64))
        rng = np.random.default_rng([seed, place])
        proposal = chosen.propose(space.pool, past, past.free(space.pool), rng)
        tried[place] = proposal.index
        arms.append(proposal.arm)
        if math.isfinite(space.times_ms[proposal.index]):
            best = float(values[:place].min()) if place else math.inf
            found = _screened(space, proposal.index, noise, best)
            values[place] = found.value
            repeats.append(len(found.repeats))
    ranked = tried[np.argsort(values, kind="stable")][:FINALISTS]
    near = [i for i in ranked if values[tried == i][0] <= WITHIN * values.min()]
    return _race(space, path, FROM_TUNING, seed, np.array(near), tried, float(np.mean(repeats)))


def rows(
    path: Path, seeds: Sequence[int], budget: int, sampler: str = "portfolio"
) -> Iterator[RaceRow]:
    """Both kinds of race for each seed; a budget of 0 leaves the tunings out."""
    for seed in seeds:
        yield race_best(path, seed)
        if budget:
            yield race_tuned(path, seed, budget, sampler)


@dataclass(frozen=True, slots=True)
class _Space:
    """A recording as a pool, with its repeats in the order of the pool."""

    recorded: Recorded
    repeats: npt.NDArray[np.float64]

    @property
    def pool(self) -> Pool:
        return self.recorded.pool

    @property
    def times_ms(self) -> npt.NDArray[np.float64]:
        return self.recorded.times_ms

    @property
    def optimum_ms(self) -> float:
        return self.recorded.recording.optimum_ms


@lru_cache(maxsize=4)
def _space(path: Path) -> _Space:
    space = load(path)
    repeats = space.recording.repeats_ms[space.rows]
    if not np.isfinite(repeats).any():
        raise UsageError(f"{path} kept no single repeats, so there is nothing to race")
    return _Space(space, repeats)


def _working(space: _Space) -> int:
    return int(np.isfinite(space.times_ms).sum())


def _screened(space: _Space, index: int, noise: Noise, best: float) -> Screened:
    own = space.repeats[index]
    series = iter([*own[np.isfinite(own)], *[float(space.times_ms[index])] * 8])
    return screen(lambda: float(next(series)), noise, best if math.isfinite(best) else None)


def _race(
    space: _Space,
    path: Path,
    candidates: str,
    seed: int,
    who: npt.NDArray[np.int64],
    against: npt.NDArray[np.int64],
    screened: float | None,
) -> RaceRow:
    times = space.repeats[who]
    found = race_recorded(times, seed)
    chosen = float(space.times_ms[who[found.chosen]])
    return RaceRow(
        path.name,
        candidates,
        seed,
        chosen / float(space.times_ms[against].min()) - 1,
        found.used / float(np.isfinite(times).sum()),
        len(found.tie_set),
        found.race.warm,
        screened,
        space.optimum_ms / chosen,
    )
