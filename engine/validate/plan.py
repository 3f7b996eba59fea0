"""Which equalities are tried: every feature alone, a covering array of pairs, every backend and format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

from tilewright.engine.build import OWN, build
from tilewright.engine.calls import TARGETS
from tilewright.engine.ops import Backends, Ops
from tilewright.engine.session import Choices
from tilewright.engine.transformer import Transformer
from tilewright.engine.validate import formats
from tilewright.engine.validate.features import FEATURES, combinations, drive
from tilewright.engine.validate.oracle import Oracle, Question
from tilewright.engine.validate.route import turned
from tilewright.engine.validate.subjects import TINY_PREFIX, Subject, split, subject
from tilewright.engine.validate.tasks import Found, Task, judge, name_of
from tilewright.errors import unknown
from tilewright.models.tiny import TINY

_SHORT = Question(most=3)
BACKENDS = tuple(name for name in TARGETS if name != "host")
# Where several models are validated, what does not depend on the architecture is tried with these.
_THOROUGH = ("smollm2", "tiny:llama", "tiny:mixtral")
SECTIONS = (*FEATURES, "logits", "backends", "formats", "route")


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """`features` to be shown, all if empty; `quick`: half the prompts, features only together, fewer backends."""

    features: frozenset[str] = frozenset()
    quick: bool = False

    def __post_init__(self) -> None:
        for name in sorted(self.features - set(SECTIONS)):
            raise unknown("feature", name, list(SECTIONS))

    def has(self, *names: str) -> bool:
        """Whether any of them is to be shown."""
        return not self.features or not self.features.isdisjoint(names)


class Plan:
    """The tasks of a validation, each model loaded once."""

    def __init__(self, oracle: Oracle, wanted: Wanted, question: Question | None = None) -> None:
        self._oracle, self._wanted, self._question = oracle, wanted, question or Question()
        self._expected = cache(lambda of: oracle.answer(of, self._question))
        self._built: dict[tuple[str, str], Transformer] = {}

    def tasks(self, names: Sequence[str]) -> Iterator[Task]:
        """Of models by name (see `subjects.subject`)."""
        for name in names:
            of = subject(name)
            if self._wanted.quick:
                of = dataclasses.replace(of, prompts=(*of.prompts[:2], of.prompts[-1]))
            yield from self._of(of, len(names) == 1 or name in _THOROUGH)

    def _of(self, of: Subject, thorough: bool) -> Iterator[Task]:
        tiny = of.name.startswith(TINY_PREFIX)
        if self._wanted.has("logits"):
            yield Task("logits", "", of.name, "host", partial(self._logits, of))
        yield from self._features(of, dense=not tiny and not of.checkpoint.config.experts)
        if tiny and self._wanted.has("backends"):
            yield from self._backends(of, thorough)
        if thorough and self._wanted.has("route"):
            for graphs in (False, True):
                work = partial(turned, of, graphs)
                yield Task("route", "graph" if graphs else "", of.name, "host", work)
        if thorough and self._wanted.has("formats"):
            yield from self._formats(of)

    def _features(self, of: Subject, dense: bool) -> Iterator[Task]:
        """A dense model is also split into experts: then `moe` is one of the features."""
        names = [n for n in FEATURES if n != "moe" or dense]
        always = frozenset({"moe"} if of.checkpoint.config.experts else ())
        sets = [frozenset[str]()]
        if not self._wanted.quick:
            sets += [frozenset({name}) for name in names]
        sets += [one for one in combinations(names) if one not in sets]
        for on in (one | always for one in sets):
            if self._wanted.has(*on) and ("beams" not in on or self._oracle.name == "transformers"):
                whom = split(of) if dense and "moe" in on else of
                feature, beside = name_of(on)
                work = partial(self._drive, whom, of, on)
                yield Task(feature, beside, whom.name, "host", work)

    def _backends(self, of: Subject, thorough: bool) -> Iterator[Task]:
        """Whole passes on each backend, then, where `thorough`, each op by itself among those of the host.

        Of the last two prompts, a few tokens each: those answers are the beginnings of the oracle's.
        """
        short = dataclasses.replace(of, prompts=of.prompts[-2:])
        ops = ["gemm", "rmsnorm", "silu_mul", "rope", "kv_write", "paged_attention"]
        ops += ["grouped_gemm", "beam_topk"] if of.checkpoint.config.experts else ["quantize"]

        def swapped(text: str, op: str, ran: str) -> Found:
            base = Choices(form="fp32", backends=text)
            if op == "quantize":
                base = dataclasses.replace(base, form="w8a8")
                return formats.over_dequantised_weights(short, base, ran, _SHORT)
            expected = self._expected(of)
            part = dataclasses.replace(expected, greedy=expected.greedy[-2:])
            return formats.same_answers(short, base, _SHORT, part, self._oracle.name, ran)

        for name in BACKENDS[:1] if self._wanted.quick else BACKENDS:
            work = partial(swapped, name, "gemm", f"gemm={name}")
            yield Task("backend", "every op", of.name, name, work)
            for op in ops if thorough else ():
                text = f"host,{op}={name}"
                work = partial(swapped, text, op, f"{op}={name}")
                yield Task("backend", op, of.name, text, work)

    def _formats(self, of: Subject) -> Iterator[Task]:
        """Each format: how far from fp32, call by call against a reference in fp64, answer by answer.

        Of a real model whole answers are compared where nothing is rounded on the way (q4_1): one code that
        rounds the other way moves the logits of SmolLM2 in W8A8 by 9 %, as its oracle in fp32 and in fp64 show.
        """
        tiny = of.name.startswith(TINY_PREFIX)
        for text, sign in formats.SIGNS.items():
            form, _, dtype = text.partition(":")
            choices = Choices(form=form, dtype=dtype, pages=64)
            if form in OWN and of.checkpoint.q4("layers.0.q") is None:
                continue
            yield Task(text, "kl", of.name, "host", self._far(of, choices, sign))
            calls = partial(formats.same_calls, of, choices, sign)
            yield Task(text, "each call", of.name, "host", calls)
            if text == "q4_1" or (tiny and form == "w8a8"):
                over: Callable[[], Found] = partial(self._q4, of, choices, sign)
                if form == "w8a8":
                    over = partial(formats.over_dequantised_weights, of, choices, sign)
                yield Task(text, "dequantised", of.name, "host", over)
        for choices in formats.kv_choices(self._wanted.quick):
            kind, sign = f"{choices.kv_layout}+{choices.residual}", f"kv={choices.kv}"
            over = partial(formats.over_dequantised_pages, of, choices, sign)
            yield Task(choices.kv, f"{kind}, kl", of.name, "host", self._far(of, choices, sign))
            calls = partial(formats.same_calls, of, choices, sign)
            yield Task(choices.kv, f"{kind}, each call", of.name, "host", calls)
            if tiny:
                yield Task(choices.kv, f"{kind}, dequantised", of.name, "host", over)

    def _logits(self, of: Subject) -> Found:
        choices = Choices(form="fp32", pages=64)
        return formats.same_logits(of, self._expected(of), choices, self._oracle.name)

    def _far(self, of: Subject, choices: Choices, sign: str) -> Callable[[], Found]:
        return lambda: formats.far_from_fp32(of, self._expected(of), choices, sign)

    def _q4(self, of: Subject, choices: Choices, sign: str) -> Found:
        """The oracle has the dequantised weights."""
        expected, built = self._expected(of), self._model(of, "q4_1")
        return formats.same_answers(
            of, choices, self._question, expected, self._oracle.name, sign, built
        )

    def _drive(self, of: Subject, dense: Subject, on: frozenset[str]) -> Found:
        outcome = drive(of, on, self._question, Choices(form="fp32"), self._model(of, "fp32"))
        return judge(outcome, self._expected(dense), self._oracle.name, self._question.most)

    def _model(self, of: Subject, form: str) -> Transformer:
        """Weights in their layout on the host; only the last model's are kept."""
        key = (of.name, form)
        if key not in self._built:
            if len(self._built) > 1:
                self._built.clear()
            self._built[key] = build(of.checkpoint, Ops(Backends()), form)
        return self._built[key]


def everything() -> tuple[str, ...]:
    """The models that are validated where none is named: the real one, and a tiny one of each architecture."""
    return ("smollm2", *(TINY_PREFIX + kind for kind in TINY))
