"""tilewright engine: a real model end to end on the kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.cli import engine_answer, engine_sensitivity, engine_validate, options
from tilewright.cli.engine_bench import bench
from tilewright.cli.engine_options import (
    Backends,
    Dtype,
    Kv,
    KvLayout,
    KvResidual,
    Model,
    Sensitive,
    Threads,
    Weights,
    open_running,
    read_text,
    tokenizer_of,
)
from tilewright.cli.output import emit, progress, say, table

app = options.application()


@app.callback()
def engine() -> None:
    """The reference inference engine: continuous batching over paged KV, on any backend op by op.

    It runs Llama, Qwen2, Qwen3, Mixtral and Qwen3-MoE models from GGUF files and Hugging Face folders.

    Example:  tilewright engine chat smollm2
    """


app.command("generate")(engine_answer.generate)
app.command("chat")(engine_answer.chat)


@app.command("ppl")
def ppl(
    model: Model,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", metavar="FILE", help="The text; by default the one that comes along."
        ),
    ] = None,
    weights: Weights = "",
    dtype: Dtype = "",
    backend: Backends = "host",
    threads: Threads = 0,
    window: Annotated[int, typer.Option("--window", metavar="N", help="Tokens.")] = 512,
    most: Annotated[int, typer.Option("--windows", metavar="N", help="At most; 0 for all.")] = 4,
    kv: Kv = "",
    kv_layout: KvLayout = "nd",
    kv_residual: KvResidual = "none",
    sensitive: Sensitive = "",
    json: options.Json = None,
) -> None:
    """Perplexity over non-overlapping windows of a text: deterministic, measured on this machine's bits.

    Example:  tilewright engine ppl smollm2 --weights w8a8 --kv c8d --windows 8
    """
    from tilewright.engine.perplexity import perplexity
    from tilewright.engine.session import setting
    from tilewright.errors import UsageError
    from tilewright.models.text import default_text

    if most < 0:
        raise UsageError(f"--windows {most}; accepted: 1 or more, 0 for all")
    words = default_text() if text is None else read_text(text)
    running = open_running(
        model, weights, dtype, backend, threads, False, json, sensitive, kv, kv_layout, kv_residual
    )
    if running.router:
        running.router.always()
    ids = tokenizer_of(running).encode(words)
    count = min(most or len(ids), len(ids) // max(window, 1))
    with progress("windows", count, json) as step:
        found = perplexity(running, ids, window, most, step)
    row: dict[str, object] = {
        "model": model,
        "ppl": found.value,
        "tokens": found.tokens,
        "windows": found.windows,
    }
    row |= {"window": window, **setting(running), "evidence": "measured", "target": "cpu"}
    emit(json, "engine", [row], interrupted=found.windows < count)
    say(
        f"perplexity {found.value:.4f} over {found.tokens} tokens, {found.windows} windows, measured",
        json,
    )
    if found.windows < count:
        say(f"interrupted: {found.windows} of {count} windows were finished before", json)
        raise typer.Exit(3)


@app.command("plan")
def plan(
    model: Model,
    gib: Annotated[
        float, typer.Option("--memory", metavar="GIB", help="For weights and pages together.")
    ] = 8.0,
    lengths: Annotated[
        str,
        typer.Option(
            "--lengths",
            metavar="DIST|FILE",
            help="Of requests, see `pages simulate`: what pages save over memory for the longest.",
        ),
    ] = "lognormal:171.5,0.5545",
    longest: Annotated[
        int, typer.Option("--longest", metavar="N", help="Tokens of a request at most.")
    ] = 4096,
    seed: options.Seed = 0,
    json: options.Json = None,
) -> None:
    """What weights and pages take in each format, how many tokens fit, and what pages save; nothing is loaded.

    The lengths by default have a long tail: mean 200, standard deviation 120.

    Example:  tilewright engine plan smollm2 --memory 2
    """
    from tilewright.engine.paging import paging
    from tilewright.engine.plan import plans
    from tilewright.errors import UsageError
    from tilewright.models.checkpoint import open_model
    from tilewright.pages.lengths import parse

    if not 0 < gib <= 2**20:
        raise UsageError(f"--memory {gib}; accepted: more than 0, up to 1048576 (GiB)")
    checkpoint = open_model(model)
    config = checkpoint.config
    codes = checkpoint.q4("layers.0.q") is not None
    halves = codes and checkpoint.q4("embed" if config.tied else "head") is not None
    found = plans(config, int(gib * 2**30), codes, halves)
    saved = paging(parse(lengths), longest, seed=seed)
    emit(
        json,
        "engine",
        [
            {"weights": m.form, "kv": m.kv, "residual": m.residual, "weight_bytes": m.weights}
            | {"page_bytes": m.page, "besides_bytes": m.besides, "tokens": m.tokens}
            | {"evidence": "counted"}
            for m in found
        ],
        paging=saved,
    )
    table(
        ("weights", "kv", "residual", "weights MB", "page KiB", "besides MB", "tokens that fit"),
        [
            (m.form, m.kv, m.residual, f"{m.weights / 1e6:.1f}", f"{m.page / 1024:.1f}")
            + (f"{m.besides / 1e6:.1f}", str(m.tokens))
            for m in found
        ],
        title=f"{config.name} in {gib:g} GiB, counted",
        json=json,
    )
    say(
        f"pages save {saved.saved:.1%} over memory for {longest} tokens a request, counted on the real "
        f"scheduler: lengths {saved.lengths}, {saved.seats} at once hold {saved.held:.0f} tokens' worth of "
        f"{saved.reserved}, {saved.used / saved.held:.1%} of it in use; in all of it {saved.at_once:.0f} run",
        json,
    )


app.command("bench")(bench)
app.command("validate")(engine_validate.validate)
app.command("diff")(engine_validate.diff)
app.command("sensitivity")(engine_sensitivity.sensitivity)
