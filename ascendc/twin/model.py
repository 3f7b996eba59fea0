"""Predicted time of a launch on a 910B: the cycle model of ``timing/`` through its C interface.

Nothing here is measured: every figure is modelled, from instructions and public constants.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import runner
from .runner import Buffer, Scalar, TwinError, TwinResult

PIPES = ("mte1", "mte2", "mte3", "fix", "m", "v", "s")
TRACE_EVENTS = 20000  # instructions of each core that a trace holds
_PASSES = 6
# msprof's names of the times of each kind of core.
MSPROF: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "aic": MappingProxyType(
            {
                "mac": "m",
                "mte1": "mte1",
                "mte2": "mte2",
                "fixpipe": "fix",
                "scalar": "s",
            }
        ),
        "aiv": MappingProxyType({"vec": "v", "mte2": "mte2", "mte3": "mte3", "scalar": "s"}),
    }
)


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of the machine model and where it comes from."""

    name: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Step:
    """A share of the critical path: cycles in one kind of instruction of one source line."""

    pipe: str
    op: str
    file: str
    line: int
    cycles: float


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel as the model takes it: ``blocks`` maps each block to run to how many it stands for.

    Empty: every block is run.
    """

    kernel: str
    block_dim: int
    buffers: Sequence[Buffer | Scalar]
    tiling: bytes | None = None
    blocks: Mapping[int, int] = field(default_factory=dict)
    library: Path | None = None
    warm: frozenset[str] = frozenset()  # buffers that lie in L2 from the start
    task_type: str = "auto"


@dataclass(frozen=True, slots=True)
class Prediction:
    """Modelled time: ``pipes`` are busy cycles of the average block, ``slowest`` of the slowest.

    ``cycles`` are the busiest core's. ``hbm_slow`` and ``l2_slow`` say by which factors the
    shared memories are slower than one core alone would find them.
    """

    predicted_us: float
    cycles: float
    core_avg_us: float
    pipes: Mapping[str, float]
    slowest: Mapping[str, float]
    bound_by: str
    clock_ghz: float
    blocks: int
    cores: int
    hbm_slow: float
    l2_slow: float
    same_addresses: bool
    records: int
    unresolved: int
    untraced: int  # instructions that the trace leaves out
    path_cycles: float  # that the critical path was walked back over
    critical_path: tuple[Step, ...]
    findings: int
    peak: Mapping[str, int]
    launch_us: float  # of predicted_us: the launch itself
    overhead_us: float  # the launch, and a core before its first and after its last instruction
    kinds: Mapping[str, Mapping[str, Any]]  # "aic", "aiv": cores, cycles, busy cycles by pipe

    def pipe_us(self, pipe: str) -> float:
        """Busy time of a pipe on the average block."""
        return self.pipes[pipe] / (self.clock_ghz * 1e3)

    def msprof(self) -> dict[str, float]:
        """Time (us) and ratio of each pipe of the average core, under msprof's names."""
        found: dict[str, float] = {}
        for kind, of in self.kinds.items():
            found[f"{kind}_time(us)"] = of["cycles"] / (self.clock_ghz * 1e3)
            for name, pipe in MSPROF[kind].items():
                busy = of["busy"][pipe.upper()]
                found[f"{kind}_{name}_time(us)"] = busy / (self.clock_ghz * 1e3)
                found[f"{kind}_{name}_ratio"] = busy / of["cycles"]
        return found


class _Options(ctypes.Structure):
    _fields_ = [
        ("blocks", ctypes.POINTER(ctypes.c_uint32)),
        ("times", ctypes.POINTER(ctypes.c_uint32)),
        ("block_count", ctypes.c_uint32),
        ("warm", ctypes.c_uint32),
        ("constants", ctypes.c_char_p),
        ("trace_events", ctypes.c_uint32),
    ]


@cache
def _load(path: str) -> ctypes.CDLL:
    lib = ctypes.CDLL(path)
    lib.tw_model_begin.argtypes = [ctypes.POINTER(_Options)]
    lib.tw_model_json.restype = ctypes.c_char_p
    lib.tw_model_trace.argtypes = [ctypes.c_char_p]
    lib.tw_model_constants.restype = ctypes.c_char_p
    return lib


