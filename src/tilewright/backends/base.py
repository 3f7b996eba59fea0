"""What a backend is: it says what it can do here, why it refuses, and prepares a launch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tilewright.evidence import Evidence

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case
    from tilewright.inputs import Inputs
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.spec import Precision
    from tilewright.targets import Target


class State(StrEnum):
    """What this machine can do with one cell of the matrix."""

    RUN = "run"
    INTERPRET = "interpret"
    TWIN = "twin"
    COMPILE = "compile"
    MODEL = "model"
    ABSENT = "absent"

    @property
    def checks(self) -> bool:
        """Whether outputs can be computed here, so that a check counts the cell."""
        return self in (State.RUN, State.INTERPRET, State.TWIN)

    @property
    def evidence(self) -> Evidence:
        """How numbers about outputs were obtained: on the hardware named, or on a model of it."""
        if self is State.COMPILE:
            return Evidence.COMPILED
        return Evidence.MEASURED if self is State.RUN else Evidence.MODELLED


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix of `tilewright list`."""

    family: str
    backend: str
    target: str
    dtype: str
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A call as the queue of a GPU takes it: `enqueue` does not wait, `inputs` are what it reads there."""

    enqueue: Callable[[], None]
    inputs: Mapping[str, torch.Tensor | None]


@dataclass(frozen=True, slots=True)
class Launch:
    """A call ready to be made any number of times on the same memory.

    `details` is what the last run left behind besides its outputs (findings and peaks of a twin run).
    `native` is a prepared native call that C++ can time without Python in between, `device` a call that
    a GPU can time; where there is one.
    """

    run: Callable[[], None]
    outputs: Mapping[str, torch.Tensor]
    details: dict[str, Any] = field(default_factory=dict)
    native: Any = None
    device: OnDevice | None = None


class Backend(ABC):
    """A way of running kernels. Subclasses are stateless."""

    name: str
    evidence: Evidence = Evidence.MEASURED
    # Checks skip cases with more operations than this: interpreters are slow.
    check_flops: float = float("inf")

    @abstractmethod
    def targets(self) -> tuple[str, ...]:
        """Names of the targets this backend can address, run or not."""

    @abstractmethod
    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        """What this machine can do with the family on a target; cheap, imports neither torch nor triton."""

    @abstractmethod
    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        """Poisoned outputs and a function that fills them; raises Refused or Unavailable with the reason."""

    def refuses(self, family: Family, case: Case, config: Config, target: Target) -> str | None:
        """Why this backend does not do this case; None if it does."""
        for tensor in family.spec.tensors:
            layout = tensor.layout(case)
            if layout.backends is not None and self.name not in layout.backends:
                value = case.flags[tensor.layout_flag or ""]
                return f"{tensor.layout_flag}={value} is for {', '.join(layout.backends)} only"
        space = family.spec.space_for(target)
        return space.illegal(family.spec, case, config, target) if space else None

    def case(
        self,
        family: Family,
        sizes: Mapping[str, int],
        precision: Precision,
        flags: Mapping[str, str] | None,
        config: Config,
        target: Target,
    ) -> Case:
        """The case of these sizes: with the default flags, or the first values this backend takes.

        Flags that are given stay as given.
        """
        spec = family.spec
        wanted = spec.case(sizes, precision.name, flags)
        if self.refuses(family, wanted, config, target) is None:
            return wanted
        for other in spec.flag_combinations(precision, self.name):
            if spec.why_invalid(sizes, precision.name, {**other, **(flags or {})}):
                continue
            case = spec.case(sizes, precision.name, {**other, **(flags or {})})
            if self.refuses(family, case, config, target) is None:
                return case
        return wanted

    def added_error(self, family: Family, case: Case) -> float:
        """Relative error this backend's hardware adds to what the dtypes imply; 0 for most."""
        return 0.0

    def _cell(
        self, family: Family, target: Target, precision: Precision, state: State, reason: str = ""
    ) -> Cell:
        return Cell(family.name, self.name, target.name, precision.name, state, reason)
