"""One row an equality: a feature, what else was on, a model, a backend, and whether the answers are the oracle's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tilewright.engine.validate.features import FEATURES, Outcome
from tilewright.engine.validate.oracle import Expected
from tilewright.errors import CRASHES, TilewrightError

# Scores are means of log-probabilities whose logits, of up to 20, agree to 1e-5.
_SCORE = 2e-4


@dataclass(frozen=True, slots=True)
class Found:
    """A verdict. `fired` counts what the feature did: where it is 0, nothing was shown, and `ok` is False."""

    ok: bool
    fired: int
    detail: str


@dataclass(frozen=True, slots=True)
class Task:
    """An equality to be tried. `beside` are the features that are on with it."""

    feature: str
    beside: str
    model: str
    backend: str
    work: Callable[[], Found]


@dataclass(frozen=True, slots=True)
class Row:
    """What `validate` tells of one equality. `ok` None: it could not be decided here, `detail` says why."""

    task: Task
    ok: bool | None
    fired: int
    detail: str

    def as_dict(self) -> dict[str, object]:
        """Of the JSON document."""
        return {
            "feature": self.task.feature,
            "with": self.task.beside,
            "model": self.task.model,
            "backend": self.task.backend,
            "ok": self.ok,
            "fired": self.fired,
            "detail": self.detail,
        }


def run(task: Task) -> Row:
    """Try it. What another backend than the host refuses, or what is missing here, is not decided; whatever else
    is raised is a failure."""
    try:
        found = task.work()
    except TilewrightError as error:
        refused = error.exit_code in (2, 3) and (task.backend != "host" or error.exit_code == 3)
        return Row(task, None if refused else False, 0, str(error))
    except CRASHES as error:
        return Row(task, False, 0, f"{type(error).__name__}: {error}".partition("\n")[0])
    return Row(task, found.ok, found.fired, found.detail)


def judge(outcome: Outcome, expected: Expected, oracle: str, most: int) -> Found:
    """Token-for-token equality of every answer, and a count above 0 for every feature that was on."""
    wrong = [*_wrong(outcome, expected, most)]
    silent = [name for name, count in outcome.fired.items() if not count]
    counts = ", ".join(f"{name} {count}" for name, count in outcome.fired.items())
    tokens = sum(map(len, outcome.greedy.values())) + sum(len(t) for t, _ in outcome.beams)
    said = f"{tokens} tokens of {len(outcome.greedy) + len(outcome.beams)} answers equal {oracle}'s"
    if wrong:
        said = "; ".join(wrong)
    if silent:
        said += f"; {', '.join(silent)} did nothing"
    fired = min(outcome.fired.values(), default=sum(outcome.heard.values()))
    return Found(not wrong and not silent, fired, f"{said} ({counts})" if counts else said)


def _wrong(outcome: Outcome, expected: Expected, most: int) -> Iterator[str]:
    for index, answer in outcome.greedy.items():
        difference = parted(answer, expected.greedy[index][:most])
        if difference:
            yield f"prompt {index}: {difference} (leads are {expected.gap:.2g} or more)"
    if (outcome.beams or "beams" in outcome.fired) and len(outcome.beams) != len(expected.beams):
        yield f"{len(outcome.beams)} beams instead of {len(expected.beams)}"
    for rank, (ours, theirs) in enumerate(zip(outcome.beams, expected.beams, strict=False)):
        difference = parted(ours[0], theirs[0])
        if difference or abs(ours[1] - theirs[1]) > _SCORE:
            yield f"beam {rank}: {difference or 'same tokens'}, score {ours[1]:.5f} and {theirs[1]:.5f}"


def parted(ours: Sequence[int], theirs: Sequence[int]) -> str:
    """Where two answers part; "" if they do not."""
    for at, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return f"token {at} is {one} instead of {other}"
    if len(ours) != len(theirs):
        return f"{len(ours)} tokens instead of {len(theirs)}"
    return ""


def name_of(on: frozenset[str]) -> tuple[str, str]:
    """A set of features as (feature, with)."""
    names = [name for name in FEATURES if name in on]
    return (names[0] if names else "alone"), "+".join(names[1:])
