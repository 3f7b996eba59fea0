"""Launch grids as data: formulas in the kernel's integer arguments that any language can do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from keyword import iskeyword

from tilewright.errors import UsageError

Token = str | int
_OPERATORS = ("+", "-", "*", "/")
_FUNCTIONS = ("cdiv", "min", "max")
_PIECES = re.compile(r"\w+|\*\*|//|[^\w\s]")
_INTEGER = re.compile(r"0|[1-9][0-9]*")
_MAX_GRID = (2**31 - 1, 65535, 65535)


@dataclass(frozen=True, slots=True)
class Grid:
    """Programs along x, y and z as formulas over the integer arguments of the kernel.

    A formula holds names, non-negative integers, `+ - * //`, `cdiv(a, b)`, `min` and `max`. A grid
    with a zero in it launches nothing. Raises UsageError for anything else in a formula.
    """

    x: str
    y: str = "1"
    z: str = "1"

    def __post_init__(self) -> None:
        self.postfix()

    def postfix(self) -> tuple[tuple[Token, ...], ...]:
        """Each formula as postfix tokens: integers, argument names and `+ - * / cdiv min max`."""
        return tuple(_postfix(text) for text in (self.x, self.y, self.z))

    def evaluate(self, values: Mapping[str, int]) -> tuple[int, int, int]:
        """Programs along each axis; UsageError if a name is missing or the grid is too large."""
        counts = [_evaluate(tokens, values) for tokens in self.postfix()]
        for axis, count, most in zip("xyz", counts, _MAX_GRID, strict=True):
            if count > most:
                raise UsageError(
                    f"grid {axis} of {count} programs exceeds the {most} a launch may have"
                )
        return counts[0], counts[1], counts[2]


@cache
def _postfix(text: str) -> tuple[Token, ...]:
    # Read here and not by `ast`: threads that parse at once break Python 3.11 up to its .7 (cpython#106905).
    try:
        return tuple(_Reader(text).formula())
    except RecursionError:
        raise UsageError(f"grid formula of {len(text)} characters nests too deeply") from None


class _Reader:
    """One formula from left to right; each method takes what its name says and gives postfix."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.rest = [match[0] for match in _PIECES.finditer(text)]
        self.rest.reverse()

    def formula(self) -> list[Token]:
        tokens = self.sums()
        if self.rest:
            raise self.refused(self.rest[-1])
        return tokens

    def sums(self) -> list[Token]:
        return self.row(("+", "-"), self.products)

    def products(self) -> list[Token]:
        return self.row(("*", "//"), self.operand)

    def row(self, operators: tuple[str, ...], operand: Callable[[], list[Token]]) -> list[Token]:
        tokens = operand()
        while self.rest and self.rest[-1] in operators:
            operator = self.rest.pop()
            tokens += [*operand(), operator[0]]
        return tokens

    def operand(self) -> list[Token]:
        if not self.rest:
            raise UsageError(f"grid formula '{self.text}' is not an expression: it ends too early")
        piece = self.rest.pop()
        if _INTEGER.fullmatch(piece):
            return [int(piece)]
        if piece == "(":
            return [*self.sums(), *self.take(")")]
        if piece in _FUNCTIONS:
            left = [*self.take("("), *self.sums()]
            return [*left, *self.take(","), *self.sums(), *self.take(")"), piece]
        if piece.isidentifier() and not iskeyword(piece) and self.rest[-1:] != ["("]:
            return [piece]
        raise self.refused(piece)

    def take(self, piece: str) -> tuple[()]:
        if not self.rest or self.rest[-1] != piece:
            raise UsageError(
                f"grid formula '{self.text}' is not an expression: it lacks a '{piece}'"
            )
        self.rest.pop()
        return ()

    def refused(self, piece: str) -> UsageError:
        return UsageError(
            f"grid formula '{self.text}' holds '{piece}' where it means nothing; accepted: names, "
            f"integers, + - * //, {', '.join(_FUNCTIONS)} of two"
        )


def _evaluate(tokens: tuple[Token, ...], values: Mapping[str, int]) -> int:
    stack: list[int] = []
    for token in tokens:
        if isinstance(token, int):
            stack.append(token)
            continue
        if token in _FUNCTIONS or token in _OPERATORS:
            right, left = stack.pop(), stack.pop()
            stack.append(_apply(token, left, right))
            continue
        if token not in values:
            raise UsageError(
                f"grid formula needs '{token}'; given: {', '.join(values) or 'nothing'}"
            )
        stack.append(int(values[token]))
    return stack[0]


def _apply(name: str, left: int, right: int) -> int:
    match name:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "min":
            return min(left, right)
        case "max":
            return max(left, right)
    if right == 0:
        raise UsageError(f"grid formula divides {left} by zero")
    return -(-left // right) if name == "cdiv" else left // right
