"""The table of ops as C++ data for `bindings/border.hpp`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tilewright.bindings.table import Op, OpFlag, OpPrecision, OpTensor
from tilewright.dims import Expr
from tilewright.spec import Size
from tilewright.tables import Entry, operands


def quoted(text: str) -> str:
    """A C++ string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def flag_text(flag: OpFlag) -> str:
    """A C++ expression for the text of a flag in a Request, of the argument of its name."""
    if flag.kind in ("presence", "number"):
        return '""'
    return f'{flag.argument} ? "yes" : "no"' if flag.boolean else flag.argument


def tables(op: Op, kernel: str) -> str:
    """Constexpr tables of one op in a namespace of its own; `spec` is the OpSpec. `kernel` is a C++ expression."""
    sizes = [*op.sizes, *op.extra_sizes]
    rows = _usable(op)
    parts = [f"namespace {op.name}_op {{"]
    parts += [_dims(op, t, sizes) for t in op.tensors]
    for flag in op.flags:
        parts.append(_array("const char*", f"{flag.name}_values", [quoted(v) for v in flag.values]))
    for index, precision in enumerate(op.precisions):
        parts.append(_precision(op, index, precision, sizes))
    for field in op.config:
        parts.append(_array("int64_t", f"{field.name}_accepted", [str(v) for v in field.values]))
    parts += [_tuned(op, index, entry) for index, entry in enumerate([*rows, *op.tiling])]
    flag_index = {f.name: i for i, f in enumerate(op.flags)}
    parts.append(
        _array(
            "TensorSpec",
            "tensors",
            [
                f"{{{quoted(t.name)}, {_bool(t.output)}, {flag_index.get(t.flag or '', -1)}, {_when(op, t)}u, "
                f"{flag_index.get(t.layout_flag or '', -1)}, {t.name}_layouts}}"
                for t in op.tensors
            ],
        )
    )
    parts.append(
        _array(
            "FlagSpec",
            "flags",
            [
                f"{{{quoted(f.name)}, FlagKind::{f.kind}, {f.values.index(f.default)}, {f.name}_values}}"
                for f in op.flags
            ],
        )
    )
    parts.append(
        _array(
            "PrecisionSpec",
            "precisions",
            [
                f"{{{quoted(p.name)}, {_operands(op, p)}, p{i}_dtypes, p{i}_sizes, {f'p{i}_flags' if op.flags else '{}'}}}"
                for i, p in enumerate(op.precisions)
            ],
        )
    )
    parts.append(_array("const char*", "sizes", [quoted(n) for n in sizes]))
    parts.append(
        _array(
            "ConfigField",
            "config",
            [f"{{{quoted(c.name)}, {c.default}, {c.name}_accepted}}" for c in op.config],
        )
    )
    parts.append(_array("Tuned", "tuned", _rows(op, rows, 0)))
    parts.append(_array("Tuned", "tiling", _rows(op, op.tiling, len(rows))))
    parts.append(
        f"constexpr OpSpec spec{{{quoted(op.name)}, {kernel}, tensors, flags, precisions, sizes, {len(op.sizes)}, "
        "config, tuned, tiling};"
    )
    parts.append(f"}}  // namespace {op.name}_op")
    return "\n".join(parts) + "\n"


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _array(kind: str, name: str, items: Sequence[str]) -> str:
    """A constexpr array, or an empty span: C++ has no arrays of length zero."""
    if not items:
        return (
            f"constexpr std::span<const {kind}> {name}{{}};"
            if kind != "const char*"
            else (f"constexpr std::span<const char* const> {name}{{}};")
        )
    joined = ", ".join(items)
    if len(joined) < 90:
        return f"constexpr {kind} {name}[] = {{{joined}}};"
    return f"constexpr {kind} {name}[] = {{\n    " + ",\n    ".join(items) + "};"


def _dims(op: Op, tensor: OpTensor, sizes: Sequence[str]) -> str:
    lines, layouts = [], []
    for index, layout in enumerate(tensor.layouts):
        name = f"{tensor.name}_dims{index}"
        lines.append(_array("Dim", name, [_dim(size, sizes) for size in layout.shape]))
        layouts.append(f"{{{quoted(layout.name)}, {_bool(layout.accepted)}, {name}}}")
    return "\n".join([*lines, _array("Layout", f"{tensor.name}_layouts", layouts)])


def _dim(size: Size, sizes: Sequence[str]) -> str:
    if not isinstance(size, Expr):
        return f'{{-1, "{size}", [](const int64_t*) -> int64_t {{ return {size}; }}, 0}}'
    plain = sizes.index(size.name) if size.name in sizes else -1
    bound = "".join(f"const int64_t {n} = s[{sizes.index(n)}]; " for n in sorted(size.names()))
    uses = sum(1 << sizes.index(n) for n in size.names())
    value = f"[](const int64_t* s) -> int64_t {{ {bound}return {size.cpp()}; }}"
    return f"{{{plain}, {quoted(str(size))}, {value}, {uses}u}}"


def _mask(values: Iterable[str], accepted: Iterable[str]) -> int:
    chosen = set(accepted)
    return sum(1 << i for i, value in enumerate(values) if value in chosen)


def _when(op: Op, tensor: OpTensor) -> int:
    return _mask(op.flag(tensor.flag).values, tensor.when) if tensor.flag else 0


def _precision(op: Op, index: int, precision: OpPrecision, sizes: Sequence[str]) -> str:
    dtypes = [str(precision.dtypes[t.name].code) for t in op.tensors]
    fixed = [str(precision.sizes.get(name, -1)) for name in sizes]
    flags = [f"{_mask(f.values, precision.flags.get(f.name, f.values))}u" for f in op.flags]
    lines = [
        _array("int32_t", f"p{index}_dtypes", dtypes),
        _array("int64_t", f"p{index}_sizes", fixed),
    ]
    if flags:
        lines.append(_array("uint32_t", f"p{index}_flags", flags))
    return "\n".join(lines)


def _operands(op: Op, precision: OpPrecision) -> int:
    """The first precision that reads the same types: such rows may serve one another."""
    return [operands(p.name) for p in op.precisions].index(operands(precision.name))


def _usable(op: Op) -> list[Entry]:
    """The tuned rows in their order, without those that can serve no call of this op.

    A row of an older spec may name a precision or layout that is gone, lack a layout or have other sizes.
    """
    names = {p.name for p in op.precisions}
    layouts = [f for f in op.flags if f.kind == "layout"]
    return [
        e
        for e in op.tuned
        if e.precision in names
        and len(e.bucket) == len(op.sizes)
        and all(e.flags.get(f.name) in f.values for f in layouts)
    ]


def _rows(op: Op, entries: Sequence[Entry], first: int) -> list[str]:
    """One row an entry; `first` is the number of the arrays of the first."""
    names = [p.name for p in op.precisions]
    return [
        f"{{{quoted(e.level)}, {names.index(e.precision)}, {f't{i}_flags' if op.flags else '{}'}, "
        f"{e.span.over}, t{i}_bucket, t{i}_config}}"
        for i, e in enumerate(entries, first)
    ]


def _tuned(op: Op, index: int, entry: Entry) -> str:
    layouts = [
        str(f.values.index(entry.flags[f.name])) if f.kind == "layout" else "-1" for f in op.flags
    ]
    lines = [_array("int", f"t{index}_flags", layouts)] if layouts else []
    lines.append(_array("int64_t", f"t{index}_bucket", [str(b) for b in entry.bucket]))
    config = [str(entry.config.get(c.name, c.default)) for c in op.config]
    lines.append(_array("int64_t", f"t{index}_config", config))
    return "\n".join(lines)
