"""The Python of a bundle's variant: `_ops.py`, `_layouts_<op>.py` and `__init__.py`, from the table of ops."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tilewright.dims import Expr
from tilewright.errors import UsageError
from tilewright.ship.layout_source import standing_alone
from tilewright.spec import Ref

if TYPE_CHECKING:
    from tilewright.bindings.table import Op, OpArgument
    from tilewright.registry import Family

_TYPES = {
    "Tensor": "Tensor",
    "Tensor?": "Tensor | None",
    "SymInt": "int",
    "SymInt?": "int | None",
    "int": "int",
    "int[]?": "list[int] | None",
    "str": "str",
    "bool": "bool",
    "float": "float",
    "ScalarType?": "torch.dtype | None",
}
_GENERATED = "Generated; a change here is a change of the bundle and fails verify.py."


def ops_module(namespace: str, library: str, ops: Sequence[Op]) -> str:
    """`_ops.py`: load the library once and give its ops as `ops`."""
    return f'''"""Loads the compiled ops. {_GENERATED}"""

from __future__ import annotations

from pathlib import Path

import torch

LIBRARY = Path(__file__).resolve().parent / "{library}"
NAMESPACE = "{namespace}"

ops = getattr(torch.ops, NAMESPACE)
# The name is made from the content: if its ops are registered, a copy of this very bundle did it.
if not hasattr(ops, "{ops[0].name}"):
    torch.ops.load_library(str(LIBRARY))


def add_op_namespace_prefix(op_name: str) -> str:
    """The full name of an op, such as `{namespace}::{ops[0].name}`."""
    return f"{{NAMESPACE}}::{{op_name}}"
'''


def layouts_module(family: Family, op: Op) -> str | None:
    """`_layouts_<op>.py`: the family's own layout functions, which need torch only; None without any."""
    paths = dict.fromkeys(function for _, _, function in _packs(family, op))
    if not paths:
        return None
    parts = [
        f'"""How tensors of {op.name} are packed; taken from the family as it stands. {_GENERATED}"""',
        "from __future__ import annotations",
        *standing_alone(_function(family, path) for path in paths),
    ]
    return "\n\n\n".join(parts) + "\n"


def init_module(families: Sequence[tuple[Family, Op]], summary: str, levels: Sequence[str]) -> str:
    """`__init__.py`: one function an op, one `pack_<tensor>` a packed tensor, and `levels()`."""
    functions = [_op_function(op) for _, op in families]
    names = [op.name for _, op in families]
    for family, op in families:
        for tensor in dict.fromkeys(t for t, _, _ in _packs(family, op)):
            name = f"pack_{tensor}" if f"pack_{tensor}" not in names else f"pack_{op.name}_{tensor}"
            names.append(name)
            functions.append(_pack_function(family, op, tensor, name))
    names.append("levels")
    public = "".join(f'    "{name}",\n' for name in sorted(names))
    packed = [f"_layouts_{o.name}" for f, o in families if any(_packs(f, o))]
    imports = f"from . import {', '.join(packed)}\n" if packed else ""
    body = "\n\n".join(functions)
    return f'''"""{summary} {_GENERATED}"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

{imports}from ._ops import LIBRARY, ops

from . import _fakes  # noqa: F401  (registers shapes and dtypes for torch.compile)

__all__ = [
{public}]

_COMPILED_LEVELS = {tuple(levels)!r}


{body}

def levels() -> dict[str, object]:
    """CPU levels: `compiled` into the library, `available` on this CPU (worst first), `current`.

    The environment variable TILEWRIGHT_ISA forces one; raises RuntimeError if this CPU lacks it.
    """
    library = ctypes.CDLL(str(LIBRARY))
    for name in ("tw_cpu_levels", "tw_cpu_level", "tw_cpu_level_error"):
        getattr(library, name).restype = ctypes.c_char_p
    error = library.tw_cpu_level_error()
    if error:
        raise RuntimeError(error.decode())
    available = [name.strip() for name in library.tw_cpu_levels().decode().split(",")]
    current = library.tw_cpu_level().decode()
    return {{"compiled": list(_COMPILED_LEVELS), "available": available, "current": current}}
'''


