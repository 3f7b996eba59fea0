"""One request sent to bf16 between two steps: the rest of it changes, its batch mates do not, nothing restarts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tilewright.engine.batch import alone
from tilewright.engine.loop import Engine
from tilewright.engine.requests import Request, Sampling
from tilewright.engine.routing import GROUPS, Group, write_sensitive
from tilewright.engine.session import Choices, open_engine
from tilewright.engine.validate.subjects import Subject
from tilewright.engine.validate.tasks import Found, parted
from tilewright.kernels._kv.formats import PAGE

_MOST, _BEFORE = 10, 4  # tokens of an answer, and those that are there when it is sent


@dataclass(frozen=True, slots=True)
class _Run:
    engine: Engine
    requests: list[Request]


def turned(of: Subject, graphs: bool) -> Found:
    """Two runs with all groups kept in both types, in one of which the first request is sent to bf16.

    Answers and log-probabilities of the others, and what the first had before, are the same to the bit; its
    later tokens are those of one pass over its text with the same tokens in bf16. `fired` counts what `Router.rows` does.
    """
    config = of.checkpoint.config
    names = tuple(GROUPS.values())[: 2 if config.experts else None]
    groups = [Group(layer, name, 1.0, True) for layer in range(config.layers) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sensitive_layers.json"
        write_sensitive(path, config, groups)
        prompts = of.prompts[-3:]
        pages = sum(-(-(len(p) + _MOST) // PAGE) for p in prompts) + 1
        choices = Choices(sensitive=str(path), invariant=True, prefixes=False, pages=pages)
        choices = replace(choices, graphs=graphs)
        plain, sent = (_run(of, choices, send) for send in (False, True))
        wrong = [*_differences(plain, sent), *_own_path(of, choices, sent.requests[0])]
    assert sent.engine.router is not None
    rows = sent.engine.router.rows
    said = f"{len(prompts) - 1} others keep their bits, {_MOST - _BEFORE} tokens are those of bf16"
    return Found(not wrong and rows > 0, rows, "; ".join(wrong) or said)


def _run(of: Subject, choices: Choices, send: bool) -> _Run:
    engine = open_engine(of.checkpoint, choices)
    wanted = Sampling(most=_MOST, ignore_eos=True, logprobs=4)
    requests = [engine.add(prompt, wanted) for prompt in of.prompts[-3:]]
    while len(requests[0].answer) < _BEFORE:
        engine.step()
    if send:
        engine.route(requests[0])
    for _ in engine.run():
        pass
    engine.check()
    return _Run(engine, requests)


def _differences(plain: _Run, sent: _Run) -> list[str]:
    found = []
    for i, (before, after) in enumerate(zip(plain.requests, sent.requests, strict=True)):
        count = _MOST if i else _BEFORE
        if before.answer[:count] != after.answer[:count]:
            found.append(f"request {i}: {parted(after.answer[:count], before.answer[:count])}")
        elif before.logprobs[:count] != after.logprobs[:count]:
            found.append(f"request {i}: log-probabilities differ")
    if plain.requests[0].logprobs == sent.requests[0].logprobs:
        found.append("what was sent to bf16 has the log-probabilities of int8")
    if plain.engine.scheduler.counts != sent.engine.scheduler.counts:
        found.append("steps differ: something was computed again")
    return found


def _own_path(of: Subject, choices: Choices, request: Request) -> list[str]:
    """The answer against one pass over its text, each token on the path it was computed on."""
    engine = open_engine(of.checkpoint, replace(choices, graphs=False))
    assert engine.router is not None
    engine.router.send(engine.add(request.prompt), bf16=True)  # takes the selection's first slot
    text = request.tokens[:-1]
    owner = torch.tensor(request.owners(0, len(text)), dtype=torch.int32)
    logits = engine.model.forward(engine.ops, engine.cache, replace(alone(text), owner=owner))
    wanted = logits[len(request.prompt) - 1 :].argmax(-1).tolist()
    return [f"in bf16, {why}"] if (why := parted(request.answer, wanted)) else []
