"""Racing: who is fastest, told with as few measurements as the differences allow.

A race takes rounds, each one measurement of every config still alive. After each it looks: configs
that are slower than the leader beyond doubt leave, and it ends once the leader cannot be beaten by
more than is worth another round, or the budget is spent.

Looking after every round and at many configs must not cost confidence. A config leaves on an
anytime-valid test: the mixture likelihood ratio of a t statistic (Lai, Ann. Stat. 4, 1976; Wang and
Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance",
Sequential Analysis 44, 2025) of the paired log differences against (configs - 1) / (1 - confidence),
so that the best one stays with that confidence however often one looks. Few rounds say little about
the spread of one config, so it is moderated by that of all (Smyth, SAGMB 3, 2004).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import UsageError

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Variance of the prior of a difference over that of its noise is 1 / _PRIOR.
_PRIOR = 0.3
# Degrees of freedom that the spread of all configs counts for beside a config's own.
_SHARED_FREEDOM = 6.0
# Differences beyond this many spreads from their median are drawn in to it.
_CLIP = 3.0
_RESAMPLES = 400
# A look is worth its time once there is this part more to see.
_LOOKS = 8
# No clock resolves times better; also keeps a spread of exactly zero from deciding everything.
_FLOOR_SPREAD = 1e-6
# Leading repeats that may turn out to be warm-up, and from which shift on, in spreads and as a fraction.
_MOST_WARM = 4
_WARM_SPREADS, _WARM_SHIFT = 3.0, 0.02
_MAD = 1.4826
# Standard errors by which a leader's level is allowed to be too low.
_CAUTION = 2.0

DECIDED, BUDGET, NOBODY = "decided", "budget spent", "nobody left"


@dataclass(frozen=True, slots=True)
class Rules:
    """When a race looks and ends.

    `confidence` that the best is never sent away, over all looks and configs; `first` rounds before the
    first look; `regret`, a fraction: the race ends when the leader is expected to lose less than that
    against whoever is best.
    """

    confidence: float = 0.95
    first: int = 3
    regret: float = 0.0005

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1 or self.first < 2 or self.regret < 0:
            raise UsageError(
                f"a race with {self}; accepted: confidence in [0.5, 1), first >= 2, regret >= 0"
            )


@dataclass(frozen=True, slots=True)
class Tied:
    """A config that may be the best: with which probability, and its time over the leader's."""

    which: int
    p_best: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Race:
    """How a race went.

    `times[round, config]` are NaN where a config was not measured; `alive` are those still in at the end,
    `tied` the fewest of them that hold the best with the race's confidence, the leader first. `left` maps each config sent away to the round it left after.
    `used` counts measurements, `warm` the leading repeats of every config that were set aside as biased.
    `regret` is the fraction that the leader is expected to lose against whoever is best, `chances` the
    probability of each config alive to be that.
    """

    times: Floats
    leader: int
    alive: tuple[int, ...]
    tied: tuple[Tied, ...]
    left: Mapping[int, int]
    used: int
    warm: int
    regret: float
    why: str
    chances: Mapping[int, float] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        return len(self.times)


Take = Callable[[Sequence[int]], Floats]
"""One round: times of the configs that are named, at their places among all; NaN elsewhere."""


