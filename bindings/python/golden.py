"""Golden vectors of the raw kernels: stored calls with the outputs that fp64 arithmetic gives.

    python -m tilewright.bindings.python.golden gemm gemm.safetensors            # write them
    python -m tilewright.bindings.python.golden gemm gemm.safetensors --check    # run this machine's kernels on them

A file made on one machine tells on another, or after a change, whether `_C.ops.<family>` still gives
the same answers within the tolerance of the spec, at whatever level and thread count.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright import native
from tilewright.bindings.table import op_of
from tilewright.cases import Case
from tilewright.errors import CheckFailed, TilewrightError, Unavailable, UsageError
from tilewright.golden import golden_cases
from tilewright.inputs import Inputs, draw, make_outputs, place, reference_outputs
from tilewright.numerics import Comparison, compare, worst
from tilewright.registry import Family
from tilewright.registry import family as family_named

if TYPE_CHECKING:
    import torch

    from tilewright.spec import Precision

SCHEMA = "tilewright/raw-golden/2"
_EXPECTED = "expected."
_SEED = 20


@dataclass(frozen=True, slots=True)
class Vector:
    """One call: inputs as the kernel takes them (absent ones None), fp64 outputs, and how far each may be off."""

    case: Case
    seed: int
    inputs: Mapping[str, torch.Tensor | None]
    expected: Mapping[str, torch.Tensor]
    tolerance: Mapping[str, float]


def vectors(family: Family, precision: Precision) -> Iterator[Vector]:
    """A vector for each golden case, its inputs drawn from a fixed seed."""
    spec = family.spec
    for number, case in enumerate(golden_cases(spec, precision)):
        inputs = draw(family, case, _SEED + number)
        expected = reference_outputs(family, case, inputs)
        bounds = {name: spec.tolerance_of(name, case) for name in expected}
        yield Vector(case, _SEED + number, inputs.physical, expected, bounds)


def check(family: Family, vector: Vector, threads: int = 0) -> Comparison:
    """Run the raw kernel on a vector; the worst comparison over its outputs.

    Raises Unavailable without the native module, or for a family that it was not built with.
    """
    function = getattr(native.module().ops, family.name, None)
    if function is None:
        raise Unavailable(
            f"the native module was built without {family.name}; it has no raw kernel"
        )
    op, case = op_of(family), vector.case
    outputs = make_outputs(family, case, Inputs({}, vector.inputs))
    values = {**vector.inputs, **outputs}
    flags: dict[str, Any] = {
        f.argument: case.flags[f.name] == "yes" if f.boolean else case.flags[f.name]
        for f in op.flags
        if f.kind != "presence"
    }
    flags |= {f.argument: case.number(f.name) for f in op.flags if f.kind == "number"}
    function(*(values.get(t.name) for t in op.tensors), **flags, threads=threads)
    bounds = vector.tolerance
    return worst([compare(outputs[n], ref, bounds[n]) for n, ref in vector.expected.items()])


def save(path: Path, family: Family, chosen: Sequence[Vector]) -> None:
    """Write vectors to one safetensors file, with their cases and tolerances in its metadata."""
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for number, vector in enumerate(chosen):
        for prefix, values in (("", vector.inputs), (_EXPECTED, vector.expected)):
            for name, value in values.items():
                if value is not None:
                    tensors[f"{number}.{prefix}{name}"] = value.contiguous().clone()
    described = [
        {**v.case.as_dict(), "seed": v.seed, "tolerance": dict(v.tolerance)} for v in chosen
    ]
    about = {"schema": SCHEMA, "family": family.name, "vectors": json.dumps(described)}
    save_file(tensors, path, about)


def load(path: Path, family: Family) -> list[Vector]:
    """Read what `save` wrote; raises UsageError for a file that is not such vectors of this family."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be read as golden vectors: {error}") from None
    if (about.get("schema"), about.get("family")) != (SCHEMA, family.name):
        given = f"schema {about.get('schema')} of {about.get('family')}"
        raise UsageError(f"{path} holds {given}; accepted: {SCHEMA} of {family.name}")
    described = enumerate(json.loads(about["vectors"]))
    return [_vector(family, number, entry, tensors) for number, entry in described]


def _vector(
    family: Family, number: int, entry: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> Vector:
    spec = family.spec
    case = spec.case(entry["sizes"], entry["precision"], entry["flags"], entry["memory"])
    inputs: dict[str, torch.Tensor | None] = {}
    for tensor in spec.given:
        value = tensors.get(f"{number}.{tensor.name}")
        inputs[tensor.name] = None if value is None else place(tensor, case, value)
    expected = {
        t.name: tensors[f"{number}.{_EXPECTED}{t.name}"] for t in spec.outputs if t.present(case)
    }
    return Vector(case, entry["seed"], inputs, expected, entry["tolerance"])


def run(
    family: Annotated[str, typer.Argument(help="The family, such as gemm.")],
    file: Annotated[Path, typer.Argument(help="The file of vectors.")],
    checking: Annotated[
        bool, typer.Option("--check", help="Run the raw kernels on a file instead of writing it.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", help="Threads of a call; 0 is all.")] = 0,
) -> None:
    """Write golden vectors of a family's raw kernel, or check the kernel of this machine on them."""
    found = family_named(family)
    if not checking:
        made = [v for p in found.spec.precisions for v in vectors(found, p)]
        save(file, found, made)
        print(f"{len(made)} vectors of {family} in {file}")
        return
    known = load(file, found)
    wrong = [(v, c) for v in known if not (c := check(found, v, threads)).ok]
    for vector, comparison in wrong[:10]:
        print(f"FAILED {family} {vector.case.precision} {vector.case}: {comparison.reason}")
    print(f"{len(known) - len(wrong)} of {len(known)} vectors of {family} ok")
    if wrong:
        raise typer.Exit(CheckFailed.exit_code)


def main() -> None:
    """Entry point; a known failure is one sentence and its exit code."""
    try:
        typer.run(run)
    except TilewrightError as error:
        print(f"golden: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
