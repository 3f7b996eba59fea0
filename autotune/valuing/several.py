"""Tuning for time, memory and binary size together, or for any of them.

`time` is what the target's objective gives. `memory` is workspace and on-chip bytes of a binary, peaks of the
twin's memories, or the growth of this process' peak while the kernel runs; `size` the bytes of the binary.
What is not known of a target is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tilewright.autotune.trials import OBJECTIVES, Outcome, Stage
from tilewright.autotune.valuing.objective import Enter, Noisy, Objective, SideBySide
from tilewright.errors import UsageError, unknown
from tilewright.evidence import Evidence

if TYPE_CHECKING:
    from tilewright.space import Config

TIME, MEMORY, SIZE = "time", "memory", "size"
MEASURES = (TIME, MEMORY, SIZE)
# Keys of an outcome's details.
BYTES: Mapping[str, str] = {MEMORY: "memory_bytes", SIZE: "size_bytes"}


@runtime_checkable
class Sized(Protocol):
    """An objective whose outcomes' details have `memory_bytes` or `size_bytes`."""

    def sizes(self, wanted: Sequence[str]) -> Mapping[str, Evidence | str]:
        """How `memory` and `size` are obtained, or the reason why one is not known.

        Called once, before the first trial, with the objectives that are wanted.
        """


def names(text: str) -> tuple[str, ...]:
    """`time,memory` as names in the order of MEASURES; raises UsageError for others."""
    given = [part.strip() for part in text.split(",") if part.strip()]
    for name in given:
        if name not in MEASURES:
            raise unknown("objective", name, list(MEASURES))
    if not given:
        raise UsageError(f"no objective was named; accepted: some of {', '.join(MEASURES)}")
    return tuple(m for m in MEASURES if m in given)


def several(base: Objective, wanted: Sequence[str]) -> Objective:
    """The objective for these names; raises UsageError with the reason where one is not known of the target."""
    if tuple(wanted) == (TIME,):
        return base
    known = base.sizes(wanted) if isinstance(base, Sized) else {}
    for name in wanted:
        found = known.get(name, "this objective does not give it")
        if name != TIME and not isinstance(found, Evidence):
            raise UsageError(f"{name} cannot be an objective here: {found}")
    if TIME in wanted and isinstance(base, Noisy):
        return _NoisySeveral(base, wanted, known)
    return Several(base, wanted, known)


class Several:
    """Another objective's outcomes with the values of several; the first is the one that ranks."""

    def __init__(
        self, base: Objective, wanted: Sequence[str], known: Mapping[str, Evidence | str]
    ) -> None:
        self.base, self.wanted = base, tuple(wanted)
        first = known.get(self.wanted[0])
        self.evidence = first if isinstance(first, Evidence) else base.evidence
        self.unit = base.unit if self.wanted[0] == TIME else "bytes"
        self.mode = f"{base.mode}; {' x '.join(self.wanted)}"

    def evaluate(self, config: Config, enter: Enter) -> Outcome:
        found = self.base.evaluate(config, enter)
        if found.value is None:
            return found
        values = {
            name: found.value if name == TIME else found.details.get(BYTES[name])
            for name in self.wanted
        }
        missing = [name for name, value in values.items() if value is None]
        if missing:
            return Outcome.failed(Stage.TIME, f"{missing[0]} of this config is not known")
        details = {**found.details, OBJECTIVES: values}
        return replace(found, value=values[self.wanted[0]], details=details)

    def versions(self) -> Mapping[str, Any]:
        return self.base.versions()


class _NoisySeveral(Several):
    def side_by_side(self, configs: Sequence[Config]) -> AbstractContextManager[SideBySide]:
        assert isinstance(self.base, Noisy)
        return self.base.side_by_side(configs)


def peak_known() -> str:
    """Why the peak of this process cannot be told for one call; empty where it can."""
    try:
        _reset_peak()
    except OSError as error:
        return f"the peak memory of a call needs /proc/self/clear_refs: {error.strerror or error}"
    return ""


def growth_of(call: Callable[[], object]) -> int:
    """How many bytes the resident peak of this process grows by while `call` runs.

    Linux: VmHWM of /proc/self/status, set back by writing 5 to clear_refs (proc(5)). Memory that the
    allocator already held does not show.
    """
    _reset_peak()
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
