"""The table of ops: what a compiled op takes and gives, derived from a family's spec and nothing else.

Both generators (pybind11 and torch), the fake implementations and the tests that compare them read
this table. It is plain data: `Op.as_dict()` is JSON.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tilewright.dims import Expr
from tilewright.dtypes import DType
from tilewright.errors import UsageError
from tilewright.registry import Family
from tilewright.spec import KernelSpec, Size, Tensor
from tilewright.tables import Entry, bucket, operands
from tilewright.targets import CPU

BACKEND = "host"


@dataclass(frozen=True, slots=True)
class OpLayout:
    """One physical form of a tensor; `accepted` is whether compiled host kernels take it."""

    name: str
    shape: tuple[Size, ...]
    accepted: bool


@dataclass(frozen=True, slots=True)
class OpTensor:
    """A tensor of an op. `flag` and `when` say when it is present; `flag` None means always.

    An `inout` tensor is given like an input and changed in place; `output` is False for it.
    """

    name: str
    output: bool
    flag: str | None
    when: tuple[str, ...]
    layouts: tuple[OpLayout, ...]
    layout_flag: str | None
    inout: bool = False
    align: int = 0

    @property
    def optional(self) -> bool:
        return self.flag is not None


@dataclass(frozen=True, slots=True)
class OpFlag:
    """A flag of the spec. `kind`: "layout", "choice" or "number" are arguments, "presence" follows from the tensors given.

    `argument` is its name as an argument: the flag's own, or `return_<name>` where an output has that name.
    """

    name: str
    values: tuple[str, ...]
    default: str
    kind: str
    argument: str

    @property
    def boolean(self) -> bool:
        return self.kind == "choice" and self.values == ("no", "yes")


@dataclass(frozen=True, slots=True)
class OpArgument:
    """One argument of the generated functions: its type as in a torch schema, and its default as there."""

    name: str
    type: str
    default: str | None
    keyword_only: bool

    def schema(self) -> str:
        return f"{self.type} {self.name}" + ("" if self.default is None else f"={self.default}")


@dataclass(frozen=True, slots=True)
class OpPrecision:
    """A combination of element types, with its extra sizes and the flag values it allows."""

    name: str
    dtypes: Mapping[str, DType]
    sizes: Mapping[str, int]
    flags: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ConfigField:
    """One field of the config: accepted values and the default."""

    name: str
    values: tuple[int, ...]
    default: int


@dataclass(frozen=True, slots=True)
class Op:
    """One op, named like its family. `asked` are sizes that the inputs do not always tell."""

    name: str
    summary: str
    tensors: tuple[OpTensor, ...]
    flags: tuple[OpFlag, ...]
    precisions: tuple[OpPrecision, ...]
    sizes: tuple[str, ...]
    asked: tuple[str, ...]
    required_sizes: tuple[str, ...]
    config: tuple[ConfigField, ...]
    tuned: tuple[Entry, ...] = ()
    tiling: tuple[Entry, ...] = ()

    @property
    def inputs(self) -> tuple[OpTensor, ...]:
        return tuple(t for t in self.tensors if not t.output)

    @property
    def outputs(self) -> tuple[OpTensor, ...]:
        return tuple(t for t in self.tensors if t.output)

    @property
    def extra_sizes(self) -> tuple[str, ...]:
        """Sizes that the precision fixes, such as how many k values one lane holds."""
        return tuple(dict.fromkeys(name for p in self.precisions for name in p.sizes))

    @property
    def chooses_out_dtype(self) -> bool:
        """Whether two precisions take the same inputs and differ in the first output."""
        if not self.outputs:
            return False
        inputs = [
            (tuple(p.dtypes[t.name] for t in self.inputs if not t.optional), self._fixed(p))
            for p in self.precisions
        ]
        return len(set(inputs)) < len(inputs)

    def _fixed(self, precision: OpPrecision) -> tuple[tuple[str, ...], ...]:
        """The flag values that tell this precision from others that read the same types."""
        return tuple(tuple(precision.flags.get(f.name, f.values)) for f in self.flags)

    def flag(self, name: str) -> OpFlag:
        return next(f for f in self.flags if f.name == name)

    def accepted(self, flag: OpFlag) -> tuple[str, ...]:
        """The values that a compiled kernel takes: of a layout flag, those of layouts it reads."""
        for tensor in self.tensors:
            if tensor.layout_flag == flag.name:
                return tuple(one.name for one in tensor.layouts if one.accepted)
        return flag.values

    def arguments(self) -> tuple[OpArgument, ...]:
        """Arguments of the torch op, in order: inputs, then by keyword optional inputs, flags, sizes, config."""
        found = [
            OpArgument(t.name, self._type(t), None, False) for t in self.inputs if not t.optional
        ]
        found += [OpArgument(name, "SymInt", None, True) for name in self.required_sizes]
        found += [
            OpArgument(t.name, f"{self._type(t)}?", "None", True) for t in self.inputs if t.optional
        ]
        found += self.flag_arguments()
        if self.chooses_out_dtype:
            found.append(OpArgument("out_dtype", "ScalarType?", "None", True))
        found += [
            OpArgument(n, "SymInt?", "None", True)
            for n in self.asked
            if n not in self.required_sizes
        ]
        return (*found, *self.launch_arguments())

    def _type(self, tensor: OpTensor) -> str:
        """The torch schema's type: `Tensor`, or with the alias it is written through, `Tensor(a!)`."""
        changed = [t.name for t in self.tensors if t.inout]
        return f"Tensor({_alias(changed.index(tensor.name))}!)" if tensor.inout else "Tensor"

    def raw_arguments(self) -> tuple[OpArgument, ...]:
        """Arguments of the raw kernel, which writes into outputs that it is given."""
        found = [
            OpArgument(t.name, "Tensor?" if t.optional else "Tensor", None, False)
            for t in self.tensors
        ]
        return (*found, *self.flag_arguments(), *self.launch_arguments())

    def flag_arguments(self) -> tuple[OpArgument, ...]:
        return tuple(
            OpArgument(f.argument, "bool", "True" if f.default == "yes" else "False", True)
            if f.boolean
            else OpArgument(f.argument, "float", _number(f.default), True)
            if f.kind == "number"
            else OpArgument(f.argument, "str", f'"{f.default}"', True)
            for f in self.flags
            if f.kind != "presence"
        )

    def launch_arguments(self) -> tuple[OpArgument, ...]:
        config = (OpArgument("config", "int[]?", "None", True),) if self.config else ()
        return (*config, OpArgument("threads", "int", "0", True))

    def schema(self) -> str:
        """The torch schema, without a namespace."""
        positional = [a.schema() for a in self.arguments() if not a.keyword_only]
        keywords = [a.schema() for a in self.arguments() if a.keyword_only]
        returns = ", ".join("Tensor" for _ in self.outputs)
        returns = returns if len(self.outputs) == 1 else f"({returns})"  # "()" for none
        return f"{self.name}({', '.join([*positional, '*', *keywords])}) -> {returns}"

    def as_dict(self) -> dict[str, Any]:
        """The table as JSON data; shapes are formulas as text, in Python's and C's common syntax."""
        return {
            "name": self.name,
            "summary": self.summary,
            "schema": self.schema(),
            "tensors": [
                {
                    "name": t.name,
                    "role": "output" if t.output else "input",
                    "flag": t.flag,
                    "when": list(t.when),
                    "inout": t.inout,
                    "align": t.align,
                    "layout_flag": t.layout_flag,
                    "layouts": [
                        {
                            "name": one.name,
                            "shape": [str(s) for s in one.shape],
                            "accepted": one.accepted,
                        }
                        for one in t.layouts
                    ],
                }
                for t in self.tensors
            ],
            "flags": [
                {
                    "name": f.name,
                    "values": list(f.values),
                    "default": f.default,
                    "kind": f.kind,
                    "argument": f.argument,
                }
                for f in self.flags
            ],
            "precisions": [
                {
                    "name": p.name,
                    "dtypes": {k: v.torch_name for k, v in p.dtypes.items()},
                    "sizes": dict(p.sizes),
                    "flags": {k: list(v) for k, v in p.flags.items()},
                }
                for p in self.precisions
            ],
            "sizes": list(self.sizes),
            "asked": list(self.asked),
            "config": [
                {"name": c.name, "values": list(c.values), "default": c.default}
                for c in self.config
            ],
        }


