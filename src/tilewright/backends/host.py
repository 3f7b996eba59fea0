"""The host backend: compiled C++ kernels of `host.cpp`, called through the C ABI."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tilewright.backends.base import Backend, Cell, Launch, State
from tilewright.dtypes import from_torch
from tilewright.errors import Refused
from tilewright.inputs import Inputs, make_outputs

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case, Flag
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.spec import KernelSpec, Precision
    from tilewright.targets import Target

TensorView = tuple[str, int, int, tuple[int, ...], tuple[int, ...]]


def view(name: str, value: torch.Tensor | None) -> TensorView:
    """A tensor as the C ABI takes it: name, address, dtype code, shape, strides in elements."""
    if value is None:
        return (name, 0, 0, (-1,), ())
    return (
        name,
        value.data_ptr(),
        from_torch(value.dtype).code,
        tuple(value.shape),
        tuple(value.stride()),
    )


def attributes(spec: KernelSpec, case: Case, config: Mapping[str, int]) -> dict[str, int]:
    """Flags as the index of their value (numeric ones as the bits of a double), then the config's fields."""
    return {**{f.name: _code(f, case) for f in spec.flags}, **config}


def _code(flag: Flag, case: Case) -> int:
    if not flag.numeric:
        return flag.values.index(case.flags[flag.name])
    (bits,) = struct.unpack("<q", struct.pack("<d", case.number(flag.name)))
    return int(bits)


class Host(Backend):
    """C++ SIMD on this machine's processor; everything about it is real here."""

    name = "host"

    def targets(self) -> tuple[str, ...]:
        return ("cpu",)

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        from tilewright import native

        if not family.has("host.cpp"):
            return self._cell(family, target, precision, State.ABSENT, "the family has no host.cpp")
        missing = native.why_missing()
        if missing:
            return self._cell(family, target, precision, State.ABSENT, missing)
        return self._cell(family, target, precision, State.RUN)

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        from tilewright import native

        reason = self.refuses(family, case, config, target)
        if reason:
            raise Refused(f"host refuses {family.name} {case}: {reason}")
        outputs = make_outputs(family, case, inputs)
        tensors = [view(t.name, inputs.physical[t.name]) for t in family.spec.inputs]
        tensors += [view(t.name, outputs.get(t.name)) for t in family.spec.outputs]
        prepared = native.module().prepare(
            native.host_function(family), tensors, attributes(family.spec, case, config), threads
        )

        # The launch keeps the inputs alive: the native call holds bare addresses.
        def run(_alive: Inputs = inputs) -> None:
            prepared.run()

        return Launch(run, outputs, native=prepared)
