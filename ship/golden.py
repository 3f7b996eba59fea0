"""Golden vectors: stored calls with the outputs fp64 arithmetic gives, for the receiver to run again."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright import numerics
from tilewright.aot.source import fixed_sizes
from tilewright.cases import Case, SizeGrid
from tilewright.dims import Expr
from tilewright.golden import golden_cases
from tilewright.inputs import Inputs, draw, reference_outputs
from tilewright.registry import Family
from tilewright.ship.layout import write_json

if TYPE_CHECKING:
    import torch

    from tilewright.bindings.table import Op, OpArgument
    from tilewright.spec import KernelSpec, Precision

SCHEMA = "tilewright/golden/2"
# All calls of a precision: vectors must not dominate a bundle.
PRECISION_BYTES = 256 << 10
SEED = 20


def write_golden(
    folder: Path,
    families: Sequence[tuple[Family, Op]],
    precisions: Sequence[str] = (),
    for_gpus: bool = False,
) -> int:
    """Write `cases.json` and one safetensors file a family; returns how many calls were stored.

    Outputs are the family's fp64 reference on inputs drawn from a fixed seed. With `precisions`
    only those are stored. `for_gpus` adds calls of the sizes that GPU binaries are made for, where they fix any.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    described = []
    for family, op in families:
        tensors: dict[str, torch.Tensor] = {}
        rows: list[dict[str, Any]] = []
        for precision in family.spec.precisions:
            if precisions and precision.name not in precisions:
                continue
            sources = [golden_cases(family.spec, precision)]
            sources += [_fixed(family, precision)] if for_gpus else []
            for cases in sources:
                for case in _within(family.spec, cases):
                    rows.append(_store(family, op, case, SEED + len(rows), len(rows), tensors))
        file = f"{family.name}.safetensors"
        save_file(tensors, folder / file)
        described.append({"family": family.name, "file": file, "cases": rows})
    write_json(folder / "cases.json", {"schema": SCHEMA, "families": described})
    return sum(len(d["cases"]) for d in described)


def _within(spec: KernelSpec, cases: Iterable[Case]) -> Iterator[Case]:
    """The first of them, as far as the room of a precision goes; one in any case."""
    size = 0
    for number, case in enumerate(cases):
        size += int(spec.bytes_of(case))
        if number and size > PRECISION_BYTES:
            return
        yield case


def _fixed(family: Family, precision: Precision) -> Iterator[Case]:
    """Calls whose sizes are those that the family's GPU binaries fix; none where they take any."""
    if not family.has("triton.py"):
        return
    spec, fixed = family.spec, [dict(f) for f in fixed_sizes(family.module("triton")) if f]
    whole = [sizes for sizes in spec.cases.sizes if all(sizes.values())]
    if not fixed or not whole:
        return
    smallest = min(whole, key=lambda sizes: math.prod(sizes.values()))
    yield from SizeGrid(tuple({**smallest, **one} for one in fixed)).cover(spec, precision, "host")


def _store(
    family: Family,
    op: Op,
    case: Case,
    seed: int,
    number: int,
    tensors: dict[str, torch.Tensor],
) -> dict[str, Any]:
    spec = family.spec
    inputs = draw(family, case, seed)
    call = arguments(family, op, case, inputs)
    stored: dict[str, Any] = {}
    for argument, value in call:
        if hasattr(value, "data_ptr"):
            key = f"{number}.{argument.name}"
            tensors[key] = value.contiguous().clone()  # a file holds no two views
            stored[argument.name] = {"tensor": key, **_placed(spec, argument.name, case)}
        else:
            stored[argument.name] = value
    outputs = []
    for name, value in reference_outputs(family, case, inputs).items():
        key = f"{number}.expected.{name}"
        tensors[key] = value.contiguous().clone()
        tensor = next(t for t in spec.outputs if t.name == name)
        outputs.append(
            {
                "name": name,
                "tensor": key,
                "dtype": spec.dtype_of(tensor, case).torch_name,
                "inout": tensor.inout,
                "tolerance": spec.tolerance_of(name, case),
                "unit": spec.unit_of(name),
            }
        )
    return {
        "name": f"{op.name} {case.precision} {case}",
        "op": op.name,
        **case.as_dict(),
        "seed": seed,
        "args": [stored[a.name] for a, _ in call if not a.keyword_only],
        "kwargs": {a.name: stored[a.name] for a, _ in call if a.keyword_only},
        "outputs": outputs,
    }


def _placed(spec: KernelSpec, name: str, case: Case) -> dict[str, int]:
    """How the receiver places an input: leading dims to pad, so that the call sees a view of larger memory, and alignment."""
    tensor = next(t for t in spec.given if t.name == name)
    layout = tensor.layout(case)
    free = max(0, len(layout.shape) - layout.blocked) if case.memory == "padded" else 0
    return {"free": free, "align": tensor.align}


def arguments(family: Family, op: Op, case: Case, inputs: Inputs) -> list[tuple[OpArgument, Any]]:
    """The arguments of the torch op for a case: tensors, flag texts, sizes, `{"dtype": name}`.

    Left at their defaults are sizes that the inputs tell, the config (the op chooses it) and the threads.
    """
    spec = family.spec
    told = {
        size.name
        for t in spec.given
        if t.present(case)
        for size in t.layout(case).shape
        if isinstance(size, Expr)
    }
    flags = {f.argument: f.name for f in op.flags}
    call: list[tuple[OpArgument, Any]] = []
    for argument in op.arguments():
        name = argument.name
        if name in inputs.physical:
            if inputs.physical[name] is not None:
                call.append((argument, inputs.physical[name]))
        elif name in flags:
            value: Any = case.flags[flags[name]]
            if argument.type == "float":
                value = case.number(flags[name])
            call.append((argument, value == "yes" if argument.type == "bool" else value))
        elif name == "out_dtype":
            dtype = spec.precision(case.precision).dtypes[op.outputs[0].name].torch_name
            call.append((argument, {"dtype": dtype}))
        elif name in case.sizes and (argument.default is None or name not in told):
            call.append((argument, case.sizes[name]))
    return call


def compare_source() -> str:
    """The core's own comparison as a module that needs torch only."""
    parts = [
        '"""How outputs are compared; taken from tilewright.numerics as it stands."""',
        "from __future__ import annotations",
        "import math\nfrom dataclasses import dataclass\n\nimport torch",
        f"WORST_ELEMENT_FACTOR = {numerics.WORST_ELEMENT_FACTOR!r}",
        inspect.getsource(numerics.Comparison),
        inspect.getsource(numerics.compare),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"
