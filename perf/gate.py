"""No time without a right answer: what outputs are compared with, and what is raised when they differ.

`perf.watch` says when: before timing, at moments of it that nobody can foresee, and after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tilewright.check import tolerance
from tilewright.errors import CheckFailed, Unavailable
from tilewright.inputs import Inputs, reference_outputs, restore
from tilewright.numerics import Comparison, compare, worst

if TYPE_CHECKING:
    import torch

    from tilewright.backends import Backend
    from tilewright.cases import Case
    from tilewright.registry import Family


class PeerWrong(Unavailable):
    """The peer's output disagrees with the reference: there is nothing to compare with, and we are not to blame."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Reference outputs of one draw of inputs, with the tolerance they are compared under."""

    outputs: Mapping[str, torch.Tensor]
    tolerance: float
    # Of outputs that have a bound of their own.
    own: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(family: Family, case: Case, inputs: Inputs, backend: Backend) -> Expected:
        own = {
            t.name: tolerance(family, case, backend, t.name)
            for t in family.spec.outputs
            if t.tolerance is not None
        }
        wanted = reference_outputs(family, case, inputs)
        return Expected(wanted, tolerance(family, case, backend), own)

    def judge(self, outputs: Mapping[str, torch.Tensor]) -> Comparison:
        """The worst comparison over all outputs."""
        return worst(
            [
                compare(outputs[name], ref, self.own.get(name, self.tolerance))
                for name, ref in self.outputs.items()
            ]
        )

    def judge_result(self, result: Any) -> Comparison:
        """The same for a value returned by a peer: a tensor, or a tuple in the order of the outputs."""
        values = result if isinstance(result, tuple) else (result,)
        return self.judge(dict(zip(self.outputs, values, strict=True)))


def poison(outputs: Mapping[str, torch.Tensor], inputs: Inputs | None = None) -> None:
    """Overwrite outputs with what no kernel writes, so that only a later call can make them right.

    Those that are changed in place get back what they held before, from `inputs`.
    """
    import torch

    for value in outputs.values():
        value.fill_(math.nan if value.dtype.is_floating_point else torch.iinfo(value.dtype).max)
    if inputs is not None:
        restore(outputs, inputs)


def require(verdict: Comparison, sentence: str) -> None:
    """Raise CheckFailed with the sentence and the reason unless the verdict is good."""
    if not verdict.ok:
        raise CheckFailed(f"{sentence}: {verdict.reason}")


def require_peer(verdict: Comparison, sentence: str) -> None:
    """The same of a peer: raise PeerWrong."""
    if not verdict.ok:
        raise PeerWrong(f"{sentence}: {verdict.reason}")
