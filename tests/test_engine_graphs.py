"""Captured decode steps: the bits of eager ones in every size, rows of nobody that leave no trace, and devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine_doubles import TinyCheckpoint, tiny_engine
from tilewright.engine.batch import Batch
from tilewright.engine.graphs import SIZES, DeviceGraph, Graphs, HostGraph, new_graph
from tilewright.engine.loop import Engine
from tilewright.engine.ops import Backends, Ops
from tilewright.engine.requests import Sampling
from tilewright.engine.session import Choices, open_engine
from tilewright.errors import Unavailable, UsageError
from tilewright.kernels._kv.formats import PAGE


def rows_of(engine: Engine) -> list[Tensor]:
    """Logits of every step from now on, copied."""
    kept: list[Tensor] = []
    plain = engine.forward

    def forward(pieces: Any) -> Tensor:
        logits = plain(pieces)
        kept.append(logits.clone())
        return logits

    engine.forward = forward  # type: ignore[method-assign]
    return kept


def tensors(thing: object) -> list[Tensor]:
    """Every tensor that an object holds."""
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, dict):
        return tensors(list(thing.values()))
    if isinstance(thing, list | tuple):
        return [t for one in thing for t in tensors(one)]
    if type(thing).__module__.startswith("tilewright.engine"):
        names = [*getattr(thing, "__dict__", {}), *getattr(thing, "__slots__", ())]
        return tensors([getattr(thing, n, None) for n in names])
    return []


def prompts(count: int) -> list[list[int]]:
    return [[(11 * i + j) % 128 for j in range(2 + (7 * i) % 40)] for i in range(count)]


def decoded(engine: Engine, count: int) -> list[Tensor]:
    """Logits of three decode steps of that many requests."""
    kept = rows_of(engine)
    for prompt in prompts(count):
        engine.add(prompt, Sampling(most=4))
    list(engine.run())
    engine.check()
    assert len(kept) == 4 and all(k.shape[0] == count for k in kept)
    return kept


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 16, 31, 32, 33, 63, 64])
def test_replay_equals_eager_bit_for_bit(count: int) -> None:
    choices = {"running": 64, "pages": 300, "budget": 4096}
    eager = tiny_engine(**choices)
    replayed = tiny_engine(**choices, graphs=True)
    for a, b in zip(decoded(eager, count), decoded(replayed, count), strict=True):
        assert torch.equal(a, b)
    assert replayed.graphs is not None and eager.graphs is None
    assert (replayed.graphs.counts.replays, replayed.graphs.counts.captures) == (3, 1)


def test_more_requests_than_the_largest_size_run_eagerly() -> None:
    choices = {"running": 70, "pages": 330, "budget": 4096}
    replayed = tiny_engine(**choices, graphs=True)
    for a, b in zip(decoded(tiny_engine(**choices), 65), decoded(replayed, 65), strict=True):
        assert torch.equal(a, b)
    assert replayed.graphs is not None and replayed.graphs.counts.replays == 0


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("llama", {}),
        ("llama-tied", {"invariant": False}),
        ("qwen2", {"invariant": False}),
        ("qwen3", {"invariant": False}),
        ("llama", {"form": "bf16", "invariant": False}),
        ("llama", {"form": "w8a8", "invariant": False}),
        ("llama", {"form": "w8a8", "dtype": "fp32"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_replay_is_the_eager_step_on_the_same_rows(
    kind: str, choices: dict[str, Any], count: int
) -> None:
    """Also where bits depend on the number of rows: those of nobody are there in both."""
    engine = tiny_engine(kind, graphs=True, **choices)
    graphs = engine.graphs
    assert graphs is not None
    for prompt in prompts(count):
        engine.add(prompt, Sampling(most=6))
    while graphs.counts.replays < 3:
        engine.step()
    captured = graphs._captured[next(s for s in SIZES if s >= count)]
    after = [t.clone() for t in tensors(engine.cache)]
    eager = engine.model.head(
        engine.ops, engine.model.decode(engine.ops, engine.cache, captured.batch, captured.x)
    )
    assert torch.equal(captured.logits[:count], eager[:count])
    assert torch.isfinite(eager[:count]).all()
    assert all(torch.equal(a, b) for a, b in zip(after, tensors(engine.cache), strict=True))


def test_rows_of_nobody_write_nothing_and_what_they_read_does_not_matter() -> None:
    """Three requests in four rows; the page that the fourth reads holds NaN and belongs to nobody."""
    right = decoded(tiny_engine(), 3)
    engine = tiny_engine(graphs=True)
    taken = engine.blocks.pool.alloc()
    pages = [one for whole in engine.cache.tensors.values() for one in whole]
    assert len(pages) == 2 * engine.model.config.layers
    for t in pages:
        t[0] = torch.nan
    kept = rows_of(engine)
    requests = [engine.add(prompt, Sampling(most=4)) for prompt in prompts(3)]
    engine.step()
    for step in range(1, 4):
        before = [t.clone() for t in pages]
        places = [
            (r.pages[r.computed // PAGE], r.computed % PAGE) for r in requests if r.computed % PAGE
        ]
        engine.step()
        for old, new in zip(before, pages, strict=True):
            changed = {tuple(c) for c in (old != new).nonzero()[:, :2].tolist() if c[0] != 0}
            assert len(changed) == 3, "a token's slot each, and no other"
            assert {(h & 0xFFFFFFFF, o) for h, o in places} <= changed
            assert torch.isnan(new[0]).all()
        assert torch.equal(kept[step], right[step])
    engine.blocks.pool.release(taken)
    assert engine.graphs is not None and engine.graphs.counts.replays == 3


def test_graphs_follow_requests_that_come_and_go() -> None:
    """Sizes change from step to step, and pages of those that ended belong to others."""
    answers = []
    for graphs in (False, True):
        engine = tiny_engine(graphs=graphs, pages=24, running=5)
        requests = [engine.add(p, Sampling(most=3 + 2 * i)) for i, p in enumerate(prompts(12))]
        list(engine.run())
        answers.append([r.answer for r in requests])
        if engine.graphs:
            assert engine.graphs.counts.captures >= 3
            assert engine.graphs.counts.replays > engine.graphs.counts.captures
    assert answers[0] == answers[1]


def test_backends_that_cannot_be_replayed_are_named() -> None:
    with pytest.raises(UsageError, match="are of the host backend; rope run"):
        tiny_engine(backends="host,rope=reference", graphs=True)


def test_a_profile_of_a_graph_names_every_call() -> None:
    engine = tiny_engine(graphs=True)
    engine.generate([[1, 2]], Sampling(most=3))
    assert engine.graphs is not None
    graph = engine.graphs._captured[1].graph
    assert isinstance(graph, HostGraph)
    calls = graph.profile()
    assert {name for name, _ in calls} >= {"gemm", "rmsnorm", "rope", "kv_write", "paged_attention"}
    assert all(ns > 0 for _, ns in calls)


class Recorded(TorchDispatchMode):
    """Keeps every operation of torch: what a device does while it captures."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            new = func(*args, **kwargs)
            if new.data_ptr() != out.data_ptr():
                out.copy_(new)


