"""The gate and the engine together: the only way a benchmark gets a time."""

from __future__ import annotations

from tilewright.inputs import Inputs
from tilewright.numerics import Comparison
from tilewright.perf.engine import Effort, Measurement, Pair, measure, measure_pair
from tilewright.perf.gate import Expected, poison, require_peer, timed
from tilewright.perf.rows import Subject
from tilewright.perf.timers import CallTimer, timer_of


def time_alone(
    subject: Subject, inputs: Inputs, expected: Expected, effort: Effort
) -> tuple[Measurement, Comparison]:
    """Time the subject; raises CheckFailed when its output is wrong before or after."""
    launch = subject.prepare(inputs)
    timer = timer_of(launch)
    return timed(
        expected,
        launch.outputs,
        launch.run,
        lambda: measure(timer, effort, subject.cold),
        subject.who,
    )


def time_beside(
    subject: Subject,
    inputs: Inputs,
    expected: Expected,
    theirs: CallTimer,
    name: str,
    effort: Effort,
) -> tuple[Pair, Comparison]:
    """Time the subject and a checked peer in interleaved pairs, both called from Python; both outputs are
    checked again afterwards. Raises CheckFailed when ours is wrong, PeerWrong when the peer is."""
    launch = subject.prepare(inputs)
    ours = timer_of(launch, through_python=True)

    def both() -> Pair:
        if theirs.result is not None:
            values = theirs.result if isinstance(theirs.result, tuple) else (theirs.result,)
            poison({str(i): value for i, value in enumerate(values)})
        return measure_pair(ours, theirs, effort, subject.cold)

    result, verdict = timed(expected, launch.outputs, launch.run, both, subject.who)
    left = expected.judge_result(theirs.result)
    require_peer(left, f"{name} was right before timing and wrong after it, so there is no ratio")
    return result, verdict
