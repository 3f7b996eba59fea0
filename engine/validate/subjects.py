"""What is validated: real models, seeded tiny ones, and a real one with its feed-forward split into experts."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from torch import Tensor, zeros

from tilewright.errors import UsageError
from tilewright.machine import cache_folder
from tilewright.models.checkpoint import Q4, Checkpoint, open_model, shapes
from tilewright.models.config import ModelConfig
from tilewright.models.hf_export import write_hf
from tilewright.models.text import default_text
from tilewright.models.tiny import TINY, tiny_tensor
from tilewright.models.tokenizer import Tokenizer

TINY_PREFIX = "tiny:"
_BLOCK = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A model and what it is asked.

    `identity` changes with its weights. `folder` gives it as a Hugging Face folder, written when asked
    for. `prompts` begin with the same tokens, but for the last two; `ends` are tokens that end an answer.
    `dense` is what others than the engine run: the checkpoint itself, but for a split one.
    """

    name: str
    checkpoint: Checkpoint
    dense: Checkpoint
    identity: str
    folder: Callable[[], Path]
    prompts: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class SplitFeed:
    """See Checkpoint: a dense model as a mixture of `experts`, all taken by each token with equal gates.

    Each expert has its part of the feed-forward's width. Gates are 1/experts, and the weights of `down`
    are as many times larger: exact for powers of two, so the answer is the dense one up to the order of sums.
    """

    dense: Checkpoint
    experts: int = 8

    @property
    def path(self) -> Path:
        return self.dense.path

    @property
    def config(self) -> ModelConfig:
        dense, count = self.dense.config, self.experts
        if dense.experts or dense.ffn % count or count & (count - 1):
            raise UsageError(f"a feed-forward of {dense.ffn} does not split into {count} experts")
        return dataclasses.replace(
            dense, experts=count, experts_used=count, ffn=dense.ffn // count, norm_topk=True
        )

    def tokenizer(self) -> Tokenizer:
        return self.dense.tokenizer()

    def has(self, name: str) -> bool:
        return name.endswith(".router") or self.dense.has(self._source(name)[0])

    def shape(self, name: str) -> tuple[int, ...]:
        """By the split config: slices of what the dense one must be."""
        return shapes(self.config)[name]

    def files(self) -> tuple[Path, ...]:
        """None: what is laid out of it is not kept."""
        return ()

    def tensor(self, name: str) -> Tensor:
        if name.endswith(".router"):
            return zeros(self.shape(name))
        source, expert = self._source(name)
        whole = self.dense.tensor(source)
        if expert is None:
            return whole
        if source.endswith(".down"):
            return whole.float().chunk(self.experts, dim=1)[expert] * self.experts
        return whole.chunk(self.experts)[expert]

    def q4(self, name: str) -> Q4 | None:
        return self.dense.q4(name)

    @staticmethod
    def _source(name: str) -> tuple[str, int | None]:
        layer, found, rest = name.partition("experts.")
        if not found:
            return name, None
        expert, _, kind = rest.partition(".")
        return layer + kind, int(expert)


@cache
def subject(name: str) -> Subject:
    """`smollm2`, `tiny:KIND`, a GGUF file or a Hugging Face folder; raises what `open_model` raises."""
    if name.startswith(TINY_PREFIX):
        return _tiny(name.removeprefix(TINY_PREFIX))
    checkpoint = open_model(name)
    identity = _digest(checkpoint.path)
    return Subject(
        name,
        checkpoint,
        checkpoint,
        identity,
        lambda: _folder(checkpoint, identity),
        _text_prompts(checkpoint),
        checkpoint.config.ends,
    )


def split(dense: Subject) -> Subject:
    """The subject with its feed-forward split into 8 experts; the dense one answers for it."""
    return dataclasses.replace(
        dense, name=f"{dense.name}, split", checkpoint=SplitFeed(dense.checkpoint)
    )


def _tiny(kind: str, seed: int = 0) -> Subject:
    if kind not in TINY:
        accepted = ", ".join(TINY_PREFIX + one for one in TINY)
        raise UsageError(f"unknown tiny model '{kind}'; accepted: {accepted}")
    config = dataclasses.replace(TINY[kind], name=TINY_PREFIX + kind, ends=(7, 11, 13))
    digest = hashlib.sha256(repr((config, seed)).encode())
    digest.update(tiny_tensor(config, "layers.0.q", seed).numpy().tobytes())
    identity = digest.hexdigest()
    place = _written(identity, config, lambda name: tiny_tensor(config, name, seed))
    draw = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(16, config.vocab) for _ in range(count))

    shared = ids(37)
    prompts = tuple(shared + ids(n) for n in (3, 14, 30, 8)) + (ids(5), ids(1))
    model = open_model(place)
    return Subject(config.name, model, model, identity, lambda: place, prompts, config.ends)


def _text_prompts(checkpoint: Checkpoint) -> tuple[tuple[int, ...], ...]:
    """Of the frozen text, with 40 tokens in common; and a question whose answer ends early."""
    from tilewright.engine.session import chat_ids

    tokenizer = checkpoint.tokenizer()
    ids = tuple(tokenizer.encode(default_text()[:20000]))
    parts = [ids[at : at + count] for at, count in ((200, 7), (900, 26), (1700, 31), (2600, 15))]
    prompts = [ids[:40] + part for part in parts]
    prompts.append(ids[3000:3009])
    question = "What is the capital of France?"
    if tokenizer.chat_template is None:
        return (*prompts, tuple(tokenizer.encode(question)))
    return (*prompts, tuple(chat_ids(tokenizer, [("user", question)])))


def _folder(checkpoint: Checkpoint, identity: str) -> Path:
    if checkpoint.path.is_dir():
        return checkpoint.path
    return _written(identity, checkpoint.config, lambda name: checkpoint.tensor(name).float())


def _written(identity: str, config: ModelConfig, tensor: Callable[[str], Tensor]) -> Path:
    """A Hugging Face folder in the cache, whole or not there."""
    place = cache_folder("oracle", "models", identity[:24])
    if not (place / "config.json").is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=place.parent, suffix=".partial"))
        try:
            write_hf(aside, config, tensor)
            if not (
                place / "config.json"
            ).is_file():  # else another process was faster, and reads it
                shutil.rmtree(place, ignore_errors=True)
                aside.rename(place)
        except OSError:
            if not (place / "config.json").is_file():
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return place


def _digest(path: Path) -> str:
    """sha256 of a file, or of all files of weights and the config in a folder."""
    found = hashlib.sha256()
    files: Sequence[Path] = [path]
    if path.is_dir():
        files = sorted([*path.glob("*.safetensors"), path / "config.json"])
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                found.update(block)
    return found.hexdigest()
