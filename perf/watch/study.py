"""What the watch costs honest kernels: false alarms, and whether it changes the times it watches.

    python -m tilewright.perf.watch.study --seconds 900

Times the host kernels of `gemm` on random cases until the time is spent, each watched and unwatched in turn,
and prints how many were called a cheat (with an upper bound of the rate) and the ratio of the two medians.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tilewright.backends import backend
from tilewright.cases import Case
from tilewright.errors import CheckFailed, Refused
from tilewright.inputs import draw_typical
from tilewright.perf.engine import Effort, measure
from tilewright.perf.gate import Expected
from tilewright.perf.rows import Subject
from tilewright.perf.statistics import ratio_estimate
from tilewright.perf.timers import timer_of
from tilewright.perf.watch.trial import Trial
from tilewright.registry import Family, family
from tilewright.targets import CPU

_EFFORT = Effort(seconds=0.15, width=0.001)
_SIZES = {"M": (1, 7, 16, 64, 256), "N": (48, 576, 1536), "K": (32, 576)}
_DTYPES = ("fp32", "bf16", "fp16", "int8->int32", "int8->bf16")


@dataclass(frozen=True, slots=True)
class Timed:
    """One case timed both ways; `log_ratio` is watched over plain, None where an alarm was raised."""

    case: Case
    threads: int
    plain_us: float
    log_ratio: float | None
    alarm: str = ""


def cases(found: Family, drawn: random.Random) -> Iterator[tuple[Case, int]]:
    """Random sizes, precisions and thread counts, without end."""
    while True:
        sizes = {name: drawn.choice(values) for name, values in _SIZES.items()}
        yield found.spec.case(sizes, drawn.choice(_DTYPES)), drawn.choice((1, 2))


def both(found: Family, case: Case, threads: int, watched_first: bool) -> Timed:
    """Time a case both ways, in this order or the other; a lower quantile each, since the machine is shared."""
    one = backend("host")
    inputs = draw_typical(found, case, 0)
    subject = Subject(
        found, one, CPU, case.precision, case, found.spec.default_config(CPU), "default", 0, threads, False
    )  # fmt: skip
    trial = Trial(subject, inputs, Expected.of(found, case, inputs, one))
    plain = timer_of(trial.launch)
    watched = trial.timer(timer_of(trial.launch), _EFFORT)
    found_us: dict[bool, float] = {}
    for which in (watched_first, not watched_first):
        samples = measure(watched if which else plain, _EFFORT).samples
        found_us[which] = float(np.quantile(samples, 0.3)) / 1e3
    try:
        trial.verdict()
    except CheckFailed as error:
        return Timed(case, threads, found_us[False], None, str(error))
    return Timed(case, threads, found_us[False], math.log(found_us[True] / found_us[False]))


def run(seconds: float, seed: int = 0) -> list[Timed]:
    """Time cases until the time is spent; prints each alarm."""
    found = family("gemm")
    results: list[Timed] = []
    end = time.monotonic() + seconds
    for number, (case, threads) in enumerate(cases(found, random.Random(seed))):
        if time.monotonic() >= end:
            break
        try:
            results.append(both(found, case, threads, number % 2 == 0))
        except Refused:
            continue
        if results[-1].alarm:
            print(results[-1].alarm, flush=True)
    return results


def report(results: list[Timed]) -> list[str]:
    """Alarms with the upper end of their 95 % interval, and the ratio by length of the call."""
    alarms = sum(bool(r.alarm) for r in results)
    # Rule of three where there are none; else a normal interval of the Poisson count.
    most = 3.0 if alarms == 0 else alarms + 1.96 * math.sqrt(alarms)
    lines = [f"{alarms} alarms in {len(results)} timings, at most {most / len(results):.2%}"]
    edges = (0.0, 5.0, 50.0, 500.0, math.inf)
    for low, high in zip(edges, edges[1:], strict=False):
        logs = [
            r.log_ratio for r in results if r.log_ratio is not None and low <= r.plain_us < high
        ]
        if len(logs) >= 6:
            ratio = ratio_estimate(np.array(logs))
            lines.append(
                f"{low:g} to {high:g} us: watched / unwatched {ratio.value:.4f} "
                f"({ratio.low:.4f} .. {ratio.high:.4f}), {len(logs)} timings"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("\n".join(report(run(given.seconds, given.seed))))


if __name__ == "__main__":
    main()
