"""Laid-out weights kept between runs: the same bits, and never what is spoilt, foreign or of another model."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright.engine import kept as kept_module
from tilewright.engine.build import BadWeights, build
from tilewright.engine.kept import Kept, Parts
from tilewright.engine.ops import Backends, Ops
from tilewright.engine.session import Choices, open_engine
from tilewright.models.checkpoint import open_model
from tilewright.models.smollm import smollm2_path
from tilewright.models.tiny import write_tiny

NUMBERS = itertools.count()
KINDS = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.int32, torch.uint8]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own, that keeps the smallest too."""
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_module, "SMALLEST", 0)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(os.urandom(300_000))
    return path


def refuse() -> Parts:
    raise AssertionError("made again")


def some(seed: int) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    parts: Parts = {}
    for i, kind in enumerate(KINDS):
        shape = [int(torch.randint(0, 6, (1,), generator=generator)) for _ in range(i % 4)]
        parts[f"{i}"] = torch.randint(0, 100, shape, generator=generator).to(kind)
    return parts


def same(a: Parts, b: Parts) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and torch.equal(a[n], b[n]) for n in a
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**31), names=st.lists(st.text(max_size=9), unique=True, max_size=4))
def test_what_was_made_comes_back(source: Path, seed: int, names: list[str]) -> None:
    number = next(NUMBERS)  # examples share a cache, and may have the same seed and names
    first = Kept([source], "form", number)
    made = {name: first.parts(name, lambda i=i: some(seed + i)) for i, name in enumerate(names)}
    first.save()
    second = Kept([source], "form", number)
    for name in names:
        assert same(second.parts(name, refuse), made[name])
    assert second.hits == len(names) and first.hits == 0


def test_tensors_lie_aligned_and_may_be_written_without_harm(source: Path) -> None:
    first = Kept([source])
    first.parts("a", lambda: {"x": torch.ones(5), "y": torch.arange(100)})
    first.save()
    for _ in range(2):
        found = Kept([source]).parts("a", refuse)
        assert all(t.data_ptr() % 64 == 0 for t in found.values())
        assert torch.equal(found["x"], torch.ones(5))
        found["x"].zero_()


@pytest.mark.parametrize("change", ["touched", "longer", "first byte", "last byte", "form"])
def test_another_file_or_form_finds_nothing(source: Path, change: str) -> None:
    first = Kept([source], "bf16")
    first.parts("a", lambda: some(1))
    first.save()
    before = source.stat()
    raw = bytearray(source.read_bytes())
    if change == "touched":
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change != "form":
        if change == "longer":
            raw.append(0)
        else:
            raw[0 if change == "first byte" else -1] ^= 1
        source.write_bytes(raw)
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = Kept([source], "fp32" if change == "form" else "bf16")
    second.parts("a", lambda: some(2))
    assert second.hits == 0


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_spoilt_file_costs_time_only(source: Path, folder: Path, data: st.DataObject) -> None:
    first = Kept([source])
    first.parts("a", lambda: some(3))
    first.save()
    (file,) = folder.iterdir()
    raw = bytearray(file.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "empty", "other"]))
    if kind == "flip":
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    elif kind == "empty":
        raw.clear()
    else:
        raw = bytearray(data.draw(st.binary(max_size=100)))
    file.write_bytes(raw)
    second = Kept([source])
    assert same(second.parts("a", lambda: some(3)), some(3)) and second.hits == 0
    second.save()
    third = Kept([source])
    assert same(third.parts("a", refuse), some(3))


def test_nothing_is_kept_without_files_or_where_it_cannot_be(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for files in ([], [source]):
        folder.parent.mkdir(exist_ok=True)
        folder.write_text("a file where the folder should be")
        one = Kept(files)
        assert same(one.parts("a", lambda: some(1)), some(1))
        one.save()
    folder.unlink()
    monkeypatch.setattr(kept_module, "SMALLEST", 1 << 24)
    one = Kept([source])
    one.parts("a", lambda: some(1))
    one.save()
    assert not folder.exists()


def test_old_files_make_room(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 0
    for form in range(8):
        monkeypatch.setattr(kept_module, "ROOM", 3 * size if size else 1)
        one = Kept([source], form)
        one.parts("a", lambda: some(1))
        one.save()
        for file in folder.iterdir():  # older by the number of files that came after
            os.utime(file, ns=(0, file.stat().st_mtime_ns - 10**9))
            size = file.stat().st_size
    assert len(list(folder.iterdir())) == 3
    for form in (5, 6, 7):
        assert Kept([source], form).parts("a", refuse)
    monkeypatch.setattr(kept_module, "ROOM", 1)
    last = Kept([source], 8)
    last.parts("a", lambda: some(1))
    last.save()
    assert len(list(folder.iterdir())) == 1 and Kept([source], 8).parts("a", refuse)


@pytest.mark.parametrize("form", ["fp32", "bf16", "w8a8"])
def test_an_engine_of_kept_weights_gives_the_same_tokens(
    tmp_path: Path, folder: Path, form: str
) -> None:
    path = write_tiny(tmp_path / "tiny", "llama-tied", seed=4)
    answers = []
    for _ in range(2):
        engine = open_engine(path, Choices(form=form, pages=16))
        answers.append(engine.generate([[1, 2, 3, 4, 5]])[0].answer)
    (file,) = folder.iterdir()
    assert file.stat().st_size > 10_000
    assert answers[0] == answers[1] and len(set(answers[0])) > 1


def test_the_real_model_is_mapped_the_second_time(folder: Path) -> None:
    """Each laid tensor of every linear is the same; all of them are hits."""
    checkpoint = open_model("smollm2")
    ops = Ops(Backends())
    first = build(checkpoint, ops, "q4_1")
    (file,) = folder.iterdir()
    written = file.stat().st_mtime_ns
    found = Kept(checkpoint.files(), "q4_1", torch.float32, checkpoint.config)
    again = build(checkpoint, ops, "q4_1")
    assert checkpoint.files() == (smollm2_path(),)
    for a, b in zip(first.layers, again.layers, strict=True):
        for one, other in ((a.qkv, b.qkv), (a.o, b.o)):
            assert same(dict(one._w.parts), dict(other._w.parts))  # type: ignore[attr-defined]
            assert one.bytes == other.bytes
    assert same(dict(first.head._w.parts), dict(again.head._w.parts))  # type: ignore[attr-defined]
    assert file.stat().st_mtime_ns >= written and list(folder.iterdir()) == [file]
    for i in range(30):
        found.parts(f"layers.{i}.gate layers.{i}.up laid", refuse)
    assert found.hits == 30


def test_bad_weights_are_never_kept(tmp_path: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = write_tiny(tmp_path / "tiny", "llama", seed=4)
    file = path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    for _ in range(2):
        with pytest.raises(BadWeights, match=r"layers\.1\.down holds 1 values that are NaN"):
            build(open_model(path), Ops(Backends()), "bf16")
    assert not folder.exists()
