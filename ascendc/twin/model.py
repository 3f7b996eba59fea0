"""Predicted time of a launch on a 910B: the cycle model of ``timing/`` through its C interface.

Nothing here is measured: every figure is modelled, from instructions and public constants.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import runner
from .runner import Buffer, Scalar, TwinError

PIPES = ("mte1", "mte2", "mte3", "fix", "m", "v", "s")


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
    critical_path: tuple[Step, ...]
    findings: int
    peak: Mapping[str, int]
    launch_us: float  # of predicted_us: the launch itself
    overhead_us: float  # the launch, and a core before its first and after its last instruction

    def pipe_us(self, pipe: str) -> float:
        """Busy time of a pipe on the average block."""
        return self.pipes[pipe] / (self.clock_ghz * 1e3)


class _Model(ctypes.Structure):
    _fields_ = [
        ("launch", ctypes.c_void_p),
        ("blocks", ctypes.POINTER(ctypes.c_uint32)),
        ("times", ctypes.POINTER(ctypes.c_uint32)),
        ("block_count", ctypes.c_uint32),
        ("passes", ctypes.c_uint32),
        ("constants", ctypes.c_char_p),
        ("trace_path", ctypes.c_char_p),
        ("trace_events", ctypes.c_uint32),
        ("warm", ctypes.c_uint32),
    ]


@cache
def _load(path: str) -> ctypes.CDLL:
    lib = runner.load(path)
    lib.tw_model_run.argtypes = [ctypes.POINTER(_Model)]
    lib.tw_model_json.restype = ctypes.c_char_p
    lib.tw_model_constants.restype = ctypes.c_char_p
    return lib


def constants(lib_path: str | Path) -> tuple[Constant, ...]:
    """Every constant of the model, with its source."""
    return tuple(Constant(**row) for row in json.loads(_load(str(lib_path)).tw_model_constants()))


def predict(
    lib_path: str | Path,
    launch: Launch,
    soc: str = "910b1",
    *,
    constants: Mapping[str, float] | None = None,
    passes: int = 0,
    trace: str | Path | None = None,
    trace_events: int = 0,
    threads: int = 0,
) -> Prediction:
    """The modelled time of ``launch``; no data moves.

    ``constants`` replaces values of the table by name. ``trace`` receives a Chrome trace of the
    blocks run, at most ``trace_events`` instructions of each (0: 20000).
    Raises TwinError where the launch is refused.
    """
    lib = _load(str(lib_path))
    with runner.prepared(
        launch.kernel,
        launch.block_dim,
        launch.buffers,
        launch.tiling,
        soc,
        threads=threads,
        kernel_library=launch.library,
    ) as ready:
        count = len(launch.blocks)
        blocks = (ctypes.c_uint32 * max(count, 1))(*launch.blocks.keys())
        times = (ctypes.c_uint32 * max(count, 1))(*launch.blocks.values())
        text = ",".join(f"{name}={value!r}" for name, value in (constants or {}).items())
        model = _Model(
            launch=ctypes.addressof(ready),
            blocks=blocks,
            times=times,
            block_count=count,
            passes=passes,
            constants=text.encode() or None,
            trace_path=str(trace).encode() if trace is not None else None,
            trace_events=trace_events,
            warm=sum(1 << i for i, b in enumerate(launch.buffers) if b.name in launch.warm),
        )
        status = lib.tw_model_run(ctypes.byref(model))
        if status != 0:
            raise TwinError((lib.tw_model_json() or b"").decode() or lib.tw_twin_error().decode())
        return _prediction(json.loads(lib.tw_model_json()))


def _prediction(document: Mapping[str, Any]) -> Prediction:
    def pipes(key: str) -> Mapping[str, float]:
        return MappingProxyType({name.lower(): value for name, value in document[key].items()})

    ran = document["launch"]
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
        critical_path=tuple(Step(**step) for step in document["critical_path"]["steps"]),
        findings=len(ran["findings"]),
        peak=MappingProxyType(ran["peak"]),
        launch_us=document["launch_us"],
        overhead_us=document["overhead_us"],
    )
