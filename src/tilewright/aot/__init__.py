"""Ahead-of-time compilation of Triton kernels and what can be read from the binaries.

No GPU is needed or used: every number here carries the evidence word `compiled`. Importing this
package imports neither triton nor torch.

`source`   what a family's `triton.py` hands over: the kernel, its arguments, grid and conditions
`grid`     the grid formulas a launcher evaluates, as text and as postfix tokens for C
`compile`  source to cubin or hsaco, with a cache on disk, one config or a pool
`metrics`  registers, stack, shared memory, matrix and async-copy instructions of a binary
`judge`    the metrics against the limits of the target
"""

from __future__ import annotations

from tilewright.aot.compile import CompiledKernel, compile_config, compile_pool, compile_source
from tilewright.aot.grid import Grid
from tilewright.aot.judge import Judgement, judge
from tilewright.aot.metrics import Metrics, read_metrics
from tilewright.aot.source import AotSource, KernelArg, Requirement, TritonModule, argument

__all__ = [
    "AotSource",
    "CompiledKernel",
    "Grid",
    "Judgement",
    "KernelArg",
    "Metrics",
    "Requirement",
    "TritonModule",
    "argument",
    "compile_config",
    "compile_pool",
    "compile_source",
    "judge",
    "read_metrics",
]
