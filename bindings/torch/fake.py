"""Fake implementations of generated ops: shapes and dtypes without data, symbolic sizes included.

Data driven and self-contained (torch and the standard library), because a copy of it is shipped in
every bundle. The rules are those of `bindings/border.cpp`; a test compares the two.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Table = Mapping[str, Any]


def register(namespace: str, table: Sequence[Table]) -> None:
    """Register a fake for every op of the table; the library must be loaded. A second call does nothing."""
    for op in table:
        name = f"{namespace}::{op['name']}"
        if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "Meta"):
            torch.library.register_fake(name)(implementation(namespace, op))


def implementation(namespace: str, op: Table) -> Callable[..., Any]:
    """The fake of one op, taking what the op takes."""
    schema = getattr(getattr(torch.ops, namespace), op["name"]).default._schema

    def fake(*args: Any, **kwargs: Any) -> Any:
        given = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        given.update(zip((a.name for a in schema.arguments), args, strict=False))
        given.update(kwargs)
        outputs = infer(op, given)
        return outputs[0] if len(outputs) == 1 else tuple(outputs) or None

    return fake


def infer(op: Table, given: Mapping[str, Any]) -> list[torch.Tensor]:
    """The outputs of a call; raises ValueError with the sentence the op itself would give."""
    inputs = [t for t in op["tensors"] if t["role"] == "input"]
    present = {t["name"]: given[t["name"]] for t in inputs if given.get(t["name"]) is not None}
    flags = {f["name"]: _flag(op, f, given, present) for f in op["flags"]}
    precision = _precision(op, present, flags, given.get("out_dtype"))
    sizes = _sizes(op, present, flags, precision, given)
    like = present[next(t["name"] for t in inputs if t["flag"] is None)]
    outputs = []
    for tensor in op["tensors"]:
        if tensor["role"] == "input":
            continue
        shape = [0]
        if tensor["flag"] is None or flags[tensor["flag"]] in tensor["when"]:
            shape = [_value(text, sizes) for text in _shape(tensor, flags)]
        outputs.append(
            like.new_empty(shape, dtype=getattr(torch, precision["dtypes"][tensor["name"]]))
        )
    return outputs


def _flag(op: Table, flag: Table, given: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    if flag["kind"] == "presence":
        governed = [t for t in op["tensors"] if t["flag"] == flag["name"] and t["role"] == "input"]
        for value in flag["values"]:
            if all((t["name"] in present) == (value in t["when"]) for t in governed):
                return str(value)
        names = " and ".join(t["name"] for t in governed)
        raise ValueError(
            f"{op['name']}: of {names} only some are given, in a combination that means nothing"
        )
    value = given[flag["argument"]]
    if flag["kind"] == "number":
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{op['name']}: {flag['name']} is {value}; accepted: a finite number")
        return str(value)
    value = ("no", "yes")[value] if isinstance(value, bool) else value
    accepted = flag["values"]
    for tensor in op["tensors"]:
        if tensor["layout_flag"] == flag["name"]:
            accepted = [one["name"] for one in tensor["layouts"] if one["accepted"]]
    if value not in accepted:
        raise ValueError(
            f"{op['name']}: unknown {flag['name']} '{value}'; accepted: {', '.join(accepted)}"
        )
    return str(value)


def _precision(
    op: Table,
    present: Mapping[str, torch.Tensor],
    flags: Mapping[str, str],
    out_dtype: torch.dtype | None,
) -> Table:
    first_output = next((t["name"] for t in op["tensors"] if t["role"] == "output"), "")
    numbers = {f["name"] for f in op["flags"] if f["kind"] == "number"}
    for precision in op["precisions"]:
        dtypes = {name: getattr(torch, text) for name, text in precision["dtypes"].items()}
        if (
            all(value.dtype == dtypes[name] for name, value in present.items())
            and all(
                flags[name] in values
                for name, values in precision["flags"].items()
                if name not in numbers
            )
            and (out_dtype is None or out_dtype == dtypes[first_output])
        ):
            found: Table = precision
            return found
    given = ", ".join(
        f"{name} {str(value.dtype).removeprefix('torch.')}" for name, value in present.items()
    )
    accepted = ", ".join(p["name"] for p in op["precisions"])
    raise ValueError(f"{op['name']}: no precision for {given}; accepted: {accepted}")


def _shape(tensor: Table, flags: Mapping[str, str]) -> list[str]:
    layouts = tensor["layouts"]
    chosen = flags[tensor["layout_flag"]] if tensor["layout_flag"] else layouts[0]["name"]
    shape: list[str] = next(one["shape"] for one in layouts if one["name"] == chosen)
    return shape


def _value(text: str, sizes: Mapping[str, Any]) -> Any:
    # Formulas come from the table in this file's own package, never from a caller.
    names = {
        "__builtins__": {},
        "cdiv": lambda x, y: -(-x // y),
        "max": torch.sym_max,
        "min": torch.sym_min,
    }
    return eval(text, names, dict(sizes))


def _sizes(
    op: Table,
    present: Mapping[str, torch.Tensor],
    flags: Mapping[str, str],
    precision: Table,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    sizes: dict[str, Any] = dict(precision["sizes"])
    sizes.update({name: given[name] for name in op["asked"] if given.get(name) is not None})
    shapes = {t["name"]: _shape(t, flags) for t in op["tensors"] if t["name"] in present}
    for name, shape in shapes.items():
        actual = present[name].shape
        if len(actual) != len(shape):
            raise ValueError(
                f"{op['name']}: {name} has shape {list(actual)}; accepted: [{', '.join(shape)}]"
            )
        for text, size in zip(shape, actual, strict=True):
            if text in op["sizes"]:
                sizes.setdefault(text, size)
    for name in op["sizes"]:
        if name not in sizes and name not in _used(op, present, flags):
            sizes[name] = 0
        if name not in sizes:
            raise ValueError(f"{op['name']}: the tensors given do not tell {name}; pass {name}")
    for name, shape in shapes.items():
        for text, size in zip(shape, present[name].shape, strict=True):
            torch._check_value(  # type: ignore[no-untyped-call]
                size == _value(text, sizes),
                lambda name=name, shape=shape: (
                    f"{op['name']}: {name} does not have the shape [{', '.join(shape)}]"
                ),
            )
    return sizes


def _used(op: Table, present: Mapping[str, Any], flags: Mapping[str, str]) -> set[str]:
    """Sizes in the shape of a tensor of this call, given or made."""
    found: set[str] = set()
    for tensor in op["tensors"]:
        made = tensor["role"] == "output" and (
            tensor["flag"] is None or flags[tensor["flag"]] in tensor["when"]
        )
        if made or tensor["name"] in present:
            for text in _shape(tensor, flags):
                found.update(re.findall(r"[A-Za-z_]\w*", text))
    return found


def load(text: str) -> list[Table]:
    """A table from its JSON."""
    table: list[Table] = json.loads(text)
    return table
