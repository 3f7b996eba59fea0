"""Quantised weights and pages: equal to their own dequantisation, and how far from fp32 they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from tilewright.engine.batch import alone
from tilewright.engine.diff import Heard, diff
from tilewright.engine.linear import rounded
from tilewright.engine.session import Choices, open_engine
from tilewright.engine.transformer import Transformer
from tilewright.engine.validate.features import drive
from tilewright.engine.validate.oracle import Expected, Plain, Question
from tilewright.engine.validate.subjects import Subject
from tilewright.engine.validate.tasks import Found, judge
from tilewright.kernels._kv.formats import QUANTISED as KV_QUANTISED
from tilewright.models.forward import plain_linear

# Formats of weights, with the type of activations where it is not theirs, and what shows in the calls that they
# were used.
SIGNS = {"bf16": "bf16", "w8a8": "scale=row_col", "q4_1": "gemm_w4", "q4_1:bf16": "gemm_w4"}
SIGNS["w4a8"] = "activations=int8"
# A format that is broken, not coarse, is nats away: a scale that is off, rows that are swapped.
_BROKEN = 0.5
# Of a logit's norm, between fp32 passes whose sums are made in another order.
SAME = 1e-5
EIGHT = Question(most=8)
_BATCH = frozenset({"batch"})


def kv_choices(quick: bool) -> Iterator[Choices]:
    """Quantised pages in both layouts, with and without residuals; `quick`: in one layout, without."""
    kinds = (("nd",), ("none",)) if quick else (("nd", "nz"), ("none", "nested", "e3m0"))
    for kv, layout, residual in product(KV_QUANTISED, *kinds):
        yield Choices(form="fp32", pages=64, kv=kv, kv_layout=layout, residual=residual)


def w8a8_linear(name: str, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """The plain linear on what W8A8 rounds: weights a row, activations a token; products in fp64, exact."""
    if name.endswith("router") or ".experts." in name:
        return plain_linear(name, x, w, bias)
    codes, scale = rounded(w)
    step = x.abs().amax(dim=1, keepdim=True) / 127.0
    step = torch.where(step > 0, step, torch.ones_like(step))
    sums = (x / step).round().clamp(-127, 127).double() @ codes.double().T
    y = sums * step.double() * scale.double()
    return (y if bias is None else y + bias.double()).to(x.dtype)


def relative(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def divergence(expected: Tensor, found: Tensor) -> float:
    """The mean over tokens of KL(softmax(expected) || softmax(found)), in nats."""
    p, q = expected.double().log_softmax(-1), found.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def _logits(of: Subject, choices: Choices) -> tuple[Tensor, Heard]:
    """fp32 [tokens, vocab] of one pass over the first prompt, and the calls it made."""
    engine = open_engine(of.checkpoint, choices)
    engine.ops.after = heard = Heard(engine.ops)
    batch = alone(of.prompts[0])
    return engine.model.forward(engine.ops, engine.cache, batch).float(), heard


def same_logits(of: Subject, expected: Expected, choices: Choices, oracle: str) -> Found:
    """Logits of the first prompt against the oracle's, as a relative norm."""
    found, heard = _logits(of, choices)
    error = relative(found, expected.logits)
    detail = f"{len(found)} rows within {error:.1e} of {oracle}'s, {SAME:.0e} allowed"
    return Found(error <= SAME, sum(heard.counts.values()), detail)


def far_from_fp32(of: Subject, expected: Expected, choices: Choices, sign: str) -> Found:
    """KL of the first prompt's logits against the oracle's fp32: reported, and small enough to be no mistake."""
    found, heard = _logits(of, choices)
    kl = divergence(expected.logits, found)
    agree = (found.argmax(-1) == expected.logits.argmax(-1)).float().mean()
    detail = f"KL {kl:.2e} nats against fp32, {agree:.0%} of {len(found)} greedy tokens agree"
    return Found(kl < _BROKEN and heard.counts[sign] > 0, heard.counts[sign], detail)


def same_calls(of: Subject, choices: Choices, sign: str) -> Found:
    """Every call of a pass against a plain torch reference in fp64, which dequantises what it reads."""
    found = diff(of.checkpoint, "reference", "host", of.prompts[-1][:24], choices)
    fired = found.heard[sign]
    if not found.differences:
        said = f"{found.calls} calls within {found.share:.2g} of what is tolerated"
        return Found(fired > 0, fired, said)
    first = found.differences[0]
    said = f"call {first.call}, {first.op} of layer {first.layer}: {first.output} differs by "
    said += f"{first.found.rel_err:.2g}, {first.found.tolerance:.2g} allowed"
    return Found(False, fired, said)


def same_answers(
    of: Subject,
    choices: Choices,
    question: Question,
    expected: Expected,
    whose: str,
    sign: str,
    built: Transformer | None = None,
) -> Found:
    """Greedy answers of requests in one batch against `expected`, and that calls show the `sign`."""
    outcome = drive(of, _BATCH, question, choices, built)
    found = judge(outcome, expected, whose, question.most)
    fired = outcome.heard[sign]
    return Found(found.ok and fired > 0, fired, found.detail)


def over_dequantised_weights(
    of: Subject, choices: Choices, sign: str, question: Question = EIGHT
) -> Found:
    """W8A8 with activations in fp32, against a plain forward on what it rounds weights and activations to."""
    short = dataclasses.replace(of, prompts=of.prompts[-2:])
    expected = Plain(w8a8_linear).answer(short, question)
    exact = dataclasses.replace(choices, dtype="fp32")
    return same_answers(short, exact, question, expected, "its dequantised weights", sign)


def over_dequantised_pages(of: Subject, choices: Choices, sign: str) -> Found:
    """Quantised pages, against a plain torch reference of attention in fp64 that dequantises what it reads."""
    short, question = dataclasses.replace(of, prompts=of.prompts[-2:]), EIGHT
    plain = dataclasses.replace(choices, backends="host,paged_attention=reference")
    theirs = drive(short, _BATCH, question, plain)
    expected = Expected(tuple(theirs.greedy[i] for i in range(2)), 0.0, (), torch.zeros(0))
    return same_answers(short, choices, question, expected, "its dequantised pages", sign)
