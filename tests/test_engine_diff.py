"""The first tensor that differs is the one that was changed, whatever it is."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import CommandLine
from engine_doubles import TinyCheckpoint
from tilewright.engine import diff as engine_diff
from tilewright.engine.calls import Call, HostRunner
from tilewright.engine.diff import diff
from tilewright.engine.loop import Engine
from tilewright.engine.session import Choices, open_engine
from tilewright.engine.validate.subjects import subject
from tilewright.errors import TilewrightError

PROMPT = subject("tiny:llama").prompts[0][:9]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("tiny:llama", "fp32"),
        ("tiny:llama", "bf16"),
        ("tiny:qwen2", "w8a8"),
        ("tiny:qwen3", "fp32"),
        ("tiny:mixtral", "fp32"),
    ],
)
def test_host_and_reference_make_the_same_calls(name: str, form: str) -> None:
    found = diff(subject(name).checkpoint, "reference", "host", PROMPT, Choices(form=form))
    assert not found.differences
    assert found.calls > 20 and found.heard["paged_attention"] == 2
    if form == "fp32":
        assert 0.0 < found.share <= 1.0  # other orders of sums: some bits do differ


@given(data=st.data())
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_changed_element_is_found(data: st.DataObject) -> None:
    """One element of one output of one call is moved on side b only."""
    calls: list[Call] = []
    model = subject("tiny:llama").checkpoint
    target = data.draw(st.integers(0, 21), label="call")
    scale = data.draw(st.sampled_from([1.0, -3.0, 1e3, float("nan")]), label="by")
    place = data.draw(st.floats(0, 0.999), label="where")
    plain, seen = HostRunner.run, []

    def changed(self: HostRunner, call: Call) -> None:
        plain(self, call)
        if len(calls) == target:
            name = next(iter(call.outputs))
            flat = call.outputs[name]
            at = tuple(int(place * n) for n in flat.shape)
            flat[at] += scale * (1.0 + flat.abs().max())
            seen.append((call.family, name, at))
        calls.append(call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostRunner, "run", changed)
        found = diff(model, "reference", "host", PROMPT, Choices(form="fp32"))
    assert len(calls) == found.calls == 22
    first = found.differences[0]
    assert (first.call, first.op, first.output) == (target, seen[0][0], seen[0][1])
    assert first.found.worst_index == seen[0][2]
    assert first.layer == (-1 if target == 21 else 0 if target < 11 else 1)
    assert len(found.differences) == 1, "what follows is computed from what side a gave"


def test_sides_that_do_not_make_the_same_calls_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.engine.ops import Ops

    plain, passes = Ops.silu_mul, []

    def twice(self: Ops, gate_up: torch.Tensor) -> torch.Tensor:
        passes.append(1)
        if len(passes) > 2:
            plain(self, gate_up)
        return plain(self, gate_up)

    monkeypatch.setattr(Ops, "silu_mul", twice)
    with pytest.raises(
        TilewrightError, match="call .* is silu_mul with host, and not with reference"
    ):
        diff(subject("tiny:llama").checkpoint, "reference", "host", PROMPT, Choices(form="fp32"))


def test_the_command_says_where(tilewright: CommandLine) -> None:
    ran = tilewright("engine", "diff", "tiny:llama", "--b", "host,rope=reference", "--json", "-")
    assert ran.code == 0 and ran.document["rows"] == [] and ran.document["calls"] == 22
    bad = tilewright("engine", "diff", "tiny:llama", "--b", "host,ropes=reference")
    assert bad.code == 2 and "unknown op of the engine 'ropes'" in bad.err
    long = tilewright("engine", "diff", "tiny:llama", "--tokens", "99999")
    assert long.code == 2 and "accepted: 1 to" in long.err


def test_its_engines_are_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a real model are a gigabyte: they must not wait for the collector of circles."""
    opened: list[weakref.ref[Engine]] = []

    def open_one(*arguments: Any) -> Engine:
        made = open_engine(*arguments)
        opened.append(weakref.ref(made))
        return made

    monkeypatch.setattr(engine_diff, "open_engine", open_one)
    gc.disable()
    try:
        engine_diff.diff(TinyCheckpoint(), "reference", "host", [1, 2, 3])
        assert [made() for made in opened] == [None, None]
    finally:
        gc.enable()
