"""One watched timing on a GPU: checked, timed on inputs that nobody foresees, judged by what the timed calls left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tilewright.backends.triton import with_gaps
from tilewright.inputs import Inputs, draw_typical, reference_outputs
from tilewright.numerics import Comparison
from tilewright.perf.gate import Expected, poison, require
from tilewright.perf.watch import secret
from tilewright.perf.watch.caught import Cheated
from tilewright.perf.watch.seal import seal

if TYPE_CHECKING:
    import torch

    from tilewright.perf.device.timer import DeviceTimer
    from tilewright.perf.engine import Effort
    from tilewright.perf.rows import Subject
    from tilewright.perf.statistics import Samples
    from tilewright.perf.timers import Timer


def on_device(inputs: Inputs) -> Inputs:
    """The same inputs on torch's current GPU, for peers: gaps of views included."""
    import torch

    def moved(values: Mapping[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
        cuda = torch.Tensor.cuda
        return {k: None if v is None else with_gaps(v, cuda) for k, v in values.items()}

    return replace(inputs, logical=moved(inputs.logical), physical=moved(inputs.physical))


class DeviceTrial:
    """A subject under watch on a GPU: as `watch.trial.Trial`, with what can be seen there.

    The kernel's inputs change in place between runs of samples, among draws of secret seeds, and its outputs
    are poisoned; what the last run on each draw left is compared with references computed afterwards.
    Inputs must be as they were put. Where calls are captured, work in another stream is no part of the graph, and
    nothing but the timed stream is waited for. What is changed in place is judged by a call of its own, not
    by one that was timed. docs/cheats.md says what is not seen on a GPU.
    """

    def __init__(self, subject: Subject, inputs: Inputs, expected: Expected) -> None:
        assert subject.case is not None
        self.subject, self.expected = subject, expected
        self._family, self._case = subject.family, subject.case
        self.launch = subject.prepare(inputs)
        assert self.launch.device is not None
        self._reads = self.launch.device.inputs
        poison(self.launch.outputs, inputs)
        self.launch.run()
        require(expected.judge(self.launch.outputs), f"{subject.who} is wrong, so it is not timed")
        self._require_inputs(inputs)
        draws = [inputs, inputs]
        if inputs.drawn:
            draws = [draw_typical(self._family, self._case, secret.seed()) for _ in draws]
        self._bases = [_Base(one, self._reads) for one in draws]
        self._left: list[Mapping[str, torch.Tensor] | None] = [None, None]
        # What a call changes in place is another input for the next: only a call of its own can be judged.
        self._drifts = any(t.inout and t.present(self._case) for t in self._family.spec.outputs)
        self._timer: _Changing | None = None
        self._on = -1

    def timer(self, inner: Timer, effort: Effort) -> Timer:
        """The timer to measure with."""
        self._timer = _Changing(inner, self)  # type: ignore[arg-type]
        return self._timer

    def begin(self) -> None:
        """Other inputs, poisoned outputs."""
        self._on = 1 - self._on if self._on >= 0 else secret.below(2)
        base = self._bases[self._on]
        base.put(self._reads)
        poison(self.launch.outputs, base.inputs)

    def end(self) -> None:
        """Keep what the calls left."""
        if not self._drifts:
            self._left[self._on] = {k: v.clone() for k, v in self.launch.outputs.items()}

    def verdict(self) -> Comparison:
        """The worst comparison of what was left while timing; raises Cheated for anything that was found."""
        assert self._timer is not None
        found = []
        for number, base in enumerate(self._bases):
            left = self._left[number]
            if left is None:
                self._on = 1 - number
                self.begin()
                self._timer.inner.once()
                left = self.launch.outputs
            if self._on == number:
                self._require_inputs(base.inputs)
            want = reference_outputs(self._family, self._case, base.inputs)
            verdict = replace(self.expected, outputs=want).judge(left)
            if not verdict.ok:
                what = f"was right when it was checked first and wrong while it was timed ({verdict.reason})"
                raise Cheated(self.subject.who, what)
            found.append(verdict)
        replaced = seal().broken()
        if replaced is not None:
            raise Cheated(self.subject.who, f"runs where {replaced} was replaced")
        return max(found, key=lambda c: (c.rel_err, c.worst))

    def _require_inputs(self, inputs: Inputs) -> None:
        for name, value in self._reads.items():
            want = inputs.physical[name]
            if value is not None and want is not None and not _same(value.cpu(), want):
                raise Cheated(self.subject.who, f"changed its input '{name}'")


class _Base:
    """One draw of the inputs, here and on the device."""

    def __init__(self, inputs: Inputs, like: Mapping[str, torch.Tensor | None]) -> None:
        self.inputs = inputs
        self._there = {
            name: with_gaps(value, lambda v, to=like[name]: v.to(to.device))  # type: ignore[misc]
            for name, value in inputs.physical.items()
            if value is not None and like.get(name) is not None
        }

    def put(self, reads: Mapping[str, torch.Tensor | None]) -> None:
        for name, value in self._there.items():
            place = reads[name]
            assert place is not None
            place.copy_(value)


class _Changing:
    """A timer that changes the trial's inputs before every run of samples."""

    def __init__(self, inner: DeviceTimer, trial: DeviceTrial) -> None:
        self.inner, self._trial = inner, trial
        self.flushing = inner.flushing

    @property
    def clock(self) -> str:
        return self.inner.clock

    def once(self) -> None:
        self.inner.once()

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        self._trial.begin()
        found = self.inner.sample(count, batch, flush_bytes)
        self._trial.end()
        return found


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit for bit: NaN equals itself."""
    import torch

    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[other.element_size()]
    return torch.equal(one.contiguous().view(width), other.contiguous().view(width))