def op_of(family: Family, tuned: Iterable[Entry] = ()) -> Op:
    """The op of a family that has a host kernel; `tuned` are the configs it will apply by itself."""
    spec = family.spec
    tensors = tuple(
        [_tensor(t, False) for t in spec.inputs] + [_tensor(t, not t.inout) for t in spec.outputs]
    )
    flags = tuple(_flag(spec, index) for index in range(len(spec.flags)))
    asked, required = _asked_sizes(spec, tensors)
    space = spec.space_for(CPU)
    default = spec.default_config(CPU)
    fields = space.fields if space else {name: (value,) for name, value in default.items()}
    return Op(
        name=spec.name,
        summary=spec.summary,
        tensors=tensors,
        flags=flags,
        precisions=tuple(OpPrecision(p.name, p.dtypes, p.sizes, p.flags) for p in spec.precisions),
        sizes=spec.dim_names(),
        asked=asked,
        required_sizes=required,
        config=tuple(ConfigField(n, tuple(v), default.get(n, v[0])) for n, v in fields.items()),
        tuned=tuple(tuned),
        tiling=tiling_rows(family),
    )


def tiling_rows(family: Family) -> tuple[Entry, ...]:
    """What the family's tiling says on a CPU at the sizes of its benchmarks, for code that cannot ask it.

    One row for every first size where the others change nothing at any: the choice weighs the distance of all
    sizes, so that a row less at one first size would hand its calls to another. None for a family without a tiling.
    """
    spec = family.spec
    if spec.tiling is None or spec.space_for(CPU) is None:
        return ()
    kinds: dict[tuple[str, ...], tuple[str, dict[str, str]]] = {}
    for precision in spec.precisions:
        for flags in spec.flag_combinations(precision, BACKEND):
            layouts = {k: v for k, v in flags.items() if k.endswith("_layout")}
            kinds.setdefault((operands(precision.name), *layouts.values()), (precision.name, flags))
    rows: list[Entry] = []
    for precision_name, flags in kinds.values():
        found: dict[int, list[Entry]] = {}
        for sizes in (spec.bench_cases or spec.cases).sizes:
            if spec.why_invalid(sizes, precision_name, flags):
                continue
            case = spec.case(sizes, precision_name, flags)
            config = spec.config_for(case, CPU)
            one = Entry(bucket(case), precision_name, flags, config)
            found.setdefault(one.bucket[0], []).append(one)
        first_decides = all(len({e.config for e in same}) == 1 for same in found.values())
        for same in found.values():
            rows += same[:1] if first_decides else same
    return tuple(rows)


