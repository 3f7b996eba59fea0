"""beam_topk in plain torch: stable sorts, softmax and sums in fp64; codes in fp32, as they are defined."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.cases import Case
from tilewright.kernels.beam_topk.spec import CODES_A_UNIT, WINDOW, survivors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tilewright.spec import KernelSpec

# What +inf counts as: the largest fp32.
LARGEST = torch.finfo(torch.float32).max
# Beams apart by less than this share could change places by rounding; drawn scores keep off it.
_MARGIN = 2e-5


def beam_topk(
    logits: Tensor,
    row_max: Tensor | None = None,
    scores: Tensor | None = None,
    finished: Tensor | None = None,
    *,
    case: Case,
) -> tuple[Tensor, ...]:
    """(ids, probs) [B,K] of logits [B,V]; with scores and finished [G,W], (next_beam, next_id, next_score) [G,K].

    Larger first, of equal ones the lower id. Logits are fp32, bf16, fp16, or int8 codes, whose 127 stands for
    row_max [B] and each step down for 16/255 less. NaN counts as -inf, +inf as the largest fp32.
    """
    values = _values(logits, row_max)
    k, coarse = case.sizes["K"], case.flags["int8"] == "yes" and row_max is None
    chosen = _by_code(values, survivors(k, values.shape[1])) if coarse else values
    temperature = case.number("temperature")
    if scores is None or finished is None:
        top, ids = torch.sort(chosen, dim=1, descending=True, stable=True)
        top, ids = top[:, :k], ids[:, :k].to(torch.int32)
        summed = values if case.flags["softmax"] == "row" else top
        return ids, (_log_weights(top, summed, temperature)).exp()
    return _step(chosen, values, scores, finished, case)


def codes(values: Tensor) -> Tensor:
    """Codes [B,V] int32 of logits: 127 of a row's largest, -128 of what lies 16 or more below; -129 of -inf.

    clamp(rint((x - max) * 15.9375), -255, 0) + 127, difference and product rounded to fp32.
    """
    x = values.to(torch.float32)
    largest = x.amax(dim=1, keepdim=True) if x.shape[1] else x
    scaled = torch.round((x - largest) * CODES_A_UNIT).clamp(-255, 0)
    found = scaled.nan_to_num(nan=-256.0) + 127
    return torch.where(torch.isneginf(x), -129.0, found).to(torch.int32)


def agreement(logits: Tensor, k: int) -> float:
    """The share of the exact K largest of logits [B,V] that are among those found by their codes."""
    values = _values(logits.to(torch.float64), None)
    kept = _by_code(values, survivors(k, values.shape[1]))
    found, exact = (
        torch.sort(v, dim=1, descending=True, stable=True)[1][:, :k] for v in (kept, values)
    )
    same = (found[:, :, None] == exact[:, None, :]).any(dim=2)
    return float(same.double().mean()) if same.numel() else 1.0


def report(
    case: Case, inputs: Mapping[str, Tensor | None], outputs: Mapping[str, Tensor]
) -> dict[str, float]:
    """How often floats ranked by codes give what floats alone give; nothing where no codes are made.

    `agreement` is the share of the exact K results that were found. `agreement_in_window` is the same of rows
    (in a step: groups) whose exact results lie in the window of 16 that codes tell apart.
    """
    logits = inputs["logits"]
    if case.flags["int8"] != "yes" or case.precision == "int8" or logits is None:
        return {}
    exactly = Case.make(case.sizes, case.precision, {**case.flags, "int8": "no"}, case.memory)
    scores, finished = (
        None if t is None else t.to(torch.float64) for t in map(inputs.get, ("scores", "finished"))
    )
    exact = beam_topk(logits.to(torch.float64), None, scores, finished, case=exactly)
    below = _below(_values(logits.to(torch.float64), None))
    if case.flags["step"] == "no":
        return shares(outputs["ids"], exact[0], below)
    found = _joint(outputs["next_beam"], outputs["next_id"], case)
    groups, beams = case.sizes["G"], case.sizes["W"]
    return shares(
        found, _joint(exact[0], exact[1], case), below.reshape(groups, beams * case.sizes["V"])
    )


def _below(values: Tensor) -> Tensor:
    """How far each logit lies below the largest of its row."""
    if not values.shape[1]:
        return values
    return (values.amax(dim=1, keepdim=True) - values).nan_to_num(nan=0.0)


def _joint(beam: Tensor, ids: Tensor, case: Case) -> Tensor:
    """A continuation as one number, its place in [W * V]."""
    return beam.long() * case.sizes["V"] + ids.long()


def shares(found: Tensor, wanted: Tensor, below: Tensor) -> dict[str, float]:
    """Shares of `wanted` [R,K] that are among `found` [R,K]; both are places in `below` [R,N]."""
    if not wanted.numel():
        return {}
    wanted = wanted.long()
    same = (found.long()[:, :, None] == wanted[:, None, :]).any(dim=1).double().mean(dim=1)
    inside = below.gather(1, wanted).amax(dim=1) < WINDOW
    told = {"agreement": float(same.mean())}
    if inside.any():
        told["agreement_in_window"] = float(same[inside].mean())
    return told


def _values(logits: Tensor, row_max: Tensor | None) -> Tensor:
    """Logits in fp64, relative to the row's largest where they are codes."""
    if row_max is not None:
        values = (logits.to(torch.float64) - 127.0) * (16.0 / 255.0)
        masked = row_max.isnan() | torch.isneginf(row_max)
        return torch.where(masked[:, None], -torch.inf, values)
    return _finite_or_lowest(logits)


