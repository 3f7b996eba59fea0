"""Finds the constants marked "fit" again: `python -m tilewright.ascendc.bench.fit`.

Each constant in turn moves by a step as long as the median row comes nearer, with ever smaller steps.
The error is the mean of |log(predicted / published)|, so that a row or two which no constant explains
do not pull the rest along. Constants of the machine move, never anything of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

from tilewright import native

from ..twin import model
from .validation import read, validate
from .variants import Row

# The constants, and the published rows that say something about them.
CONSTANTS = ("mte2_row", "mte2_l1_hit", "hbm_rate", "hbm_write_back", "core_start")
ROWS = ("G4", "G5", "G9", "G13", "L1", "L4", "D1", "D3", "D5", "V2", "V3", "V6")
_STEPS = (0.1, 0.03, 0.01)


def error(rows: Sequence[Row], constants: Mapping[str, float]) -> float:
    """Mean |log ratio| of the rows under these constants."""
    outcomes = validate(native.library("twin"), rows, constants)
    return sum(abs(log(o.ratio)) for o in outcomes if o.ratio) / len(outcomes)


def fit(rows: Sequence[Row]) -> tuple[dict[str, float], float, float]:
    """Constants, the error before and after."""
    table = {c.name: c.value for c in model.constants(native.library("twin"))}
    found = {name: table[name] for name in CONSTANTS}
    first = best = error(rows, found)
    for step in _STEPS:
        moved = True
        while moved:
            moved = False
            for name in CONSTANTS:
                for factor in (1 + step, 1 - step):
                    tried = {**found, name: found[name] * factor}
                    score = error(rows, tried)
                    if score < best - 1e-5:
                        found, best, moved = tried, score, True
    return found, first, best


def main() -> None:
    """Print what the table holds and what the rows would rather have."""
    rows = [row for row in read(None) if row["id"] in ROWS]
    found, before, after = fit(rows)
    print(f"mean |log ratio| of {len(rows)} rows: {before:.4f} -> {after:.4f}")
    for constant in model.constants(native.library("twin")):
        if constant.name in found:
            print(f"{constant.name:16} {constant.value:10.4g} -> {found[constant.name]:10.4g}")


if __name__ == "__main__":
    main()
