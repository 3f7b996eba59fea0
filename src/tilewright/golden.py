"""Which calls of a family are kept as golden vectors: small ones that meet every flag and every kind of size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tilewright.cases import SizeGrid

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec, Precision

# Tensors of one call: vectors are mailed around and kept beside sources.
CASE_BYTES = 24 << 10


def golden_cases(spec: KernelSpec, precision: Precision) -> Iterator[Case]:
    """The small check cases of the spec: tails, empties, views of larger memory, every flag combination."""

    combinations = spec.flag_combinations(precision, "host")

    def moved(sizes: Mapping[str, int]) -> float:
        for flags in combinations:
            if spec.why_invalid(sizes, precision.name, flags) is None:
                return spec.bytes_of(spec.case(sizes, precision.name, flags))
        return math.inf

    small = [s for s in spec.cases.sizes if moved(s) <= CASE_BYTES]
    small = small or [min(spec.cases.sizes, key=moved)]
    whole = next((s for s in reversed(small) if all(s.values())), small[-1])
    for sizes in spec.cases.sizes:
        # An empty case may be large in its other sizes; the same emptiness is kept in a small one.
        reduced = {n: 0 if v == 0 else whole[n] for n, v in sizes.items()}
        if not all(sizes.values()) and sizes not in small and reduced not in small:
            small.append(reduced)
    yield from SizeGrid(tuple(small)).cover(spec, precision, "host")
