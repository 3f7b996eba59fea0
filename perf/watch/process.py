"""What a kernel may not change in the process that times it: where it runs, and how others compute."""

from __future__ import annotations

import gc
import os
import signal
import sys
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessState:
    """Settings that outlive a call and favour it, or slow down what it is compared with.

    New threads are no fault: a pool may start its workers in the first call.
    """

    processors: Any
    priority: Any
    scheduling: Any
    torch_threads: int
    matmul_precision: str
    mkldnn: bool
    default_dtype: str
    flushes_denormals: bool
    collector: Any
    collector_callbacks: Any
    switch_interval: float
    tracing: Any
    alarms: Any
    folder: str

    @staticmethod
    def now() -> ProcessState:
        import torch

        return ProcessState(
            processors=sorted(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else None,
            priority=os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else None,
            scheduling=os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None,
            torch_threads=torch.get_num_threads(),
            matmul_precision=torch.get_float32_matmul_precision(),
            mkldnn=bool(torch._C._get_mkldnn_enabled()),
            default_dtype=str(torch.get_default_dtype()),
            # The smallest normal number halved; torch has no function that tells.
            flushes_denormals=float(torch.full((8,), 2.0**-126).mul(0.5)[0]) == 0.0,
            collector=(gc.isenabled(), gc.get_threshold()),
            collector_callbacks=tuple(id(one) for one in gc.callbacks),
            switch_interval=sys.getswitchinterval(),
            tracing=(id(sys.gettrace()), id(sys.getprofile())),
            alarms=tuple(
                signal.getitimer(k)[1] for k in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
            ),
            folder=os.getcwd(),
        )

    def changed(self, later: ProcessState) -> str | None:
        """What differs later, in words; None if nothing does."""
        for field in fields(self):
            before, after = getattr(self, field.name), getattr(later, field.name)
            if before != after:
                name = field.name.replace("_", " ")
                shown = (
                    "" if "callbacks" in name or name == "tracing" else f" from {before} to {after}"
                )
                return f"{name}{shown}"
        return None
