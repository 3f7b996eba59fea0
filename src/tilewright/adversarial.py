"""Inputs that catch kernels which random ones let pass.

A kernel that clamps, flushes, drops a tail, skips a zero or sums in too few bits can be right on normal
draws. These are made so that the error model of the random draw still holds: sums are exact in any
order where terms cancel, so that a right kernel has nothing to lose and a wrong one nowhere to hide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tilewright.dims import Expr, evaluate
from tilewright.inputs import Inputs, draw, from_logical

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.spec import KernelSpec

# Large and small terms of a sum that cancels: exact in every type, and their sums in an fp32 accumulator.
_LARGE, _SMALL = 64, 2
# Magnitudes stay within these powers of two, so that products are normal numbers of fp32.
_WIDEST, _FINEST = 12, -24


def names(family: Family, case: Case) -> tuple[str, ...]:
    """The draws of a family whose outputs are sums of products.

    Empty for any other, and for one whose inputs follow rules of its own (`make_inputs`).
    """
    spec = family.spec
    if spec.make_inputs is not None or not _summed(spec, case):
        return ()
    return tuple(_MAKERS)


def draw_adversarial(family: Family, case: Case, name: str, seed: int) -> Inputs:
    """The draw `name` of a case from `seed`; kept with a failure, since `check` does not draw it again."""
    import torch

    spec = family.spec
    generator = torch.Generator().manual_seed(seed)
    logical = dict(draw(family, case, seed).logical)
    summed = _summed(spec, case)
    first = True
    for tensor in spec.inputs:
        old = logical.get(tensor.name)
        if old is not None and tensor.init == "scale" and name in _EXACT:
            # Exact too, and near 1: what is left of a sum is small enough without a small scale.
            halves = torch.randint(-1, 2, old.shape, generator=generator)
            logical[tensor.name] = torch.ldexp(torch.ones(old.shape), halves).to(old.dtype)
            continue
        axes = [i for i, d in enumerate(tensor.dims) if _name(d) in summed]
        if old is None or not axes:
            continue
        value = _MAKERS[name](old, axes[-1], first, _hi(spec, case, summed), generator)
        logical[tensor.name] = value.to(old.dtype)
        first = False
    return from_logical(family, case, logical)


def _name(size: object) -> str | None:
    return size.name if isinstance(size, Expr) else None


def _summed(spec: KernelSpec, case: Case) -> frozenset[str]:
    """Sizes that products are summed over: in two inputs, and in no output."""
    outputs = {_name(d) for t in spec.outputs if t.present(case) for d in t.dims}
    inputs = [{_name(d) for d in t.dims} for t in spec.inputs if t.present(case)]
    found = {n for one in inputs for n in one if n and n not in outputs}
    return frozenset(n for n in found if sum(n in one for one in inputs) == 2)


def _hi(spec: KernelSpec, case: Case, summed: frozenset[str]) -> int:
    """The power of two that inputs may reach while sums of their products fit the output."""
    import torch

    sizes = spec.sizes_of(case)
    terms = max(2.0, float(math.prod(evaluate(Expr("dim", (n,)), sizes) for n in summed)))
    limits = []
    for tensor in spec.outputs:
        kind = spec.dtype_of(tensor, case)
        if tensor.present(case) and not kind.is_integer:
            limits.append(math.log2(torch.finfo(kind.torch()).max))
    room = min(limits, default=2.0 * _WIDEST + math.log2(terms))
    return max(0, min(_WIDEST, math.floor((room - math.log2(terms)) / 2) - 1))


Maker = Callable[["torch.Tensor", int, bool, int, "torch.Generator"], "torch.Tensor"]


def _wide(
    old: torch.Tensor, axis: int, first: bool, hi: int, generator: torch.Generator
) -> torch.Tensor:
    """Huge and tiny values side by side."""
    import torch

    if not old.dtype.is_floating_point:
        return _ends(old, axis, first, hi, generator)
    low = max(_FINEST, math.ceil(math.log2(torch.finfo(old.dtype).tiny)))
    powers = torch.randint(low, hi + 1, old.shape, generator=generator)
    signs = torch.randint(0, 2, old.shape, generator=generator) * 2 - 1
    mantissas = 1 + torch.rand(old.shape, generator=generator)
    return torch.ldexp(signs * mantissas, powers)


def _cancel(
    old: torch.Tensor, axis: int, first: bool, hi: int, generator: torch.Generator
) -> torch.Tensor:
    """Large terms in pairs that cancel exactly, and small ones that are all that is left."""
    import torch

    size = old.shape[axis]
    half = size // 2
    shape = [half if i == axis else n for i, n in enumerate(old.shape)]
    signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    # Every eighth pair is small and does not cancel.
    small = (torch.arange(half) % 8 == 7).reshape(
        [-1 if i == axis else 1 for i in range(old.dim())]
    )
    rest = torch.randint(-_SMALL, _SMALL + 1, old.shape, generator=generator)
    made = rest.clone()
    if half:
        pair = torch.where(small, rest.narrow(axis, 0, half), signs * (_LARGE if first else 1))
        partner = torch.where(small, pair, -pair) if first else pair
        even, odd = (torch.arange(half) * 2, torch.arange(half) * 2 + 1)
        made.index_copy_(axis, even, pair)
        made.index_copy_(axis, odd, partner)
    return made


def _needle(
    old: torch.Tensor, axis: int, first: bool, hi: int, generator: torch.Generator
) -> torch.Tensor:
    """All zeros but one term of each sum: at the ends, and at and beside multiples of 8."""
    import torch

    if not first:
        return old
    size = old.shape[axis]
    made = torch.zeros(old.shape, dtype=torch.float32)
    if not size:
        return made
    rows = torch.movedim(made, axis, -1)
    count = rows[..., 0].numel()
    edges = [p for base in range(0, size + 1, 8) for p in (base - 1, base) if 0 <= p < size]
    places = torch.tensor([size - 1, 0, *edges])
    chosen = places[torch.arange(count) % len(places)].reshape(rows.shape[:-1])
    rows.scatter_(-1, chosen.unsqueeze(-1), 1.0)
    return made


def _ends(
    old: torch.Tensor, axis: int, first: bool, hi: int, generator: torch.Generator
) -> torch.Tensor:
    """Only values at the ends: the largest that sums bear, the smallest normal one, zero; of integers the extremes."""
    import torch

    if old.dtype.is_floating_point:
        tiny = max(2.0**_FINEST, float(torch.finfo(old.dtype).tiny))
        ends = [0.0, tiny, -tiny, 2.0**hi, -(2.0**hi), 1.0]
    else:
        kind = torch.iinfo(old.dtype)
        ends = [float(kind.min), float(kind.max), 0.0, -1.0 if kind.min else 1.0]
    picks = torch.randint(0, len(ends), old.shape, generator=generator)
    return torch.tensor(ends, dtype=torch.float64)[picks]


_MAKERS: Mapping[str, Maker] = {
    "wide": _wide,
    "cancel": _cancel,
    "needle": _needle,
    "ends": _ends,
}
# Draws whose sums are small and exact, scales included.
_EXACT = ("cancel", "needle")
