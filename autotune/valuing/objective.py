"""What a config is worth on a target, and how that was obtained.

`cpu`, and any device that is present, is timed. `ascend:*` without a device takes the twin's cycles;
`cuda:*` and `hip:*` without one take a static score of the compiled binary. The last two are models
and say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tilewright.autotune.trials import Outcome, Stage
from tilewright.backends.base import State as CellState
from tilewright.errors import Unavailable, UsageError, unknown
from tilewright.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tilewright.backends.base import Backend
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target

# Rounds after which more say nothing new.
MOST_ROUNDS = 200

Enter = Callable[[Stage], AbstractContextManager[None]]


class NoObjective(Unavailable):
    """No config of this study can be valued here; it ends the study instead of failing a trial."""


class SideBySide(Protocol):
    """Configs that were set up together to be valued in interleaved rounds."""

    failed: dict[int, str]
    """Which of them do not work, and why; complete when the context that gave this has ended."""

    def round(self, alive: Sequence[int]) -> npt.NDArray[np.float64]:
        """One value of each of `alive`, taken side by side, at its place among all; NaN elsewhere and for failures."""


class Objective(Protocol):
    """Values configs. `unit` is `us` for times; lower is better in every unit.

    `mode` names how a config is valued and is part of a study's identity.
    """

    evidence: Evidence
    unit: str
    mode: str

    def evaluate(self, config: Config, enter: Enter) -> Outcome:
        """Gate, check, value, each inside `enter(stage)`. A config that fails is an outcome, not an error."""

    def versions(self) -> Mapping[str, Any]:
        """Compilers and libraries the values depend on."""


@runtime_checkable
class Noisy(Protocol):
    """An objective that gives another number each time: its best are raced in interleaved rounds."""

    def side_by_side(self, configs: Sequence[Config]) -> AbstractContextManager[SideBySide]:
        """Set all up so that rounds value them alternately and drift hits all alike."""


def rounds_of(
    objective: Noisy, configs: Sequence[Config], seconds: float, fewest: int
) -> npt.NDArray[np.float64]:
    """Rounds of all configs side by side, `[round, config]`, for so long and at least `fewest`; NaN for failures."""
    import numpy as np

    with objective.side_by_side(configs) as field:
        found: list[npt.NDArray[np.float64]] = []
        end = time.monotonic() + seconds
        while len(found) < fewest or (len(found) < MOST_ROUNDS and time.monotonic() < end):
            found.append(field.round(range(len(configs))))
    times = np.array(found)
    times[:, list(field.failed)] = np.nan
    return times


def pick_backend(
    family: Family, target: Target, precision: str, name: str | None = None
) -> Backend:
    """The backend to tune: the named one, or the first besides the reference that can do the target here.

    Raises UsageError for a backend that does not address the target, Unavailable with the reason when
    nothing can be done here.
    """
    from tilewright.backends import all_backends

    if name is not None and name not in all_backends():
        raise unknown("backend", name, list(all_backends()))
    chosen = [
        b for b in all_backends().values() if target.name in b.targets() and b.name != "reference"
    ]
    if name is not None:
        chosen = [b for b in chosen if b.name == name]
    if not chosen:
        raise UsageError(
            f"backend {name or 'any'} does not address {target.name}, so it cannot be tuned there"
        )
    cells = [(b, b.cell(family, target, family.spec.precision(precision))) for b in chosen]
    # What computes outputs here comes before what can only compile.
    for backend, cell in sorted(cells, key=lambda pair: not pair[1].state.checks):
        if cell.state is not CellState.ABSENT:
            return backend
    raise Unavailable(f"{family.name} cannot be tuned on {target.name} here: {cells[0][1].reason}")


def objective_for(
    family: Family, case: Case, target: Target, backend: Backend, seed: int = 0, threads: int = 0
) -> Objective:
    """The objective of a target on this machine."""
    state = backend.cell(family, target, family.spec.precision(case.precision)).state
    if state is CellState.RUN:
        from tilewright.autotune.valuing.measured import MeasuredTime

        return MeasuredTime(family, case, target, backend, seed, threads)
    if state is CellState.TWIN:
        from tilewright.autotune.valuing.twin import TwinTime

        return TwinTime(family, case, target, backend, seed)
    if target.is_gpu:
        from tilewright.autotune.valuing.static_score import StaticScore

        return StaticScore(family, case, target, backend, seed)
    raise Unavailable(
        f"nothing values configs of {family.name} on {target.name} here: its cell is '{state}'"
    )
