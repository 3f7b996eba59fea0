"""Where two assignments of backends part: every call of one pass on both, each on the same inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from tilewright.backends.table import backend as backend_named
from tilewright.check import tolerance
from tilewright.engine.batch import alone
from tilewright.engine.calls import Call
from tilewright.engine.linear import Linear, Tapped
from tilewright.engine.loop import Engine
from tilewright.engine.ops import Ops
from tilewright.engine.session import Choices, open_engine
from tilewright.errors import TilewrightError
from tilewright.kernels._kv.formats import PAGE
from tilewright.models.checkpoint import Checkpoint
from tilewright.numerics import Comparison, compare
from tilewright.registry import family as family_named


@dataclass(slots=True)
class Heard:
    """Counts calls of `ops` by family, by `family=backend`, by precision and by `flag=value`."""

    ops: Ops
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, call: Call) -> None:
        ran = f"{call.family}={self.ops.backends.of(call.family)}"
        self.counts.update((call.family, ran, call.precision))
        self.counts.update(f"{k}={v}" for k, v in call.flags.items())


@dataclass(frozen=True, slots=True)
class Difference:
    """An output of a call on both sides. `layer` is -1 behind the last one; `call` counts from 0.

    `a` and `b` are the values of the worst element, at `found.worst_index`.
    """

    call: int
    layer: int
    op: str
    case: str
    output: str
    found: Comparison
    a: float
    b: float


@dataclass(frozen=True, slots=True)
class Diff:
    """Of `calls` calls, the outputs that differ by more than both sides' tolerances.

    `share` is the largest difference as a part of what is tolerated, 0 where all bits agree. `heard` counts
    the calls of side b by family, by `family=backend` and by `flag=value`.
    """

    calls: int
    differences: tuple[Difference, ...]
    share: float
    heard: Counter[str]


def diff(
    model: Checkpoint,
    a: str,
    b: str,
    prompt: Sequence[int],
    choices: Choices | None = None,
    step: Callable[[str], object] = lambda _: None,
) -> Diff:
    """One pass over a prompt with backends `a`, then with `b`, whose every output is put to what `a` gave.

    So a call's inputs are the same on both sides, and what differs is that call's own doing. Two backends
    may differ by the sum of their tolerances against exact arithmetic (each family's spec says why).
    Raises what `open_engine` raises, and TilewrightError where the sides do not make the same calls.
    """
    choices = replace(choices or Choices(), pages=-(-len(prompt) // PAGE) + 1)
    kept: list[tuple[Call, dict[str, Tensor], int]] = []
    engine, where = _traced(model, replace(choices, backends=a))

    def keep(call: Call) -> None:
        kept.append((call, {n: t.clone() for n, t in call.outputs.items()}, where.layer))
        step(call.family)

    engine.ops.after = keep
    _pass(engine, prompt)
    differences: list[Difference] = []
    shares = [0.0]
    number = 0
    other, _ = _traced(model, replace(choices, backends=b))
    heard = Heard(other.ops)

    def hold(call: Call) -> None:
        nonlocal number
        if number >= len(kept) or kept[number][0].family != call.family:
            raise TilewrightError(f"call {number} is {call.family} with {b}, and not with {a}")
        theirs, wanted, layer = kept[number]
        heard(call)
        sides = (engine.ops.backends.of(call.family), other.ops.backends.of(call.family))
        for name, want in wanted.items():
            found = _compared(call, name, want, sides)
            shares.append(found.rel_err / found.tolerance if found.tolerance else found.rel_err)
            if not found.ok:
                at = found.worst_index
                values = (float(t[at]) if at else 0.0 for t in (want, call.outputs[name]))
                case = ",".join(f"{k}={v}" for k, v in theirs.sizes.items())
                differences.append(
                    Difference(number, layer, call.family, case, name, found, *values)
                )
            call.outputs[name].copy_(want)
        number += 1
        step(call.family)

    other.ops.after = hold
    try:
        _pass(other, prompt)
    finally:
        other.ops.after = None  # `hold` knows both engines: a circle that is freed late, if ever
    if number < len(kept):
        raise TilewrightError(f"{a} makes {len(kept)} calls, and {b} makes {number}")
    return Diff(number, tuple(differences), max(shares), heard.counts)


def _compared(call: Call, name: str, want: Tensor, sides: tuple[str, str]) -> Comparison:
    family = family_named(call.family)
    case = family.spec.case(call.sizes, call.precision, call.flags)
    allowed = sum(tolerance(family, case, backend_named(side), name) for side in sides)
    return compare(call.outputs[name], want, allowed, family.spec.unit_of(name))


@dataclass(slots=True)
class _Where:
    layer: int = 0

    def tap(self, linear: Linear, layer: int) -> Linear:
        """A linear that tells where in the model a pass is."""
        return Tapped(linear, lambda _: setattr(self, "layer", layer))


def _traced(model: Checkpoint, choices: Choices) -> tuple[Engine, _Where]:
    """An engine whose passes keep track of the layer, which begins with `qkv`."""
    engine, where = open_engine(model, choices), _Where()
    net = engine.model
    net.layers = tuple(
        replace(layer, qkv=where.tap(layer.qkv, i)) for i, layer in enumerate(net.layers)
    )
    net.head = where.tap(net.head, -1)
    return engine, where


def _pass(engine: Engine, prompt: Sequence[int]) -> None:
    engine.model.forward(engine.ops, engine.cache, alone(prompt))
