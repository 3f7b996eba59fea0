"""The gate, the watch and the engine together: the only way a benchmark gets a time."""

from __future__ import annotations

from tilewright.inputs import Inputs
from tilewright.numerics import Comparison
from tilewright.perf.device.timer import DeviceTimer
from tilewright.perf.device.trial import DeviceTrial
from tilewright.perf.engine import Effort, Measurement, Pair, measure, measure_pair
from tilewright.perf.gate import Expected, poison, require_peer
from tilewright.perf.rows import Subject
from tilewright.perf.timers import CallTimer, timer_of
from tilewright.perf.watch.seal import seal
from tilewright.perf.watch.trial import Trial


def _trial(subject: Subject, inputs: Inputs, expected: Expected) -> Trial | DeviceTrial:
    return (DeviceTrial if subject.target.is_gpu else Trial)(subject, inputs, expected)


def time_alone(
    subject: Subject, inputs: Inputs, expected: Expected, effort: Effort
) -> tuple[Measurement, Comparison]:
    """Time the subject on inputs of a secret seed.

    Raises CheckFailed when its output on `inputs` is wrong, Cheated when it did anything else while it was
    timed than what it was checked for.
    """
    trial = _trial(subject, inputs, expected)
    result = measure(trial.timer(timer_of(trial.launch), effort), effort, subject.cold)
    return result, trial.verdict()


def time_beside(
    subject: Subject,
    inputs: Inputs,
    expected: Expected,
    theirs: CallTimer | DeviceTimer,
    name: str,
    effort: Effort,
) -> tuple[Pair, Comparison]:
    """Time the subject and a checked peer in interleaved pairs, both called from Python, or on a GPU both replayed
    by it; the peer's output is checked again afterwards. Raises as `time_alone` does, and PeerWrong when the peer is."""
    trial = _trial(subject, inputs, expected)
    ours = trial.timer(timer_of(trial.launch, through_python=True), effort)
    if theirs.result is not None:
        values = theirs.result if isinstance(theirs.result, tuple) else (theirs.result,)
        poison(dict(zip(expected.outputs, values, strict=True)), inputs)
    result = measure_pair(ours, theirs, effort, subject.cold)
    verdict = trial.verdict()
    left = expected.judge_result(theirs.result)
    require_peer(left, f"{name} was right before timing and wrong after it, so there is no ratio")
    return result, verdict


# Before any kernel is imported.
seal()
