"""The ascendc backend: AscendC kernels on the host twin of the 910B.

A family's AscendC folder has its `.cpp` sources and an `adapter.py` with `refuses(case, config,
target)`, `launch(tensors, case, config, target, lib_path, ...)`, `count(case, config, target,
lib_path, ...)` (the same without data), `floor(case, config, target, result, cores)` and, where the
hardware's arithmetic adds an error of its own, `added_error(case)`. For modelled times it may have
`representatives(case, config, target)` (blocks that stand for all), `on_cores(case, config, target,
cores)` and `validated_by(case, config)`; `limits(precision, target)` says in words which sizes are
refused, for the matrix. Both runs take `kernel_library`,
`threads` and `trace` by keyword and hand them to `tilewright.ascendc.twin.runner.run`.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from tilewright.backends.answers import answers
from tilewright.backends.base import Backend, Cell, Launch, State
from tilewright.cases import FULL_PRODUCT
from tilewright.errors import IMPORT_CRASHES, Refused, TilewrightError, UsageError
from tilewright.evidence import Evidence
from tilewright.inputs import Inputs, make_outputs
from tilewright.targets import ALL

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.spec import Precision
    from tilewright.targets import Target


class TwinRun(Protocol):
    """What a run of the twin leaves behind."""

    @property
    def ok(self) -> bool: ...
    @property
    def findings(self) -> Sequence[object]: ...
    @property
    def peak(self) -> Mapping[str, int]: ...
    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]: ...
    @property
    def blocks(self) -> int: ...


class Floor(Protocol):
    """A lower bound on time, in cycles: per pipe and of the busiest one."""

    @property
    def cycles(self) -> float: ...
    @property
    def pipes(self) -> Mapping[str, float]: ...
    @property
    def bound_by(self) -> str: ...
    def microseconds(self, mhz: int) -> float: ...


def build_kernel_library(family: Family) -> Path:
    """The shared library of the AscendC sources of a family outside the package, kept by content.

    Raises Unavailable without a compiler, BuildFailed with the first error of a compiler that rejects it.
    """
    from tilewright.build import build, digest, sources
    from tilewright.machine import cache_folder
    from tilewright.registry import package_folder

    room = package_folder("tilewright.ascendc")
    project = room / "twin" / "external"
    key = digest(
        sources(family.ascendc_folder),
        sources(room / "include"),
        sources(project),
        words=[family.name],
    )
    name = f"libtilewright_ascendc_{family.name}.so"
    target = cache_folder("build", f"ascendc-{family.name}-{key}", name)
    if not target.exists():
        options = {
            "TW_FAMILY": family.name,
            "TW_FOLDER": str(family.ascendc_folder),
            "TW_OUTPUT": target.stem,
        }
        build(project, options, target, f"the AscendC kernel of {family.name}")
    return target


_libraries: dict[tuple[str, Path], Path] = {}


def kernel_library(family: Family) -> Path | None:
    """Where a family's kernels are: None for our own, which the twin's library holds, else built when first asked for."""
    if family.built_in:
        return None
    key = (family.name, family.folder)
    if key not in _libraries:
        _libraries[key] = build_kernel_library(family)
    return _libraries[key]


def refused_values(refused: Sequence[Mapping[str, str]], taken: Sequence[Mapping[str, str]]) -> str:
    """Flag values (or, failing that, combinations) that are always refused, as `flag=value, ...`."""
    accepted = {item for flags in taken for item in flags.items()}
    alone = dict.fromkeys(
        item for flags in refused for item in flags.items() if item not in accepted
    )
    words = [f"{name}={value}" for name, value in alone]
    words += [
        " with ".join(f"{name}={value}" for name, value in flags.items())
        for flags in refused
        if not alone.keys() & flags.items()
    ]
    return ", ".join(words)


# Limits of a chip that do not bear on whether one core can do a case.
_OF_THE_WHOLE = ("aic_cores", "aiv_cores", "mhz")
_answers: dict[tuple[str, Path, str, tuple[int, ...]], tuple[State, str]] = {}
_samples: dict[tuple[str, Path, str], tuple[list[dict[str, str]], list[Case | None]]] = {}


def samples(family: Family, precision: Precision) -> tuple[list[dict[str, str]], list[Case | None]]:
    """Combinations of flags to ask a kernel about, and a case of each: all of a few, else the default ones
    and each other value of a flag with the rest at their defaults."""
    key = (family.name, family.folder, precision.name)
    if key not in _samples:
        spec = family.spec
        values = {f.name: spec.flag_values(f, precision, "ascendc") for f in spec.flags}
        if math.prod(map(len, values.values())) <= FULL_PRODUCT:
            chosen = spec.flag_combinations(precision, "ascendc")
        else:
            usual = {
                f.name: f.default if f.default in values[f.name] else values[f.name][0]
                for f in spec.flags
            }
            others = [
                {**usual, name: value}
                for name, accepted in values.items()
                for value in accepted
                if value != usual[name]
            ]
            chosen = [usual, *others]
        _samples[key] = chosen, [spec.sample_case(precision, flags) for flags in chosen]
    return _samples[key]


class AscendC(Backend):
    """Outputs are computed by the twin; nothing about time is measured."""

    name = "ascendc"
    evidence = Evidence.MODELLED
    check_flops = 1.0e9

    def targets(self) -> tuple[str, ...]:
        return tuple(name for name, target in ALL.items() if target.kind == "ascend")

    @staticmethod
    def adapter(family: Family) -> ModuleType:
        """The family's own module (see above)."""
        name = f"{family.ascendc_package}.adapter"
        if name in sys.modules:
            return sys.modules[name]
        try:
            return importlib.import_module(name)
        except TilewrightError:
            raise
        except IMPORT_CRASHES as error:
            raise UsageError(
                f"{family.ascendc_folder / 'adapter.py'} cannot be imported: {type(error).__name__}: {error}"
            ) from error

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        from tilewright import native

        def absent(reason: str) -> Cell:
            return self._cell(family, target, precision, State.ABSENT, reason)

        on_chip = tuple(v.value for k, v in target.limits.items() if k not in _OF_THE_WHOLE)
        key = (family.name, family.folder, precision.name, on_chip)
        if key in _answers:
            return self._cell(family, target, precision, *_answers[key])
        if not (family.ascendc_folder / "adapter.py").is_file():
            return absent("the family has no AscendC kernel")
        if not any(family.ascendc_folder.glob("*.cpp")):
            return absent(f"{family.ascendc_folder} has an adapter.py and no .cpp beside it")
        if "twin" not in native.library_paths():
            return absent("libtilewright_twin.so is not built; run `make setup`")
        kept = answers() if family.built_in else None
        name = f"ascendc {family.name} {precision.name} {on_chip}"
        if kept and (known := kept.get(name)):
            _answers[key] = (State(known[0]), known[1])
            return self._cell(family, target, precision, *_answers[key])
        try:
            self.adapter(family)
        except UsageError as error:
            return absent(str(error))
        _answers[key] = self._answer(family, target, precision)
        if kept:
            kept.put(name, *_answers[key])
        return self._cell(family, target, precision, *_answers[key])

    def _answer(self, family: Family, target: Target, precision: Precision) -> tuple[State, str]:
        """Whether a kernel takes a precision with its default config, and in words what it refuses."""
        combinations, cases = samples(family, precision)
        reasons = [self._cell_reason(family, target, case) for case in cases]
        taken = [flags for flags, why in zip(combinations, reasons, strict=True) if why is None]
        if not taken:
            return State.ABSENT, reasons[-1] or ""
        refused = [flags for flags, why in zip(combinations, reasons, strict=True) if why]
        text = "runs on the host twin; no time is measured"
        if refused:
            text += f"; not {refused_values(refused, taken)}"
        limits = getattr(self.adapter(family), "limits", None)
        if limits:
            text += f"; {limits(precision.name, target)}"
        return State.TWIN, text

    def _cell_reason(self, family: Family, target: Target, case: Case | None) -> str | None:
        if case is None:
            return "no case of the spec has these flags"
        return self.refuses(family, case, family.spec.default_config(target), target)

    def refuses(self, family: Family, case: Case, config: Config, target: Target) -> str | None:
        reason = super().refuses(family, case, config, target)
        if reason:
            return reason
        found: str | None = self.adapter(family).refuses(case, config, target)
        return found

    def added_error(self, family: Family, case: Case) -> float:
        function = getattr(self.adapter(family), "added_error", None)
        return float(function(case)) if function else 0.0

    def bound(
        self,
        family: Family,
        case: Case,
        config: Config,
        target: Target,
        result: TwinRun,
        cores: int | None = None,
    ) -> Floor:
        """The floor on the launch's time that follows from its instructions."""
        found: Floor = self.adapter(family).floor(
            case, config, target, result, cores or target.limit("aic_cores")
        )
        return found

    def model(
        self,
        family: Family,
        case: Case,
        config: Config,
        target: Target,
        threads: int = 0,
        trace: Path | None = None,
    ) -> tuple[TwinRun, Floor]:
        """Issue the instructions without data; what they are, and the floor they imply."""
        from tilewright import native

        reason = self.refuses(family, case, config, target)
        if reason:
            raise Refused(f"ascendc refuses {family.name} {case}: {reason}")
        result = self.adapter(family).count(
            case,
            config,
            target,
            native.library("twin"),
            kernel_library=kernel_library(family),
            threads=threads,
            trace=trace,
        )
        return result, self.bound(family, case, config, target, result)

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
        trace: Path | None = None,
    ) -> Launch:
        """A launch on the twin; `trace` holds the instructions of the last run."""
        from tilewright import native

        reason = self.refuses(family, case, config, target)
        if reason:
            raise Refused(f"ascendc refuses {family.name} {case}: {reason}")
        outputs = make_outputs(family, case, inputs)
        tensors = {**inputs.physical, **outputs}
        twin, kernels = native.library("twin"), kernel_library(family)
        adapter = self.adapter(family)
        details: dict[str, Any] = {}

        def run() -> None:
            result = adapter.launch(
                tensors,
                case,
                config,
                target,
                twin,
                kernel_library=kernels,
                threads=threads,
                trace=trace,
            )
            floor = self.bound(family, case, config, target, result)
            details.update(
                findings=[str(f) for f in result.findings],
                peak=dict(result.peak),
                result=result,
                cycles=floor.cycles,
                floor=floor,
            )

        return Launch(run, outputs, details)
