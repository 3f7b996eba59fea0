"""Cases: shapes, precision, flags and memory layout of one call, and how a spec lists them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from tilewright.errors import UsageError

if TYPE_CHECKING:
    from tilewright.spec import KernelSpec, Precision

_Items = tuple[tuple[str, str], ...]
MEMORY = ("dense", "padded")
# Above this many combinations of flags, checks meet all pairs of values instead of all combinations.
FULL_PRODUCT = 24


@dataclass(frozen=True, slots=True)
class Flag:
    """A named choice of a family. `values[i]` reaches compiled kernels as the integer i."""

    name: str
    values: tuple[str, ...]
    default: str
    numeric: bool = False

    @staticmethod
    def yes_no(name: str, default: str = "no") -> Flag:
        return Flag(name, ("no", "yes"), default)

    @staticmethod
    def number(name: str, values: tuple[str, ...], default: str) -> Flag:
        """A flag that takes any finite number; checks cycle through `values`. It reaches compiled kernels as a double."""
        return Flag(name, values, default, numeric=True)

    def normal(self, value: str) -> str:
        """The one text of a value: `0.50` and `.5` are the same number. Raises UsageError for what is none."""
        if not self.numeric:
            return value
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UsageError(
                f"{self.name} is '{value}'; accepted: a finite number, such as {self.default}"
            )
        return str(int(number)) if number == int(number) else repr(number)


@dataclass(frozen=True, slots=True)
class Case:
    """One call: sizes, precision, flags, and whether inputs are dense or views of larger memory."""

    sizes: Mapping[str, int]
    precision: str
    flags: Mapping[str, str]
    memory: str = "dense"

    @staticmethod
    def make(
        sizes: Mapping[str, int], precision: str, flags: Mapping[str, str], memory: str
    ) -> Case:
        if memory not in MEMORY:
            raise UsageError(f"unknown memory '{memory}'; accepted: {', '.join(MEMORY)}")
        return Case(MappingProxyType(dict(sizes)), precision, MappingProxyType(dict(flags)), memory)

    @property
    def shape_text(self) -> str:
        """The sizes in the form `--shape` takes: `M=1,N=577,K=63`."""
        return ",".join(f"{k}={v}" for k, v in self.sizes.items())

    def number(self, flag: str) -> float:
        """The value of a numeric flag."""
        return float(self.flags[flag])

    @property
    def flags_text(self) -> str:
        return ",".join(f"{k}={v}" for k, v in self.flags.items())

    def __str__(self) -> str:
        parts = [self.shape_text, self.flags_text]
        if self.memory != "dense":
            parts.append(f"memory={self.memory}")
        return " ".join(p for p in parts if p)

    def __hash__(self) -> int:
        return hash(
            (tuple(self.sizes.items()), self.precision, tuple(self.flags.items()), self.memory)
        )

    def __reduce__(self) -> tuple[object, tuple[dict[str, int], str, dict[str, str], str]]:
        return Case.make, (dict(self.sizes), self.precision, dict(self.flags), self.memory)

    def as_dict(self) -> dict[str, object]:
        return {
            "sizes": dict(self.sizes),
            "precision": self.precision,
            "flags": dict(self.flags),
            "memory": self.memory,
        }


@dataclass(frozen=True, slots=True)
class SizeGrid:
    """A list of sizes; grids add up: `grid(M=(1, 33), N=(5,)) + empty("M")`."""

    sizes: tuple[Mapping[str, int], ...]

    def __add__(self, other: SizeGrid) -> SizeGrid:
        complete = self.sizes[-1] if self.sizes else {}
        return SizeGrid(self.sizes + tuple({**complete, **extra} for extra in other.sizes))

    def cover(
        self,
        spec: KernelSpec,
        precision: Precision,
        backend: str | None,
        accepts: Callable[[Case], bool] | None = None,
    ) -> Iterator[Case]:
        """One case a size, plus as many as it takes to meet every flag combination once.

        Where there are more than `FULL_PRODUCT` combinations, every two values of two flags are met together
        instead. With a backend, only the layouts it takes; `accepts` leaves out further flag combinations.
        What the spec's `valid` rules out meets another size, or none.
        """
        combinations = spec.flag_combinations(precision, backend)
        combinations = [c for c in combinations if self._taken(spec, precision, c, accepts)]
        if len(combinations) > FULL_PRODUCT:
            combinations = pairwise(combinations)
        for i in range(max(len(self.sizes), len(combinations)) if combinations else 0):
            # Both lists are stepped at once, the flags by one more in each round; memory follows a sequence
            # without a period. Otherwise a flag would always meet the same sizes and the same memory.
            flags = combinations[(i + i // len(combinations)) % len(combinations)]
            memory = MEMORY[i.bit_count() % 2]
            for step in range(len(self.sizes)):
                sizes = self.sizes[(i + step) % len(self.sizes)]
                if spec.why_invalid(sizes, precision.name, flags) is None:
                    yield spec.case(sizes, precision.name, flags, memory)
                    break

    def _taken(
        self,
        spec: KernelSpec,
        precision: Precision,
        flags: dict[str, str],
        accepts: Callable[[Case], bool] | None,
    ) -> bool:
        """Whether flags go with a listed size, the last such one tried with `accepts`."""
        for sizes in reversed(self.sizes):
            if spec.why_invalid(sizes, precision.name, flags) is None:
                return accepts is None or accepts(spec.case(sizes, precision.name, flags))
        return False

    def defaults(self, spec: KernelSpec, precision: Precision) -> Iterator[Case]:
        """One dense case a size, flags at their defaults."""
        for sizes in self.sizes:
            yield spec.case(sizes, precision.name)


def pairwise(combinations: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """A few of the combinations in which every two values of two flags that meet in any still meet.

    Greedy: the one with the most new pairs next, the first of equals (the covering arrays of Cohen et al.,
    The AETG system, IEEE TSE 1997).
    """
    return [dict(c) for c in _pairwise(tuple(tuple(c.items()) for c in combinations))]


@cache
def _pairwise(combinations: tuple[_Items, ...]) -> tuple[_Items, ...]:
    pairs = [frozenset(itertools.combinations(sorted(c), 2)) for c in combinations]
    missing = set().union(*pairs)
    chosen: list[_Items] = []
    while missing:
        best = max(range(len(pairs)), key=lambda i: len(pairs[i] & missing))
        missing -= pairs[best]
        chosen.append(combinations[best])
    return tuple(chosen)


def grid(**sizes: tuple[int, ...]) -> SizeGrid:
    """The cartesian product of sizes."""
    names = list(sizes)
    return SizeGrid(
        tuple(dict(zip(names, point, strict=True)) for point in itertools.product(*sizes.values()))
    )


def points(*sizes: Mapping[str, int]) -> SizeGrid:
    """Exactly these sizes."""
    return SizeGrid(tuple(dict(s) for s in sizes))


def empty(*names: str) -> SizeGrid:
    """For each name, the last listed size with that one set to zero."""
    return SizeGrid(tuple({name: 0} for name in names))


def parse_shape(text: str) -> dict[str, int]:
    """`M=1,N=2` to a dict; raises UsageError with the part that is wrong."""
    sizes: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        try:
            sizes[name.strip()] = int(value)
        except ValueError:
            raise UsageError(f"'{part}' in --shape is not NAME=INTEGER, such as M=64") from None
    return sizes