def _finite_or_lowest(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=-torch.inf, posinf=LARGEST, neginf=-torch.inf)


def _by_code(values: Tensor, count: int) -> Tensor:
    """The values of the `count` highest codes, of equal ones the lower ids; -inf in place of the others."""
    kept = torch.sort(codes(values), dim=1, descending=True, stable=True)[1][:, :count]
    return torch.full_like(values, -torch.inf).scatter(1, kept, values.gather(1, kept))


def _log_weights(top: Tensor, values: Tensor, temperature: float) -> Tensor:
    """log of exp(top / t) over the sum of exp(values / t) in a row; -inf in rows of nothing else."""
    if not values.shape[1] or not top.shape[1]:
        return top
    largest = values.amax(dim=1, keepdim=True)
    largest = torch.where(torch.isneginf(largest), 0.0, largest)
    total = ((values - largest) / temperature).exp().sum(dim=1, keepdim=True)
    return torch.where(torch.isneginf(top), top, (top - largest) / temperature - total.log())


def _totals(chosen: Tensor, values: Tensor, scores: Tensor, finished: Tensor, case: Case) -> Tensor:
    """Scores of every continuation, [G, W * V]."""
    before = _finite_or_lowest(scores.reshape(-1, 1).to(torch.float64))
    totals = before + _log_weights(chosen, values, case.number("temperature"))
    ended = torch.full_like(totals, -torch.inf)
    if totals.numel():
        ended[:, int(case.number("eos"))] = before[:, 0]
    totals = torch.where(finished.reshape(-1, 1) != 0, ended, totals)
    groups, beams = scores.shape
    return totals.reshape(groups, beams * chosen.shape[1])


def _step(
    chosen: Tensor, values: Tensor, scores: Tensor, finished: Tensor, case: Case
) -> tuple[Tensor, Tensor, Tensor]:
    totals = _totals(chosen, values, scores, finished, case)
    # Within a beam logits decide, which may differ by less than a total can show.
    ranks = torch.where(torch.isneginf(totals.reshape_as(chosen)), -torch.inf, chosen)
    order = torch.sort(ranks, dim=1, descending=True, stable=True)[1]
    ordered = totals.reshape_as(chosen).gather(1, order).reshape_as(totals)
    best, at = torch.sort(ordered, dim=1, descending=True, stable=True)
    best, at = best[:, : case.sizes["K"]], at[:, : case.sizes["K"]]
    ids = order.reshape_as(totals).gather(1, at)
    beam = at // max(1, chosen.shape[1])
    return beam.to(torch.int32), ids.to(torch.int32), best


def make_inputs(
    spec: KernelSpec, case: Case, generator: torch.Generator
) -> dict[str, Tensor | None]:
    """Rows of several kinds: normal, with many equal, all equal, mostly or wholly -inf, of large magnitude."""
    sizes, dtype = case.sizes, spec.precision(case.precision).dtypes["logits"]
    rows = [
        _row(sizes["V"], dtype.is_integer, case.precision, generator) for _ in range(sizes["B"])
    ]
    logits = torch.stack(rows) if rows else torch.zeros(0, sizes["V"])
    found: dict[str, Tensor | None] = {"logits": logits.to(dtype.torch())}
    found |= dict.fromkeys(("row_max", "scores", "finished"))
    if dtype.is_integer:
        most = torch.randn(sizes["B"], generator=generator) * 5
        masked = torch.rand(sizes["B"], generator=generator) < 0.1
        found["row_max"] = torch.where(masked, -torch.inf, most)
    if case.flags["step"] == "yes":
        found["scores"], found["finished"] = _beams(found, case, generator)
    return found


def _row(v: int, integer: bool, precision: str, generator: torch.Generator) -> Tensor:
    kind = int(torch.randint(8, (), generator=generator))
    x = torch.randn(v, generator=generator) * 3
    if integer:
        low = -128 if kind < 6 else 126
        row = torch.randint(low, 128, (v,), generator=generator).float()
        return torch.where(torch.rand(v, generator=generator) < 0.5, row, row.clamp(max=0))
    if kind == 3:
        return torch.round(x)
    if kind == 4:
        return x[:1].expand(v) if v else x
    if kind == 5:
        return torch.where(torch.rand(v, generator=generator) < 0.01, x, -torch.inf)
    if kind == 6:
        return torch.full((v,), -torch.inf)
    if kind == 7:
        return x * (5e3 if precision == "fp16" else 1e30)
    return x


def _beams(
    found: dict[str, Tensor | None], case: Case, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Scores and ends of beams, such that no two beams' continuations are as near as rounding could turn."""
    groups, beams, k = case.sizes["G"], case.sizes["W"], case.sizes["K"]
    logits, row_max = found["logits"], found["row_max"]
    assert logits is not None
    values = _values(logits if row_max is not None else logits.to(torch.float64), row_max)
    finished = (torch.rand(groups, beams, generator=generator) < 0.2).to(torch.int8)
    scores = torch.zeros(groups, beams)
    for _ in range(64):
        scores = -torch.rand(groups, beams, generator=generator) * 8
        totals = _totals(values, values, scores, finished, case)
        best = torch.sort(totals, dim=1, descending=True, stable=True)[0][:, : k + 1]
        if best.shape[1] < 2 or not bool(_near(best).any()):
            break
    return scores, finished


def _near(best: Tensor) -> Tensor:
    gap = best[:, :-1] - best[:, 1:]
    # Equal values are of one beam, or tie everywhere.
    return (gap > 0) & (gap < _MARGIN * best[:, 1:].abs().clamp_min(1.0))
