"""No time without a right answer: what outputs are compared with, and what is raised when they differ.

`perf.watch` says when: before timing, at moments of it that nobody can foresee, and after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilewright.check import tolerance
from tilewright.errors import CheckFailed, Unavailable
from tilewright.inputs import Inputs, reference_outputs
from tilewright.numerics import Comparison, compare

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

    @staticmethod
    def of(family: Family, case: Case, inputs: Inputs, backend: Backend) -> Expected:
        return Expected(reference_outputs(family, case, inputs), tolerance(family, case, backend))

    def judge(self, outputs: Mapping[str, torch.Tensor]) -> Comparison:
        """The worst comparison over all outputs."""
        results = [
            compare(outputs[name], ref, self.tolerance) for name, ref in self.outputs.items()
        ]
        return max(results, key=lambda c: (not c.ok, c.rel_err, c.worst))

    def judge_result(self, result: Any) -> Comparison:
        """The same for a value returned by a peer: a tensor, or a tuple in the order of the outputs."""
        values = result if isinstance(result, tuple) else (result,)
        return self.judge(dict(zip(self.outputs, values, strict=True)))


def poison(outputs: Mapping[str, torch.Tensor]) -> None:
    """Overwrite outputs with what no kernel writes, so that only a later call can make them right."""
    import torch

    for value in outputs.values():
        value.fill_(math.nan if value.dtype.is_floating_point else torch.iinfo(value.dtype).max)


def require(verdict: Comparison, sentence: str) -> None:
    """Raise CheckFailed with the sentence and the reason unless the verdict is good."""
    if not verdict.ok:
        raise CheckFailed(f"{sentence}: {verdict.reason}")


def require_peer(verdict: Comparison, sentence: str) -> None:
    """The same of a peer: raise PeerWrong."""
    if not verdict.ok:
        raise PeerWrong(f"{sentence}: {verdict.reason}")