def _tensor(tensor: Tensor, output: bool) -> OpTensor:
    layouts = tuple(
        OpLayout(name, layout.shape, layout.backends is None or BACKEND in layout.backends)
        for name, layout in tensor.layouts.items()
    ) or (OpLayout("", tensor.dims, True),)
    flag, when = tensor.when or (None, ())
    return OpTensor(
        tensor.name, output, flag, when, layouts, tensor.layout_flag, tensor.inout, tensor.align
    )


def _number(text: str) -> str:
    """A number as torch prints it in a schema: `0.`, `0.5`."""
    return repr(float(text)).removesuffix("0") if float(text) == int(float(text)) else text


def _alias(index: int) -> str:
    """The names of aliases in a schema: a, b, ... z, a1, b1, ..."""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")


def _flag(spec: KernelSpec, index: int) -> OpFlag:
    """Decide whether a flag is an argument or follows from which optional inputs are given."""
    flag = spec.flags[index]
    taken = any(t.name == flag.name for t in spec.tensors)
    argument = f"return_{flag.name}" if taken else flag.name
    if any(t.layout_flag == flag.name for t in spec.tensors):
        return OpFlag(flag.name, flag.values, flag.default, "layout", argument)
    if flag.numeric:
        return OpFlag(flag.name, flag.values, flag.default, "number", argument)
    governed = [t for t in spec.given if t.when is not None and t.when[0] == flag.name]
    patterns = {tuple(value in t.when[1] for t in governed if t.when) for value in flag.values}
    kind = "presence" if governed and len(patterns) == len(flag.values) else "choice"
    return OpFlag(flag.name, flag.values, flag.default, kind, argument)


def _plain(shape: Iterable[Size]) -> set[str]:
    return {s.name for s in shape if isinstance(s, Expr) and s.name is not None}


def _asked_sizes(
    spec: KernelSpec, tensors: tuple[OpTensor, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sizes that some accepted layouts leave open when optional inputs are absent; and those no input ever tells.

    A size of optional inputs alone is not asked for: it is 0 where they are absent.
    """
    inputs = [t for t in tensors if not t.output]
    needed = {
        n
        for t in tensors
        if t.output or not t.optional
        for one in t.layouts
        for size in one.shape
        if isinstance(size, Expr)
        for n in size.names()
    }
    ever = {n for t in inputs for one in t.layouts for n in _plain(one.shape)}
    choices = [[one for one in t.layouts if one.accepted] for t in inputs if not t.optional]
    asked: dict[str, None] = {}
    for combination in itertools.product(*choices):
        told = {n for one in combination for n in _plain(one.shape)}
        asked.update(dict.fromkeys(n for n in spec.dim_names() if n in needed - told))
    if any(not c for c in choices):
        raise UsageError(f"{spec.name} has an input whose layouts no host kernel takes")
    ordered = tuple(n for n in spec.dim_names() if n in asked)
    return ordered, tuple(n for n in ordered if n not in ever)