def _op_function(op: Op) -> str:
    positional = [a for a in op.arguments() if not a.keyword_only]
    keywords = [a for a in op.arguments() if a.keyword_only]
    signature = [*(_parameter(a) for a in positional), "*", *(_parameter(a) for a in keywords)]
    several = f"tuple[{', '.join('Tensor' for _ in op.outputs)}]" if op.outputs else "None"
    returns = "Tensor" if len(op.outputs) == 1 else several
    call = [*(a.name for a in positional), *(f"{a.name}={a.name}" for a in keywords)]
    lines = [f"def {op.name}(", *(f"    {p}," for p in signature), f") -> {returns}:"]
    lines += [
        f'    """{op.summary}.',
        "",
        *(f"    {line}" for line in _documentation(op)),
        '    """',
    ]
    lines += [f"    return ops.{op.name}(", *(f"        {c}," for c in call), "    )", ""]
    return "\n".join(lines)


def _parameter(argument: OpArgument) -> str:
    default = "" if argument.default is None else f" = {argument.default}"
    kind = re.sub(r"\(\w+!\)", "", argument.type)
    return f"{argument.name}: {_TYPES[kind]}{default}"


def _documentation(op: Op) -> Iterator[str]:
    for tensor in op.tensors:
        accepted = [one for one in tensor.layouts if one.accepted]
        shapes = " or ".join(
            f"{f'{one.name} ' if one.name else ''}[{', '.join(map(str, one.shape))}]"
            for one in accepted
        )
        role = "returned" if tensor.output else "optional" if tensor.optional else "required"
        if tensor.inout:
            role += ", changed in place"
        if tensor.align:
            role += f", pages best aligned to {tensor.align} bytes (at least 64)"
        yield f"{tensor.name}: {shapes}, {role}."
    for flag in op.flags:
        if flag.kind == "number":
            yield f"{flag.argument}: a number, {flag.default} by default."
        elif flag.kind != "presence":
            values = ", ".join(repr(v) for v in flag.values)
            yield f"{flag.argument}: one of {values}."
    types = "; ".join(
        f"{p.name}: " + ", ".join(f"{t.name} {p.dtypes[t.name].torch_name}" for t in op.tensors)
        for p in op.precisions
    )
    yield f"Element types: {types}."
    if op.config:
        fields = ", ".join(f.name for f in op.config)
        yield f"config: [{fields}]; None takes the bundle's own choice. threads: 0 is all."


def _packs(family: Family, op: Op) -> Iterator[tuple[str, str, str]]:
    """(tensor, layout, function) of every layout that is packed by a function."""
    for tensor in family.spec.given:
        for name, layout in tensor.layouts.items():
            if layout.pack is not None:
                yield tensor.name, name, layout.pack.path


def _function(family: Family, path: str) -> Callable[..., Any]:
    return Ref(path).resolve(family.package)


def _pack_function(family: Family, op: Op, tensor: str, name: str) -> str:
    spec = next(t for t in family.spec.given if t.name == tensor)
    shapes = [size for layout in spec.layouts.values() for size in layout.shape]
    used = {name for size in shapes if isinstance(size, Expr) for name in size.names()}
    layouts = {one: path.rpartition(":")[2] for t, one, path in _packs(family, op) if t == tensor}
    sizes: dict[str, dict[str, int]] = {}
    for precision in op.precisions:
        key = precision.dtypes[tensor].torch_name
        wanted = {k: v for k, v in precision.sizes.items() if k in used}
        if sizes.setdefault(key, wanted) != wanted:
            raise UsageError(
                f"{op.name}: precisions with {key} '{tensor}' differ in {precision.sizes}"
            )
    logical = ", ".join(map(str, spec.dims))
    default = list(layouts)[-1]
    table = "".join(f"        torch.{dtype}: {extra!r},\n" for dtype, extra in sizes.items())
    choices = "".join(
        f'        "{one}": _layouts_{op.name}.{function},\n' for one, function in layouts.items()
    )
    return f'''def {name}({tensor}: Tensor, layout: str = "{default}") -> Tensor:
    """{tensor}[{logical}] in another layout of {op.name}: {", ".join(layouts)}."""
    sizes = {{
{table}    }}
    functions = {{
{choices}    }}
    if layout not in functions or {tensor}.dtype not in sizes:
        accepted = f"{{', '.join(functions)}} of {{', '.join(map(str, sizes))}}"
        raise ValueError(f"cannot pack {{{tensor}.dtype}} as '{{layout}}'; accepted: {{accepted}}")
    packed: Tensor = functions[layout]({tensor}, sizes[{tensor}.dtype])
    return packed
'''
