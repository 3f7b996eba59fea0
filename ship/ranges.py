"""A table of tuned configs as ranges of sizes, for launchers that compare numbers and measure no distance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilewright.cases import Case
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.spec import Precision
from tilewright.tables import Choice, Table, choose, operands
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

    Between two ends of ranges the distance of every row only rises, only falls or stays, and all rise and fall
    alike: each row is chosen on one stretch at most, so that changes are found by halving. Sizes that the
    table does not know are left to the default; validity rules are taken not to look at the first size.
    """
    names = family.spec.dim_names()
    kin = [e for e in table.entries if operands(e.precision) == operands(precision.name)]
    spans = [e.span for e in kin]
    ends = {end for s in spans for end in (s.over, s.over + 1, s.upper, s.upper + 1) if end >= 0}
    cuts = sorted({0, *ends})
    found = []
    for tail in sorted({e.bucket[1:] for e in kin}):

        def chosen(size: int, tail: Sequence[int] = tail) -> Choice:
            sizes = dict(zip(names, (size, *tail), strict=True))
            case: Case = family.spec.case(sizes, precision.name, flags)
            found = choose(family, case, target, table)
            # Untuned calls get the one binary of the baseline: the launcher evaluates no tiling.
            return (
                found if found.entry else Choice(family.spec.default_config(target), found.source)
            )

        exact = {n: (v, v) for n, v in zip(names[1:], tail, strict=True)}
        for low, high, config in _steps(chosen, cuts):
            found.append(Piece({names[0]: (low, high), **exact}, config))
    return found


def _steps(
    chosen: Callable[[int], Choice], cuts: Sequence[int]
) -> Iterator[tuple[int | None, int | None, Config]]:
    """Ranges of equal configs, the first and the last one open."""
    known = [(cut, chosen(cut)) for cut in cuts]
    changes = known[:1]

    def split(low: int, at_low: Choice, high: int, at_high: Choice) -> None:
        if at_low.entry is at_high.entry:
            return
        if high == low + 1:
            changes.append((high, at_high))
            return
        middle = (low + high) // 2
        between = chosen(middle)
        split(low, at_low, middle, between)
        split(middle, between, high, at_high)

    for (low, first), (high, second) in itertools.pairwise(known):
        split(low, first, high, second)
    told = [c for i, c in enumerate(changes) if i == 0 or c[1].config != changes[i - 1][1].config]
    for i, (start, choice) in enumerate(told):
        last = told[i + 1][0] - 1 if i + 1 < len(told) else None
        yield (start if i else None), last, choice.config
