"""Formats of keys and values in the engine: equal to attention over what pages stand for, whatever else happens."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tilewright.engine import calibrate
from tilewright.engine.batch import Batch, alone
from tilewright.engine.kv_cache import KvCache
from tilewright.engine.kv_formats import bytes_of
from tilewright.engine.loop import Engine
from tilewright.engine.ops import Ops
from tilewright.engine.paging import paging
from tilewright.engine.plan import Memory, memory, plans
from tilewright.engine.requests import Sampling
from tilewright.engine.session import Choices, open_engine
from tilewright.errors import TilewrightError
from tilewright.kernels._kv.formats import PAGE
from tilewright.models.hf_export import write_hf
from tilewright.models.tiny import TINY, tiny_tensor, write_tiny
from tilewright.pages import page_of
from tilewright.pages.lengths import Listed, parse

FORMATS = [
    ("", "nd", "none"),
    ("", "nz", "none"),
    ("c8s", "nd", "none"),
    ("c8s", "nz", "nested"),
    ("c8s", "nd", "e3m0"),
    ("c8d", "nz", "none"),
    ("c8d", "nd", "nested"),
    ("c8d", "nz", "e3m0"),
    ("kv4", "nd", "none"),
    ("kv4", "nz", "none"),
    ("kv4", "nz", "nested"),
    ("kv4", "nd", "e3m0"),
]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "llama", "llama")


def opened(tiny: Path, form: tuple[str, str, str] = ("", "nd", "none"), **more: object) -> Engine:
    kv, layout, residual = form
    choices = {"pages": 64, "threads": 1, "running": 4, "invariant": True, **more}
    return open_engine(
        tiny,
        Choices(kv=kv, kv_layout=layout, residual=residual, **choices),  # type: ignore[arg-type]
    )


def prompts(count: int, seed: int, longest: int = 60) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, longest, (count,), generator=generator).tolist()
    return [torch.randint(0, 128, (n,), generator=generator).tolist() for n in lengths]


WANTED = Sampling(most=24, ignore_eos=True)


def answers(engine: Engine, asked: list[list[int]], wanted: Sampling = WANTED) -> list[list[int]]:
    return [r.answer for r in engine.generate(asked, wanted)]


class Dequantised(KvCache):
    """Attends in fp64 over the floats that pages stand for, and keeps how far the kernel is from that."""

    worst = 0.0
    calls = 0

    def attend(self, ops: Ops, layer: int, q: Tensor, batch: Batch, scale: float) -> Tensor:
        k, v = (side.double() for side in self.floats(layer))
        wanted = torch.empty(q.shape, dtype=torch.float64)
        group = q.shape[1] // self.heads
        for i, length in enumerate(batch.seq_lens.tolist()):
            begin, end = batch.cu_q[i : i + 2].tolist()
            own = batch.block_table[i, : -(-length // PAGE)].long()
            keys, values = (
                side[own].flatten(0, 1)[:length].repeat_interleave(group, 1) for side in (k, v)
            )
            logits = torch.einsum("qhd,khd->hqk", q[begin:end].double(), keys) * scale
            last = torch.arange(length - (end - begin), length)
            logits.masked_fill_(torch.arange(length) > last[:, None], float("-inf"))
            wanted[begin:end] = torch.einsum("hqk,khd->qhd", logits.softmax(-1), values)
        o = super().attend(ops, layer, q, batch, scale)
        self.worst = max(self.worst, float((o - wanted).norm() / wanted.norm()))
        self.calls += 1
        return o


@pytest.mark.parametrize("form", FORMATS, ids="-".join)
def test_attention_reads_what_pages_stand_for(tiny: Path, form: tuple[str, str, str]) -> None:
    engine = opened(tiny, form, budget=24, chunk=20)
    engine.cache.__class__ = Dequantised
    answers(engine, prompts(6, seed=1))
    cache = engine.cache
    assert isinstance(cache, Dequantised)
    assert cache.calls > 40 and engine.scheduler.counts.chunks > 3
    # fp32 kernels against fp64: sqrt(84 keys) + sqrt(16 channels) roundings of 2**-24, scales folded in.
    assert cache.worst < 4e-6
    assert (cache.residual_pages > 20) == (form[2] != "none")


QUANTISED = [form for form in FORMATS if form[0]]


@pytest.mark.parametrize("form", FORMATS, ids="-".join)
def test_a_replayed_step_is_an_eager_one_bit_for_bit(
    tiny: Path, form: tuple[str, str, str]
) -> None:
    asked = prompts(5, seed=2, longest=30)
    wanted = Sampling(most=30, ignore_eos=True, logprobs=3)
    eager, graphs = (opened(tiny, form, graphs=on) for on in (False, True))
    plain, replayed = (e.generate(asked, wanted) for e in (eager, graphs))
    assert [r.answer for r in plain] == [r.answer for r in replayed]
    assert [r.logprobs for r in plain] == [r.logprobs for r in replayed]
    assert graphs.graphs is not None and graphs.graphs.counts.replays > 20
    assert graphs.cache.residual_pages == eager.cache.residual_pages
    assert (eager.cache.residual_pages > 10) == (form[2] != "none")


@pytest.mark.parametrize("form", FORMATS, ids="-".join)
def test_both_layouts_hold_the_same(tiny: Path, form: tuple[str, str, str]) -> None:
    if form[1] == "nd":
        return
    kv, _, residual = form
    asked = prompts(3, seed=3)
    engines = [opened(tiny, (kv, layout, residual)) for layout in ("nd", "nz")]
    nd, nz = ([r.answer for r in e.generate(asked, WANTED)] for e in engines)
    assert nd == nz
    for layer in range(2):
        for a, b in zip(*(e.cache.floats(layer) for e in engines), strict=True):
            assert torch.equal(a, b) and a.abs().max() > 0


def prefilled(engine: Engine, prompt: list[int]) -> list[Tensor]:
    """Keys and values of layer 0, which no attention came before, that the cache has of a prompt."""
    request = engine.add(prompt, WANTED)
    while request.computed < len(prompt):
        engine.step()
    own = [page_of(handle) for handle in request.pages]
    return [side[own].flatten(0, 1)[: len(prompt)] for side in engine.cache.floats(0)]


@pytest.mark.parametrize("form", QUANTISED, ids="-".join)
def test_chunks_store_what_the_whole_prompt_stores(tiny: Path, form: tuple[str, str, str]) -> None:
    (prompt,) = prompts(1, seed=4, longest=4)
    prompt = (prompt * 40)[:90]
    whole = prefilled(opened(tiny, form), prompt)
    for chunk in (1, 7, 16, 20, 37):
        engine = opened(tiny, form, chunk=chunk)
        for a, b in zip(whole, prefilled(engine, prompt), strict=True):
            assert torch.equal(a, b)
        assert engine.scheduler.counts.chunks == -(-90 // chunk) - 1


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize(
    "form", [f for f in QUANTISED if f[0] == "kv4" or f[2] == "nested"], ids="-".join
)
def test_answers_depend_on_nobody_else(
    tiny: Path, form: tuple[str, str, str], graphs: bool
) -> None:
    """Token by token the bits are a request's own: batch mates, waiting, preemption, shared pages."""
    shared = prompts(1, seed=5)[0][:20]
    asked = [shared[:18] + p[:6] for p in prompts(5, seed=6, longest=20)]
    wanted = Sampling(most=20, ignore_eos=True, logprobs=2)
    by_itself = []
    for prompt in asked:
        engine = opened(tiny, form, chunk=1, prefixes=False)
        (request,) = engine.generate([prompt], wanted)
        by_itself.append((request.answer, request.logprobs))
    engine = opened(tiny, form, chunk=1, budget=3, pages=8, running=5, graphs=graphs)
    together = [(r.answer, r.logprobs) for r in engine.generate(asked, wanted)]
    assert together == by_itself
    assert engine.scheduler.counts.preemptions > 0 and engine.blocks.counts.hit_tokens > 0
    assert (engine.cache.carried > 0) == (form[0] == "kv4" or form[2] != "none")


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize(
    "form", [f for f in QUANTISED if f[1] == "nz" and f[2] != "e3m0"], ids="-".join
)
def test_beams_carry_what_is_open(tiny: Path, form: tuple[str, str, str], graphs: bool) -> None:
    """Scores are those of the answers computed by themselves, token by token, on pages of their own."""
    prompt = prompts(1, seed=7)[0][:11]
    engine = opened(tiny, form, chunk=1, graphs=graphs, running=2)
    engine.ends = frozenset()
    group = engine.beams(prompt, 4, most=20)
    for _ in engine.run():
        pass
    engine.check()
    assert len(group.ended) == 4 and engine.blocks.counts.copied > 10
    for ended in group.ended:
        single = opened(tiny, form, chunk=1)
        ids = [*prompt, *ended.answer]
        total = 0.0
        for at in range(len(ids) - 1):
            logits = single.model.forward(single.ops, single.cache, one_token(ids, at))
            if at + 1 >= len(prompt):
                total += float(logits[0].float().log_softmax(-1)[ids[at + 1]])
        assert abs(total / len(ended.answer) - ended.score) < 1e-5


