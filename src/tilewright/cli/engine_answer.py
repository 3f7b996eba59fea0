"""tilewright engine generate and chat: text in, text out as it becomes certain."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.engine_options import (
    Backends,
    Dtype,
    Graphs,
    Kv,
    KvLayout,
    KvResidual,
    MinP,
    Model,
    Most,
    Seed,
    Sensitive,
    Temperature,
    Threads,
    TopK,
    TopP,
    Weights,
    open_running,
    require_text,
    tokenizer_of,
)
from tilewright.cli.output import emit, quiet, say, table

if TYPE_CHECKING:
    from tilewright.engine.loop import Engine
    from tilewright.engine.requests import Request, Sampling


def generate(
    model: Model,
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="TEXT", help="The text to go on with.")
    ],
    weights: Weights = "",
    dtype: Dtype = "",
    backend: Backends = "host",
    threads: Threads = 0,
    most: Most = 128,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    seed: Seed = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="Ends the answer; may be given several times."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a user's turn of a conversation.")
    ] = False,
    beams: Annotated[int, typer.Option("--beams", metavar="W", help="Beam search, 1 to 16.")] = 0,
    kv: Kv = "",
    kv_layout: KvLayout = "nd",
    kv_residual: KvResidual = "none",
    graphs: Graphs = True,
    sensitive: Sensitive = "",
    json: options.Json = None,
) -> None:
    """Go on with a text, streaming what is certain as it comes.

    Example:  tilewright engine generate smollm2 --chat --prompt 'What is the capital of France?'
    """
    from tilewright.engine.requests import Sampling, State
    from tilewright.engine.session import chat_ids
    from tilewright.errors import UsageError

    require_text("--prompt", prompt)
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        most=most,
        stop=tuple(stop or ()),
    )
    if beams and sampling != Sampling(most=most):
        raise UsageError("--beams ranks whole answers; accepted: no option of sampling beside it")
    running = open_running(
        model, weights, dtype, backend, threads, graphs, json, sensitive, kv, kv_layout, kv_residual
    )
    tokenizer = tokenizer_of(running)
    ids = chat_ids(tokenizer, [("user", prompt)]) if chat else tokenizer.encode(prompt)
    if beams:
        _beams(running, ids, beams, most, json)
        return
    request, row = _answer(running, ids, sampling, json)
    interrupted = request.state is State.CANCELLED
    emit(json, "engine", [row | {"text": request.text}], interrupted=interrupted)
    if interrupted:
        raise typer.Exit(3)


def chat(
    model: Model = "smollm2",
    weights: Weights = "",
    dtype: Dtype = "",
    backend: Backends = "host",
    threads: Threads = 0,
    most: Most = 256,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    seed: Seed = None,
    system: Annotated[
        str, typer.Option("--system", metavar="TEXT", help="The system's turn.")
    ] = "",
    kv: Kv = "",
    kv_layout: KvLayout = "nd",
    kv_residual: KvResidual = "none",
    graphs: Graphs = True,
    sensitive: Sensitive = "",
    json: options.Json = None,
) -> None:
    """Talk with a model, a line a turn; an empty line or the end of the input ends it, Ctrl-C an answer.

    A line that cannot be answered is left out of the talk; the exit code at its end says so.
    Pages of the turns before are found in the prefix cache, so each turn computes its own tokens only.

    Example:  printf 'Hello\\nAnd in French?\\n' | tilewright engine chat smollm2 --json turns.json
    """
    from tilewright.engine.requests import Sampling
    from tilewright.errors import TilewrightError

    require_text("--system", system)
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed, most=most
    )
    running = open_running(
        model, weights, dtype, backend, threads, graphs, json, sensitive, kv, kv_layout, kv_residual
    )
    turns = [("system", system)] if system else []
    rows: list[dict[str, object]] = []
    code = 0
    try:
        while line := _line("" if quiet(json) else "> "):
            try:
                rows.append(_turn(running, turns, line, sampling, json))
            except TilewrightError as error:  # left out of the talk, which goes on
                print(f"tilewright: {error}", file=sys.stderr)
                code = error.exit_code
    finally:
        emit(json, "engine", rows)
    if code:
        raise typer.Exit(code)


def _turn(
    running: Engine,
    turns: list[tuple[str, str]],
    line: str,
    sampling: Sampling,
    json: str | None,
) -> dict[str, object]:
    """Answer a line; both are added to the turns. The row of it."""
    from tilewright.engine.session import chat_ids

    require_text("a turn", line)
    ids = chat_ids(tokenizer_of(running), [*turns, ("user", line)])
    request, row = _answer(running, ids, sampling, json)
    turns += [("user", line), ("assistant", request.text)]
    return row | {"prompt": line, "text": request.text}


def _answer(
    running: Engine, ids: list[int], sampling: Sampling, json: str | None
) -> tuple[Request, dict[str, object]]:
    """Stream one answer, up to Ctrl-C; the request and a row of what it took."""
    from tilewright.engine.sampling import BadLogits
    from tilewright.engine.session import setting

    request = running.add(ids, sampling)
    if running.router:
        running.route(request)
    started, first, given = time.perf_counter(), 0.0, 0
    try:
        for event in running.run():
            if not first:
                first = time.perf_counter() - started
            if not quiet(json):
                sys.stdout.write(event.text)
                sys.stdout.flush()
            given += len(event.text)
    except KeyboardInterrupt:
        running.cancel(request)
        if not quiet(json):  # what might have become a stop text
            sys.stdout.write(request.text[given:])
    if request.error:
        raise BadLogits(request.error)
    took = time.perf_counter() - started
    count = len(request.answer)
    rate = (count - 1) / (took - first) if count > 1 else None  # one token has no rate
    row: dict[str, object] = {
        "prompt_tokens": len(ids),
        "tokens": count,
        "finish": request.state.value,
        "first_token_s": first or None,
        "tokens_per_s": rate,
        **setting(running),
        "evidence": "measured",
        "target": "cpu",
    }
    if not quiet(json):
        sys.stdout.write("\n")
    times = f"; first after {first:.2f} s" if first else ""
    times += f", then {rate:.1f} tokens/s" if rate is not None else ""
    measured = ", measured" if times else ""
    say(
        f"{len(ids)} tokens in, {count} out ({request.state.value}){times}{measured}",
        json,
    )
    return request, row


def _beams(running: Engine, ids: list[int], width: int, most: int, json: str | None) -> None:
    from tilewright.engine.requests import State
    from tilewright.engine.sampling import BadLogits
    from tilewright.engine.session import setting

    group = running.beams(ids, width, most)
    try:
        for _ in running.run():
            pass
    except KeyboardInterrupt:
        running.cancel(group.members[0])
    if group.members and group.members[0].error:
        raise BadLogits(group.members[0].error)
    interrupted = bool(group.members) and group.members[0].state is State.CANCELLED
    rows = [
        {"rank": i, "score": ended.score, "tokens": len(ended.answer), **setting(running)}
        | {"evidence": "measured"}
        | {"text": tokenizer_of(running).decode(ended.answer, skip_special=True)}
        for i, ended in enumerate(group.ended)
    ]
    emit(json, "engine", rows, interrupted=interrupted)
    table(
        ("rank", "score", "text"),
        [(str(r["rank"]), f"{r['score']:.4f}", str(r["text"])) for r in rows],
        json=json,
    )
    if interrupted:
        say(f"interrupted: {len(rows)} answers had ended before", json)
        raise typer.Exit(3)


def _line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except (EOFError, KeyboardInterrupt):
        return ""
    except UnicodeDecodeError:
        return "\udcff"
