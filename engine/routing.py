"""Precision routing: int8 weights, and bf16 ones beside them where a model is sensitive, request by request.

A file, by habit `sensitive_layers.json`, says where. It is one object:

    schema   "tilewright/sensitive_layers/1"
    model    the model's name, for people
    score    what scores are, for people
    layers   how many layers the model has
    groups   a list of objects: `layer`, from 0; `group`, one of qkv, o, gate_up, down: the linears that
             share an input; `score`, a number, the more sensitive the higher; `bf16`, whether its
             weights are kept in bf16 too

Groups that it does not list run in int8 alone. Those of experts are kept in the type of the activations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tilewright.engine.requests import Request
from tilewright.errors import UsageError
from tilewright.kernels.mask_gemm import selection
from tilewright.kernels.mask_gemm.layout import REQUESTS
from tilewright.models.config import ModelConfig

SCHEMA = "tilewright/sensitive_layers/1"
SCORE = "absmax / 127 / interquartile range of the group's input"
# The first tensor of each group's linear, by its name in a checkpoint.
GROUPS = {"q": "qkv", "o": "o", "gate": "gate_up", "down": "down"}


class BadSensitiveLayers(UsageError):
    """A file of sensitive layers cannot be read, is not what it must be, or is of another model."""


@dataclass(frozen=True, slots=True)
class Group:
    """Linears of one input in one layer."""

    layer: int
    group: str
    score: float
    bf16: bool


def read_sensitive(path: Path, config: ModelConfig) -> tuple[Group, ...]:
    """The groups of a file, for a model. Raises BadSensitiveLayers naming what is wrong and what would do."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadSensitiveLayers(f"{path} cannot be read as JSON: {error}") from error

    def need(good: bool, what: str, value: object, accepted: object) -> None:
        if not good:
            raise BadSensitiveLayers(f"{path}: {what} is {value!r:.80}; accepted: {accepted}")

    need(isinstance(found, dict), "the document", found, "an object")
    need(found.get("schema") == SCHEMA, "schema", found.get("schema"), SCHEMA)
    layers, rows = found.get("layers"), found.get("groups")
    need(_is(layers, int) and layers == config.layers, "layers", layers, config.layers)
    need(isinstance(rows, list), "groups", rows, "a list of objects")
    names = tuple(GROUPS.values())[: 2 if config.experts else None]
    groups: dict[tuple[int, str], Group] = {}
    for i, row in enumerate(rows):
        at = f"groups[{i}]"
        need(isinstance(row, dict), at, row, "an object")
        layer, group, score, bf16 = (row.get(key) for key in ("layer", "group", "score", "bf16"))
        ranged = _is(layer, int) and 0 <= layer < config.layers
        need(ranged, f"{at}.layer", layer, f"0 to {config.layers - 1}")
        need(group in names, f"{at}.group", group, ", ".join(names))
        number = _is(score, int, float) and math.isfinite(score)
        need(number, f"{at}.score", score, "a finite number")
        need(isinstance(bf16, bool), f"{at}.bf16", bf16, "true or false")
        need((layer, group) not in groups, at, f"layer {layer} {group} again", "each group once")
        groups[layer, group] = Group(layer, group, float(score), bf16)
    return tuple(groups.values())


def write_sensitive(path: Path, config: ModelConfig, groups: Iterable[Group]) -> None:
    """Write what `read_sensitive` reads."""
    rows = [asdict(group) for group in groups]
    found = {"schema": SCHEMA, "model": config.name, "score": SCORE, "layers": config.layers}
    path.write_text(json.dumps({**found, "groups": rows}, indent=1) + "\n", encoding="utf-8")


class Router:
    """Which tokens take bf16 weights: bits of requests in words that every launch reads anew.

    A request gets one of 64 slots when it is first sent to bf16, and keeps it until it ends. `rows` counts
    what was computed in bf16 since the start: a token in one linear is one.
    """

    def __init__(self, config: ModelConfig, groups: Iterable[Group]) -> None:
        self.words = selection.pack(config.layers)
        kept = sorted((g.layer, g.group) for g in groups if g.bf16)
        self._resident = {key: i for i, key in enumerate(kept)}
        self._counts = torch.zeros(len(kept), 3, dtype=torch.int32)
        self._holders: list[Request | None] = [None] * REQUESTS
        self.rows = 0

    @property
    def resident(self) -> tuple[tuple[int, str], ...]:
        """Layer and group of what is kept in bf16."""
        return tuple(self._resident)

    def place(self, name: str) -> tuple[int, Tensor, Tensor] | None:
        """Layer, selection and counts of the linear whose first tensor is `layers.<i>.<name>`; None if in int8 only."""
        at, _, tensor = name.rpartition(".")
        layer = int(at.removeprefix("layers.") or -1)
        index = self._resident.get((layer, GROUPS.get(tensor, "")))
        return None if index is None else (layer, self.words, self._counts[index])

    def send(self, request: Request, bf16: bool) -> None:
        """Compute the request's tokens that were never computed in bf16, or in int8.

        Raises UsageError for a request that has ended or is a beam, or if all slots are held.
        """
        if request.state.ended or request.group is not None:
            state = "has ended" if request.state.ended else "is a beam of a search"
            raise UsageError(
                f"request {request.number} {state}; accepted: one of its own that goes on"
            )
        if bf16 and request.slot < 0:
            request.slot = self._seat(request)
        # A preempted request computes its tokens again, each as it was.
        start = request.reached
        turns = [at for at in request.turns if at < start]
        request.turns = turns + [start] * (len(turns) % 2 != bf16)

    def always(self) -> None:
        """Send all tokens to bf16, those of no request too. To be said before anything is computed."""
        selection.set_bits(self.words, layers=sorted({layer for layer, _ in self._resident}))

    def tally(self) -> None:
        """Count the rows of a step that was computed."""
        self.rows += int(self._counts[:, 0].sum())

    def _seat(self, request: Request) -> int:
        for slot, holder in enumerate(self._holders):
            if holder is None or holder.state.ended:
                self._holders[slot] = request
                selection.set_bits(self.words, requests=[slot])
                return slot
        raise UsageError(
            f"{len(self._holders)} requests were sent to bf16; accepted: another one when one of them has ended"
        )


def _is(value: Any, *kinds: type) -> bool:
    """Whether a value of JSON is of these types; true and false are no numbers."""
    return isinstance(value, kinds) and not isinstance(value, bool)