def race(
    take: Take,
    count: int,
    rules: Rules | None = None,
    *,
    keep: Collection[int] = (),
    goes_on: Callable[[Race], bool] = lambda _: False,
    affords: Callable[[int, int], bool] = lambda used, next_round: True,
    order: Indices | None = None,
    seed: int = 0,
) -> Race:
    """Race `count` configs. `keep` are never sent away: they are measured to the end.

    A config without a time in a round (NaN) is out: it failed, or has no measurement left. `affords(used,
    next)` says whether the budget allows `next` more measurements; `goes_on(race)` may ask for rounds
    beyond the decision. `order[round, config]` says which repeat of its config a measurement is, where
    rounds are not taken in one order by all; then biased leading repeats are found and set aside.
    """
    rules = rules or Rules()
    logs = np.empty((0, count))
    alive, left, used = list(range(count)), dict[int, int](), 0
    next_look = rules.first
    while True:
        if not alive:
            return Race(np.exp(logs), -1, (), (), left, used, 0, math.inf, NOBODY)
        if not affords(used, len(alive)):
            why = BUDGET
            break
        row = np.log(take(alive))
        used += int(np.isfinite(row[alive]).sum())
        logs = np.vstack([logs, np.where(np.isin(np.arange(count), alive), row, np.nan)])
        for which in [i for i in alive if not np.isfinite(row[i])]:
            alive.remove(which)
            left[which] = len(logs)
        if len(logs) < next_look or not alive:
            continue
        next_look = len(logs) + max(1, len(logs) // _LOOKS)
        look = _Look.of(logs, alive, order, seed)
        for which in look.beaten(rules.confidence, count):
            if which not in keep:
                alive.remove(which)
                left[which] = len(logs)
        now = _state(logs, look, alive, left, used, DECIDED, rules)
        if (len(alive) == 1 or now.regret <= rules.regret) and not goes_on(now):
            return now
    if not len(logs):
        return Race(logs, alive[0], tuple(alive), (), left, used, 0, math.inf, why)
    return _state(logs, _Look.of(logs, alive, order, seed), alive, left, used, why, rules)


@dataclass(frozen=True)
class _Look:
    """What the rounds so far say about the configs alive: log levels, spreads, who leads."""

    logs: Floats
    alive: tuple[int, ...]
    level: Floats
    error: Floats
    shared: float
    warm: int
    draws: Floats

    @staticmethod
    def of(logs: Floats, alive: Sequence[int], order: Indices | None, seed: int) -> _Look:
        shown = logs[:, list(alive)]
        warm = 0 if order is None else warm_repeats(shown, order[: len(logs), list(alive)])
        if order is not None and warm:
            shown = np.where(order[: len(logs), list(alive)] < warm, np.nan, shown)
        level, residuals = _levels(shown)
        shared = _shared_spread(shown)
        counts = np.maximum(1, np.isfinite(shown).sum(axis=0))
        spread = _moderated(np.nan_to_num(residuals), counts, shared)
        draws = _draws(level, residuals, spread, counts, seed)
        return _Look(shown, tuple(alive), level, spread / np.sqrt(counts), shared, warm, draws)

    @property
    def first(self) -> int:
        """Who is surely fast: the lowest level that allows for its own spread. Any config may send others away."""
        return int(np.argmin(self.level + _CAUTION * self.error))

    def beaten(self, confidence: float, count: int) -> list[int]:
        """Those slower than the leader with the confidence of the whole race."""
        if count < 2:
            return []
        limit = math.log((count - 1) / (1.0 - confidence))
        gaps = self.logs - self.logs[:, [self.first]]
        slower = _evidence(gaps, self.shared * math.sqrt(2)) > limit
        slower[self.first] = False
        return [which for which, beaten in zip(self.alive, slower, strict=True) if beaten]


def warm_repeats(logs: Floats, order: Indices) -> int:
    """How many leading repeats are biased against the others of their config: 0 to 4.

    `logs[round, config]` with the repeat that each is in `order`, both of one shape. Caches, clocks and
    first launches make the first repeats slow, or fast on a device that has not warmed up; which, and how
    many, is read from the data.
    """
    warm = 0
    shared = max(_shared_spread(logs), _FLOOR_SPREAD)
    for place in range(_MOST_WARM):
        early = (order == place) & np.isfinite(logs)
        rest = np.where(order > place, logs, np.nan)
        enough = early.any(axis=0) & (np.isfinite(rest).sum(axis=0) >= 1)
        if enough.sum() < 2:
            break
        own = np.array([logs[early[:, c], c][0] for c in np.flatnonzero(enough)])
        shift = own - _median(rest[:, enough], 0)
        limit = max(_WARM_SHIFT, _WARM_SPREADS * shared * math.sqrt(2 / len(shift)))
        if abs(float(np.median(shift))) <= limit:
            break
        warm = place + 1
    return warm


def _levels(logs: Floats) -> tuple[Floats, Floats]:
    """Level of each config with what a round does to all taken out, and the residuals; outliers are drawn in."""
    rows = np.zeros((len(logs), 1))
    level = np.zeros(logs.shape[1])
    for _ in range(3):
        level = _median(logs - rows, 0)
        rows = _median(logs - level, 1)[:, None]
    level = _median(logs - rows, 0)
    residuals = logs - rows - level
    reach = _CLIP * max(_shared_spread(logs), _FLOOR_SPREAD)
    drawn = np.clip(residuals, -reach, reach)
    shift = np.nan_to_num(_mean(drawn, 0))
    return np.where(np.isfinite(level), level + shift, np.inf), residuals - shift


def _median(values: Floats, axis: int) -> Floats:
    """Median of what is there; where nothing is, 0 for a round and NaN for a config."""
    # NaN sort last; np.nanmedian does the same a row at a time, many times slower.
    ordered = np.sort(values, axis=axis)
    known = np.isfinite(values).sum(axis=axis)
    low, high = (np.maximum(0, (known - 1) // 2), np.minimum(known // 2, values.shape[axis] - 1))
    picks = [np.take_along_axis(ordered, np.expand_dims(p, axis), axis) for p in (low, high)]
    middle = np.squeeze(picks[0] + picks[1], axis=axis) / 2
    return np.where(known > 0, middle, 0.0 if axis else np.nan)


def _mean(values: Floats, axis: int) -> Floats:
    counts = np.isfinite(values).sum(axis=axis)
    return np.asarray(np.nansum(values, axis=axis) / np.maximum(1, counts))


def _shared_spread(logs: Floats) -> float:
    """Standard deviation of one measurement, from changes between rounds beyond what all configs share."""
    if len(logs) < 2:
        return 0.0
    steps = np.diff(logs, axis=0)
    if logs.shape[1] > 2:
        steps = steps - _median(steps, 1)[:, None]
    sizes = np.abs(steps[np.isfinite(steps)])
    return float(np.median(sizes) * _MAD / math.sqrt(2)) if len(sizes) else 0.0


def _moderated(residuals: Floats, counts: Floats | Indices, shared: float) -> Floats:
    """A config's own spread, drawn towards that of all while its rounds are few."""
    freedom = np.maximum(0, counts - 1)
    squares = (residuals**2).sum(axis=0)
    total = squares + _SHARED_FREEDOM * shared**2
    return np.asarray(np.maximum(_FLOOR_SPREAD, np.sqrt(total / (freedom + _SHARED_FREEDOM))))


def _evidence(gaps: Floats, shared: float) -> Floats:
    """Log of the likelihood ratio that the mean of each column is above 0; anytime valid, see the module."""
    n = np.isfinite(gaps).sum(axis=0)
    reach = _CLIP * max(shared, _FLOOR_SPREAD)
    middle = np.nan_to_num(_median(gaps, 0))
    # Outliers neither make a gap nor hide that its rounds disagree: they are drawn in for the mean alone.
    mean = _mean(np.clip(gaps, middle - reach, middle + reach), 0)
    freedom = np.maximum(0, n - 1) + _SHARED_FREEDOM
    square = (np.nansum((gaps - mean) ** 2, axis=0) + _SHARED_FREEDOM * shared**2) / freedom
    t2 = n * mean**2 / np.maximum(square, _FLOOR_SPREAD**2)
    keep = _PRIOR / (n + _PRIOR)
    tail = np.log1p(t2 / freedom) - np.log1p(keep * t2 / freedom)
    found = 0.5 * np.log(keep) + 0.5 * (freedom + 1) * tail
    return np.where((n >= 2) & (mean > 0), found, -np.inf)


def _draws(
    level: Floats, residuals: Floats, spread: Floats, counts: Floats | Indices, seed: int
) -> Floats:
    """Levels as other rounds might have given them: a bootstrap of pooled residuals, shape [draw, config]."""
    pool = (residuals * np.sqrt(counts / np.maximum(1, counts - 1)) / spread)[
        np.isfinite(residuals)
    ]
    scale = float(pool.std()) if len(pool) > 1 else 0.0
    # The mean of n resampled residuals, for all n at once: a normal of their spread beyond a few.
    rng = np.random.default_rng(seed)
    most = int(min(8, counts.max()))
    picks = rng.choice(pool / scale, size=(_RESAMPLES, len(level), most)) if scale else 0.0
    means = (
        np.mean(picks, axis=2) * math.sqrt(most) if scale else np.zeros((_RESAMPLES, len(level)))
    )
    return np.asarray(level + means * spread / np.sqrt(counts))


def _state(
    logs: Floats,
    look: _Look,
    alive: Sequence[int],
    left: Mapping[int, int],
    used: int,
    why: str,
    rules: Rules,
) -> Race:
    places = [look.alive.index(i) for i in alive]
    draws, level = look.draws[:, places], look.level[places]
    lead = int(np.argmin(level))
    regret = float(np.expm1(draws[:, lead] - draws.min(axis=1)).mean())
    chances = np.bincount(draws.argmin(axis=1), minlength=len(alive)) / len(draws)
    tied = _credible(alive, lead, chances, level, rules.confidence)
    return Race(
        np.exp(logs),
        alive[lead],
        tuple(alive),
        tied,
        dict(left),
        used,
        look.warm,
        regret,
        why,
        {which: float(p) for which, p in zip(alive, chances, strict=True)},
    )


def _credible(
    alive: Sequence[int], lead: int, chances: Floats, level: Floats, confidence: float
) -> tuple[Tied, ...]:
    """The leader and then the most probable others, until the best is among them with `confidence`."""
    ranked = sorted(range(len(alive)), key=lambda i: (i != lead, -chances[i], level[i]))
    found, sure = list[Tied](), 0.0
    for place in ranked:
        if found and sure >= confidence:
            break
        ratio = math.exp(level[place] - level[lead])
        found.append(Tied(alive[place], float(chances[place]), ratio))
        sure += float(chances[place])
    return tuple(found)


@dataclass(frozen=True, slots=True)
class RecordedRace:
    """A race over a recording: the row chosen, how many recorded repeats it took, who was still in."""

    chosen: int
    used: int
    tie_set: tuple[int, ...]
    race: Race

    def __iter__(self) -> Iterator[Any]:
        """As `(chosen, repeats_used, tie_set)`."""
        return iter((self.chosen, self.used, self.tie_set))


def race_recorded(
    times: Floats, seed: int = 0, share: float = 0.4, rules: Rules | None = None
) -> RecordedRace:
    """Race the configs of a recording, `times[config, repeat]`, NaN where there are fewer repeats.

    Repeats of different configs were taken at different times, so each config's are shuffled by itself:
    there is no pairing to gain from. At most `share` of all repeats are used.
    """
    known = np.isfinite(times)
    if times.ndim != 2 or not known.any(axis=1).all() or (times[known] <= 0).any():
        raise UsageError(
            f"times of shape {times.shape}; accepted: [config, repeat], each config with a positive time"
        )
    rng = np.random.default_rng(seed)
    order = np.argsort(np.where(known, rng.random(times.shape), 2.0), axis=1).T
    shuffled = np.take_along_axis(times.T, order, axis=0)
    most = share * float(known.sum())
    taken = 0

    def take(alive: Sequence[int]) -> Floats:
        nonlocal taken
        row = np.full(len(times), np.nan)
        if taken < len(shuffled):
            row[list(alive)] = shuffled[taken, list(alive)]
        taken += 1
        return row

    found = race(
        take,
        len(times),
        rules,
        affords=lambda used, more: used + more <= most and taken < len(shuffled),
        order=order,
        seed=seed,
    )
    return RecordedRace(found.leader, found.used, tuple(t.which for t in found.tied), found)
