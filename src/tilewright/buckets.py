"""Which range of sizes a tuned config is for, and how far a call is from it.

The one place where a size meets a bucket: the tuner writes buckets with `bucket`, and `bench`, `ship`
and the generated C++ find them again by the interval `span` says. C++ is given the two ends as
integers and rounds nothing, and distances are integers too, so that both choose alike on every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilewright.cases import Case

# The first size of a case (rows, tokens) falls into a range; the others are exact, since they are
# the model's and do not vary from call to call.
Bucket = tuple[int, ...]
# Steps of one octave in distances.
OCTAVE = 1 << 16
_MANTISSA = 31


def upper_bound(size: int, bounds: Sequence[int] = ()) -> int:
    """The upper end of the bucket that holds a size: the smallest of `bounds` that is not below it.

    Past the last bound, and without any, the next power of two; 0 is a bucket of its own.
    """
    above = [b for b in bounds if b >= size]
    if above:
        return min(above)
    return 0 if size <= 0 else 1 << (size - 1).bit_length()


def bucket(case: Case, bounds: Sequence[int] = ()) -> Bucket:
    """The bucket of a case: the upper bound of its first size, and the other sizes as they are."""
    sizes = list(case.sizes.values())
    return (upper_bound(sizes[0], bounds), *sizes[1:]) if sizes else ()


@dataclass(frozen=True, slots=True)
class Span:
    """The sizes above `over`, up to and including `upper`."""

    over: int
    upper: int

    @staticmethod
    def of(upper: int, over: int | None = None) -> Span:
        """The interval of a bucket; without an explicit lower end it is one of powers of two."""
        if over is None:
            over = upper // 2 if upper > 0 else -1
        return Span(over, upper)

    @property
    def width(self) -> int:
        return self.upper - self.over

    def holds(self, size: int) -> bool:
        return self.over < size <= self.upper

    def distance(self, size: int) -> int:
        """Octaves (in steps of 1/OCTAVE) from the nearer end; 0 inside and only there."""
        if self.holds(size):
            return 0
        return octaves(size, self.upper if size > self.upper else self.over + 1)

    def __str__(self) -> str:
        return str(self.upper) if self.width == 1 else f"{self.over + 1}..{self.upper}"


def octaves(one: int, other: int) -> int:
    """How far apart two sizes are, in steps of 1/OCTAVE of an octave, at least one unless they are equal."""
    return 0 if one == other else 1 + abs(_log2(max(one, 1)) - _log2(max(other, 1)))


def _log2(value: int) -> int:
    """log2 in steps of 1/OCTAVE, rounded down, by squaring in integers: `choice.cpp` has the same steps."""
    whole = value.bit_length() - 1
    shift = whole - _MANTISSA
    mantissa = value >> shift if shift > 0 else value << -shift
    found, step = whole * OCTAVE, OCTAVE >> 1
    while step:
        mantissa = mantissa * mantissa >> _MANTISSA
        if mantissa >> (_MANTISSA + 1):
            found += step
            mantissa >>= 1
        step >>= 1
    return found
