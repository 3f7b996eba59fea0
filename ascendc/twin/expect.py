"""`--expect z=x+y`: what an output should be, as an expression over the arguments, in fp64.

Only arithmetic, comparisons, indexing and the functions named below: an expression runs no other code.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilewright.errors import UsageError, unknown

if TYPE_CHECKING:
    import numpy as np

HELP = (
    "Arithmetic (+ - * / // % ** @), comparisons, indexing such as x[:, 0], numbers, pi, inf, nan, and "
    "abs sqrt rsqrt exp log tanh erf sigmoid relu softmax sin cos floor ceil round trunc sign square "
    "maximum minimum clip where sum mean max min prod cumsum argmax argmin sort argsort transpose "
    "reshape concatenate arange zeros ones full fp16 bf16 fp32 int"
)

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_UNARY: dict[type[ast.AST], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_KEYWORDS = {"axis", "keepdims"}
_NUMPY = (
    *("abs", "sqrt", "exp", "log", "log2", "tanh", "sin", "cos", "floor", "ceil", "trunc", "sign"),
    *(
        "square",
        "maximum",
        "minimum",
        "clip",
        "where",
        "sum",
        "mean",
        "max",
        "min",
        "prod",
        "cumsum",
    ),
    *("argmax", "argmin", "sort", "argsort", "transpose", "reshape", "concatenate", "arange"),
    *("zeros", "ones", "full", "isnan", "round", "repeat", "tile", "outer", "einsum"),
)


def _functions() -> dict[str, Callable[..., Any]]:
    import numpy as np

    from .arguments import narrow, wide

    def softmax(x: Any, axis: int = -1) -> Any:
        e = np.exp(x - np.max(x, axis=axis, keepdims=True))
        return e / np.sum(e, axis=axis, keepdims=True)

    def erf(x: Any) -> Any:
        import math

        return np.vectorize(math.erf, otypes=[np.float64])(x)

    def rounded(dtype: str) -> Callable[[Any], Any]:
        return lambda x: wide(narrow(np.asarray(x, np.float64), dtype), dtype)

    return {
        **{name: getattr(np, name) for name in _NUMPY},
        "rsqrt": lambda x: 1.0 / np.sqrt(x),
        "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64))),
        "relu": lambda x: np.maximum(x, 0.0),
        "softmax": softmax,
        "erf": erf,
        "int": lambda x: np.trunc(x).astype(np.int64),
        **{name: rounded(name) for name in ("fp16", "bf16", "fp32")},
    }


@dataclass(frozen=True, slots=True)
class Expectation:
    """``name`` of an argument and the expression it should equal."""

    name: str
    tree: ast.expr
    text: str

    def value(self, values: Mapping[str, Any]) -> np.ndarray:
        """The expression over arrays and numbers by name; raises UsageError where it makes no sense."""
        import numpy as np

        try:
            with np.errstate(all="ignore"):
                return np.asarray(_Evaluator(values, self.text).visit(self.tree))
        except (ValueError, TypeError, IndexError, ArithmeticError, MemoryError) as error:
            raise UsageError(f"--expect {self.text}: {error}") from None


def parse(text: str) -> Expectation:
    """`NAME=EXPRESSION`; raises UsageError for what is neither."""
    name, equals, expression = text.partition("=")
    name = name.strip()
    if not equals or not name.isidentifier():
        raise UsageError(f"--expect '{text}' is not OUTPUT=EXPRESSION, such as z=x+y")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"--expect '{text}' cannot be read: {error}") from None
    return Expectation(name, tree, text)


class _Evaluator(ast.NodeVisitor):
    def __init__(self, values: Mapping[str, Any], text: str) -> None:
        import numpy as np

        self.functions = _functions()
        self.values = {
            "pi": np.float64(np.pi),
            "inf": np.float64(np.inf),
            "nan": np.float64(np.nan),
            **values,
        }
        self.text = text

    def generic_visit(self, node: ast.AST) -> Any:
        raise UsageError(f"--expect {self.text}: '{ast.unparse(node)}' is not allowed. {HELP}")

    def visit_Constant(self, node: ast.Constant) -> Any:
        import numpy as np

        # Numbers of numpy: an int of Python would grow without end under **.
        if isinstance(node.value, bool | int):
            return np.int64(node.value)
        if isinstance(node.value, float):
            return np.float64(node.value)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id not in self.values:
            raise unknown(f"name in --expect {self.text}:", node.id, list(self.values))
        return self.values[node.id]

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        import numpy as np

        if type(node.op) not in _BINARY:
            return self.generic_visit(node)
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, ast.Pow):  # whole numbers have no negative powers
            left = np.asarray(left, np.float64)
        return _BINARY[type(node.op)](left, right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        if type(node.op) not in _UNARY:
            return self.generic_visit(node)
        return _UNARY[type(node.op)](self.visit(node.operand))

    def visit_Compare(self, node: ast.Compare) -> Any:
        if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARE:
            return self.generic_visit(node)
        return _COMPARE[type(node.ops[0])](self.visit(node.left), self.visit(node.comparators[0]))

    def visit_Call(self, node: ast.Call) -> Any:
        if not isinstance(node.func, ast.Name) or node.func.id not in self.functions:
            raise UsageError(
                f"--expect {self.text}: '{ast.unparse(node.func)}' is no function here. {HELP}"
            )
        given = {}
        for keyword in node.keywords:
            if keyword.arg not in _KEYWORDS:
                raise unknown(f"keyword in --expect {self.text}:", keyword.arg, sorted(_KEYWORDS))
            given[keyword.arg] = self._plain(keyword.value)
        arguments = node.args
        if node.func.id == "einsum" and arguments:
            pattern = arguments[0]
            if not isinstance(pattern, ast.Constant) or not isinstance(pattern.value, str):
                raise UsageError(
                    f"--expect {self.text}: einsum takes a pattern first, as 'ij,jk->ik'"
                )
            return self.functions["einsum"](pattern.value, *map(self.visit, arguments[1:]))
        return self.functions[node.func.id](*map(self.visit, arguments), **given)

    def _plain(self, node: ast.expr) -> Any:
        value = self.visit(node)
        return tuple(int(v) for v in value) if isinstance(value, tuple) else int(value)

    def visit_Tuple(self, node: ast.Tuple) -> Any:
        return tuple(self.visit(e) for e in node.elts)

    def visit_List(self, node: ast.List) -> Any:
        return tuple(self.visit(e) for e in node.elts)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        return self.visit(node.value)[self._index(node.slice)]

    def _index(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Tuple):
            return tuple(self._index(e) for e in node.elts)
        if isinstance(node, ast.Slice):
            ends = (node.lower, node.upper, node.step)
            return slice(*(None if e is None else int(self.visit(e)) for e in ends))
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        value = self.visit(node)
        return value if getattr(value, "ndim", 0) else int(value)
