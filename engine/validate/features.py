"""What of the engine can be turned on, alone and together, and what shows that it did something."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tilewright.cases import pairwise
from tilewright.engine.diff import Heard
from tilewright.engine.loop import Engine
from tilewright.engine.requests import Request, Sampling
from tilewright.engine.session import Choices, open_engine
from tilewright.engine.transformer import Transformer
from tilewright.engine.validate.oracle import Question
from tilewright.engine.validate.subjects import Subject
from tilewright.kernels._kv.formats import PAGE


@dataclasses.dataclass(frozen=True, slots=True)
class Feature:
    """`changes` of Choices turn it on; `fired` counts what it did."""

    changes: Mapping[str, Any]
    fired: Callable[[Engine, Counter[str]], int]


FEATURES: Mapping[str, Feature] = {
    "batch": Feature({"running": 8}, lambda e, _: e.scheduler.counts.shared),
    "chunk": Feature({"chunk": 16, "budget": 24}, lambda e, _: e.scheduler.counts.chunks),
    "prefix": Feature({"prefixes": True}, lambda e, _: e.blocks.counts.hit_tokens),
    "preempt": Feature({}, lambda e, _: e.scheduler.counts.preemptions),
    "graph": Feature({"graphs": True}, lambda e, _: e.graphs.counts.replays if e.graphs else 0),
    "nz": Feature({"kv_layout": "nz"}, lambda _, heard: heard["kv_layout=nz"]),
    "invariant": Feature({"invariant": True}, lambda _, heard: heard["batch_invariant=yes"]),
    "moe": Feature({}, lambda _, heard: heard["grouped_gemm"]),
    "beams": Feature({}, lambda _, heard: heard["step=yes"]),
}
"""By name. `moe` comes with the model: a mixture, or a dense one that is split."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine answered: greedy answers by prompt, beams of the first, and counts by feature."""

    greedy: Mapping[int, tuple[int, ...]]
    beams: tuple[tuple[tuple[int, ...], float], ...]
    fired: Mapping[str, int]
    heard: Counter[str]


def combinations(names: Sequence[str]) -> list[frozenset[str]]:
    """Sets of features in which every two are met on and on, on and off, off and off."""
    every = itertools.product(("no", "yes"), repeat=len(names))
    chosen = pairwise([dict(zip(names, values, strict=True)) for values in every])
    return [frozenset(n for n, value in one.items() if value == "yes") for one in chosen]


def choices_of(of: Subject, on: frozenset[str], question: Question, base: Choices) -> Choices:
    """Alone, unshared, eager, with room for all; but for the features that are on."""
    choices = dataclasses.replace(base, running=1, prefixes=False, graphs=False, chunk=0)
    for name in sorted(on):
        choices = dataclasses.replace(choices, **FEATURES[name].changes)
    if "beams" in on:
        choices = dataclasses.replace(choices, running=max(choices.running, question.width))
    lengths = [-(-(len(p) + question.most) // PAGE) for p in of.prompts]
    pages = sum(lengths) + 1
    if "beams" in on:
        pages += question.width * (-(-question.most // PAGE) + 1)
    if "preempt" in on:  # of a search too: its beams take turns
        pages = max(lengths)
    return dataclasses.replace(choices, pages=pages)


def drive(
    of: Subject,
    on: frozenset[str],
    question: Question,
    base: Choices,
    built: Transformer | None = None,
) -> Outcome:
    """Run a subject's prompts through an engine in the way that lets its features happen.

    With `preempt`, requests come one after another, each more urgent than those before, and pages are too few
    for all. With `prefix`, the others come once the first has its first token.
    """
    engine = open_engine(of.checkpoint, choices_of(of, on, question, base), built)
    engine.ends = frozenset(of.ends)
    engine.ops.after = heard = Heard(engine.ops)
    group = None
    if "beams" in on:
        group = engine.beams(of.prompts[0], question.width, question.most, question.penalty)
    requests: dict[int, Request] = {}
    for index, prompt in enumerate(of.prompts):
        if index or group is None:
            urgency = -index if "preempt" in on else 0
            requests[index] = engine.add(prompt, Sampling(most=question.most), priority=urgency)
        if "preempt" in on:
            engine.step()
            engine.step()
        elif "prefix" in on and not index:
            while engine.busy and not (group.steps if group else requests[0].answer):
                engine.step()
    for _ in engine.run():
        pass
    engine.check()
    return Outcome(
        {index: tuple(request.answer) for index, request in requests.items()},
        tuple((e.answer, e.score) for e in group.ended) if group else (),
        {name: FEATURES[name].fired(engine, heard.counts) for name in sorted(on)},
        heard.counts,
    )
