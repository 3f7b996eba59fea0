"""Triton kernels lowered for the Ascend 910B by triton-ascend and ascendnpu-ir, without CANN.

The compilers are in an environment of their own (`tilewright.toolchains`, `ascend-ir`), because
triton-ascend installs as `triton`. They are spoken to as a process.

`kernel_text`  a kernel as text that needs nothing but triton
`worker`       the script that runs inside the environment
`session`      talking to it: one process for many kernels, with a timeout
`hivm`         peaks, synchronisation and operations of planned HIVM
`failure`      the compilers' logs in words
`lower`        configs to rows
`probe`        whether an environment works
"""

from __future__ import annotations

from tilewright.aot.ascend.lower import (
    IGNORED,
    NO_BINARY,
    TOOLCHAIN,
    LoweredKernel,
    honoured,
    lower_pool,
    project,
)

__all__ = [
    "IGNORED",
    "NO_BINARY",
    "TOOLCHAIN",
    "LoweredKernel",
    "honoured",
    "lower_pool",
    "project",
]
