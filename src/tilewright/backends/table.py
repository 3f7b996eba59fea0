"""The backends by name, and the matrix."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from tilewright.backends.answers import answers
from tilewright.backends.base import Backend, Cell
from tilewright.errors import unknown
from tilewright.registry import Family
from tilewright.targets import target


@cache
def all_backends() -> dict[str, Backend]:
    """Every backend, in the order of the matrix."""
    from tilewright.backends.ascendc import AscendC
    from tilewright.backends.host import Host
    from tilewright.backends.reference import Reference
    from tilewright.backends.triton import Triton

    return {b.name: b for b in (Reference(), Host(), Triton(), AscendC())}


def backend(name: str) -> Backend:
    """One backend; raises UsageError naming the known ones."""
    try:
        return all_backends()[name]
    except KeyError:
        raise unknown("backend", name, list(all_backends())) from None


def cells(families: list[Family]) -> Iterator[Cell]:
    """Every cell of the matrix for these families."""
    for family in families:
        for one in all_backends().values():
            for name in one.targets():
                for precision in family.spec.precisions:
                    yield one.cell(family, target(name), precision)
    answers().save()
