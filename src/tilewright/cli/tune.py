"""tilewright tune: search a family's configs on a target; keep the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, quiet, say, table

if TYPE_CHECKING:
    from tilewright.autotune.result import TuneResult
    from tilewright.registry import Family

app = typer.Typer()
# Points of a Pareto front that are printed.
_SHOWN = 8


@app.command()
def tune(
    family: Annotated[
        str, typer.Argument(metavar="FAMILY", help="The family to tune, such as gemm.")
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target", metavar="T", help="cpu, cuda:sm_90, hip:gfx942, ascend:910b1, ..."
        ),
    ] = "cpu",
    shape: options.Shape = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype", metavar="NAME", help="The one precision, such as bf16 or int8->fp16."
        ),
    ] = None,
    flags: options.Flags = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend", metavar="NAME", help="host, triton or ascendc; by default the target's."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            metavar="N",
            help="Trials of the study altogether (40 if neither this nor --seconds).",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", help="Stop searching after this long.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="URL",
            help="Where studies are kept: journal:PATH, sqlite:///PATH, postgresql://..., grpc://HOST:PORT; by default your own journal.",
        ),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            metavar="LIST",
            help="time, memory, size or several, such as time,memory: then the Pareto front is kept.",
        ),
    ] = "time",
    sampler: Annotated[
        str,
        typer.Option(
            "--sampler", metavar="NAME", help="portfolio, tpe, random, gp, cmaes or exhaustive."
        ),
    ] = "portfolio",
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            metavar="N",
            help="Processes; they check side by side and time one at a time.",
        ),
    ] = 1,
    compile_workers: Annotated[
        int,
        typer.Option(
            "--compile-workers",
            metavar="N",
            help="Processes that only compile and check, for the one that times on this device.",
        ),
    ] = 0,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Seed of the inputs and of the sampler.")
    ] = 0,
    cold: Annotated[
        bool,
        typer.Option(
            "--cold", help="A new study borrows nothing from studies of other shapes and devices."
        ),
    ] = False,
    install: Annotated[
        bool,
        typer.Option(
            "--install", help="Also write the winner to the family's own configs/<target>.json."
        ),
    ] = False,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            metavar="NAME=A..B,C,...",
            help="Tune every size of a range (both ends, the powers of two between, and C) and make one table of few "
            "buckets; --shape gives the other sizes, --trials and --seconds are those of each size.",
        ),
    ] = None,
    buckets: Annotated[
        int, typer.Option("--buckets", metavar="N", help="With --sweep: buckets at most.")
    ] = 8,
    json: options.Json = None,
) -> None:
    """Search a family's legal configs on a target; keep the best.

    Trial 0 is the default config. Every config is checked against the fp64 reference before it is timed;
    one that is refused, wrong or crashes is recorded with its stage (gate, check, time) and reason and
    ranks last. At the end the default and the best are timed again in interleaved rounds: the default
    stays unless another is faster beyond noise, and configs that cannot be told from the best are the
    tie set.

    On cpu, and on a device that is present, configs are timed. Without the device ascend:* takes cycles of the
    twin, cuda:* and hip:* a static score of the compiled binary; both are models and labelled so. The choice is
    then by score: it has no interval, nothing is called faster, and it is kept with the word modelled.

    --objective names what to tune for: time, memory (workspace and on-chip bytes of a binary; on cpu the
    growth of the process' peak) and size (bytes of the binary), or several of them. With several, the
    configs that none beats in everything are the Pareto front, and the one that is kept is chosen by time.
    What a target cannot tell is refused with the reason.

    A new study starts warm: at most a quarter of its first 32 trials are the best configs of the closest studies
    in the same storage (neighbouring shapes, other devices, imports); a donor that disappoints is dropped. Only the
    portfolio borrows.

    Studies resume: run the same command again and nothing is measured twice; raise --trials to go on. Ctrl-C ends
    the search and keeps the best. A study is bound to shape, precision, flags, device, kernel sources and
    space; change one and it is another study. Look inside with `optuna-dashboard` on the same storage.

    The winner goes to your own table of tuned configs, which bench and ship use for its bucket of shapes;
    --install puts it into the family's folder too.

    --sweep makes a dispatch table: each size is tuned (with the winners of its neighbours as first guesses), then
    all winners are timed on all sizes in turns, and the sizes are divided into the few ranges that lose least. The
    loss against a config for each size alone is told from rounds that did not choose.

    Examples:  tilewright tune gemm --shape M=64,N=1536,K=576 --dtype bf16 --trials 60
    tilewright tune gemm --target cuda:sm_90 --seconds 120 --study sqlite:///studies.db
    tilewright tune gemm --target cuda:sm_90 --objective time,memory,size --trials 60
    tilewright tune gemm --sweep M=1..4096 --shape N=1536,K=576 --dtype bf16 --trials 24 --buckets 8
    """
    from tilewright.autotune import study as tuning
    from tilewright.autotune.sampling.pool import LARGE
    from tilewright.cli.tune_progress import watching
    from tilewright.registry import family as family_named
    from tilewright.targets import target as target_named

    found = family_named(family)
    sizes, values = options.shape(shape), options.flags(flags)
    precision = _one_precision(found, options.names(dtype))
    if sweep is not None:
        from tilewright.cli.tune_sweep import SweepOptions, run
        from tilewright.errors import UsageError

        if objective != "time":
            raise UsageError(
                f"--sweep makes tables by time, not by --objective {objective}; accepted with --sweep: time"
            )
        asked = SweepOptions(
            sweep, sizes or {}, precision, values, target, backend, trials, seconds, study, sampler,
            workers, compile_workers, seed, buckets, install, json, cold,
        )  # fmt: skip
        run(found, asked)
        return
    case = (
        found.spec.case(sizes, precision, values)
        if sizes is not None
        else tuning.default_case(found, precision, values)
    )
    say(f"{family} on {target}: {case} {case.precision}, inputs and sampler from seed {seed}", json)
    limit = tuning.DEFAULT_TRIALS if trials is None and seconds is None else trials
    space = found.spec.space_for(target_named(target))
    if space is not None and space.size >= LARGE:
        say(
            f"looking through {space.size} combinations for the legal ones; kept for the next time",
            json,
        )
    with watching(limit, seconds) as watch:
        result = tuning.tune(
            found,
            case,
            target,
            limit,
            seconds=seconds,
            backend=backend,
            sampler=sampler,
            storage=study,
            workers=workers,
            compile_workers=compile_workers,
            seed=seed,
            install=install,
            watch=watch,
            objectives=objective.split(","),
            warm_start=not cold,
        )
    emit(json, "tune", result.rows, **result.top())
    _summary(result, json)
    if result.best is None:
        raise typer.Exit(3)


def _one_precision(family: Family, names: list[str]) -> str | None:
    """The precision that `--dtype` names; None for the family's default. Raises UsageError for several."""
    from tilewright.errors import UsageError

    if not names:
        return None
    found = [p.name for p in family.spec.select_precisions(names)]
    if len(found) > 1:
        raise UsageError(
            f"--dtype {','.join(names)} names {len(found)} precisions of {family.name}; "
            f"accepted for one tuning: one of {', '.join(found)}"
        )
    return found[0]


def _summary(result: TuneResult, json: str | None) -> None:
    best, default = result.best, result.default
    if not quiet(json):
        shown = sorted(
            (r for r in result.rows if r.value is not None), key=lambda r: r.value or 0.0
        )[:8]
        lines = [(r.number, number(r.value, 4), r.unit, r.arm, r.config) for r in shown]
        table(
            ("trial", "value", "unit", "from", "config"), lines, f"best trials, {result.evidence}"
        )
    for row in result.failures[:5]:
        say(f"trial {row.number} failed at {row.stage}: {row.reason} {row.config}", json)
    say(
        f"{len(result.rows)} trials of {result.pool} legal configs, {len(result.failures)} failed, {result.measured} "
        f"valued in this run, {result.seconds:.1f} s; study '{result.study}' in {result.storage}",
        json,
    )
    if result.interrupted:
        say("interrupted: the same command resumes the study", json)
    if best is None:
        say("nothing was found: no trial succeeded", json)
        return
    if default is None:
        say(
            f"best {best.value:.4g} {best.unit} ({result.evidence}) {best.config}; the default config failed",
            json,
        )
    else:
        say(
            f"default {default.value:.4g} {default.unit}, best {best.value:.4g} {best.unit} ({result.evidence}): "
            f"{_outcome(result)}, {len(result.tie_set)} tied",
            json,
        )
        say(f"best config {best.config}", json)
    for row in result.pareto[:_SHOWN]:
        values = ", ".join(f"{n} {number(v, 4)}" for n, v in row.values.items())
        say(f"front: {values} {row.config}", json)
    if len(result.pareto) > _SHOWN:
        say(f"front: {len(result.pareto) - _SHOWN} more in --json", json)
    if result.stored:
        say(f"kept in {result.stored}", json)
    if doubt := result.top()["doubt"]:
        say(doubt if result.stored else f"not kept: {doubt}", json)


def _outcome(result: TuneResult) -> str:
    """The verdict with its ratio: of times with the interval, of scores by that name."""
    best, decided = result.best, result.decision
    if best is None or decided is None or best.ratio is None:
        return "-"
    if decided.by_score:
        return f"{decided.verdict}, ratio of scores {best.ratio:.3f}"
    low, high = best.ratio_low, best.ratio_high
    sure = f" [{low:.3f}, {high:.3f}]" if low and high else ""
    return f"{best.ratio:.3f}x{sure}, {decided.verdict}"