class FakeDevice:
    """torch's module of a device that has graphs, on the host's memory; `log` is what was asked of it."""

    def __init__(self, kind: str, real: object) -> None:
        self.real = real
        self.log: list[str] = []
        device = self

        class Captured:
            def __init__(self) -> None:
                self.recorded = Recorded()

            def replay(self) -> None:
                device.log.append("replay")
                self.recorded.replay()

        setattr(self, kind, Captured)
        self.now = "main"

    def is_available(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def _wait(self, who: str, whom: Any) -> None:
        self.log.append(f"{who} waits for {whom.name}")

    def Stream(self) -> Any:
        return SimpleNamespace(name="side", wait_stream=lambda s: self._wait("side", s))

    def current_stream(self) -> Any:
        return SimpleNamespace(name=self.now, wait_stream=lambda s: self._wait(self.now, s))

    @contextmanager
    def stream(self, one: Any) -> Iterator[None]:
        self.now = one.name
        yield
        self.now = "main"

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        self.log.append("capture begins")
        with graph.recorded:
            yield
        self.log.append("capture ends")


@pytest.fixture(params=["cuda", "npu"])
def device(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, FakeDevice]:
    fake = FakeDevice({"cuda": "CUDAGraph", "npu": "NPUGraph"}[request.param], torch.cuda)
    monkeypatch.setattr(torch, request.param, fake, raising=False)
    return request.param, fake


def test_a_device_graph_captures_after_a_run_on_a_stream_of_its_own(
    device: tuple[str, FakeDevice],
) -> None:
    name, fake = device
    x, w = torch.ones(2, 3), torch.arange(12.0).view(3, 4)

    def work() -> Tensor:
        fake.log.append(f"work on {fake.now}")
        return (x @ w).relu() + 1

    graph = DeviceGraph(name)
    result = graph.capture(work)
    assert fake.log == [
        "side waits for main",
        "work on side",
        "main waits for side",
        "capture begins",
        "work on main",
        "capture ends",
    ]
    place = result.data_ptr()
    for value in (2.0, -1.0):
        x.fill_(value)
        graph.replay()
        assert torch.equal(result, (x @ w).relu() + 1) and result.data_ptr() == place
    assert fake.log[-2:] == ["replay", "replay"]


class TorchCache:
    """What a step reads besides; its memory never moves."""

    moved = 0

    def __init__(self) -> None:
        self.value = torch.zeros(1)

    def reserve(self, rows: int) -> None:
        assert rows in (1, 2, 4)

    def begin(self, batch: Batch) -> None:
        assert batch.tokens.shape[0] <= 4

    def settle(self, ops: object) -> None:
        pass


class TorchModel:
    """A step in torch alone, as a model on a device is: what it reads stands in the batch."""

    dtype = torch.float32
    config = SimpleNamespace(hidden=4)

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens[:, None].float() * torch.ones(4)

    def decode(self, ops: object, cache: TorchCache, batch: Batch, x: Tensor) -> Tensor:
        return x + batch.positions[:, None] + batch.block_table.sum(1, keepdim=True) + cache.value

    def head(self, ops: object, y: Tensor) -> Tensor:
        return y * 10.0


def test_decode_steps_go_through_a_device_graph_like_through_a_hosts(
    device: tuple[str, FakeDevice],
) -> None:
    name, fake = device
    cache, model = TorchCache(), TorchModel()
    graphs = Graphs(model, None, cache, 64, name)  # type: ignore[arg-type]
    for i, count in enumerate((3, 2, 4, 1)):
        cache.value.fill_(float(i))
        ints = torch.arange(count, dtype=torch.int32)
        batch = Batch(
            ints + i, ints * 2, ints, ints - 1, torch.arange(count + 1, dtype=torch.int32),
            ints + 1, torch.ones(count, 2, dtype=torch.int32) * i, torch.arange(count),
        )  # fmt: skip
        assert graphs.fits(batch)
        right = model.head(None, model.decode(None, cache, batch, model.embed(batch.tokens)))
        assert torch.equal(graphs.forward(batch), right)
    assert (graphs.counts.replays, graphs.counts.captures) == (4, 3)
    assert fake.log.count("replay") == 4 and fake.log.count("capture begins") == 3


def test_devices_that_are_not_there_are_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ops = Ops(Backends())
    with pytest.raises(
        UsageError, match="unknown device of graphs 'tpu'; accepted: cpu, cuda, npu"
    ):
        new_graph("tpu", ops)
    monkeypatch.setattr(torch, "npu", None, raising=False)
    with pytest.raises(
        Unavailable, match="graphs of npu need such a device; here there are those of cpu"
    ):
        new_graph("npu", ops)
    assert isinstance(new_graph("cpu", ops), HostGraph)


def test_a_capture_that_fails_leaves_nothing_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(TinyCheckpoint(), Choices(pages=8, threads=1, graphs=True))
    plain = engine.model.head
    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "head", lambda ops, y: 1 / 0)
        host = engine.ops.host
        with pytest.raises(ZeroDivisionError):
            HostGraph(host).capture(lambda: engine.model.head(engine.ops, torch.zeros(1)))
        assert host.recording is None
    assert engine.model.head is plain
    assert len(engine.generate([[1, 2]], Sampling(most=3))[0].answer) == 3


def test_a_replayed_step_takes_few_calls_of_python() -> None:
    """53 a request of a batch of 16 were counted; 155 when every step numbered all pages anew."""
    import cProfile
    import pstats

    engine = tiny_engine(graphs=True, pages=280, budget=4096)
    for i in range(16):
        engine.add([(i + j) % 128 for j in range(200)], Sampling(most=40))
    for _ in range(3):
        engine.step()
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(20):
        engine.step()
    profile.disable()
    assert engine.graphs is not None and engine.graphs.counts.replays >= 20
    calls = pstats.Stats(profile).total_calls / 20  # type: ignore[attr-defined]
    assert calls < 16 * 100, f"{calls} calls a step"
