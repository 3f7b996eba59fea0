"""Launch grids as data: formulas in the kernel's integer arguments that any language can do."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.errors import UsageError

Token = str | int
_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "/"}
_FUNCTIONS = ("cdiv", "min", "max")
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


def _postfix(text: str) -> tuple[Token, ...]:
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        raise UsageError(f"grid formula '{text}' is not an expression") from None
    tokens: list[Token] = []
    _emit(node, text, tokens)
    return tuple(tokens)


def _emit(node: ast.expr, text: str, tokens: list[Token]) -> None:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            tokens.append(value)
        case ast.Name(id=name):
            tokens.append(name)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            _emit(left, text, tokens)
            _emit(right, text, tokens)
            tokens.append(_OPERATORS[type(op)])
        case ast.Call(func=ast.Name(id=name), args=[left, right], keywords=[]) if (
            name in _FUNCTIONS
        ):
            _emit(left, text, tokens)
            _emit(right, text, tokens)
            tokens.append(name)
        case _:
            raise UsageError(
                f"grid formula '{text}' holds '{ast.unparse(node)}'; accepted: names, integers, "
                f"+ - * //, {', '.join(_FUNCTIONS)} of two"
            )


def _evaluate(tokens: tuple[Token, ...], values: Mapping[str, int]) -> int:
    stack: list[int] = []
    for token in tokens:
        if isinstance(token, int):
            stack.append(token)
            continue
        if token in _FUNCTIONS or token in _OPERATORS.values():
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
