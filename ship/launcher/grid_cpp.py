"""A grid formula (`tilewright.aot.grid`) as C++ over the extents of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.aot.grid import Grid
from tilewright.errors import UsageError

Token = str | int
Formula = tuple[Token, ...]
_FUNCTIONS = {
    "+": "Add",
    "-": "Sub",
    "*": "Mul",
    "/": "FloorDiv",
    "cdiv": "CeilDiv",
    "min": "Min",
    "max": "Max",
}


def formula(text: str) -> Formula:
    """The postfix tokens of one formula; raises UsageError naming what is accepted."""
    return Grid(text).postfix()[0]


def evaluate(tokens: Formula, values: Mapping[str, int]) -> int:
    """The value of a formula for these names; raises UsageError for a missing one."""
    stack: list[int] = []
    for token in tokens:
        if isinstance(token, int):
            stack.append(token)
        elif token in _FUNCTIONS:
            right, left = stack.pop(), stack.pop()
            stack.append(_apply(token, left, right))
        else:
            stack.append(_lookup(token, values))
    return stack[0]


def cpp(tokens: Formula, dims: Sequence[str], constants: Mapping[str, int]) -> str:
    """A C++ expression of int64_t over `d[i]`, the extent of `dims[i]`, with `constants` filled in.

    Raises UsageError for an unknown name, a malformed formula and a divisor that is no positive
    constant.
    """
    stack: list[tuple[str, int | None]] = []
    for token in tokens:
        if isinstance(token, int):
            stack.append(_constant(token))
        elif token in _FUNCTIONS:
            if len(stack) < 2:
                raise UsageError(f"grid formula {list(tokens)} lacks an operand of '{token}'")
            (right, b), (left, a) = stack.pop(), stack.pop()
            if token in ("/", "cdiv") and (b is None or b <= 0):
                raise UsageError(
                    f"grid formula {list(tokens)} divides by something that is no positive constant"
                )
            folded = None if a is None or b is None else _apply(token, a, b)
            stack.append(
                (f"{_FUNCTIONS[token]}({left}, {right})", None)
                if folded is None
                else _constant(folded)
            )
        elif token in dims:
            stack.append((f"d[{dims.index(token)}]", None))
        else:
            stack.append(_constant(_lookup(token, {**dict.fromkeys(dims, 0), **constants})))
    if len(stack) != 1:
        raise UsageError(f"grid formula {list(tokens)} leaves {len(stack)} values; 1 is needed")
    return stack[0][0]


def _constant(value: int) -> tuple[str, int]:
    return f"INT64_C({value})", value


def _lookup(name: str, values: Mapping[str, int]) -> int:
    if name not in values:
        raise UsageError(
            f"grid formula uses '{name}'; known here: {', '.join(values) or 'nothing'}"
        )
    return values[name]


def _apply(operator: str, left: int, right: int) -> int:
    if operator in ("/", "cdiv") and right <= 0:
        raise UsageError(f"grid formula divides {left} by {right}; a divisor must be positive")
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left // right
        case "cdiv":
            return -(-left // right)
        case "min":
            return min(left, right)
        case _:
            return max(left, right)
