"""Where a kernel is timed: its inputs in memory of ours, its outputs, and what was taken of them, when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.inputs import restore
from tilewright.perf.watch import secret
from tilewright.perf.watch.memory import Base, LiveInputs
from tilewright.perf.watch.outputs import Guards, copies

if TYPE_CHECKING:
    import torch

TIMED = "a timed sample"
# More copies of outputs than this are not kept, of timed samples and of other calls: one drawn by lot makes room.
_MOST_KEPT = {True: 3, False: 8}


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What the outputs held when a call returned, and the inputs it was made on.

    `before` are the inputs of the call before, `poison` what the outputs were filled with. `how` says
    which call it was, in words.
    """

    how: str
    poison: str
    base: Base
    mask: int
    before: tuple[Base, int]
    outputs: Mapping[str, torch.Tensor]


class Scene:
    """The memory of one timing, and the copies taken of it."""

    def __init__(
        self, live: LiveInputs, outputs: dict[str, torch.Tensor], bases: tuple[Base, Base]
    ) -> None:
        self.live = live
        self.outputs = outputs
        self.guards = Guards(outputs)
        self.usual, self.other = bases
        self.timed: list[Taken] = []
        self.taken: list[Taken] = []
        self._before = (self.usual, 0)

    def begin(self) -> None:
        """From here on the inputs are those of a secret seed."""
        self.live.set(self.usual)
        restore(self.outputs, self.usual.values)
        self._before = (self.usual, 0)

    def change(self) -> None:
        """Change the inputs in place."""
        assert self.live.base is not None
        self._before = (self.live.base, self.live.mask)
        self.live.change()

    def stores(self, calls: int) -> list[list[tuple[int, int, int]]]:
        """Changes before each of that many calls, as stores."""
        lists = self.live.stores(calls - 1)
        assert self.live.base is not None
        self._before = (self.live.base, self.live.mask)
        return lists + self.live.stores(1)

    def redraw(self, base: Base) -> None:
        """Put whole other inputs in their place."""
        assert self.live.base is not None
        self._before = (self.live.base, self.live.mask)
        self.live.set(base)
        restore(self.outputs, base.values)

    def take(self, how: str, poison: str = "none") -> Taken:
        """Copy the outputs as they are now. To be called at once when the call has returned."""
        outputs = copies(self.outputs)
        assert self.live.base is not None
        found = Taken(how, poison, self.live.base, self.live.mask, self._before, outputs)
        kept = self.timed if how == TIMED else self.taken
        if len(kept) >= _MOST_KEPT[how == TIMED]:
            # Never the one that comes now: the last timed sample is compared in any case.
            kept.pop(secret.below(len(kept)))
        kept.append(found)
        return found