def one_token(ids: list[int], at: int) -> Batch:
    """Token `at` of a request that lies in pages 3, 4, .."""
    batch = alone(ids[: at + 1])
    table = batch.block_table + 3
    return dataclasses.replace(
        batch,
        tokens=batch.tokens[-1:],
        positions=batch.positions[-1:],
        slots=batch.slots[-1:] + 3 * PAGE,
        owner=batch.owner[-1:],
        cu_q=torch.tensor([0, 1], dtype=torch.int32),
        block_table=table,
        rows=torch.tensor([0]),
    )


@pytest.mark.parametrize("form", FORMATS, ids="-".join)
def test_the_plan_counts_the_bytes_there_are(tiny: Path, form: tuple[str, str, str]) -> None:
    engine = opened(tiny, form, pages=7, running=3)
    config, dtype, cache = engine.model.config, engine.model.dtype, engine.cache
    page, besides = bytes_of(config, dtype, cache.form, 3)
    planned = memory(config, "fp32", form[0] or "fp32", 1 << 30, form[2], 3)
    assert form[1] == "nz" or (planned.page, planned.besides) == (page, besides)
    held = [t for t in (*cache.tensors.values(), *cache.windows.values()) if t.numel()]
    ends = sorted((t.data_ptr(), t.stride(0) * len(t) * t.element_size()) for t in held)
    assert all(at + size <= after for (at, size), (after, _) in pairwise(ends))
    there = sum(size for _, size in ends)
    spread = ends[-1][0] + ends[-1][1] - ends[0][0]  # all of it is in one piece of memory
    assert 7 * page + besides == there <= spread < there + 512 * len(held)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"kv": "c8x"}, "unknown format of keys and values 'c8x'; accepted: fp32, bf16, c8s"),
        ({"kv": "bf16"}, "bf16 keys and values beside fp32 activations; accepted: fp32, c8s"),
        ({"kv": "fp32", "dtype": "bf16"}, "fp32 keys and values beside bf16 activations"),
        ({"kv_layout": "zn", "kv": "c8d"}, "unknown layout of pages 'zn'; accepted: nd, nz"),
        ({"residual": "e3m0"}, "residual=e3m0 with keys and values that are floats"),
        ({"residual": "e4", "kv": "kv4"}, "unknown residual 'e4'; accepted: none, nested, e3m0"),
        ({"kv": "kv4", "backends": "host,paged_attention=ascendc"}, "kv4"),
        ({"kv": "kv4", "backends": "host,rope=reference", "graphs": True}, "graphs, and threads"),
    ],
)
def test_what_there_is_none_of_is_refused(
    tiny: Path, choices: dict[str, object], said: str
) -> None:
    with pytest.raises(TilewrightError) as caught:
        answers(open_engine(tiny, Choices(pages=8, **choices)), [[1, 2, 3]])  # type: ignore[arg-type]
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("form", [f for f in FORMATS if f[0]], ids="-".join)
def test_trying_a_backend_leaves_the_cache_as_it_was(
    tiny: Path, form: tuple[str, str, str]
) -> None:
    tried = opened(tiny, form, backends="reference").cache.tensors
    fresh = opened(tiny, form).cache.tensors
    assert tried.keys() == fresh.keys()
    assert all(torch.equal(tried[name], fresh[name]) for name in fresh)


