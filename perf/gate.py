"""No time without a right answer: outputs are checked before timing, poisoned, and checked again after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tilewright.check import tolerance
from tilewright.errors import CheckFailed, Unavailable
from tilewright.inputs import Inputs, reference_outputs
from tilewright.numerics import Comparison, compare

if TYPE_CHECKING:
    import torch

    from tilewright.backends import Backend
    from tilewright.cases import Case
    from tilewright.registry import Family

T = TypeVar("T")


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


def timed(
    expected: Expected,
    outputs: Mapping[str, torch.Tensor],
    call: Callable[[], object],
    measure: Callable[[], T],
    who: str,
) -> tuple[T, Comparison]:
    """Check, poison, time, check what the timing left; raises CheckFailed before or after, never returns a time
    whose output was wrong."""
    poison(outputs)
    call()
    require(expected.judge(outputs), f"{who} is wrong, so it is not timed")
    poison(outputs)
    result = measure()
    verdict = expected.judge(outputs)
    require(verdict, f"{who} was right before timing and wrong after it, so its time is dropped")
    return result, verdict


def require(verdict: Comparison, sentence: str) -> None:
    """Raise CheckFailed with the sentence and the reason unless the verdict is good."""
    if not verdict.ok:
        raise CheckFailed(f"{sentence}: {verdict.reason}")


def require_peer(verdict: Comparison, sentence: str) -> None:
    """The same of a peer: raise PeerWrong."""
    if not verdict.ok:
        raise PeerWrong(f"{sentence}: {verdict.reason}")
