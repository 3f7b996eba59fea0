"""A binary's metrics against its target's limits: may it launch, and how well does it fill an SM.

The compilers do not ask: a kernel that wants more shared memory than a block may have compiles
without a word and fails at launch.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.aot.metrics import Metrics
from tilewright.targets import Target

_UNLAUNCHABLE = "it would fail at launch"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`error` says why the binary cannot launch, or is ""; `notes` are remarks such as spills.

    `blocks_per_sm` and `occupancy` (resident warps of those an SM or CU can hold, 0 to 1) follow
    from registers, shared memory and warps alone; what the hardware reaches may be less.
    """

    error: str
    notes: tuple[str, ...]
    blocks_per_sm: int
    occupancy: float

    @property
    def ok(self) -> bool:
        return not self.error


def judge(metrics: Metrics, target: Target, num_warps: int) -> Judgement:
    """Judge a binary for a `cuda` or `hip` target; UsageError for one without these limits."""
    warp = target.limit("warp_size")
    threads = num_warps * warp
    error = _error(metrics, target, threads)
    notes = []
    if metrics.spill_bytes:
        notes.append(f"{metrics.spill_bytes} bytes of stack per thread: registers spill to memory")
    blocks = 0 if error else _blocks(metrics, target, num_warps)
    most_warps = target.limit("max_warps_per_sm")
    return Judgement(error, tuple(notes), blocks, min(1.0, blocks * num_warps / most_warps))


def _error(metrics: Metrics, target: Target, threads: int) -> str:
    checks = (
        ("threads per block", threads, target.limit("max_threads")),
        ("bytes of shared memory per block", metrics.shared_bytes, target.limit("shared_bytes")),
        ("registers per thread", metrics.regs, target.limit("regs_per_thread")),
        (
            "registers per block",
            _block_registers(metrics, target, threads),
            target.limit("regs_per_sm"),
        ),
        ("tensor memory columns", metrics.tmem_columns, target.limit("tmem_columns")),
    )
    for what, wanted, most in checks:
        if wanted > most:
            return f"needs {wanted} {what}, {target.name} has {most}: {_UNLAUNCHABLE}"
    return ""


def _block_registers(metrics: Metrics, target: Target, threads: int) -> int:
    warp = target.limit("warp_size")
    granule = target.limit("reg_granule")
    per_warp = -(-max(metrics.regs, 1) * warp // granule) * granule
    return per_warp * (threads // warp)


def _blocks(metrics: Metrics, target: Target, num_warps: int) -> int:
    bounds = [
        target.limit("max_blocks_per_sm"),
        target.limit("max_warps_per_sm") // num_warps,
        target.limit("regs_per_sm")
        // _block_registers(metrics, target, num_warps * target.limit("warp_size")),
    ]
    granule = target.limit("shared_granule")
    shared = -(-(metrics.shared_bytes + target.limit("shared_reserved")) // granule) * granule
    if shared:
        bounds.append(target.limit("shared_per_sm") // shared)
    if metrics.tmem_columns:
        bounds.append(target.limit("tmem_columns") // metrics.tmem_columns)
    return min(bounds)