def test_static_scales_are_the_largest_magnitudes_and_kept(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    scales = calibrate.scales
    monkeypatch.setattr(calibrate, "scales", lambda *a: calls.append(a) or scales(*a))
    first = opened(tiny, ("c8s", "nd", "none")).cache.tensors["k_channel_scale"]
    again = opened(tiny, ("c8s", "nz", "nested")).cache.tensors["k_channel_scale"]
    assert torch.equal(first, again) and len(calls) == 1
    (kept,) = (tmp_path / "kv-scales").iterdir()
    kept.write_bytes(kept.read_bytes()[:-7])
    spoilt = opened(tiny, ("c8s", "nd", "none")).cache.tensors["k_channel_scale"]
    assert torch.equal(first, spoilt) and len(calls) == 2

    engine = opened(tiny)
    (model, ops, ids) = calls[0]
    most = torch.zeros_like(first)
    for at in range(0, len(ids), 256):
        batch = alone(ids[at : at + 256])
        engine.model.forward(engine.ops, engine.cache, batch)
        for layer in range(2):
            k, _ = engine.cache.floats(layer)
            tokens = k.flatten(0, 1)[: len(batch.tokens)]
            most[layer] = torch.maximum(most[layer], tokens.abs().amax(0))
    assert len(ids) == 2048 and torch.equal(first, most / 127)


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer with heads of 64 channels, which the 910B's kernel wants for codes."""
    config = dataclasses.replace(TINY["llama"], layers=1, heads=2, kv_heads=1, head_dim=64)
    folder = tmp_path_factory.mktemp("tiny") / "wide"
    return write_hf(folder, config, lambda name: tiny_tensor(config, name, 0), 1)


KV_OPS = ("kv_write", "paged_attention", "kv_residual")


@pytest.mark.parametrize(
    ("backend", "form", "dtype"),
    [
        ("reference", ("c8s", "nz", "e3m0"), "fp32"),
        ("reference", ("kv4", "nz", "nested"), "fp32"),
        ("triton", ("c8d", "nz", "none"), "fp32"),
        ("ascendc", ("", "nz", "none"), "fp32"),
        ("ascendc", ("c8s", "nd", "nested"), "bf16"),
    ],
)
def test_other_backends_read_and_write_the_same(
    wide: Path, backend: str, form: tuple[str, str, str], dtype: str
) -> None:
    mixed = "host," + ",".join(f"{op}={backend}" for op in KV_OPS)
    engine = opened(wide, form, dtype=dtype, backends=mixed)
    host = opened(wide, form, dtype=dtype)
    engine.cache.__class__ = Dequantised
    asked = [list(range(3, 20)), [5, 4, 3]]
    wanted = Sampling(most=2, ignore_eos=True)
    assert answers(engine, asked, wanted) == answers(host, asked, wanted)
    cache = engine.cache
    assert isinstance(cache, Dequantised) and cache.calls == 2
    assert cache.worst < (4e-6 if dtype == "fp32" else 5 * 2**-8)


def test_what_pages_save_is_what_lengths_say() -> None:
    """Four at once grow from 32 tokens to 64 in step: 2, 16 times 3 and 16 times 4 pages of 4 in 33 steps."""
    found = paging(Listed("all alike", (64,)), 64, requests=36 + 4 * 30, seats=4)
    assert found.reserved == 256 and found.most_pages == 16 and found.at_once >= 4
    assert abs(found.saved - (1 - (2 + 16 * 3 + 16 * 4) / 33 / 4)) < 0.005
    assert abs(found.used - 4 * 48) < 2


def test_a_long_tail_is_where_pages_save() -> None:
    found = paging(parse("lognormal:171.5,0.5545"), 4096, requests=400, seats=8)
    assert found.saved > 0.93 and found.used / found.held > 0.93
    assert found.at_once > 100 and found.preemptions > 0


@pytest.mark.parametrize("plan", plans(TINY["llama"], 1 << 30), ids=str)
def test_the_plan_fits_what_it_says(plan: Memory) -> None:
    assert plan.weights + plan.besides + (plan.tokens // PAGE + 1) * plan.page > 1 << 30
    assert plan.weights + plan.besides + plan.tokens // PAGE * plan.page <= 1 << 30
