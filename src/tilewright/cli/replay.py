"""tilewright replay: simulated tuning on recorded spaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, progress, say, table

if TYPE_CHECKING:
    from tilewright.autotune.simulation import Curve, Summary

app = typer.Typer()


@app.command()
def replay(
    spaces: Annotated[
        list[Path],
        typer.Argument(metavar="SPACE.json.gz...", help="Kernel Tuner caches or KTT results."),
    ],
    budget: Annotated[
        int, typer.Option("--budget", metavar="N", help="Unique legal configs a tuning tries.")
    ] = 200,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="Tunings a space, with seeds 0 to N - 1.")
    ] = 20,
    sampler: Annotated[
        str,
        typer.Option(
            "--sampler",
            metavar="NAME,...",
            help="portfolio, tpe, random, gp, cmaes or exhaustive; several with commas.",
        ),
    ] = "portfolio",
    warm: Annotated[
        list[Path] | None,
        typer.Option(
            "--warm",
            metavar="FILE",
            help="A recording of a sibling to start warm from; repeatable.",
        ),
    ] = None,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate", help="Ask instead what the static gate drops; needs facts of binaries (KTT)."
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Processes; one a core for 0.")
    ] = 0,
    race: Annotated[
        bool,
        typer.Option(
            "--race",
            help="Race finalists on recorded repeats instead: the 50 best, and those of a tuning.",
        ),
    ] = False,
    json: options.Json = None,
) -> None:
    """Simulate tuning on spaces that were recorded to the last config, to judge a sampler without a device.

    A recording is a Kernel Tuner cache (its T1/cache format) or KTT's JSON, plain or gzip'd. The budget counts
    unique legal configs, failed ones among them, as Kernel Tuner counts; the score is the optimum's time over the
    best time found so far, so 1 is the optimum. The tuning starts cold: no default config, nothing of another
    space, unless --warm names recordings of the same kernel on other devices or shapes. At most a quarter of the
    first 32 trials is then borrowed from them, and a donor that disappoints is dropped.

    --race asks another question: with noisy values, is the right config chosen at the end, and at what cost? The 50
    truly best configs are raced on their recorded repeats (shuffled by the seed, config by config), and so are the
    finalists of a whole tuning of --budget trials whose values are one to three repeats each; --budget 0 leaves
    that out. Regret is the chosen config's time over the best candidate's; the share is of the recorded repeats.

    Every number depends on seeds and recordings alone, not on this machine. cpu_ms, the sampler's own time a
    trial, is the exception.

    Examples:  tilewright replay gemm-RTX3090.json.gz --seeds 50
    tilewright replay a.json.gz b.json.gz --sampler portfolio,tpe,random --json out.json
    tilewright replay gemm-RTX3090.json.gz --warm gemm-RTX3060L.json.gz
    tilewright replay ktt-convolution-RTX3090.json.gz --gate
    tilewright replay gemm-RTX3060L.json.gz --race --seeds 200 --budget 0
    """
    from tilewright.autotune import simulation
    from tilewright.errors import UsageError

    if warm and (race or gate or sampler != "portfolio"):
        raise UsageError("--warm goes with --sampler portfolio alone, without --race and --gate")
    if gate:
        _gate(spaces, json)
        return
    if race and budget >= 0 and seeds >= 1:
        _race(spaces, budget, seeds, sampler, json)
        return
    if budget < 1 or seeds < 1:
        raise UsageError(f"--budget {budget} --seeds {seeds}: both must be at least 1")
    samplers = tuple(options.names(sampler))
    requests = [
        simulation.Request(path, samplers, tuple(range(seeds)), budget, tuple(warm or ()))
        for path in spaces
    ]
    simulation.require(requests)
    found: list[Curve] = []
    interrupted = False
    with progress("replay", len(spaces) * len(samplers) * seeds, json) as step:
        try:
            for request in requests:
                for curve in simulation.curves(request, workers):
                    found.append(curve)
                    step(f"{curve.space} {curve.sampler} {curve.best[-1]:.3f}")
        except KeyboardInterrupt:
            interrupted = True
    rows = simulation.rows(found)
    summary = simulation.summary(rows)
    emit(
        json,
        "replay",
        rows,
        summary=summary,
        budget=budget,
        warm=warm or [],
        interrupted=interrupted,
    )
    _show(summary, found, json)
    if interrupted:
        say("interrupted: the rows are those of the tunings that ended", json)
        raise typer.Exit(3)


def _gate(spaces: Sequence[Path], json: str | None) -> None:
    from tilewright.autotune.simulation import gated, load

    found = [gated(load(path).recording) for path in spaces]
    emit(json, "replay", found)
    lines = [
        (
            r.space,
            r.configs,
            f"{100 * r.dropped:.1f} %",
            f"{100 * r.top_kept:.1f} %",
            r.optimum_kept,
        )
        for r in found
    ]
    columns = ("space", "working configs", "dropped", "of the top 1 % kept", "optimum kept")
    table(columns, lines, "the static gate on recorded facts of binaries", json)


def _race(spaces: Sequence[Path], budget: int, seeds: int, sampler: str, json: str | None) -> None:
    import numpy as np

    from tilewright.autotune.choosing import race_study

    found: list[race_study.RaceRow] = []
    each = 2 if budget else 1
    with progress("race", len(spaces) * seeds * each, json) as step:
        for path in spaces:
            for row in race_study.rows(path, range(seeds), budget, sampler):
                found.append(row)
                step(f"{row.space} {row.candidates} {100 * row.regret:.2f} %")
    emit(json, "replay", found, budget=budget)
    lines = []
    for space, candidates in dict.fromkeys((r.space, r.candidates) for r in found):
        own = [r for r in found if (r.space, r.candidates) == (space, candidates)]
        regrets = np.array([r.regret for r in own])
        screened = [r.screened for r in own if r.screened is not None]
        lines.append(
            (
                space,
                candidates,
                f"{100 * regrets.mean():.2f}",
                f"{100 * np.quantile(regrets, 0.95):.2f}",
                f"{100 * np.mean([r.share for r in own]):.1f}",
                f"{100 * max(r.share for r in own):.1f}",
                f"{np.mean([r.tied for r in own]):.1f}",
                f"{np.mean(screened):.2f}" if screened else "",
                f"{np.mean([r.fraction_of_optimum for r in own]):.3f}",
                len(own),
            )
        )
    columns = (
        *("space", "candidates", "regret %", "p95 %", "share %", "most %", "tied"),
        *("repeats a trial", "of optimum", "seeds"),
    )
    table(columns, lines, "races on recorded repeats", json)


def _show(summary: Sequence[Summary], found: Sequence[Curve], json: str | None) -> None:
    marks = sorted({s.at for s in summary})
    lines = []
    for space, sampler in dict.fromkeys((s.space, s.sampler) for s in summary):
        own = {s.at: s for s in summary if (s.space, s.sampler) == (space, sampler)}
        curves = [c for c in found if (c.space, c.sampler) == (space, sampler)]
        last = own[marks[-1]]
        lines.append(
            (
                space,
                sampler,
                *(f"{own[m].mean:.3f}" for m in marks),
                f"{last.p10:.3f}",
                last.seeds,
                f"{sum(c.cpu_ms for c in curves) / len(curves):.1f}",
            )
        )
    columns = ("space", "sampler", *(f"@{m}" for m in marks), "p10", "seeds", "cpu ms")
    table(columns, lines, "mean fraction of the optimum, simulated on recorded times", json)
