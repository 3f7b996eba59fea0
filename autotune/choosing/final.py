"""The end of a tuning: the default and the best are valued again side by side, and one is chosen.

Screening picks a few finalists, which race in interleaved rounds: those that are surely slower leave
on the way. The default is always among them, is timed to the last round and wins unless another is
faster beyond noise. So is, and in the same way with the last word, what calls had before, where the
family's tiling suggests another config than the default. Modelled values are exact but no
times: they choose by score, without an interval, and nothing is called faster.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.autotune.choosing.racing import Race, race
from tilewright.autotune.trials import LEVEL, State, TrialRow
from tilewright.autotune.valuing.objective import MOST_ROUNDS, Noisy, Objective
from tilewright.document import plain
from tilewright.errors import CheckFailed
from tilewright.evidence import Evidence
from tilewright.perf.statistics import FEWEST_QUADS, Estimate, ratio_estimate
from tilewright.perf.statistics import verdict as judge
from tilewright.space import Config

if TYPE_CHECKING:
    import numpy.typing as npt

FINALISTS = 12
# A finalist's screening value is at most this many times the best one.
WITHIN = 1.5
CUT_OFF = "the comparison with the default was cut off"
TIMED_ONCE = "each config was timed on its own, which does not tell them apart"
NO_TIME = "no time was asked for: what is smallest says nothing of what is fast"
BY_SCORE = "chosen by the scores of a model: no device has timed these configs"
DEFAULT_FAILED = "the default failed"
UNTRIED = "what a call gets untuned, by the family's tiling, was not tried"
BETTER_SCORE, SAME_SCORE = "better score", "same score"
# Rounds that every race takes: an interval needs some.
_FEWEST_ROUNDS = FEWEST_QUADS + 2
# What a config costs in a round: a block each way, which waits until nobody spins, and no less than a call in each.
_BLOCK_S, _CALLS_A_ROUND = 0.02, 2


@dataclass(frozen=True, slots=True)
class Scored:
    """A config with its value in the objective's unit; `trial` is the number of its trial.

    `ratio` is the default's value over this one's: of times, with its 95 % interval, above 1 is faster; of
    scores it only ranks, and has no interval.
    """

    config: Config
    trial: int
    value: float
    value_us: float | None
    unit: str
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Which config won and how sure that is. `rounds` is how often the finalists were valued again.

    `confirmed` means times that were taken again side by side (or that there was nothing to compare);
    `by_score` a choice by a model, kept as such. `p_best` has the probability of each member of the tie set
    to be the fastest, where they were raced.
    A decision that is neither, for the given `reason`, is a remark and reaches no table.
    """

    best: Scored
    default: Scored | None
    tie_set: tuple[Config, ...]
    verdict: str
    rounds: int
    confirmed: bool
    reason: str = ""
    by_score: bool = False
    p_best: tuple[float, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether it is written to tables of configs."""
        return self.confirmed or self.by_score

    @property
    def gain(self) -> float | None:
        """The default's time over the winner's; None where nothing was timed."""
        return self.best.ratio if self.confirmed else None

    @property
    def score_ratio(self) -> float | None:
        """The default's score over the winner's; None where times decided."""
        return self.best.ratio if self.by_score else None


def content(decision: Decision) -> dict[str, Any]:
    """As JSON types, to be kept with the study."""
    kept: dict[str, Any] = plain(decision)
    return kept


def read(kept: Mapping[str, Any]) -> Decision | None:
    """What `content` wrote; None for a decision from before scores were told from times."""
    if "by_score" not in kept:
        return None

    def scored(one: Mapping[str, Any]) -> Scored:
        return Scored(**{**one, "config": Config(one["config"])})

    return Decision(
        best=scored(kept["best"]),
        default=scored(kept["default"]) if kept["default"] else None,
        tie_set=tuple(Config(c) for c in kept["tie_set"]),
        verdict=kept["verdict"],
        rounds=kept["rounds"],
        confirmed=kept["confirmed"],
        reason=kept["reason"],
        by_score=kept["by_score"],
        p_best=tuple(kept.get("p_best", ())),
    )


def ranked(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """The trials that succeeded, best first; equal values by number."""
    good = [r for r in rows if r.state is State.OK and r.value is not None]
    return sorted(good, key=lambda r: (_fair(r), r.number))


def _fair(row: TrialRow) -> float:
    """The value, had the machine stayed as it was at the first trial."""
    assert row.value is not None
    return row.value / float(row.details.get(LEVEL, 1.0))


def finalists(
    rows: Sequence[TrialRow],
    default: Config,
    most: int = FINALISTS,
    suggested: Config | None = None,
) -> list[TrialRow]:
    """The default and what is suggested first (if they succeeded), then the best others by screening."""
    best = ranked(rows)
    if not best:
        return []
    own = [r for one in _held(default, suggested) for r in best if r.config == one]
    limit = WITHIN * _fair(best[0])
    others = [r for r in best if r not in own and _fair(r) <= limit]
    return own + others[: most - 1]


def _held(default: Config, suggested: Config | None) -> tuple[Config, ...]:
    """What stays to the last round, and wins unless another is faster beyond noise; the last has the last word."""
    return (default,) if suggested in (None, default) else (default, suggested)


def decide(
    objective: Objective,
    rows: Sequence[TrialRow],
    default: Config,
    seconds: float,
    most: int,
    suggested: Config | None = None,
) -> Decision:
    """Value the finalists again (if values are noisy) and choose. `rows` holds at least one success."""
    tried = [r.config for r in rows if r.state is not State.RUNNING]
    if suggested is not None and suggested not in tried:
        return by_screening(rows, default, UNTRIED)
    chosen = finalists(rows, default, most, suggested)
    if isinstance(objective, Noisy) and len(chosen) > 1:
        held = _held(default, suggested)
        return _race(objective, _affordable(chosen, seconds, held), held, seconds)
    if objective.unit == "bytes":
        return by_screening(rows, default, NO_TIME)
    if objective.evidence is Evidence.MODELLED:
        return by_screening(rows, default, by_score=True)
    return by_screening(rows, default, TIMED_ONCE if len(chosen) > 1 else "")


def by_screening(
    rows: Sequence[TrialRow], default: Config, doubt: str = "", by_score: bool = False
) -> Decision:
    """Choose by the values of the trials alone: a choice by score, the one config there is, or a remark in doubt."""
    best = ranked(rows)
    winner = next((r for r in best if r.config == default and r.value == best[0].value), best[0])
    own = next((r for r in best if r.config == default), None)
    ties = tuple(r.config for r in best if r.value == winner.value)
    ratio = own.value / winner.value if own and own.value and winner.value else None
    if doubt:
        verdict = "inconclusive"
    elif own is None:
        verdict = DEFAULT_FAILED
    elif by_score:
        verdict = SAME_SCORE if winner is own else BETTER_SCORE
    else:
        verdict = "same"
    return Decision(
        _scored(winner, None, ratio),
        _scored(own) if own else None,
        ties,
        verdict,
        0,
        confirmed=not doubt and not by_score,
        reason=doubt or (BY_SCORE if by_score else ""),
        by_score=by_score,
    )


def _affordable(chosen: list[TrialRow], seconds: float, held: Sequence[Config]) -> list[TrialRow]:
    """As many finalists as can take the fewest rounds in the time; what is held and another one at least."""
    least = max(2, 1 + sum(r.config in held for r in chosen))
    spent, kept = 0.0, list[TrialRow]()
    for row in chosen:
        spent += _FEWEST_ROUNDS * (_BLOCK_S + _CALLS_A_ROUND * (row.value_us or 0.0) / 1e6)
        if len(kept) >= least and spent > seconds:
            break
        kept.append(row)
    return kept


def _race(
    objective: Noisy, chosen: list[TrialRow], held: tuple[Config, ...], seconds: float
) -> Decision:
    """Race the finalists until it is clear who is first and whether what is held is beaten, or time is up."""
    configs = [r.config for r in chosen]
    keep = tuple(configs.index(one) for one in held if one in configs)
    rounds, end = 0, time.monotonic() + seconds

    def affords(used: int, more: int) -> bool:
        if rounds < _FEWEST_ROUNDS:
            return True
        return rounds < MOST_ROUNDS and time.monotonic() < end

    def goes_on(now: Race) -> bool:
        if now.rounds < _FEWEST_ROUNDS:
            return True
        return any(
            one in now.alive
            and one != now.leader
            and judge(_ratio(now.times, one, now.leader)) == "inconclusive"
            for one in keep
        )

    with objective.side_by_side(configs) as field:

        def take(alive: Sequence[int]) -> npt.NDArray[np.float64]:
            nonlocal rounds
            rounds += 1
            return field.round(alive)

        found = race(take, len(configs), keep=keep, affords=affords, goes_on=goes_on)
    good = [i for i in found.alive if i not in field.failed]
    if not good:
        raise CheckFailed(
            f"no finalist was right when valued again; the first: {next(iter(field.failed.values()))}"
        )
    chances = [found.chances.get(i, 0.0) for i in good]
    return _choose(found.times[:, good], [chosen[i] for i in good], held, chances)


def _choose(
    times: npt.NDArray[np.float64],
    kept: list[TrialRow],
    held: tuple[Config, ...],
    chances: Sequence[float],
) -> Decision:
    everyone = list(range(len(kept)))
    leader = winner = _leader(times, everyone)
    base = next((i for i in everyone if kept[i].config == held[0]), None)
    for holder in (i for one in held for i in everyone if kept[i].config == one):
        if winner != holder and judge(_ratio(times, holder, winner)) != "faster":
            winner = holder
    verdict = DEFAULT_FAILED
    if base is not None:
        shown = leader if winner == base else winner
        verdict = "same" if shown == base else judge(_ratio(times, base, shown))
    tied = [i for i in everyone if i == winner or _ties(times, winner, i)]
    tied.sort(key=lambda i: (i != winner, float(np.median(times[:, i]))))
    estimate = None if base is None else _ratio(times, base, winner)
    return Decision(
        _scored(
            kept[winner], estimate, estimate.value if estimate else None, _median(times, winner)
        ),
        None if base is None else _scored(kept[base], value=_median(times, base)),
        tuple(kept[i].config for i in tied),
        verdict,
        len(times),
        True,
        p_best=tuple(chances[i] for i in tied),
    )


def _median(times: npt.NDArray[np.float64], which: int) -> float:
    return float(np.median(times[:, which]))


def _leader(times: npt.NDArray[np.float64], among: Sequence[int]) -> int:
    """The smallest time relative to the round it was taken in."""
    logs = np.log(times[:, list(among)])
    relative = np.median(logs - logs.mean(axis=1, keepdims=True), axis=0)
    return among[int(np.argmin(relative))]


def _ratio(times: npt.NDArray[np.float64], over: int, under: int) -> Estimate:
    """Value of `over` / value of `under`, paired by round."""
    if over == under:
        return Estimate(1.0, 1.0, 1.0)
    return ratio_estimate(np.log(times[:, over]) - np.log(times[:, under]))


def _ties(times: npt.NDArray[np.float64], leader: int, other: int) -> bool:
    """Whether the rounds do not show the leader to be faster by more than is worth telling."""
    return other == leader or judge(_ratio(times, other, leader)) != "faster"


def _scored(
    row: TrialRow,
    estimate: Estimate | None = None,
    ratio: float | None = None,
    value: float | None = None,
) -> Scored:
    found = value if value is not None else row.value
    assert found is not None
    return Scored(
        row.config,
        row.number,
        found,
        found if row.unit == "us" else None,
        row.unit,
        ratio,
        _finite(estimate.low) if estimate else None,
        _finite(estimate.high) if estimate else None,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
