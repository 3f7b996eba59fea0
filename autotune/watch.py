"""What a tuning tells whoever watches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilewright.autotune.trials import Stage, TrialRow


class Watch:
    """Told of each step while a tuning runs; does nothing with it. Overridden by progress displays."""

    def begin(self, rows: Sequence[TrialRow]) -> None:
        """The search begins (again) with these trials already there."""

    def stage(self, number: int, stage: Stage) -> None:
        """A trial of this process enters a stage."""

    def trial(self, row: TrialRow) -> None:
        """A trial is finished."""

    def phase(self, text: str) -> None:
        """The search is over, or something else that takes time has begun."""
