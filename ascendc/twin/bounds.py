"""Lower bounds on time from the instructions a kernel issues: each pipe at its best published rate.

This is a floor, not a prediction: pipes overlap perfectly, nothing waits, bursts are long and L2
always hits. No published gemm of a 910B is below it; how much slower a kernel is needs a model of the
pipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from .runner import TwinResult

PIPES = ("mte1", "mte2", "mte3", "fix", "m", "v", "s")
VALIDATED_BY = "nothing: a floor from instruction counts at the best published rates"

# Multiply-accumulates per cycle of one cube core, by the size of an input element in bytes.
# Source: asc-devkit documentation, appendix on theoretical cube performance.
MACS_PER_CYCLE: Mapping[int, int] = MappingProxyType({4: 1024, 2: 4096, 1: 8192})
# Issue cost of one Mmad beyond its multiply-accumulates when they come back to back: the least in any
# published task time (asc-devkit's matmul_high_performance, cases 8 and 9).
MMAD_ISSUE_CYCLES = 9


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a cycle of one core, and where the figure is published."""

    bytes_per_cycle: float
    source: str


_L2_READ = Rate(
    5.2e12 / (24 * 1.85e9),
    "L2's documented read peak of 5.2 TB/s over 24 cores at 1.85 GHz = 117 B (asc-devkit, catlass); copies "
    "out of L2 reach 112 (nd2nz of [64,1024] at 5.0 TB/s), the platform file says 110, gemms get to 84",
)
_TABLES = Rate(
    32.0, "asc-devkit tests/perf/load_data_perf: L1 to the bias table and the fixpipe buffer"
)
# By pipe, then by the memory it writes to: what a measurement that saturates the pipe shows, else the
# highest figure of any public source.
RATES: Mapping[str, Mapping[str, Rate]] = MappingProxyType(
    {
        "mte1": {
            "l0a": Rate(
                256.0,
                "asc-devkit tests/perf/load_data_perf; the platform file's 512 is in no measurement",
            ),
            "l0b": Rate(
                128.0,
                "asc-devkit tests/perf/load_data_perf; the platform file's 256 is in no measurement",
            ),
            "bt": _TABLES,
        },
        "mte2": {"l1": _L2_READ, "l0a": _L2_READ, "l0b": _L2_READ, "ub": _L2_READ},
        "mte3": {
            "gm": Rate(
                188.46 * 2**30 / 1.85e9, "pto-isa, cost model of one core: UB to GM 188 GiB/s"
            ),
            "l1": Rate(188.46 * 2**30 / 1.85e9, "as UB to GM; no figure of its own is published"),
        },
        "fix": {
            "gm": Rate(
                86.0,
                "l2_write_rate of the public Ascend910B3.ini; gemms get to 68 (matmul_high_performance, "
                "case 4), pto-isa's cost model says 41",
            ),
            "l1": Rate(128.0, "asc-devkit tests/perf/fixpipe_perf: 64 elements of two bytes"),
            "fb": _TABLES,
        },
    }
)


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
    for pipe, rates in RATES.items():
        written: Mapping[str, int] = result.bytes_written.get(pipe.upper(), {})
        pipes[pipe] = sum(
            written.get(memory, 0) / rate.bytes_per_cycle for memory, rate in rates.items()
        )
    busy = {name: cycles / share for name, cycles in pipes.items()}
    limiting = max(busy, key=lambda name: busy[name])
    return Bound(busy[limiting], MappingProxyType(busy), limiting if busy[limiting] else "nothing")


def mixed(result: TwinResult, input_bytes: int, cores: int) -> Bound:
    """``bound`` of a mix of `cores` cube cores and two vector cores each, whose copies count for themselves."""
    written = result.bytes_written
    loads: Mapping[str, int] = written.get("MTE2", {})

    def only(
        mte2: dict[str, int], *pipes: str
    ) -> MappingProxyType[str, MappingProxyType[str, int]]:
        kept = {name: of for name, of in written.items() if name in pipes}
        return MappingProxyType({**kept, "MTE2": MappingProxyType(mte2)})

    cube = replace(
        result, bytes_written=only({m: n for m, n in loads.items() if m != "ub"}, "MTE1", "FIX")
    )
    vector = replace(
        result,
        macs=0,
        counts=MappingProxyType({}),
        blocks=2 * result.blocks,
        bytes_written=only({m: n for m, n in loads.items() if m == "ub"}, "MTE3"),
    )
    one, two = bound(cube, input_bytes, cores), bound(vector, input_bytes, 2 * cores)
    busiest = one if one.cycles >= two.cycles else two
    pipes = {name: max(one.pipes[name], two.pipes[name]) for name in one.pipes}
    return Bound(busiest.cycles, MappingProxyType(pipes), busiest.bound_by)
