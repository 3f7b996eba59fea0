"""Our own kernel under another flag as a peer: what `batch_invariant` costs, what int8 saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tilewright.errors import Unavailable
from tilewright.inputs import from_logical
from tilewright.peers import Peer

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs
    from tilewright.perf.rows import Subject


def is_flag(wanted: str) -> bool:
    """Whether a name given to `--against` is a flag of our own, such as `batch_invariant=yes`."""
    return "=" in wanted


def itself(subject_of: Callable[[Case], Subject], case: Case, inputs: Inputs, wanted: str) -> Peer:
    """The kernel of a subject under the flag `NAME=VALUE`, on the same logical inputs."""

    def prepare() -> Callable[[], Any]:
        name, _, value = wanted.partition("=")
        family = subject_of(case).family
        other = family.spec.case(
            case.sizes, case.precision, {**case.flags, name: value}, case.memory
        )
        launch = subject_of(other).prepare(from_logical(family, other, inputs.logical))
        wanted_outputs = [t.name for t in family.spec.outputs if t.present(case)]
        missing = [n for n in wanted_outputs if n not in launch.outputs]
        if missing:
            raise Unavailable(f"with {wanted} there is no output {missing[0]} to compare")
        outputs = tuple(launch.outputs[n] for n in wanted_outputs)

        run = launch.device.enqueue if launch.device else launch.run

        def call() -> Any:
            run()
            return outputs

        return call

    return Peer(wanted, f"the same kernel with {wanted}", prepare)
