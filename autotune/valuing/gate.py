"""The static gate: what a binary is known to need, judged before it costs a measurement.

Facts come from the compiled binary (cuda, hip), the twin's peaks or planned HIVM (ascend), or a
recording. They are a gate and kept with the trial, never a ranking: in recorded spaces occupancy
hardly correlates with time, yet configs that spill, or fill less than a quarter of a multiprocessor,
hold none of the best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tilewright.aot.judge import judge as judge_binary
from tilewright.aot.metrics import Metrics
from tilewright.autotune.trials import Outcome, Stage
from tilewright.targets import Target, chip

if TYPE_CHECKING:
    from tilewright.aot import CompiledKernel
    from tilewright.aot.ascend import LoweredKernel
    from tilewright.perf.recorded import Recording
    from tilewright.space import Config


_NAMES = ("regs", "spill_bytes", "shared_bytes", "threads", "occupancy")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a config without running it; None where it is not.

    `regs` and `spill_bytes` per thread, `shared_bytes` per block; `occupancy` is the share of a
    multiprocessor's warps that can be resident. `peaks` are bytes of on-chip memories by the name of
    their limit. `error` says why it cannot run at all.
    """

    regs: int | None = None
    spill_bytes: int | None = None
    shared_bytes: int | None = None
    threads: int | None = None
    occupancy: float | None = None
    peaks: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    error: str = ""

    @staticmethod
    def of_binary(compiled: CompiledKernel) -> Facts:
        """Of an AOT-compiled cubin or hsaco, or of one that did not come to be."""
        if not compiled.binary:
            return Facts(error=compiled.error)
        return Facts(
            regs=compiled.regs,
            spill_bytes=compiled.spill_bytes,
            shared_bytes=compiled.shared_bytes,
            threads=compiled.threads,
            occupancy=compiled.occupancy,
            error="" if compiled.ok else compiled.error,
        )

    @staticmethod
    def of_plan(lowered: LoweredKernel) -> Facts:
        """Of planned HIVM: Triton on ascend."""
        named = {n: getattr(lowered, n) for n in ("ub_bytes", "l1_bytes", "l0c_bytes")}
        known = {name: value for name, value in named.items() if value is not None}
        return Facts(peaks=known, error="" if lowered.ok else lowered.error)

    @staticmethod
    def of_twin(peak: Mapping[str, int], target: Target) -> Facts:
        """Of a run of the twin: peaks by memory, such as `ub`."""
        named = {f"{memory.lower()}_bytes": size for memory, size in peak.items()}
        return Facts(peaks={name: size for name, size in named.items() if name in target.limits})

    @staticmethod
    def of_launch(
        target: Target, regs: int, spill_bytes: int, shared_bytes: int, threads: int
    ) -> Facts:
        """Of figures that a recording keeps, with the occupancy that follows from the chip's limits."""
        warps = max(1, math.ceil(threads / target.limit("warp_size")))
        found = judge_binary(Metrics(regs, spill_bytes, shared_bytes, {}, {}), target, warps)
        return Facts(regs, spill_bytes, shared_bytes, threads, found.occupancy, error=found.error)

    @staticmethod
    def of_details(details: Mapping[str, Any]) -> Facts:
        """What `details` wrote, without the peaks, which no rule asks about."""
        return Facts(**{n: details[n] for n in _NAMES if n in details})

    def details(self) -> dict[str, Any]:
        """For a trial's details: what is known, as JSON types."""
        found = {n: getattr(self, n) for n in _NAMES if getattr(self, n) is not None}
        return found | dict(self.peaks)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is dropped besides what cannot run: more spill than this, less occupancy than that."""

    most_spill: float = 0
    least_occupancy: float = 0.25

    def reason(self, facts: Facts) -> str:
        """Why a config is dropped; empty if it is not."""
        if facts.spill_bytes is not None and facts.spill_bytes > self.most_spill:
            return f"{facts.spill_bytes} bytes of registers spill to memory"
        if facts.occupancy is not None and facts.occupancy < self.least_occupancy:
            return f"occupancy {facts.occupancy:.2f} is below {self.least_occupancy:g}"
        return ""


RULE = Rule()
# The rules to fall back to, in turn, where the one before would lose more than this share of what can run.
MOST_LOST = 0.6
_SOFTER = (
    (RULE, ""),
    (
        Rule(least_occupancy=0.0),
        "low occupancy no longer drops configs: nearly all of this space have it",
    ),
    (
        Rule(most_spill=math.inf, least_occupancy=RULE.least_occupancy),
        "spills no longer drop configs: nearly all of this space spill",
    ),
    (Rule(math.inf, 0.0), "spills and low occupancy no longer drop configs: nearly all have them"),
)
# Configs judged before a rule is taken to lose too many.
_ENOUGH = 10


def beyond_capacity(facts: Facts, target: Target | None = None) -> str:
    """Why a config cannot run at all; empty if nothing says so."""
    if facts.error or target is None:
        return facts.error
    for name, size in facts.peaks.items():
        if name in target.limits and size > target.limit(name):
            return f"needs {size} of {name}, {target.name} has {target.limit(name)}"
    return ""


@dataclass(slots=True)
class Gate:
    """Judges configs as they come. The default, and what untuned calls get, are never dropped for what is merely unpromising.

    A rule that would lose more than 60 % of the configs that can run relaxes itself; `remark` says so. Where configs
    are `timed` on the very GPU, the clock says what a spill or a low occupancy costs: only what cannot run is dropped.
    """

    target: Target | None
    default: Config | None
    suggested: Config | None = None
    timed: bool = False
    _seen: list[Facts] = field(default_factory=list)
    _step: int = 0

    @property
    def rule(self) -> Rule:
        return _SOFTER[self._step][0]

    @property
    def remark(self) -> str:
        return "" if self.timed else _SOFTER[self._step][1]

    def judge(self, config: Mapping[str, Any] | None, facts: Facts) -> str:
        """Why this config goes no further; empty if it does."""
        if reason := beyond_capacity(facts, self.target):
            return reason
        self._note(facts)
        if self.timed or (config is not None and config in (self.default, self.suggested)):
            return ""
        return self.rule.reason(facts)

    def recall(self, finished: Iterable[Outcome]) -> None:
        """Go on from what earlier processes judged: finished trials of the study by number."""
        for outcome in finished:
            facts = Facts.of_details(outcome.details)
            if facts == Facts():
                continue
            judged = any(rule.reason(facts) == outcome.reason for rule, _ in _SOFTER)
            if outcome.stage is not Stage.GATE or judged:
                self._note(facts)

    def _note(self, facts: Facts) -> None:
        self._seen.append(facts)
        if len(self._seen) >= _ENOUGH:
            self._step = _softest(self._seen, self._step)


def _softest(seen: Sequence[Facts], step: int) -> int:
    """The first rule from `step` on that keeps enough."""
    for place in range(step, len(_SOFTER)):
        lost = sum(bool(_SOFTER[place][0].reason(f)) for f in seen)
        if lost <= MOST_LOST * len(seen):
            return place
    return len(_SOFTER) - 1


@dataclass(frozen=True, slots=True)
class Sifted:
    """A whole space through the gate: `reasons` by place, empty for what passes."""

    reasons: tuple[str, ...]
    remark: str

    @property
    def passes(self) -> tuple[bool, ...]:
        return tuple(not reason for reason in self.reasons)


def sift(
    facts: Sequence[Facts | None], default: int | None = None, target: Target | None = None
) -> Sifted:
    """Judge a whole space; nothing is known of a None, which passes. `default` is the place of the default config."""
    hard = [beyond_capacity(f, target) if f else "" for f in facts]
    able = [f for f, reason in zip(facts, hard, strict=True) if f and not reason]
    rule, remark = _SOFTER[_softest(able, 0)]
    reasons = [
        why or ("" if f is None or place == default else rule.reason(f))
        for place, (f, why) in enumerate(zip(facts, hard, strict=True))
    ]
    return Sifted(tuple(reasons), remark)


def facts_of(recording: Recording) -> Iterator[Facts | None]:
    """Facts of each row of a recording; None where it keeps none. Without the chip's limits occupancy is not known."""
    limits = chip(recording.device)
    names = ("regs", "spill_bytes", "shared_bytes", "threads")
    if not set(names) <= set(recording.facts):
        yield from (None for _ in range(len(recording)))
        return
    most = recording.facts.get("most_threads", itertools.repeat(math.inf))
    for row, limit in zip(
        zip(*(recording.facts[n] for n in names), strict=True), most, strict=False
    ):
        if not all(map(math.isfinite, row)):
            yield None
            continue
        regs, spill, shared, threads = map(int, row)
        if limits is not None and threads <= limit:
            yield Facts.of_launch(limits, regs, spill, shared, threads)
            continue
        why = f"{threads} threads in a block, its registers bear {limit:g}"
        yield Facts(regs, spill, shared, threads, error=why if threads > limit else "")
