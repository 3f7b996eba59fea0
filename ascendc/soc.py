"""Limits of the 910B parts, by which the host side judges a tiling.

Sources stand in ``twin/soc.cpp``; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

_K = 1024
_SYSTEM_L1 = 256  # bytes at the end of L1 that belong to the system in mixed kernels


@dataclass(frozen=True, slots=True)
class Soc:
    """One part: cube cores, clock in MHz, and bytes of each memory."""

    name: str
    cube_cores: int
    clock_mhz: int
    l1: int = 512 * _K
    l0a: int = 64 * _K
    l0b: int = 64 * _K
    l0c: int = 128 * _K
    ub: int = 192 * _K - 256  # the last 256 bytes belong to the system
    bt: int = 1 * _K
    fb: int = 2 * _K

    def room(self, memory: str, *, mixed: bool) -> int:
        """Bytes of a memory that a kernel can use; ``mixed``: one of both kinds of cores."""
        size: int = getattr(self, memory)
        return size - _SYSTEM_L1 if mixed and memory == "l1" else size


SOCS = MappingProxyType(
    {
        s.name: s
        for s in (
            Soc("910b1", 24, 1850),
            Soc("910b2", 24, 1800),
            Soc("910b3", 20, 1800),
            Soc("910b4", 20, 1500),
            Soc("910_93", 24, 1800),  # one die of a 910C
        )
    }
)


def find(name: str) -> Soc:
    """The part called ``name``. Raises ValueError for an unknown one."""
    if name not in SOCS:
        raise ValueError(f"unknown soc '{name}', known are {', '.join(SOCS)}")
    return SOCS[name]
