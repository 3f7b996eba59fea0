"""An engine from a handful of choices: what commands and tests open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tilewright.dtypes import from_torch
from tilewright.engine.build import ROUTED, build
from tilewright.engine.calibrate import static_scales
from tilewright.engine.kv_cache import KvCache
from tilewright.engine.kv_formats import KvFormat
from tilewright.engine.loop import Engine
from tilewright.engine.ops import Backends, Ops
from tilewright.engine.routing import Router, read_sensitive
from tilewright.engine.scheduler import Limits
from tilewright.engine.transformer import Transformer
from tilewright.errors import UsageError
from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels.mask_gemm.layout import MOST_ROWS
from tilewright.machine import usable_cores
from tilewright.models.checkpoint import Checkpoint, open_model
from tilewright.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Choices:
    """How a model is run.

    Attributes:
        form: format of weights, see `build.FORMATS`; empty: q4_1 where the file has it, else fp32.
        dtype: of activations, fp32 or bf16; empty: by the format.
        backends: `host`, or `host,rope=triton`, see `Backends.parse`.
        pages: of 16 tokens in the cache; 0: enough for `running` requests of 1024 tokens.
        threads: of host kernels; 0: all.
        budget, running, chunk: see `Limits`.
        prefixes: keep and share pages of equal prefixes.
        graphs: capture decode steps and replay them.
        invariant: the bits of a request do not depend on its batch mates.
        kv: format of keys and values, fp32, bf16, c8s, c8d or kv4; empty: the type of activations.
        kv_layout: of pages, nd or nz.
        residual: none, nested or e3m0: 4 more bits for the vectors that err most.
        sensitive: a file of sensitive layers, see `routing`: the format is then routed.
    """

    form: str = ""
    dtype: str = ""
    backends: str = "host"
    pages: int = 0
    threads: int = 0
    budget: int = 512
    running: int = 16
    chunk: int = 0
    prefixes: bool = True
    graphs: bool = False
    invariant: bool = False
    kv: str = ""
    kv_layout: str = "nd"
    residual: str = "none"
    sensitive: str = ""


def open_engine(
    model: Path | str | Checkpoint, choices: Choices, built: Transformer | None = None
) -> Engine:
    """Load a model and make an engine of it; raises what `open_model` and `build` raise.

    `built` is what `build` made of the model before, for the same format, type and backends.
    """
    if built and choices.sensitive:
        raise UsageError("a model that was built before is not routed; accepted: one of the two")
    checkpoint = open_model(model) if isinstance(model, Path | str) else model
    ops = Ops(Backends.parse(choices.backends), choices.threads, choices.invariant)
    router = None
    if choices.sensitive:
        router = Router(
            checkpoint.config, read_sensitive(Path(choices.sensitive), checkpoint.config)
        )
        if choices.budget > MOST_ROWS:
            raise UsageError(
                f"budget={choices.budget} with {ROUTED} weights; accepted: 1 to {MOST_ROWS}"
            )
    form = choices.form or (
        ROUTED if router else "q4_1" if checkpoint.q4("layers.0.q") is not None else "fp32"
    )
    limits = Limits(choices.budget, choices.running, choices.chunk)
    pages = choices.pages or choices.running * 1024 // PAGE
    if pages < 1:
        raise UsageError(f"pages={choices.pages}; accepted: 1 or more, of {PAGE} tokens each")
    transformer = built or build(checkpoint, ops, form, choices.dtype, router)
    kv = KvFormat.named(choices.kv, choices.kv_layout, choices.residual, transformer.dtype)
    tokenizer = _tokenizer(checkpoint)
    scales = (
        static_scales(checkpoint, transformer, ops, form, tokenizer) if kv.kv == "c8s" else None
    )
    cache = KvCache(checkpoint.config, pages, transformer.dtype, kv, choices.running, scales)
    if any(ops.backends.of(op) != "host" for op in ("kv_write", "kv_residual", "paged_attention")):
        cache.probe(ops, checkpoint.config.heads)
    return Engine(
        transformer,
        ops,
        cache,
        tokenizer,
        limits,
        prefixes=choices.prefixes,
        graphs=choices.graphs,
        router=router,
    )


def setting(engine: Engine) -> dict[str, object]:
    """How an engine runs its model, by the names of `Choices` and of options: what a figure of it depends on."""
    form, ops = engine.cache.form, engine.ops
    dtype = from_torch(engine.model.dtype).name
    return {
        "weights": engine.model.form,
        "dtype": dtype,
        "kv": dtype if form.kv == "float" else form.kv,
        "kv_layout": form.layout,
        "kv_residual": form.residual,
        "backend": str(ops.backends),
        "threads": ops.threads or usable_cores(),
        "graphs": engine.graphs is not None,
    }


def chat_ids(tokenizer: Tokenizer, turns: Sequence[tuple[str, str]]) -> list[int]:
    """Token ids of a conversation, (role, text) each, up to where the assistant answers.

    Raises UsageError for a model without a chat template, or whose template refuses these turns.
    """
    from jinja2 import BaseLoader, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if tokenizer.chat_template is None:
        raise UsageError("the model has no chat template; accepted: `engine generate`")
    # As transformers renders them.
    environment = ImmutableSandboxedEnvironment(
        loader=BaseLoader(),
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
    )
    named = {"bos_token": tokenizer.bos, "eos_token": tokenizer.eos}
    values = {n: "" if i is None else tokenizer.decode([i]) for n, i in named.items()}
    messages = [{"role": role, "content": text} for role, text in turns]
    environment.globals["raise_exception"] = _refuse
    try:
        template = environment.from_string(tokenizer.chat_template)
        text = template.render(messages=messages, add_generation_prompt=True, **values)
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise UsageError(f"the model's chat template takes no such turns: {error}") from error
    return tokenizer.encode(text, parse_special=True)


def _refuse(message: str) -> None:
    raise UsageError(f"the model's chat template takes no such turns: {message}")


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer | None:
    """The tokenizer that lies with the weights; None where there is none, for prompts of ids."""
    from tilewright.models.errors import MissingTokenizer

    try:
        return checkpoint.tokenizer()
    except MissingTokenizer:
        return None
