"""Symbolic sizes: `M, N, K = dims("M N K")`, then `2 * M * N * K` is a formula, not a number.

Specs use these for shapes, FLOPs and bytes, so that one formula serves checks, benchmarks, docs
and generated C++ (`Expr.cpp`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tilewright.errors import UsageError

Number = int | float
_OPERATIONS: dict[str, Callable[[Number, Number], Number]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "//": lambda x, y: x // y,
    "cdiv": lambda x, y: -(-x // y),
    "max": max,
    "min": min,
}


@dataclass(frozen=True, slots=True)
class Expr:
    """An arithmetic expression over named sizes. Leaves are a name or a number."""

    op: str
    args: tuple[Expr | Number | str, ...]

    def _with(self, op: str, other: Expr | Number) -> Expr:
        return Expr(op, (self, other))

    def __add__(self, other: Expr | Number) -> Expr:
        return self._with("+", other)

    def __sub__(self, other: Expr | Number) -> Expr:
        return self._with("-", other)

    def __mul__(self, other: Expr | Number) -> Expr:
        return self._with("*", other)

    def __floordiv__(self, other: Expr | Number) -> Expr:
        return self._with("//", other)

    def __radd__(self, other: Number) -> Expr:
        return Expr("+", (other, self))

    def __rmul__(self, other: Number) -> Expr:
        return Expr("*", (other, self))

    def __rsub__(self, other: Number) -> Expr:
        return Expr("-", (other, self))

    def evaluate(self, sizes: Mapping[str, Number]) -> Number:
        """The value for given sizes; raises UsageError naming a missing one."""
        if self.op == "dim":
            name = str(self.args[0])
            if name not in sizes:
                raise UsageError(f"no size given for {name}; given: {', '.join(sizes) or 'none'}")
            return sizes[name]
        left, right = (evaluate(arg, sizes) for arg in self.args)
        return _OPERATIONS[self.op](left, right)

    def names(self) -> frozenset[str]:
        """Every size the expression depends on."""
        if self.op == "dim":
            return frozenset({str(self.args[0])})
        return frozenset().union(*(a.names() for a in self.args if isinstance(a, Expr)))

    @property
    def name(self) -> str | None:
        """The name of a plain size such as `M`; None for anything computed."""
        return str(self.args[0]) if self.op == "dim" else None

    def __str__(self) -> str:
        if self.op == "dim":
            return str(self.args[0])
        left, right = self.args
        if self.op in ("cdiv", "max", "min"):
            return f"{self.op}({left}, {right})"
        return f"({left} {self.op} {right})"

    def cpp(self) -> str:
        """The same expression in C++ over int64_t names (`cdiv`, `std::max`, `std::min`)."""
        if self.op == "dim":
            return str(self.args[0])
        left, right = (a.cpp() if isinstance(a, Expr) else str(a) for a in self.args)
        if self.op in ("max", "min"):
            return f"std::{self.op}<int64_t>({left}, {right})"
        if self.op == "cdiv":
            return f"cdiv({left}, {right})"
        return f"({left} {'/' if self.op == '//' else self.op} {right})"


def evaluate(value: Expr | Number | str, sizes: Mapping[str, Number]) -> Number:
    """Evaluate an expression or pass a number through."""
    if isinstance(value, Expr):
        return value.evaluate(sizes)
    if isinstance(value, str):
        raise TypeError(f"'{value}' is not an expression")
    return value


def dims(names: str) -> tuple[Expr, ...]:
    """`dims("M N K")` makes three named sizes."""
    return tuple(Expr("dim", (name,)) for name in names.split())


def dim(name: str) -> Expr:
    """One named size."""
    return Expr("dim", (name,))


def cdiv(left: Expr, right: Expr | int) -> Expr:
    """Division rounded up."""
    return Expr("cdiv", (left, right))
