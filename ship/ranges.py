"""A table of tuned configs as ranges of sizes, for launchers that compare numbers and measure no distance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilewright.cases import Case
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.spec import Precision
from tilewright.tables import Table, choose, operands
from tilewright.targets import Target

When = Mapping[str, tuple[int | None, int | None]]


@dataclass(frozen=True, slots=True)
class Piece:
    """The calls with these sizes get this config: inclusive ends, None for open, one for each named size."""

    when: When
    config: Config


def pieces(
    family: Family, target: Target, table: Table, precision: Precision, flags: Mapping[str, str]
) -> list[Piece]:
    """What `tables.choose` says for every first size, for each set of other sizes that the table knows.

    The nearest of several rows changes at most a few times between two ends of their ranges, so that each
    change is found by halving. Sizes that the table does not know are left to the default.
    """
    names = family.spec.dim_names()
    kin = [e for e in table.entries if operands(e.precision) == operands(precision.name)]
    ends = sorted(
        {end for e in kin for end in (e.span.over, e.span.over + 1, e.span.upper) if end > 0}
    )
    found = []
    for tail in sorted({e.bucket[1:] for e in kin}):

        def config_at(size: int, tail: Sequence[int] = tail) -> Config:
            sizes = dict(zip(names, (size, *tail), strict=True))
            case: Case = family.spec.case(sizes, precision.name, flags)
            return choose(family, case, target, table).config

        exact = {n: (v, v) for n, v in zip(names[1:], tail, strict=True)}
        for low, high, config in _steps(config_at, [0, *ends, ends[-1] + 1]):
            found.append(Piece({names[0]: (low, high), **exact}, config))
    return found


def _steps(
    config_at: Callable[[int], Config], cuts: Sequence[int]
) -> Iterator[tuple[int | None, int | None, Config]]:
    """Ranges of equal configs from the first cut on; the last one is open."""
    changes: list[tuple[int, Config]] = [(cuts[0], config_at(cuts[0]))]

    def split(low: int, at_low: Config, high: int, at_high: Config) -> None:
        if at_low == at_high:
            return
        if high == low + 1:
            changes.append((high, at_high))
            return
        middle = (low + high) // 2
        between = config_at(middle)
        split(low, at_low, middle, between)
        split(middle, between, high, at_high)

    known = [(cut, config_at(cut)) for cut in dict.fromkeys(cuts)]
    for (low, first), (high, second) in zip(known, known[1:], strict=False):
        split(low, first, high, second)
    for i, (start, config) in enumerate(changes):
        last = changes[i + 1][0] - 1 if i + 1 < len(changes) else None
        yield (start if i else None), last, config
