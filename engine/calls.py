"""One call of a family on tensors that are already there: what every op of the engine becomes.

A call is run by the backend that its op is assigned to. Calls of the host backend can be recorded and
replayed (`graphs`): they are bound to their memory once, and hold bare addresses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from tilewright.backends.table import backend as backend_named
from tilewright.errors import UsageError
from tilewright.inputs import Inputs
from tilewright.registry import family as family_named
from tilewright.tables import Table, choose, load
from tilewright.targets import target as target_named

if TYPE_CHECKING:
    from tilewright._C import Prepared
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config

# What a backend is run on where the engine uses it; interpreted or on the twin, but for the host.
TARGETS: Mapping[str, str] = {
    "reference": "cpu",
    "host": "cpu",
    "triton": "cuda:sm_80",
    "ascendc": "ascend:910b1",
}


_KINDS = 4096  # cases whose attributes a runner remembers


@dataclass(frozen=True, slots=True)
class Call:
    """A family, what of it is wanted, and the tensors of it: `outputs` exist and are written in place.

    `inputs` are physical, in the layout that `flags` name. `logical` are the same ones as the
    reference takes them, where they differ.
    """

    family: str
    precision: str
    flags: Mapping[str, str]
    sizes: Mapping[str, int]
    inputs: Mapping[str, Tensor | None]
    outputs: Mapping[str, Tensor]
    logical: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Between:
    """Torch arithmetic between calls, on memory that stays: a replay does it in Python."""

    run: Callable[[], object]
    family: str = "torch"

    def profile(self) -> list[int]:
        """Run; the ns it took."""
        start = time.perf_counter_ns()
        self.run()
        return [time.perf_counter_ns() - start]


class Runner(Protocol):
    """Runs calls."""

    def run(self, call: Call) -> None:
        """Fill the outputs of the call."""


class _Configs:
    """The config that each case gets on a target; a family's table is read once."""

    def __init__(self, target: str) -> None:
        self.target = target_named(target)
        self._tables: dict[str, Table] = {}

    def of(self, family: Family, case: Case) -> Config:
        if family.name not in self._tables:
            self._tables[family.name] = load(family, self.target)
        return choose(family, case, self.target, self._tables[family.name]).config


class AnyBackend:
    """Through `Backend.prepare`: right for every backend, slow, nothing of a call is kept for the next."""

    def __init__(self, name: str, threads: int) -> None:
        self._backend, self._threads = backend_named(name), threads
        self._configs = _Configs(TARGETS[name])

    def run(self, call: Call) -> None:
        """Fill the outputs of the call. Raises Refused with the backend's reason."""
        family, case = _case(call)
        physical = {t.name: call.inputs.get(t.name) for t in family.spec.given}
        physical |= {t.name: call.outputs.get(t.name) for t in family.spec.outputs if t.inout}
        inputs = Inputs(physical | dict(call.logical), physical)
        config, target = self._configs.of(family, case), self._configs.target
        launch = self._backend.prepare(family, case, inputs, config, target, self._threads)
        launch.run()
        for name, value in launch.outputs.items():
            call.outputs[name].copy_(value)


@dataclass(slots=True)
class _Kind:
    """What calls of one case share."""

    function: int
    attributes: dict[str, int]
    order: tuple[str, ...]


class HostRunner:
    """C++ kernels on the tensors as they lie, with the tuned config of each case looked up once.

    While `recording` is a list, prepared calls are also kept there, and what is done between them.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.recording: list[tuple[Prepared | Between, Call | Between]] | None = None
        self.native_ns = 0  # spent in kernels, replays aside
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._configs = _Configs("cpu")

    def run(self, call: Call) -> None:
        """Fill the outputs of the call. Raises Refused with the kernel's sentence."""
        from tilewright import native
        from tilewright.backends.host import view

        kind = self._kind(call)
        tensors = [view(n, call.inputs.get(n, call.outputs.get(n))) for n in kind.order]
        prepared = native.module().prepare(kind.function, tensors, kind.attributes, self.threads)
        started = time.perf_counter_ns()
        prepared.run()
        self.native_ns += time.perf_counter_ns() - started
        if self.recording is not None:
            self.recording.append((prepared, call))  # the call keeps its memory alive

    def _kind(self, call: Call) -> _Kind:
        key = (
            call.family,
            call.precision,
            tuple(call.flags.items()),
            tuple(call.sizes.items()),
        )
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= _KINDS:
                self._kinds.clear()
            found = self._kinds[key] = self._new_kind(call)
        return found

    def _new_kind(self, call: Call) -> _Kind:
        from tilewright import native
        from tilewright.backends.host import attributes

        family, case = _case(call)
        config = self._configs.of(family, case)
        order = tuple(t.name for t in (*family.spec.inputs, *family.spec.outputs))
        return _Kind(native.host_function(family), attributes(family.spec, case, config), order)


def _case(call: Call) -> tuple[Family, Case]:
    family = family_named(call.family)
    return family, family.spec.case(call.sizes, call.precision, call.flags)


def runner(name: str, threads: int) -> Runner:
    """The runner of a backend; raises UsageError naming those there are."""
    if name not in TARGETS:
        raise UsageError(f"no backend '{name}'; accepted: {', '.join(TARGETS)}")
    return HostRunner(threads) if name == "host" else AnyBackend(name, threads)


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialised memory for an output."""
    return torch.empty(shape, dtype=dtype or like.dtype)
