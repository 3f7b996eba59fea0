"""tilewright engine sensitivity: which groups of linears should keep bf16 weights beside int8 ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tilewright.cli import options
from tilewright.cli.engine_options import (
    Backends,
    Model,
    Threads,
    Weights,
    open_running,
    read_text,
    tokenizer_of,
)
from tilewright.cli.output import emit, number, progress, say, table


def sensitivity(
    model: Model,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="Where to write it, such as sensitive_layers.json."
        ),
    ],
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="K", help="Groups in bf16; by default one in eight."),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", metavar="FILE", help="The text; by default the one that comes along."
        ),
    ] = None,
    weights: Weights = "",
    backend: Backends = "host",
    threads: Threads = 0,
    window: Annotated[int, typer.Option("--window", metavar="N", help="Tokens.")] = 512,
    most: Annotated[int, typer.Option("--windows", metavar="N", help="At most; 0 for all.")] = 4,
    json: options.Json = None,
) -> None:
    """Score qkv, o, gate_up and down of each layer by their inputs over a text; the top K are to keep bf16 weights.

    The score is absmax / 127 / interquartile range. What it writes is for --sensitive of generate, chat and ppl.

    Example:  tilewright engine sensitivity smollm2 --out sensitive_layers.json --keep 18
    """
    from tilewright.document import require_writable
    from tilewright.engine.routing import write_sensitive
    from tilewright.engine.sensitivity import sensitivity as scored
    from tilewright.errors import UsageError
    from tilewright.models.text import default_text

    require_writable(out)
    if most < 0:
        raise UsageError(f"--windows {most}; accepted: 1 or more, 0 for all")
    words = default_text() if text is None else read_text(text)
    running = open_running(model, weights, "", backend, threads, False, json)
    ids = tokenizer_of(running).encode(words)
    count = min(most or len(ids), len(ids) // max(window, 1))
    with progress("windows", count, json) as step:
        found, seen = scored(running, ids, keep, window, most, step)
    write_sensitive(out, running.model.config, found)
    rows = [asdict(group) | {"evidence": "measured"} for group in found]
    emit(json, "engine", rows, interrupted=seen.windows < count)
    kept = [group for group in found if group.bf16]
    lines = [(str(g.layer), g.group, number(g.score)) for g in kept]
    table(("layer", "group", "score"), lines, json=json)
    say(f"{out}: {len(kept)} of {len(found)} groups keep bf16 weights, by measured inputs", json)
    if seen.windows < count:
        say(f"interrupted: {seen.windows} of {count} windows were finished before", json)
        raise typer.Exit(3)