def constants(lib_path: str | Path) -> tuple[Constant, ...]:
    """Every constant of the model, with its source."""
    return tuple(Constant(**row) for row in json.loads(_load(str(lib_path)).tw_model_constants()))


def predict(
    lib_path: str | Path,
    run: Callable[[], TwinResult],
    *,
    blocks: Mapping[int, int] | None = None,
    warm: Sequence[int] = (),
    constants: Mapping[str, float] | None = None,
    trace: str | Path | None = None,
    trace_events: int = TRACE_EVENTS,
) -> Prediction:
    """The modelled time of the launch that `run` makes, without data, on this thread.

    It is made a few times, until the memory that cores share settles. ``blocks``: the blocks that
    run, and how many each stands for; by default all. ``warm``: the buffers, by number, that lie in
    L2 from the start. ``constants`` replaces values of the table by name. ``trace`` receives a
    Chrome trace of the cores that ran, at most ``trace_events`` instructions of each.
    Raises TwinError where the launch is refused or a constant is not known.
    """
    lib = _load(str(lib_path))
    chosen = dict(blocks or {})
    text = ",".join(f"{name}={value!r}" for name, value in (constants or {}).items())
    options = _Options(
        blocks=(ctypes.c_uint32 * max(len(chosen), 1))(*chosen.keys()),
        times=(ctypes.c_uint32 * max(len(chosen), 1))(*chosen.values()),
        block_count=len(chosen),
        warm=sum(1 << i for i in set(warm)),
        constants=text.encode() or None,
        trace_events=trace_events if trace is not None else 0,
    )
    if lib.tw_model_begin(ctypes.byref(options)) != 0:
        raise TwinError((lib.tw_model_json() or b"").decode())
    try:
        for _ in range(_PASSES):
            result = run()
            if lib.tw_model_settle():
                break
        if trace is not None and lib.tw_model_trace(str(trace).encode()) != 0:
            raise TwinError(f"cannot write the trace to '{trace}'")
        return _prediction(json.loads(lib.tw_model_json()), result)
    finally:
        lib.tw_model_end()


def predict_launch(
    lib_path: str | Path,
    launch: Launch,
    soc: str = "910b1",
    *,
    constants: Mapping[str, float] | None = None,
    trace: str | Path | None = None,
    threads: int = 0,
) -> Prediction:
    """``predict`` of a launch given as data."""

    def run() -> TwinResult:
        return runner.run(
            lib_path,
            launch.kernel,
            launch.block_dim,
            launch.buffers,
            launch.tiling,
            soc,
            threads=threads,
            skip_data=True,
            kernel_library=launch.library,
            schedule="program",
            task_type=launch.task_type,
        )

    # Only buffers that have bytes are buffers to the machine.
    named = [b.name for b in launch.buffers if isinstance(b, Buffer) and b.nbytes > 0]
    warm = [i for i, name in enumerate(named) if name in launch.warm]
    return predict(lib_path, run, blocks=launch.blocks, warm=warm, constants=constants, trace=trace)


def _prediction(document: Mapping[str, Any], ran: TwinResult) -> Prediction:
    def pipes(key: str) -> Mapping[str, float]:
        return MappingProxyType({name.lower(): value for name, value in document[key].items()})

    return Prediction(
        predicted_us=document["predicted_us"],
        cycles=document["cycles"],
        core_avg_us=document["core_avg_cycles"] / (document["clock_ghz"] * 1e3),
        pipes=pipes("pipes"),
        slowest=pipes("slowest"),
        bound_by=document["bound_by"].lower(),
        clock_ghz=document["clock_ghz"],
        blocks=int(document["blocks"]),
        cores=int(document["cores"]),
        hbm_slow=document["hbm_slow"],
        l2_slow=document["l2_slow"],
        same_addresses=document["same_addresses"],
        records=int(document["records"]),
        unresolved=int(document["unresolved"]),
        untraced=int(document["untraced"]),
        path_cycles=document["critical_path"]["cycles"],
        critical_path=tuple(Step(**step) for step in document["critical_path"]["steps"]),
        findings=len(ran.findings),
        peak=ran.peak,
        launch_us=document["launch_us"],
        overhead_us=document["overhead_us"],
        kinds=MappingProxyType(document["kinds"]),
    )
