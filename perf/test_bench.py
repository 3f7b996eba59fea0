"""`pytest perf/ --benchmark-only`: every family, precision and thread count on the backend that runs here, and the
timing engine itself.

Generated from the registry; outputs are checked before and after each benchmark. Works with
`--benchmark-autosave`, `--benchmark-compare` and `--benchmark-compare-fail=median:10%`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tilewright.backends import all_backends
from tilewright.cases import Case
from tilewright.errors import Refused, Unavailable
from tilewright.inputs import draw_typical
from tilewright.machine import usable_cores
from tilewright.perf.engine import Effort, measure_rounds
from tilewright.perf.gate import Expected, poison, require
from tilewright.perf.machine_state import Watch
from tilewright.perf.peers import torch_threads
from tilewright.perf.rows import Subject
from tilewright.perf.statistics import Samples, median_estimate, ratio_estimate
from tilewright.perf.stopping import Entropy
from tilewright.perf.timers import undisturbed
from tilewright.registry import families, family
from tilewright.tables import choose
from tilewright.targets import CPU

SEED = 0


def _smallest_middle_largest(name: str, precision: str) -> list[Case]:
    """Up to three benchmark cases a precision, by their work: more belong to `tilewright bench`."""
    spec = family(name).spec
    ordered = sorted(spec.benchmark_cases(spec.precision(precision)), key=spec.flops_of)
    return list(dict.fromkeys((ordered[0], ordered[len(ordered) // 2], ordered[-1])))


def _generated() -> Iterator[Any]:
    for name, found in families().items():
        backend = "host" if found.has("host.cpp") else "reference"
        for precision in found.spec.precisions:
            for case in _smallest_middle_largest(name, precision.name):
                for threads in sorted({1, usable_cores()}):
                    label = f"{name}-{backend}-{precision.name}-{case.shape_text}-{threads}t"
                    yield pytest.param(name, backend, case, threads, id=label)


@pytest.mark.parametrize(("name", "backend", "case", "threads"), list(_generated()))
def test_family(benchmark: Any, name: str, backend: str, case: Case, threads: int) -> None:
    found = family(name)
    one = all_backends()[backend]
    cell = one.cell(found, CPU, found.spec.precision(case.precision))
    if not cell.state.checks:
        pytest.skip(cell.reason)
    choice = choose(found, case, CPU)
    subject = Subject(
        found, one, CPU, case.precision, case, choice.config, choice.source, SEED, threads, False
    )
    inputs = draw_typical(found, case, SEED)
    expected = Expected.of(found, case, inputs, one)
    with torch_threads(threads), undisturbed():
        try:
            launch = subject.prepare(inputs)
        except (Refused, Unavailable) as error:
            pytest.skip(str(error))
        call = launch.native.run if launch.native is not None else launch.run
        call()
        require(expected.judge(launch.outputs), f"{subject.who} is wrong, so it is not timed")
        poison(launch.outputs, inputs)
        benchmark.group = f"{name} {case.precision} {case.shape_text}"
        benchmark.extra_info.update(
            config=dict(choice.config), threads=threads, evidence="measured", seed=SEED
        )
        benchmark.extra_info["gflop"] = found.spec.flops_of(case) / 1e9
        benchmark(call)
        require(
            expected.judge(launch.outputs),
            f"{subject.who} was right before timing and wrong after it",
        )


class _Nothing:
    """A timer whose calls take no time: what is left is the engine."""

    clock = "native"

    def once(self) -> None:
        """No call."""

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        return np.full(count, 1e6)


_SAMPLES = np.random.default_rng(SEED).lognormal(10.0, 0.02, 1000)


def _sixteen_rounds() -> None:
    measure_rounds((_Nothing(), _Nothing()), Effort(warmup_s=1e-9), alone=True, fewest=16, most=16)


def _entropy() -> None:
    Entropy().add(_SAMPLES)


_ENGINE: dict[str, Callable[[], object]] = {
    "16 rounds of two calls": _sixteen_rounds,
    "a reading of the machine": lambda: Watch().read(),
    "interval of 1000 samples": lambda: median_estimate(_SAMPLES),
    "interval of 100 ratios": lambda: ratio_estimate(np.log(_SAMPLES[:100])),
    "entropy of 1000 samples": _entropy,
}


@pytest.mark.parametrize("what", _ENGINE)
def test_engine(benchmark: Any, what: str) -> None:
    """What the engine itself costs beside the calls it times."""
    benchmark.group = "engine"
    benchmark(_ENGINE[what])
