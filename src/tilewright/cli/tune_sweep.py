"""tilewright tune --sweep: a dispatch table over a range of sizes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from tilewright.cli.output import emit, number, say, table

if TYPE_CHECKING:
    from tilewright.autotune.tables.partition import Summary
    from tilewright.autotune.tables.result import SweepResult
    from tilewright.registry import Family


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """The command's options that a sweep heeds."""

    sweep: str
    tail: dict[str, int]
    precision: str | None
    flags: dict[str, str] | None
    target: str
    backend: str | None
    trials: int | None
    seconds: float | None
    study: str | None
    sampler: str
    workers: int
    compile_workers: int
    seed: int
    buckets: int
    install: bool
    json: str | None
    cold: bool = False


def run(family: Family, asked: SweepOptions) -> None:
    """Sweep, write the document, say what came of it; exits 3 where nothing did."""
    from tilewright.autotune.tables import result as tables_result
    from tilewright.autotune.tables.result import Request, parse_sweep
    from tilewright.autotune.tables.sweep import sweep
    from tilewright.cli.tune_progress import watching
    from tilewright.targets import target

    sizes = parse_sweep(asked.sweep)
    request = Request(
        family=family,
        target=target(asked.target),
        sizes=sizes,
        tail=asked.tail,
        precision=asked.precision,
        flags=asked.flags,
        trials=asked.trials,
        seconds=asked.seconds,
        backend=asked.backend,
        sampler=asked.sampler,
        storage=asked.study,
        workers=asked.workers,
        compile_workers=asked.compile_workers,
        seed=asked.seed,
        most=asked.buckets,
        install=asked.install,
        retime_s=tables_result.RETIME_S,
        final_s=tables_result.FINAL_S,
        warm_start=not asked.cold,
    )
    listed = ", ".join(map(str, sizes.values))
    say(
        f"{family.name} on {asked.target}: {len(sizes.values)} sizes {sizes.dim} = {listed}",
        asked.json,
    )
    result = sweep(
        request,
        lambda size: watching(asked.trials, asked.seconds, f"{sizes.dim}={size}"),
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    emit(asked.json, "tune", result.rows(), **result.top())
    _show(result, asked.json)
    if not result.buckets:
        raise typer.Exit(3)


def _show(result: SweepResult, json: str | None) -> None:
    dim, sizes = result.request.sizes.dim, result.request.sizes.values
    done = len(result.tuned) - result.interrupted
    if not result.buckets:
        say(f"no table: {result.doubt}; {done} of {len(sizes)} sizes are tuned", json)
        if result.interrupted:
            say("interrupted: the same command goes on where it stopped", json)
        return
    unit = result.tuned[0].unit
    lines = [
        (f"{b.over + 1}..{b.upper}", _percent(b.regret.mean), _percent(b.regret.worst), b.config)
        for b in result.buckets
    ]
    evidence = result.tuned[0].evidence
    table((dim, "regret", "worst", "config"), lines, f"{len(lines)} buckets, {evidence}", json)
    say(
        f"regret against a config for each size alone, {_told(result.regret, dim, sizes)}; "
        f"one config for all sizes: {_told(result.one_config, dim, sizes)}; default: {_told(result.default, dim, sizes)}",
        json,
    )
    rounds = min(result.rounds)
    how = f"every other of {rounds} interleaved rounds chose, the rest told" if rounds > 1 else ""
    say(
        f"{len(result.configs)} configs valued in {unit} on every size{f'; {how}' if how else ''}",
        json,
    )
    if result.gain is not None:
        say(f"default's time over the table's, geometric mean over sizes: {result.gain:.3f}x", json)
    if result.doubt:
        say(f"{result.doubt}{'; not installed' if result.request.install else ''}", json)
    if result.stored:
        say(f"kept in {result.stored}", json)


def _told(found: Summary | None, dim: str, sizes: tuple[int, ...]) -> str:
    if found is None or found.worst_at is None:
        return "-"
    cannot = f", cannot run {found.cannot} sizes" if found.cannot else ""
    return f"mean {_percent(found.mean)}, worst {_percent(found.worst)} at {dim}={sizes[found.worst_at]}{cannot}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{number(100 * value, 2)} %"
