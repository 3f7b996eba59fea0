"""Distributions of sequence lengths in tokens: normal, lognormal, or those of a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tilewright.errors import UsageError

Lengths = npt.NDArray[np.int64]
_ACCEPTED = "normal:MEAN,STD, lognormal:MEDIAN,SIGMA, or a file of lengths"
# Longer sequences than this are a mistyped distribution, and would make tables of many gigabytes.
LONGEST = 1 << 24


class Distribution(Protocol):
    """Draws whole lengths, at least 1."""

    @property
    def text(self) -> str: ...

    def draw(self, count: int, generator: np.random.Generator) -> Lengths: ...


def _whole(values: npt.NDArray[np.float64]) -> Lengths:
    return np.clip(np.rint(values), 1, LONGEST).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Normal:
    """Mean and standard deviation in tokens; what falls below 1 is 1."""

    mean: float
    std: float

    @property
    def text(self) -> str:
        return f"normal:{self.mean:g},{self.std:g}"

    def draw(self, count: int, generator: np.random.Generator) -> Lengths:
        return _whole(generator.normal(self.mean, self.std, count))


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Median in tokens and the standard deviation of the logarithm."""

    median: float
    sigma: float

    @property
    def text(self) -> str:
        return f"lognormal:{self.median:g},{self.sigma:g}"

    def draw(self, count: int, generator: np.random.Generator) -> Lengths:
        return _whole(generator.lognormal(math.log(self.median), self.sigma, count))


@dataclass(frozen=True, slots=True)
class Listed:
    """Lengths of a file, drawn with replacement."""

    name: str
    lengths: tuple[int, ...]

    @property
    def text(self) -> str:
        return self.name

    def draw(self, count: int, generator: np.random.Generator) -> Lengths:
        return generator.choice(np.array(self.lengths, dtype=np.int64), count)


def parse(text: str) -> Distribution:
    """A distribution from `normal:MEAN,STD`, `lognormal:MEDIAN,SIGMA` or a path; UsageError says what is wrong."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in ("normal", "lognormal"):
        return read(Path(text))
    try:
        first, second = (float(part) for part in rest.split(","))
    except ValueError:
        raise UsageError(
            f"'{text}' is not two numbers after {kind}:; accepted: {_ACCEPTED}"
        ) from None
    if not (1 <= first <= LONGEST and 0 <= second < math.inf):
        raise UsageError(f"'{text}': the first number must be 1 to {LONGEST}, the second 0 or more")
    return Normal(first, second) if kind == "normal" else Lognormal(first, second)


def read(path: Path) -> Listed:
    """Lengths of a text file: whole numbers between white space or commas; `#` starts a comment."""
    if not path.is_file():
        raise UsageError(f"there is no distribution and no file '{path}'; accepted: {_ACCEPTED}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file of lengths") from None
    found = []
    for place, line in enumerate(lines, 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            try:
                length = int(word)
            except ValueError:
                raise UsageError(f"{path}, line {place}: '{word}' is not a whole number") from None
            if not 1 <= length <= LONGEST:
                raise UsageError(
                    f"{path}, line {place}: a length of {length}; accepted: 1 to {LONGEST}"
                )
            found.append(length)
    if not found:
        raise UsageError(f"{path} holds no lengths")
    return Listed(path.name, tuple(found))
