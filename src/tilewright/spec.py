"""`KernelSpec`: the one declaration of a kernel family.

Tests, benchmarks, the tuner, generated bindings, docs and bundles are all derived from it. No
shape, tolerance or cost formula of a family stands anywhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilewright.cases import Case, Flag, SizeGrid
from tilewright.dims import Expr, Number, evaluate
from tilewright.dtypes import DType
from tilewright.errors import UsageError, unknown
from tilewright.numerics import Tolerance
from tilewright.space import Config, Space
from tilewright.targets import Target
from tilewright.tensors import Layout, Precision, Ref, Size, Tensor

__all__ = ["KernelSpec", "Layout", "Precision", "Ref", "Size", "Tensor"]


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """The declaration of a family. See `kernels/gemm/spec.py` for how one reads."""

    name: str
    summary: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    precisions: tuple[Precision, ...]
    cases: SizeGrid
    tolerance: Tolerance
    flops: Expr | Callable[[KernelSpec, Case], float]
    space: Mapping[str, Space]
    default: Mapping[str, Config]
    reference: Ref
    flags: tuple[Flag, ...] = ()
    make_inputs: Ref | None = None
    # As make_inputs, for calls that are timed: without the values that few calls have and that take long
    # (subnormal ones), which a check wants.
    typical: Ref | None = None
    peers: Ref | None = None
    bench_cases: SizeGrid | None = None
    default_precision: str = ""
    # Bytes that must move at least once, where that is not every present tensor once.
    bytes: Callable[[KernelSpec, Case], float] | None = None
    # The element type whose peak rate bounds a case, where it is not that of the first input; of several, each
    # with its share of the operations.
    computes: Callable[[KernelSpec, Case], DType | Mapping[DType, float]] | None = None
    # What a check tells besides its verdict: `(case, logical inputs, outputs) -> {name: number}`.
    report: Ref | None = None
    # Why sizes and flags do not go together, in one sentence; None where they do.
    valid: Callable[[KernelSpec, Case], str | None] | None = None
    # The config that the sizes alone suggest, for cases nothing is tuned for; None for no suggestion.
    tiling: Callable[[KernelSpec, Case, Target], Config | None] | None = None
    # Why the Triton kernel cannot be lowered for Ascend, in one sentence; empty where it can.
    unlowered: str = ""

    def __post_init__(self) -> None:
        """Raises UsageError for a precision that narrows a flag which the family has not."""
        names = [flag.name for flag in self.flags]
        for precision in self.precisions:
            for name in precision.flags:
                if name not in names:
                    raise unknown(f"flag that {precision.name} of {self.name} narrows", name, names)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.inputs + self.outputs

    @property
    def given(self) -> tuple[Tensor, ...]:
        """What a call is given values for: the inputs, and the outputs that are changed in place."""
        return self.inputs + tuple(t for t in self.outputs if t.inout)

    def precision(self, name: str | None) -> Precision:
        """Look one up; the first is the default. Raises UsageError naming the accepted ones."""
        name = name or self.default_precision or self.precisions[0].name
        for candidate in self.precisions:
            if candidate.name == name:
                return candidate
        raise unknown(f"precision of {self.name}", name, [p.name for p in self.precisions])

    def select_precisions(self, names: Sequence[str]) -> list[Precision]:
        """The named precisions, all of them for no name; `int8` also names every `int8->...`."""
        chosen: dict[str, Precision] = {}
        for name in names:
            found = [p for p in self.precisions if p.name == name or p.name.startswith(f"{name}->")]
            chosen.update({p.name: p for p in found or [self.precision(name)]})
        return list(chosen.values()) if names else list(self.precisions)

    def sizes_of(self, case: Case) -> dict[str, Number]:
        """Every named size a formula may use: the case's dims and the precision's extras."""
        return {**case.sizes, **self.precision(case.precision).sizes}

    def shape(self, tensor: Tensor, case: Case) -> tuple[int, ...]:
        """Physical shape of a tensor in its layout."""
        sizes = self.sizes_of(case)
        return tuple(int(evaluate(d, sizes)) for d in tensor.layout(case).shape)

    def dtype_of(self, tensor: Tensor, case: Case) -> DType:
        return self.precision(case.precision).dtypes[tensor.name]

    def tolerance_of(self, output: str | None, case: Case) -> float:
        """The bound on an output's relative error: its own, or the spec's."""
        return self._tolerance(output).of(self, case)

    def unit_of(self, output: str | None) -> float:
        """What errors of an output's values smaller than it are relative to; see `Tolerance`."""
        return self._tolerance(output).unit

    def _tolerance(self, output: str | None) -> Tolerance:
        own = next((t.tolerance for t in self.outputs if t.name == output), None)
        return own or self.tolerance

    def flops_of(self, case: Case) -> float:
        """Floating point (or integer) operations of one call."""
        if isinstance(self.flops, Expr):
            return float(evaluate(self.flops, self.sizes_of(case)))
        return float(self.flops(self, case))

    def computes_in(self, case: Case) -> Mapping[DType, float]:
        """The element types whose peak rates bound a case, with their shares of its operations."""
        found = self.computes(self, case) if self.computes else self.dtype_of(self.inputs[0], case)
        return {found: 1.0} if isinstance(found, DType) else found

    def bytes_of(self, case: Case) -> float:
        """Bytes that must move at least once: every present tensor, read or written once, or what `bytes` says."""
        if self.bytes is not None:
            return float(self.bytes(self, case))
        total = 0.0
        for tensor in self.tensors:
            if tensor.present(case):
                count = 1
                for size in self.shape(tensor, case):
                    count *= size
                total += count * self.dtype_of(tensor, case).bytes
        return total

    def flag(self, name: str) -> Flag:
        for flag in self.flags:
            if flag.name == name:
                return flag
        raise unknown(f"flag of {self.name}", name, [f.name for f in self.flags])

    def require_flags(self, flags: Mapping[str, str]) -> None:
        """Raise UsageError for a flag, or a value of one, that the family does not have."""
        for name, value in flags.items():
            flag = self.flag(name)
            if flag.normal(value) not in flag.values and not flag.numeric:
                raise unknown(f"value of {name}", value, list(flag.values))

    def takes(self, name: str, value: str, precision: Precision) -> bool:
        """Whether a flag may have a value under a precision."""
        flag = self.flag(name)
        return flag.numeric or value in self.flag_values(flag, precision)

    def flag_values(
        self, flag: Flag, precision: Precision, backend: str | None = None
    ) -> tuple[str, ...]:
        """The values a flag may take under a precision, and for layouts, on a backend."""
        values = precision.flags.get(flag.name, flag.values)
        for tensor in self.tensors:
            if backend is not None and tensor.layout_flag == flag.name:
                values = tuple(
                    v
                    for v in values
                    if v not in tensor.layouts
                    or backend in (tensor.layouts[v].backends or (backend,))
                )
        return values

    def dim_names(self) -> tuple[str, ...]:
        """Names of the free sizes: in the order the cases list them, then of appearance."""
        return _dim_names(self.cases, self.tensors, self.precisions)

    def case(
        self,
        sizes: Mapping[str, int],
        precision: str | None = None,
        flags: Mapping[str, str] | None = None,
        memory: str = "dense",
    ) -> Case:
        """A validated case; raises UsageError with the offending name or value."""
        chosen = self.precision(precision)
        for name in sizes:
            if name not in self.dim_names():
                raise unknown(f"dim of {self.name}", name, list(self.dim_names()))
        missing = [n for n in self.dim_names() if n not in sizes]
        if missing:
            raise UsageError(
                f"{self.name} needs a size for {', '.join(missing)}; given: {dict(sizes)}"
            )
        negative = [n for n, v in sizes.items() if v < 0]
        if negative:
            raise UsageError(f"{negative[0]}={sizes[negative[0]]} is negative; sizes are 0 or more")
        case = self._case(sizes, chosen, flags or {}, memory)
        reason = self.valid(self, case) if self.valid else None
        if reason:
            raise UsageError(f"{self.name} {case}: {reason}")
        return case

    def why_invalid(
        self, sizes: Mapping[str, int], precision: str, flags: Mapping[str, str]
    ) -> str | None:
        """Why these sizes and flags do not go together; None if they do."""
        if self.valid is None:
            return None
        return self.valid(self, self._case(sizes, self.precision(precision), flags, "dense"))

    def _case(
        self, sizes: Mapping[str, int], precision: Precision, flags: Mapping[str, str], memory: str
    ) -> Case:
        values: dict[str, str] = {}
        for flag in self.flags:
            accepted = precision.flags.get(flag.name, flag.values)
            default = flag.default if flag.default in accepted else accepted[0]
            value = flag.normal(str(flags.get(flag.name, default)))
            if value not in accepted and not flag.numeric:
                raise unknown(f"{flag.name} for {precision.name}", value, list(accepted))
            values[flag.name] = value
        for name in flags:
            self.flag(name)
        ordered = {n: int(sizes[n]) for n in self.dim_names()}
        return Case.make(ordered, precision.name, values, memory)

    def flag_combinations(
        self, precision: Precision, backend: str | None = None
    ) -> list[dict[str, str]]:
        """Every combination of flag values under a precision, and on a backend."""
        names = [flag.name for flag in self.flags]
        values = [self.flag_values(flag, precision, backend) for flag in self.flags]
        return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]

    def sample_case(self, precision: Precision, flags: Mapping[str, str]) -> Case | None:
        """A case of the last listed sizes that go with the flags, for asking whether something is taken at all."""
        for sizes in reversed(self.cases.sizes):
            case = self._case(sizes, precision, flags, "dense")
            if self.valid is None or self.valid(self, case) is None:
                return case
        return None

    def check_cases(
        self,
        precision: Precision,
        backend: str | None = None,
        accepts: Callable[[Case], bool] | None = None,
    ) -> Iterator[Case]:
        """The cases a check runs: every declared size, flags cycled so that every value is met.

        `accepts` leaves out flag combinations that a backend refuses.
        """
        yield from self.cases.cover(self, precision, backend, accepts)

    def benchmark_cases(self, precision: Precision) -> Iterator[Case]:
        """The cases a benchmark runs by default: `bench_cases`, or the largest check case."""
        if self.bench_cases is not None:
            yield from self.bench_cases.defaults(self, precision)
            return
        yield max(self.check_cases(precision), key=self.flops_of)

    def space_for(self, target: Target) -> Space | None:
        return self.space.get(target.name) or self.space.get(target.kind)

    def default_config(self, target: Target) -> Config:
        """The baseline of a target, which tuning starts from; empty where the family has nothing to tune."""
        return self.default.get(target.name) or self.default.get(target.kind) or Config({})

    def config_for(self, case: Case, target: Target) -> Config:
        """What a case gets where nothing is tuned: what `tiling` says, if it is legal, else the baseline."""
        baseline = self.default_config(target)
        found = self.tiling(self, case, target) if self.tiling else None
        space = self.space_for(target)
        if found is None or (space and space.illegal(self, case, found, target)):
            return baseline
        return found


# Asked for with every case; frozen specs make it a constant, but their fields do not all hash.
_DIM_NAMES: dict[int, tuple[SizeGrid, tuple[str, ...]]] = {}


def _dim_names(
    cases: SizeGrid, tensors: tuple[Tensor, ...], precisions: tuple[Precision, ...]
) -> tuple[str, ...]:
    known = _DIM_NAMES.get(id(cases))
    if known is None:
        fixed = {name for precision in precisions for name in precision.sizes}
        names: dict[str, None] = dict.fromkeys(cases.sizes[0] if cases.sizes else ())
        for tensor in tensors:
            for size in tensor.dims:
                if isinstance(size, Expr):
                    names.update(dict.fromkeys(sorted(size.names())))
        known = _DIM_NAMES[id(cases)] = (cases, tuple(n for n in names if n not in fixed))
    return known[1]
