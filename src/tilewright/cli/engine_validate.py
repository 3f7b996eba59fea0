"""tilewright engine validate, diff: that answers are right, and where two assignments of backends part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, progress, say, table

if TYPE_CHECKING:
    from tilewright.engine.validate.tasks import Row

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A GGUF file, a Hugging Face folder, smollm2, or tiny:KIND with seeded random weights.",
    ),
]
SideA = Annotated[str, typer.Option("--a", metavar="BACKENDS", help="What is held to be right.")]
SideB = Annotated[
    str, typer.Option("--b", metavar="BACKENDS", help="host, reference, host,rope=triton, ...")
]


def validate(
    model: Model = None,
    feature: Annotated[
        str | None,
        typer.Option(
            "--feature",
            metavar="F,...",
            help="Only rows with one of them: batch, chunk, prefix, preempt, graph, nz, invariant, moe, "
            "beams, logits, backends, formats, route.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer prompts, features only together, one backend.")
    ] = False,
    json: options.Json = None,
) -> None:
    """Hold the engine's answers against Hugging Face transformers, feature by feature and in pairs.

    Without MODEL: SmolLM2, itself and split into experts, and a tiny model of each architecture. A row is good
    if all tokens are equal and a counter shows that its features did something. Without the toolchain
    `transformers` a plain forward pass of our own stands in, and beams are not decided.

    Example:  tilewright engine validate smollm2 --feature chunk,graph
    """
    from tilewright.engine.validate.oracle import oracle_here
    from tilewright.engine.validate.plan import Plan, Wanted, everything
    from tilewright.engine.validate.tasks import Task, run
    from tilewright.errors import Unavailable

    wanted = Wanted(frozenset(options.names(feature)), quick)
    oracle, missing = oracle_here()
    tasks = list(Plan(oracle, wanted).tasks((model,) if model else everything()))
    rows: list[Row] = []
    stopped = False
    if not tasks:
        raise Unavailable(
            f"{model or 'no model'} has no row with {', '.join(sorted(wanted.features))}"
        )
    if missing:
        tasks.insert(0, Task("oracle", "", "", "transformers", missing))
    try:
        with progress("equalities", len(tasks), json) as step:
            for task in tasks:
                rows.append(run(task))
                step(f"{task.model} {task.feature} {task.beside}".rstrip())
    except KeyboardInterrupt:
        stopped = True
        say(f"stopped after {len(rows)} of {len(tasks)}", json)
    _show(rows, json, stopped)
    if any(row.ok is False for row in rows):
        raise typer.Exit(1)
    undecided = any(row.ok is None and row.task.backend == "host" for row in rows)
    if stopped or missing or undecided or not any(row.ok for row in rows):
        raise typer.Exit(3)


def diff(
    model: Model = "smollm2",
    a: SideA = "reference",
    b: SideB = "host",
    weights: Annotated[
        str, typer.Option("--weights", metavar="FORM", help="fp32, bf16, w8a8, q4_1 or w4a8.")
    ] = "",
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", help="Of the prompt.")] = 24,
    json: options.Json = None,
) -> None:
    """Find the first tensor in which two assignments of backends differ by more than they may.

    Both make every call of one pass on the same inputs, those that A gives; so a difference is that call's own.

    Example:  tilewright engine diff tiny:llama --a reference --b host,rope=triton
    """
    from tilewright.engine.diff import diff as compare
    from tilewright.engine.session import Choices
    from tilewright.engine.validate.subjects import subject
    from tilewright.errors import UsageError

    of = subject(model or "smollm2")
    if not 1 <= tokens <= len(of.prompts[0]):
        raise UsageError(f"--tokens {tokens}; accepted: 1 to {len(of.prompts[0])}")
    with progress("calls", None, json) as step:
        found = compare(of.checkpoint, a, b, of.prompts[0][:tokens], Choices(form=weights), step)
    rows: list[dict[str, object]] = [
        {"call": d.call, "layer": d.layer, "op": d.op, "case": d.case, "output": d.output}
        | {"rel_err": d.found.rel_err, "tolerance": d.found.tolerance, "worst": d.found.worst}
        | {"index": list(d.found.worst_index), "a": d.a, "b": d.b}
        for d in found.differences
    ]
    emit(json, "engine", rows, calls=found.calls, share=found.share, heard=found.heard)
    if not rows:
        say(
            f"{found.calls} calls agree, at most {found.share:.0%} of what is tolerated apart", json
        )
        return
    first = found.differences[0]
    where = f"layer {first.layer}" if first.layer >= 0 else "the output projection"
    say(
        f"call {first.call} of {found.calls} is the first that differs: {first.op} of {where}, {first.output} "
        f"[{first.case}] by {first.found.rel_err:.3g} ({first.found.tolerance:.3g} allowed); worst at "
        f"{list(first.found.worst_index)}: {first.a:.6g} with {a}, {first.b:.6g} with {b}; "
        f"{len(rows)} outputs differ",
        json,
    )
    raise typer.Exit(1)


def _show(rows: list[Row], json: str | None, stopped: bool) -> None:
    emit(json, "engine", [row.as_dict() for row in rows], interrupted=stopped)
    words = {True: "ok", False: "FAILED", None: "undecided"}
    table(
        ("feature", "with", "model", "backend", "verdict", "fired", "detail"),
        [
            (t.feature, t.beside, t.model, t.backend, words[r.ok], str(r.fired), r.detail)
            for r in rows
            for t in (r.task,)
        ],
        json=json,
    )
    count = {state: sum(r.ok is state for r in rows) for state in words}
    say(f"{count[True]} equal, {count[False]} failed, {count[None]} undecided", json)
