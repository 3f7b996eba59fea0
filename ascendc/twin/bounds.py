"""Lower bounds on time from the instructions a kernel issues: each pipe at its best published rate.

This is a floor, not a prediction: pipes overlap perfectly, nothing waits, bursts are long and L2 always
hits. A kernel cannot be faster on the hardware; how much slower it is needs a model of the pipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .runner import TwinResult

PIPES = ("mte1", "mte2", "mte3", "fix", "m", "v", "s")
VALIDATED_BY = "nothing: a floor from instruction counts at the best published rates"

# Multiply-accumulates per cycle of one cube core, by the size of an input element in bytes.
# Source: asc-devkit documentation, appendix on theoretical cube performance.
MACS_PER_CYCLE: Mapping[int, int] = MappingProxyType({4: 1024, 2: 4096, 1: 8192})
# Issue cost of one Mmad beyond its multiply-accumulates when they come back to back: derived from the
# published task times of asc-devkit's matmul_high_performance, cases 8 and 9.
MMAD_ISSUE_CYCLES = 9
# Bytes per cycle of one core. mte1: L1 to L0A (tests/perf/load_data_perf); mte2: the best GM to L1 rate in
# the published gemm timings; fix: L0C to GM, 70 GiB/s at 1.85 GHz (pto-isa, cost model of one core).
BYTES_PER_CYCLE: Mapping[str, float] = MappingProxyType({"mte1": 256.0, "mte2": 84.5, "fix": 40.6})


@dataclass(frozen=True, slots=True)
class Bound:
    """Cycles per pipe of the average busy core; `cycles` is that of the busiest pipe."""

    cycles: float
    pipes: Mapping[str, float]
    bound_by: str

    def microseconds(self, mhz: int) -> float:
        """The floor in us at a clock in MHz."""
        return self.cycles / mhz


def bound(result: TwinResult, input_bytes: int, cores: int) -> Bound:
    """The floor of a launch on `cores` cores, whose cube reads elements of `input_bytes` bytes."""
    share = max(1, min(cores, result.blocks or 1))
    pipes = dict.fromkeys(PIPES, 0.0)
    pipes["m"] = result.macs / MACS_PER_CYCLE[input_bytes] + MMAD_ISSUE_CYCLES * result.count(
        "Mmad"
    )
    for pipe, rate in BYTES_PER_CYCLE.items():
        pipes[pipe] = result.bytes_written.get(pipe.upper(), 0) / rate
    busy = {name: cycles / share for name, cycles in pipes.items()}
    limiting = max(busy, key=lambda name: busy[name])
    return Bound(busy[limiting], MappingProxyType(busy), limiting if busy[limiting] else "nothing")
