"""Who knows the right answers: Hugging Face transformers, and where it is missing a plain forward of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tilewright.engine.validate.subjects import Subject
from tilewright.errors import Unavailable
from tilewright.models.forward import LinearHook, PlainForward, plain_linear
from tilewright.peer_engines.hugging_face import ask
from tilewright.toolchains import require

if TYPE_CHECKING:
    from tilewright.engine.validate.tasks import Found

TOOLCHAIN = "transformers"


@dataclass(frozen=True, slots=True)
class Question:
    """Greedy answers to all of a subject's prompts, `most` tokens each; logits and `width` beams of the first."""

    most: int = 16
    width: int = 4
    penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class Expected:
    """The right answers.

    `greedy` of each prompt, up to an end token; `gap` is the least lead that a chosen logit had over the next.
    `beams` are (tokens, score), the best first; none where the oracle has no beam search. `logits` fp32
    [tokens, vocab] are those of the first prompt.
    """

    greedy: tuple[tuple[int, ...], ...]
    gap: float
    beams: tuple[tuple[tuple[int, ...], float], ...]
    logits: Tensor


class Oracle(Protocol):
    """Knows the right answers."""

    name: str

    def answer(self, of: Subject, question: Question) -> Expected:
        """What a subject must answer in fp32."""


class Plain:
    """See Oracle: our own forward pass in plain torch, where transformers is not installed."""

    name = "plain torch"

    def __init__(self, linear: LinearHook = plain_linear) -> None:
        self._linear = linear

    def answer(self, of: Subject, question: Question) -> Expected:
        """See Oracle; without beams."""
        forward = PlainForward(of.dense, linear=self._linear)
        found, gaps = [], []
        for prompt in of.prompts:
            ids = list(prompt)
            while len(ids) - len(prompt) < question.most:
                top = forward(ids)[-1].topk(2)
                gaps.append(float(top.values[0] - top.values[1]))
                ids.append(int(top.indices[0]))
                if ids[-1] in of.ends:
                    break
            found.append(tuple(ids[len(prompt) :]))
        return Expected(tuple(found), min(gaps), (), forward(of.prompts[0]))


class Transformers:
    """See Oracle. Raises Unavailable without the toolchain, with the command that installs it."""

    name = "transformers"

    def __init__(self) -> None:
        self._found = require(TOOLCHAIN)

    def answer(self, of: Subject, question: Question) -> Expected:
        """See Oracle."""
        shared = {"most": question.most, "ends": list(of.ends)}
        first = list(of.prompts[0])
        search = shared | {"width": question.width, "penalty": question.penalty}
        jobs: list[dict[str, Any]] = [
            {"do": "logits", "prompt": first},
            {"do": "beams", "prompt": first} | search,
        ]
        jobs += [{"do": "greedy", "prompt": list(p)} | shared for p in of.prompts]
        logits, beams, *greedy = ask(self._found, of.identity, of.folder, jobs)
        pairs = zip(beams["answers"], beams["scores"], strict=True)
        return Expected(
            tuple(tuple(one["tokens"]) for one in greedy),
            min(min(one["gaps"]) for one in greedy),
            tuple((tuple(tokens), score) for tokens, score in pairs),
            torch.from_numpy(np.load(logits["file"])),
        )


def oracle_here() -> tuple[Oracle, Callable[[], Found] | None]:
    """Transformers; without it what stands in, and a task that tells how to get it."""
    try:
        return Transformers(), None
    except Unavailable as error:
        said = Unavailable(f"{error}; our own plain forward pass stands in")

    def missing() -> Found:
        raise said

    return Plain(), missing
