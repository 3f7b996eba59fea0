"""tilewright bench: check, then time; against peers in interleaved pairs if asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, progress, say, table

if TYPE_CHECKING:
    from tilewright.perf.bench import Ceiling
    from tilewright.perf.rows import BenchRow

app = options.application()

# Below this share of the ceiling a peer is not a yardstick.
WEAK_PEER = 0.1


@app.command()
def run(
    families: options.Families = None,
    backend: options.Backend = None,
    target: options.TargetNames = None,
    shape: options.Shape = None,
    dtype: options.Dtype = None,
    flags: options.Flags = None,
    config: options.ConfigText = None,
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads", metavar="N,...", help="Thread counts, a row each; all cores by default."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="PEER,...",
            help="Peers of the family, such as torch, torch-mkldnn, torch-best, or a flag of our own: "
            "batch_invariant=yes times the kernel beside itself.",
        ),
    ] = None,
    cold: Annotated[
        bool,
        typer.Option("--cold", help="Evict the caches of every core before each sample."),
    ] = False,
    seconds: Annotated[float, typer.Option("--seconds", help="Time budget of one row.")] = 2.0,
    width: Annotated[
        float,
        typer.Option(
            "--width", help="Stop when the 95 % interval is narrower than this share of the value."
        ),
    ] = 0.02,
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            metavar="width|entropy|budget",
            help="What ends a row's sampling before --seconds: a narrow interval, a settled entropy of the "
            "samples (nvbench's criterion), or nothing. Pairs go by the width.",
        ),
    ] = "width",
    seed: options.Seed = 0,
    export: Annotated[
        list[str] | None,
        typer.Option(
            "--export",
            metavar="FORMAT:FILE",
            help="Also write the rows for pytest-benchmark, nvbench, flashinfer-bench, google-benchmark or "
            "perfetto; may be given again.",
        ),
    ] = None,
    json: options.Json = None,
) -> None:
    """Check outputs, then time; each row has its 95 % interval and its distance from the machine's ceiling.

    Nothing is timed whose output is wrong, before or after. A time below the physical floor is reported
    as impossible. Configs come from tuning unless --config is given. With --against, both sides are timed
    in interleaved pairs in this run: ratio is peer time / our time, and the verdict is faster, slower or
    same only if the whole interval lies beyond, or within, 2 %. A peer with prepacked weights meets our
    prepacked layout unless --flags fixes it. Where there is a GPU, its targets are timed by its own events,
    calls and peers replayed as graphs. --dtype all takes every precision. Raw samples are kept.
    What cannot be timed here is a row with its reason; if all are, or after Ctrl-C, the exit code is 3.

    \b
    Examples:
      tilewright bench gemm --shape M=64,N=1536,K=576 --dtype bf16 --against torch-best --threads 1,2
      tilewright bench gemm --target cuda:sm_90 --dtype bf16 --shape M=4096,N=4096,K=4096 --against torch --cold
      tilewright bench gemm --export nvbench:gemm.nv.json --export perfetto:gemm.trace.json
    """
    from tilewright.errors import UsageError
    from tilewright.machine import host
    from tilewright.perf import exports
    from tilewright.perf.bench import Ceiling, Plan, count, gpu_ceiling, rows
    from tilewright.perf.engine import Effort
    from tilewright.registry import select

    places = exports.places(export or [])
    try:
        counts = [int(n) for n in options.names(threads)]
    except ValueError:
        raise UsageError(f"--threads takes whole numbers such as 1,2, not '{threads}'") from None
    plan = Plan(
        families=select(families or []),
        backends=options.names(backend),
        targets=options.names(target),
        dtypes=options.names(dtype),
        sizes=options.shape(shape),
        flags=options.flags(flags) or {},
        config=options.config(config),
        threads=counts,
        against=options.names(against),
        cold=cold,
        effort=Effort(width=width, seconds=seconds, rule=rule),
        seed=seed,
    )
    ceiling, of_gpu = Ceiling(), gpu_ceiling()
    found: list[BenchRow] = []
    interrupted = False
    total = count(plan)
    with progress("bench", total, json) as step:
        try:
            for row in rows(plan, ceiling, of_gpu):
                found.append(row)
                step(f"{row.family} {row.dtype} {row.case} {number(row.median_us)} us")
        except KeyboardInterrupt:
            interrupted = True
    if not found and not interrupted:
        raise UsageError(
            f"{', '.join(plan.backends) or 'no backend'} does not address {', '.join(plan.targets)}; "
            "`tilewright list` shows what does"
        )
    reason = "; ".join(filter(None, (ceiling.reason, of_gpu.reason)))
    emit(json, "bench", found, seed=seed, interrupted=interrupted, ceilings_reason=reason)
    if any(r.state == "timed" for r in found):
        for path in exports.of_rows(places, found):
            say(f"wrote {path}", json)
    lines = [_line(r) for r in found if r.state != "unavailable"]
    if lines:
        machines = dict.fromkeys(r.device or host().cpu for r in found if r.state != "unavailable")
        table(_COLUMNS, lines, title=f"measured on {', '.join(machines)}, seed {seed}", json=json)
    _remarks(found, ceiling, reason, json)
    if interrupted:
        say(f"interrupted: {len(found)} of {total} rows were finished before", json)
        raise typer.Exit(3)
    if any(r.state in ("wrong", "impossible") for r in found):
        raise typer.Exit(1)
    if all(r.state == "unavailable" for r in found):
        raise typer.Exit(3)


_COLUMNS = (
    "family", "dtype", "case", "thr", "cache", "median us", "95 % interval", "G/s", "GB/s", "ceiling", "bound",
    "peer", "ratio", "interval", "verdict",
)  # fmt: skip


def _line(row: BenchRow) -> tuple[object, ...]:
    def interval(low: float | None, high: float | None) -> str:
        return "" if low is None and high is None else f"{number(low, 4)} .. {number(high, 4)}"

    return (
        f"{row.family} {row.backend}",
        row.dtype,
        row.case.replace(" ", "\n"),
        row.threads,
        row.cache,
        number(row.median_us, 4),
        interval(row.ci_low_us, row.ci_high_us),
        number(row.gflops),
        number(row.gbps),
        "-" if row.ceiling_frac is None else f"{row.ceiling_frac:.0%}",
        row.bound_by or "-",
        row.peer if row.peer in (None, row.peer_is) else f"{row.peer}: {row.peer_is}",
        "" if row.ratio is None else f"{row.ratio:.3f}",
        "" if row.ratio is None else interval(row.ratio_ci_low, row.ratio_ci_high),
        row.verdict or row.state,
    )


def _remarks(found: list[BenchRow], ceiling: Ceiling, reason: str, json: str | None) -> None:
    said: set[str] = set()
    for row in found:
        if row.state != "timed" and row.reason not in said:
            said.add(row.reason)
            say(
                f"{row.state.upper()} {row.family} {row.backend} {row.dtype} {row.case}: {row.reason}",
                json,
            )
    disturbed = [r for r in found if r.quiet is False and r.device is None]
    if disturbed:
        worst = max((r.others_busy or 0) + (r.steal or 0) for r in disturbed)
        say(
            f"{len(disturbed)} rows were timed while others used up to {worst:.0%} of the machine",
            json,
        )
    loose = [r for r in found if r.converged is False]
    if loose:
        say(
            f"{len(loose)} rows reached the time budget before the interval was narrow; try --seconds",
            json,
        )
    weak = [r for r in found if r.peer_ceiling_frac is not None and r.peer_ceiling_frac < WEAK_PEER]
    for name in dict.fromkeys(f"{r.peer_is} in {r.dtype}" for r in weak):
        say(
            f"{name} reaches less than {WEAK_PEER:.0%} of this machine's ceiling: a ratio to it says little",
            json,
        )
    if reason:
        say(f"no ceilings: {reason}", json)
    taken = ceiling.found.disturbed if ceiling.found else None
    if taken is not None and taken >= 0.1:
        say(
            f"the ceilings were measured while others used {taken:.0%} of the machine, so shares of them are too "
            "high; `tilewright doctor --refresh` on a quiet machine keeps the best",
            json,
        )
