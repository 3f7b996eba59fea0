"""What a kernel can run on, and the hard limits of each architecture.

Limits are data with a source each; nothing else in the project states one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from tilewright.errors import unknown

KIB = 1024


@dataclass(frozen=True, slots=True)
class Limit:
    """One architectural limit and where it is published."""

    value: int
    source: str


@dataclass(frozen=True, slots=True)
class Target:
    """A thing that executes kernels, named `cpu` or `<vendor>:<architecture>`."""

    name: str
    kind: str
    arch: str
    summary: str
    limits: Mapping[str, Limit] = field(default_factory=lambda: MappingProxyType({}))

    def limit(self, name: str) -> int:
        """The value of one limit; raises UsageError for a name this target does not have."""
        try:
            return self.limits[name].value
        except KeyError:
            raise unknown(f"limit of {self.name}", name, list(self.limits)) from None

    @property
    def is_gpu(self) -> bool:
        """Whether it runs GPU binaries: cubins or hsacos."""
        return self.kind in ("cuda", "hip")

    @property
    def file_stem(self) -> str:
        """The name as part of a file name: `cuda:sm_90` is `cuda-sm_90`."""
        return self.name.replace(":", "-")


_CUDA_GUIDE = "CUDA C++ Programming Guide, table 'Technical Specifications per Compute Capability'"
_PTX = "PTX ISA, tcgen05 tensor memory"
_CDNA3 = "AMD Instinct MI300 ISA reference guide (CDNA3), chapters 3 and 11"
_LLVM = "LLVM AMDGPU backend user guide"
_ASCEND = "asc-devkit documentation, NPU architecture version 2201"
_PLATFORM = "platform description files quoted in public 910B repositories"


def _cuda(arch: str, shared_kib: int, sms: int, summary: str) -> Target:
    return Target(
        f"cuda:{arch}",
        "cuda",
        arch,
        summary,
        MappingProxyType(
            {
                "sms": Limit(sms, f"NVIDIA data sheet, {summary}, SXM form"),
                "shared_bytes": Limit(shared_kib * KIB, _CUDA_GUIDE),
                "shared_per_sm": Limit((shared_kib + 1) * KIB, _CUDA_GUIDE),
                "shared_reserved": Limit(1 * KIB, _CUDA_GUIDE),
                "shared_granule": Limit(128, _CUDA_GUIDE),
                "regs_per_thread": Limit(255, _CUDA_GUIDE),
                "regs_per_sm": Limit(65536, _CUDA_GUIDE),
                "reg_granule": Limit(256, _CUDA_GUIDE),
                "max_threads": Limit(1024, _CUDA_GUIDE),
                "max_warps_per_sm": Limit(64, _CUDA_GUIDE),
                "max_blocks_per_sm": Limit(32, _CUDA_GUIDE),
                "warp_size": Limit(32, _CUDA_GUIDE),
                "tmem_columns": Limit(512 if arch == "sm_100" else 0, _PTX),
            }
        ),
    )


def _ascend(arch: str, aic: int, mhz: int) -> Target:
    limits = {
        # The last 256 bytes are the system's.
        "ub_bytes": Limit(192 * KIB - 256, _ASCEND),
        "l1_bytes": Limit(512 * KIB, _ASCEND),
        "l0a_bytes": Limit(64 * KIB, _ASCEND),
        "l0b_bytes": Limit(64 * KIB, _ASCEND),
        "l0c_bytes": Limit(128 * KIB, _ASCEND),
        "bt_bytes": Limit(1 * KIB, _ASCEND),
        "fb_bytes": Limit(2 * KIB, _ASCEND),
        "aic_cores": Limit(aic, _PLATFORM),
        "aiv_cores": Limit(2 * aic, _PLATFORM),
        "mhz": Limit(mhz, _PLATFORM),
    }
    return Target(
        f"ascend:{arch}",
        "ascend",
        arch,
        f"Ascend {arch.upper()}, {aic} cube cores",
        MappingProxyType(limits),
    )


_GFX942 = MappingProxyType(
    {
        "sms": Limit(304, "AMD Instinct MI300X data sheet, compute units"),
        "shared_bytes": Limit(64 * KIB, _CDNA3),
        "shared_per_sm": Limit(64 * KIB, _CDNA3),
        "shared_reserved": Limit(0, _CDNA3),
        "shared_granule": Limit(512, _CDNA3),
        "regs_per_thread": Limit(512, _CDNA3),
        "regs_per_sm": Limit(4 * 512 * 64, _CDNA3),
        "reg_granule": Limit(8 * 64, _LLVM),
        "max_threads": Limit(1024, _LLVM),
        "max_warps_per_sm": Limit(32, _CDNA3),
        "max_blocks_per_sm": Limit(32, _CDNA3),
        "warp_size": Limit(64, _CDNA3),
        "tmem_columns": Limit(0, _CDNA3),
    }
)

CPU = Target("cpu", "cpu", "host", "this machine's processor")
ALL: Mapping[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            CPU,
            _cuda("sm_80", 163, 108, "NVIDIA A100"),
            _cuda("sm_90", 227, 132, "NVIDIA H100 / H200"),
            _cuda("sm_100", 227, 148, "NVIDIA B200"),
            Target("hip:gfx942", "hip", "gfx942", "AMD MI300", _GFX942),
            _ascend("910b1", 24, 1850),
            _ascend("910b2", 24, 1800),
            _ascend("910b3", 20, 1800),
            _ascend("910b4", 20, 1500),
            _ascend("910_93", 24, 1800),
        )
    }
)


def _chip(arch: str, warps: int, blocks: int, shared_per_sm: int, shared: int) -> Target:
    """A generation that recordings come from; nothing is compiled for it here, so it is no target of `ALL`."""
    reserved = 1 if int(arch.removeprefix("sm_")) >= 80 else 0
    limits = {
        "shared_bytes": shared * KIB,
        "shared_per_sm": shared_per_sm * KIB,
        "shared_reserved": reserved * KIB,
        "shared_granule": 128 if reserved else 256,
        "regs_per_thread": 255,
        "regs_per_sm": 65536,
        "reg_granule": 256,
        "max_threads": 1024,
        "max_warps_per_sm": warps,
        "max_blocks_per_sm": blocks,
        "warp_size": 32,
        "tmem_columns": 0,
    }
    return Target(
        f"cuda:{arch}",
        "cuda",
        arch,
        f"NVIDIA {arch}",
        MappingProxyType({name: Limit(value, _CUDA_GUIDE) for name, value in limits.items()}),
    )


# By words of a device's name, the more special first. Compute capabilities: developer.nvidia.com/cuda-gpus.
_CHIPS: Sequence[tuple[str, Target]] = (
    ("H100|H200|GH200", ALL["cuda:sm_90"]),
    (r"A100|A30\b", ALL["cuda:sm_80"]),
    (r"RTX 40\d\d|L40|L4\b|\bAda\b", _chip("sm_89", 48, 24, 100, 99)),
    (r"RTX 30\d\d|RTX A\d000|\bA\d000\b|A40\b|A10\b", _chip("sm_86", 48, 16, 100, 99)),
    (r"RTX 20\d\d|RTX 2080|GTX 16\d\d|\bT4\b|TITAN RTX", _chip("sm_75", 32, 16, 64, 64)),
    ("V100|TITAN V", _chip("sm_70", 64, 32, 96, 96)),
    (r"GTX 10\d\d|\bP4\b|\bP40\b|TITAN Xp", _chip("sm_61", 64, 32, 96, 48)),
    ("P100", _chip("sm_60", 64, 32, 64, 48)),
    (r"GTX 9\d\d|GTX TITAN X\b", _chip("sm_52", 64, 32, 96, 48)),
    (r"GTX 75\d", _chip("sm_50", 64, 32, 64, 48)),
)


def chip(device: str) -> Target | None:
    """The limits of the GPU with this product name, such as `NVIDIA GeForce RTX 3090`; None where they are not known."""
    found = (limits for words, limits in _CHIPS if re.search(words, device, re.IGNORECASE))
    return next(found, None)


def target(name: str) -> Target:
    """Look a target up by name; raises UsageError naming the accepted ones."""
    try:
        return ALL[name]
    except KeyError:
        raise unknown("target", name, list(ALL)) from None


def targets(names: str) -> tuple[Target, ...]:
    """A comma-separated list of targets."""
    return tuple(target(name.strip()) for name in names.split(",") if name.strip())
