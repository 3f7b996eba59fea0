"""tilewright pages: what a page size costs, and how fast the page pool is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, progress, say, table

if TYPE_CHECKING:
    from tilewright.pages.simulate import Result
    from tilewright.perf.pages import PagesRow

app = options.application()


@app.callback()
def pages() -> None:
    """The pages of a KV cache: what a page size costs, and how fast the lock-free pool hands pages out."""


@app.command("simulate")
def simulate(
    lengths: Annotated[
        str,
        typer.Option(
            "--lengths",
            metavar="DIST|FILE",
            help="normal:MEAN,STD, lognormal:MEDIAN,SIGMA, or a file of whole numbers.",
        ),
    ] = "lognormal:600,1.0",
    sizes: Annotated[
        str, typer.Option("--page-sizes", metavar="N,...", help="Tokens a page.")
    ] = "8,16,32,64,128",
    sequences: Annotated[
        int, typer.Option("--sequences", metavar="N", help="Sequences served at once.")
    ] = 256,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", help="Steps of a trial, a token a sequence each.")
    ] = 1024,
    trials: Annotated[int, typer.Option("--trials", metavar="N", help="Independent trials.")] = 20,
    prompt: Annotated[
        float,
        typer.Option(
            "--prompt", metavar="SHARE", help="Share of its length a sequence starts with."
        ),
    ] = 0.5,
    token_bytes: Annotated[
        float,
        typer.Option(
            "--token-bytes",
            metavar="B",
            help="K and V of one token in all layers; the default is 32 layers of 8 heads of 128 in 16 bits.",
        ),
    ] = 131072,
    table_bytes: Annotated[
        float, typer.Option("--table-bytes", metavar="B", help="One entry of a block table.")
    ] = 4,
    pool_bytes: Annotated[
        float,
        typer.Option(
            "--pool-bytes", metavar="B", help="What the pool keeps a page; the default is ours."
        ),
    ] = 4.27,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the curves.")
    ] = None,
    seed: options.Seed = 0,
    json: options.Json = None,
) -> None:
    """Simulate page sizes over a distribution of sequence lengths: internal waste, table sizes, peak.

    Waste and bookkeeping are two columns, and the curve shows both: waste falls with the page size without end,
    bookkeeping rises, and where their sum is least depends on how many bytes a token and a page's bookkeeping take.
    `best_for` in the document gives, for every size, the bytes of bookkeeping a page for which it is the best.
    Everything is modelled; nothing depends on this machine.

    \b
    Examples:
      tilewright pages simulate --lengths normal:1024,256 --plot out/pages.svg
      tilewright pages simulate --lengths lengths.txt --token-bytes 9216 --json -
    """
    from tilewright.document import require_writable, write_text
    from tilewright.errors import UsageError
    from tilewright.pages.lengths import parse
    from tilewright.pages.simulate import Plan
    from tilewright.pages.simulate import simulate as run

    if plot is not None:
        if plot.suffix != ".svg":
            raise UsageError(f"--plot {plot}: the drawing is an SVG; name it FILE.svg")
        require_writable(plot)
    plan = Plan(
        lengths=parse(lengths),
        page_sizes=_numbers("--page-sizes", sizes),
        sequences=sequences,
        steps=steps,
        trials=trials,
        seed=seed,
        prompt=prompt,
        token_bytes=token_bytes,
        table_bytes=table_bytes,
        pool_bytes=pool_bytes,
    )
    with progress("pages simulate", trials, json) as step:
        result = run(plan, step)
    emit(
        *(json, "pages", result.rows),
        what="simulate",
        seed=seed,
        minimum=result.minimum,
        best_for=result.best_for,
    )
    _show(result, seed, json)
    if plot is not None:
        write_text(plot, _drawing(result))
        say(f"wrote {plot}", json)


def _drawing(result: Result) -> str:
    from tilewright.perf.charts.pages import page_sizes

    rows = result.rows
    return page_sizes(
        f"overhead of page sizes, lengths {rows[0].lengths}",
        [r.page_tokens for r in rows],
        {
            "waste": [r.waste_bytes for r in rows],
            "bookkeeping": [r.bookkeeping_bytes for r in rows],
            "sum": [r.overhead_bytes for r in rows],
        },
    )


def _bytes(value: float) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0
    while value >= 1024 and power < len(units) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.4g} {units[power]}"


def _show(result: Result, seed: int, json: str | None) -> None:
    lines = [
        (
            r.page_tokens,
            f"{r.waste_tokens:.2f}",
            f"{r.waste_tokens_low:.2f} .. {r.waste_tokens_high:.2f}",
            f"{r.waste_share:.2%}",
            _bytes(r.waste_bytes),
            f"{r.table_entries:.0f}",
            _bytes(r.table_bytes),
            _bytes(r.bookkeeping_bytes),
            _bytes(r.overhead_bytes),
            f"{r.overhead_share:.2%}",
            r.most_pages,
            _bytes(r.peak_bytes),
        )
        for r in result.rows
    ]
    columns = (
        *("tokens", "waste/seq", "95 % interval", "of pages", "waste", "entries", "table"),
        *("bookkeeping", "sum", "of tokens", "most pages", "peak"),
    )
    first = result.rows[0]
    title = f"modelled, lengths {first.lengths}, {first.sequences} sequences, seed {seed}"
    table(columns, lines, title, json)
    least = result.minimum
    say(
        f"least waste at {least['waste']} tokens, least bookkeeping at {least['bookkeeping']}, "
        f"least sum at {least['overhead']}, lowest peak at {least['peak']}",
        json,
    )
    for best in result.best_for:
        upper = "any more" if best.to_bytes is None else _bytes(best.to_bytes)
        say(
            f"{best.page_tokens} tokens are best where a page's bookkeeping takes "
            f"{_bytes(best.from_bytes)} to {upper}",
            json,
        )


@app.command("bench")
def bench(
    scenarios: Annotated[
        str,
        typer.Option(
            "--scenario",
            metavar="NAME,...",
            help="striped, large, one-word, full-99; all by default.",
        ),
    ] = "",
    threads: Annotated[
        str, typer.Option("--threads", metavar="N,...", help="Thread counts, a row each.")
    ] = "1,2",
    batches: Annotated[
        str, typer.Option("--batch", metavar="N,...", help="Pages a call; 1 is single calls.")
    ] = "1,64",
    allocators: Annotated[
        str,
        typer.Option(
            "--allocator",
            metavar="NAME,...",
            help="bitmap, bitmap-checked, mutex-vector, mutex-deque, python-list; all by default.",
        ),
    ] = "",
    turns: Annotated[
        int, typer.Option("--turns", metavar="N", help="Interleaved turns of each allocator.")
    ] = 12,
    pinned: Annotated[
        bool, typer.Option("--pin", help="Keep each thread on a processor of its own.")
    ] = False,
    json: options.Json = None,
) -> None:
    """Time the page pool, beside a std::mutex free list and a Python free list.

    Every thread takes a burst of pages, then frees it; ns a page. In `striped` and `large` each thread has room
    where its hint begins; `one-word` forces all threads onto 64 pages, in `full-99` 99 % of the pages are in use.
    Allocators take turns under the same load, and `ratio` is theirs over the bitmap's in the same turn.

    \b
    Example:
      tilewright pages bench --scenario striped --threads 1,2
    """
    from tilewright.errors import UsageError
    from tilewright.perf import pages as timing

    if turns < 1:
        raise UsageError(f"--turns {turns}: at least 1 is needed")
    plan = timing.Plan(
        scenarios=options.names(scenarios) or list(timing.SCENARIOS),
        threads=_numbers("--threads", threads),
        batches=_numbers("--batch", batches),
        allocators=options.names(allocators),
        turns=turns,
        pinned=pinned,
    )
    found: list[PagesRow] = []
    interrupted = False
    with progress("pages bench", timing.count(plan), json) as step:
        try:
            for row in timing.rows(plan):
                found.append(row)
                step(f"{row.scenario} {row.allocator} {number(row.pair_ns)} ns")
        except KeyboardInterrupt:
            interrupted = True
    emit(json, "pages", found, what="bench", interrupted=interrupted)
    _show_times(found, json)
    waited = [r for r in found if r.running < 0.9 and r.allocator != "python-list"]
    if waited:
        say(
            f"in {len(waited)} rows threads waited for processors that others used: contention shows too small",
            json,
        )
    if interrupted:
        say("interrupted: the rows are those that were finished before", json)
        raise typer.Exit(3)


def _show_times(found: list[PagesRow], json: str | None) -> None:
    from tilewright.machine import host

    def interval(low: float | None, high: float | None) -> str:
        return "" if low is None else f"{number(low)} .. {number(high)}"

    lines = [
        (
            *(r.scenario, r.threads, r.batch, r.allocator),
            *(number(v) for v in (r.alloc_ns, r.free_ns, r.pair_ns)),
            interval(r.ci_low_ns, r.ci_high_ns),
            "" if r.ratio is None else f"{r.ratio:.2f}",
            interval(r.ratio_ci_low, r.ratio_ci_high),
            f"{r.running:.0%}",
        )
        for r in found
    ]
    columns = (
        *("scenario", "threads", "batch", "allocator", "alloc ns", "free ns", "pair ns"),
        *("95 % interval", "of bitmap", "interval", "running"),
    )
    table(columns, lines, f"ns a page, measured on {host().cpu}", json)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    from tilewright.errors import UsageError

    try:
        found = tuple(sorted({int(part) for part in options.names(text)}))
    except ValueError:
        raise UsageError(f"{option} takes whole numbers such as 8,16, not '{text}'") from None
    if not found or found[0] < 1:
        raise UsageError(f"{option} {text}: one or more numbers from 1 on are needed")
    return found
