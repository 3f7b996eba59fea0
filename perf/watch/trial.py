"""One watched timing from start to end: prepared on memory of ours, checked, timed, judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tilewright.inputs import Inputs, draw_typical, reference_outputs
from tilewright.numerics import Comparison
from tilewright.perf.gate import Expected, poison, require
from tilewright.perf.timers import CallTimer
from tilewright.perf.watch import secret
from tilewright.perf.watch.caught import Cheated
from tilewright.perf.watch.memory import Base, LiveInputs
from tilewright.perf.watch.outputs import plain_outputs
from tilewright.perf.watch.precision import lower_than_declared
from tilewright.perf.watch.process import ProcessState
from tilewright.perf.watch.scene import Scene, Taken
from tilewright.perf.watch.seal import seal
from tilewright.perf.watch.timer import WatchedTimer

if TYPE_CHECKING:
    import torch

    from tilewright.backends import Launch
    from tilewright.perf.engine import Effort
    from tilewright.perf.rows import Subject
    from tilewright.perf.timers import Timer

# Outputs that are compared whatever it costs; further ones while this share of the timing's budget lasts.
_COMPARED = 2
_COMPARING = 0.25

_now = time.perf_counter_ns


class Trial:
    """A subject under watch. `timer` wraps the timer to be measured, `verdict` ends the watch."""

    def __init__(self, subject: Subject, inputs: Inputs, expected: Expected) -> None:
        assert subject.case is not None
        self.subject, self.expected = subject, expected
        self._family, self._case = subject.family, subject.case
        self._state = ProcessState.now()
        self._live = LiveInputs(self._family, self._case, inputs)
        self.launch = subject.prepare(self._live.live)
        self._outputs = plain_outputs(
            self._family, self._case, self.launch.outputs, self._live, subject.who
        )
        self._check_first()
        self._scene = self._set(inputs)
        self._timer: WatchedTimer | None = None
        self._seconds = 0.0

    def _check_first(self) -> None:
        """On the public seed, whose failure anybody can have again."""
        poison(self._outputs, self._live.live)
        self.launch.run()
        require(
            self.expected.judge(self._outputs), f"{self.subject.who} is wrong, so it is not timed"
        )
        self._require_inputs()

    def _set(self, inputs: Inputs) -> Scene:
        """Inputs of secret seeds; real ones stay, and change by their patches only."""

        def values() -> Inputs:
            return draw_typical(self._family, self._case, secret.seed()) if inputs.drawn else inputs

        usual = self._live.make_base(values())
        other = self._live.make_base(
            draw_typical(self._family, self._case, secret.seed()), patches=0
        )
        scene = Scene(self._live, self._outputs, (usual, other))
        scene.begin()
        return scene

    def timer(self, inner: Timer, effort: Effort) -> WatchedTimer:
        """The timer to measure with."""
        direct = self.launch.native is not None and not isinstance(inner, CallTimer)
        burst = _native_burst(self.launch) if direct else _python_burst(self.launch)
        self._seconds = effort.seconds
        self._timer = WatchedTimer(
            inner, self._scene, burst, self.subject.who, self.subject.threads, effort.seconds
        )
        return self._timer

    def verdict(self) -> Comparison:
        """The worst comparison of what was taken while timing; raises Cheated for anything that was found."""
        assert self._timer is not None
        self._require_sealed()
        self._timer.finish()
        self._require_inputs()
        self._require_guards()
        self._require_process()
        found = self._compare()
        self._require_sealed()
        return found

    def _compare(self) -> Comparison:
        """References are computed now: while the kernel ran there was nothing to find."""
        taken = _chosen(self._scene)
        end = _now() + _COMPARING * self._seconds * 1e9
        verdicts = []
        for number, one in enumerate(taken):
            if number >= _COMPARED and _now() > end:
                break
            logical = one.base.logical(one.mask)
            want = reference_outputs(self._family, self._case, logical)
            verdict = replace(self.expected, outputs=want).judge(one.outputs)
            if not verdict.ok:
                raise Cheated(self.subject.who, self._explain(one, verdict))
            if number == 0:
                why = lower_than_declared(self._family, self._case, logical, verdict.rel_err, want)
                if why:
                    raise Cheated(self.subject.who, why)
            verdicts.append(verdict)
        return max(verdicts, key=lambda c: (c.rel_err, c.worst))

    def _explain(self, one: Taken, verdict: Comparison) -> str:
        """Where a wrong output comes from, as far as it can be told."""
        if _has_nan(one):
            return f"left NaN in its output in {one.how}: it did not write it, or not with numbers"
        base, mask = one.before
        if self._judged(base, mask, one.outputs):
            return f"gave the answer of earlier inputs in {one.how}"
        if self.expected.judge(one.outputs).ok:
            return f"gave the answer of the public seed's inputs in {one.how}"
        return f"was right when it was checked first and wrong in {one.how} ({verdict.reason})"

    def _judged(self, base: Base, mask: int, outputs: Mapping[str, torch.Tensor]) -> bool:
        want = reference_outputs(self._family, self._case, base.logical(mask))
        return replace(self.expected, outputs=want).judge(outputs).ok

    def _require_inputs(self) -> None:
        name = self._live.disturbed()
        if name is not None:
            raise Cheated(self.subject.who, f"changed its input '{name}'")

    def _require_guards(self) -> None:
        name = self._scene.guards.broken()
        if name is not None:
            raise Cheated(self.subject.who, f"wrote outside of its output '{name}'")

    def _require_process(self) -> None:
        changed = self._state.changed(ProcessState.now())
        if changed is not None:
            raise Cheated(self.subject.who, f"changed the process that times it: {changed}")

    def _require_sealed(self) -> None:
        replaced = seal().broken()
        if replaced is not None:
            raise Cheated(self.subject.who, f"runs where {replaced} was replaced")


def _chosen(scene: Scene) -> list[Taken]:
    """The last sample that was timed; then the others in random order, those with NaN first."""
    left = scene.timed[:-1] + scene.taken
    shuffled = []
    while left:
        shuffled.append(left.pop(secret.below(len(left))))
    return scene.timed[-1:] + sorted(shuffled, key=lambda one: not _has_nan(one))


def _has_nan(taken: Taken) -> bool:
    import torch

    return any(
        v.dtype.is_floating_point and bool(torch.isnan(v).any()) for v in taken.outputs.values()
    )


def _native_burst(launch: Launch) -> Callable[[Scene, int, bool], Sequence[int]]:
    def burst(scene: Scene, calls: int, changing: bool) -> Sequence[int]:
        stores = scene.stores(calls) if changing else [[] for _ in range(calls)]
        times: list[int] = launch.native.burst(stores)
        return times

    return burst


def _python_burst(launch: Launch) -> Callable[[Scene, int, bool], Sequence[int]]:
    call = launch.run if launch.native is None else launch.native.run

    def burst(scene: Scene, calls: int, changing: bool) -> Sequence[int]:
        times = []
        for _ in range(calls):
            if changing:
                scene.change()
            start = _now()
            call()
            times.append(_now() - start)
        return times

    return burst
