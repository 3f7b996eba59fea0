"""tilewright gate: is this working tree slower than another revision, or than a recording?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, progress, say, table

if TYPE_CHECKING:
    from tilewright.perf.regression.decide import Policy
    from tilewright.perf.regression.gate import GateRow, Selection

app = options.application()


@app.command()
def run(
    families: options.Families = None,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="REV|FILE",
            help="A git revision, built and compared in this run; or the JSON of an earlier bench.",
        ),
    ] = "HEAD",
    dtype: options.Dtype = None,
    shape: options.Shape = None,
    flags: options.Flags = None,
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads", metavar="N,...", help="Thread counts, a row each; 1 if none is given."
        ),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option("--threshold", metavar="P%", help="Differences below this are `same`."),
    ] = "2%",
    passes: Annotated[
        int,
        typer.Option(
            "--passes", metavar="N", help="Passes after which an open benchmark is inconclusive."
        ),
    ] = 32,
    pass_seconds: Annotated[
        float,
        typer.Option(
            "--pass-seconds", metavar="S", help="Time budget of one pass of one benchmark."
        ),
    ] = 0.2,
    seed: options.Seed = 0,
    json: options.Json = None,
) -> None:
    """Compare the working tree's host kernels with another revision's, benchmark by benchmark, in one run.

    Both revisions are built from git by their own rules (kept, so a revision is built once) and loaded into
    this one process, where they run in turns, quads ABBA, on the same memory. Each has its own configs
    and is checked against the reference before and after. Benchmarks that are clearly the same end after 5 passes;
    what looks slower must be confirmed by further passes on freshly loaded builds. All precisions and
    benchmark cases of the named families are compared, on one thread, unless options say otherwise.

    ratio is base time / new time: above 1 the working tree is faster. Exit code 0: the same or faster in
    all that both sides have; 1: something is slower (or an output is wrong); 3: nothing is slower but something stayed open.

    With a FILE (`tilewright bench --json FILE`) the base is a recording: not interleaved, so intervals
    are widened by what this machine's runs differ, and only large differences are told.

    Examples:  tilewright gate --base main
               tilewright gate gemm --base HEAD~3 --dtype fp32,bf16 --threads 1,2
               tilewright gate gemm --base v0.1 --shape M=64,N=1536,K=576 --threshold 5% --json gate.json
               tilewright bench gemm --json before.json; ...; tilewright gate gemm --base before.json
    """
    from tilewright.errors import UsageError
    from tilewright.perf.bench import Plan
    from tilewright.perf.regression.decide import Policy
    from tilewright.perf.regression.gate import Selection
    from tilewright.registry import select

    try:
        counts = [int(n) for n in options.names(threads)] or [1]
    except ValueError:
        raise UsageError(f"--threads takes whole numbers such as 1,2, not '{threads}'") from None
    plan = Plan(
        families=select(families or []),
        dtypes=options.names(dtype) or ["all"],
        sizes=options.shape(shape),
        flags=options.flags(flags) or {},
        threads=counts,
        seed=seed,
    )
    selection = Selection(plan, counts)
    policy = Policy(threshold=_share(threshold), pass_s=pass_seconds, most=passes)
    if Path(base).is_file():
        _with_recording(Path(base), selection, policy, json)
    else:
        _with_revision(base, selection, policy, json)


def _share(text: str) -> float:
    """`2%` or `0.02` as a fraction; raises UsageError for anything else."""
    from tilewright.errors import UsageError

    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise UsageError(f"--threshold takes a share such as 2% or 0.02, not '{text}'")
    return value


def _with_revision(base: str, selection: Selection, policy: Policy, json: str | None) -> None:
    from tilewright.perf.regression import builds
    from tilewright.perf.regression.decide import Contest
    from tilewright.perf.regression.gate import Gate
    from tilewright.perf.regression.session import Benchmark

    root = builds.repository()
    trees = builds.tree_of(root, base), builds.working_tree(root)
    chosen = selection.benchmarks()
    with progress("gate: builds", 2, json) as step:
        sides = []
        for tree, name in zip(trees, (base, builds.WORKING_TREE), strict=True):
            sides.append(builds.build(root, tree, name))
            step(name)
    gate = Gate(sides[0], sides[1], chosen, policy, own=(trees[0] == trees[1], True))
    with progress("gate", len(chosen), json) as step:

        def looked(bench: Benchmark, contest: Contest) -> None:
            if contest.closed:
                step(f"{bench.case.precision} {bench.case}: {contest.verdict}")

        rows = gate.rows(looked)
    about = [{"name": s.name, "tree": s.tree, "library_sha256": s.library_hash} for s in sides]
    _finish(rows, policy, json, interleaved=True, base=about[0], new=about[1])


def _with_recording(path: Path, selection: Selection, policy: Policy, json: str | None) -> None:
    from tilewright.perf.regression import recorded

    chosen = selection.benchmarks()
    found = recorded.read(path)
    with progress("gate", len(chosen), json) as step:
        rows = []
        for row in recorded.compare(found, chosen, policy):
            rows.append(row)
            step(f"{row.dtype} {row.case}: {row.verdict}")
    about = {"name": str(path), "made": found.made, "host": found.host}
    _finish(rows, policy, json, interleaved=False, base=about, new={"name": "this package"})


def _finish(rows: list[GateRow], policy: Policy, json: str | None, **about: Any) -> None:
    """The document, the table, the verdict in words, the exit code."""
    from tilewright.machine import host
    from tilewright.perf.regression.gate import EXIT_CODES, UNAVAILABLE, counts, verdict

    said = verdict(rows)
    emit(json, "gate", rows, verdict=said, counts=counts(rows), policy=policy, **about)
    title = (
        f"measured on {host().cpu}, base {about['base']['name']}, threshold {policy.threshold:.3g}"
    )
    lines = [_line(row) for row in rows if row.verdict != UNAVAILABLE]
    if lines:
        table(_COLUMNS, lines, title=title, json=json)
    for row in rows:
        if row.reason:
            say(f"{row.verdict.upper()} {row.family} {row.dtype} {row.case}: {row.reason}", json)
    if not about["interleaved"]:
        say("compared with a recording, not interleaved: only large differences can be told", json)
    elif about["base"]["library_sha256"] == about["new"]["library_sha256"]:
        say("both builds are the same machine code", json)
    numbers = ", ".join(f"{n} {word}" for word, n in counts(rows).items())
    say(f"{said}: {numbers}", json)
    raise typer.Exit(EXIT_CODES[said])


_COLUMNS = ("family", "dtype", "case", "thr", "base us", "new us", "ratio", "interval", "passes", "verdict")  # fmt: skip


def _line(row: GateRow) -> tuple[object, ...]:
    interval = "" if row.ci is None else f"{number(row.ci[0], 4)} .. {number(row.ci[1], 4)}"
    return (
        row.family,
        row.dtype,
        row.case.replace(" ", "\n"),
        row.threads,
        number(row.base_us, 4),
        number(row.new_us, 4),
        "" if row.ratio is None else f"{row.ratio:.4f}",
        interval,
        row.passes,
        row.verdict,
    )
