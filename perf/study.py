"""The comparison table of docs/results.md: our host kernel against a family's peers, over a grid of sizes.

    python -m tilewright.perf.study gemm --out docs/results.md

Rows are appended to a file as they are measured, so an interrupted study goes on where it stopped.
The sizes come from `comparison(full)` in the family's peers module, else from its benchmark cases; our
flags from its `COMPARISON_FLAGS`, so that both sides may prepare constant operands once.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from tilewright.cases import Case, SizeGrid
from tilewright.document import plain, write_text
from tilewright.errors import TilewrightError, UsageError
from tilewright.machine import data_folder, host, usable_cores
from tilewright.registry import Family

Row = Mapping[str, Any]
_DEFAULT_PRECISIONS = 4


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared: `against` on `cases` with each thread count, `seconds` a row."""

    family: Family
    cases: tuple[Case, ...]
    threads: tuple[int, ...]
    against: str
    seconds: float
    seed: int
    flags: Mapping[str, str]

    @property
    def total(self) -> int:
        return len(self.cases) * len(self.threads)


def comparison(family: Family, full: bool) -> tuple[SizeGrid | None, dict[str, str]]:
    """The family's own grid for peers (None if it declares none) and the flags of our side in it."""
    if family.spec.peers is None:
        raise UsageError(f"{family.name} declares no peers to be compared with")
    module = family.module(family.spec.peers.path.partition(":")[0])
    declared = getattr(module, "comparison", None)
    flags = dict(getattr(module, "COMPARISON_FLAGS", {}))
    return (None if declared is None else declared(full)), flags


def make(
    family: Family,
    precisions: Sequence[str],
    threads: Sequence[int],
    against: str,
    seconds: float,
    full: bool = False,
    quick: bool = False,
    seed: int = 0,
    flags: Mapping[str, str] | None = None,
) -> Study:
    """A study of a family. `quick` takes every fifth size, for a look of a minute or two."""
    sizes, fixed = comparison(family, full)
    fixed |= dict(flags or {})
    chosen = [family.spec.precision(p) for p in precisions] or list(
        family.spec.precisions[:_DEFAULT_PRECISIONS]
    )
    cases: list[Case] = []
    for precision in chosen:
        if sizes is None:
            found = list(family.spec.benchmark_cases(precision))
        else:
            found = [family.spec.case(s, precision.name, fixed) for s in sizes.sizes]
        cases += found[:: max(1, len(found) // 5)] if quick else found
    return Study(family, tuple(cases), tuple(threads), against, seconds, seed, fixed)


def key(study: Study, case: Case, threads: int) -> str:
    """What identifies a measured row of a study on this machine."""
    return f"{host().fingerprint}|{study.family.name}|{case.precision}|{case}|{threads}|{study.against}|{study.seed}"


def measured(path: Path) -> dict[str, Row]:
    """Rows measured so far, by key; a line cut short by an interruption is left out."""
    found: dict[str, Row] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry["key"]] = entry["row"]
    return found


def rows(study: Study, path: Path) -> Iterator[tuple[int, Row]]:
    """Measure what is missing and yield every row with its number; each is on disk before it is yielded."""
    from tilewright.perf.bench import Ceiling, Plan
    from tilewright.perf.bench import rows as bench_rows
    from tilewright.perf.engine import Effort

    known = measured(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not path.read_bytes().endswith(b"\n"):
        # An interruption cut the last line short; what follows must start on its own.
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    ceiling = Ceiling()
    done = 0
    for case in study.cases:
        for threads in study.threads:
            done += 1
            identity = key(study, case, threads)
            if identity not in known:
                plan = Plan(
                    families=[study.family],
                    backends=["host" if study.family.has("host.cpp") else "reference"],
                    dtypes=[case.precision],
                    flags=study.flags,
                    threads=[threads],
                    against=[study.against],
                    effort=Effort(seconds=study.seconds),
                    seed=study.seed,
                    cases=[case],
                )
                row = plain(next(iter(bench_rows(plan, ceiling))))
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": identity, "row": row}) + "\n")
                known[identity] = row
            yield done, known[identity]


def markdown(study: Study, found: Sequence[Row], command: str, date: str) -> str:
    """The table and what stands behind it."""
    from tilewright.perf.statistics import geometric_mean

    here = host()
    timed = [r for r in found if r["state"] == "timed" and r["ratio"]]
    lines = [
        f"# {study.family.name}: measured against {study.against}",
        "",
        f"Evidence: **measured**, on {here.cpu} ({here.cores} cores, level {here.isa}), {here.os}, {date}.",
        f"Command: `{command}`",
        "",
        "Both sides are timed in interleaved pairs in one run, called from Python, warm caches, outputs checked before "
        "and after. Constant operands are laid out once on both sides, where a side can. ratio = peer time / "
        "our time, above 1 we are faster. Intervals are 95 %.",
        "",
        "| precision | threads | shapes | geometric mean ratio | interval over shapes | faster / same / slower / open |",
        "|---|---|---|---|---|---|",
    ]
    for precision in dict.fromkeys(c.precision for c in study.cases):
        for threads in study.threads:
            group = [r for r in timed if r["dtype"] == precision and r["threads"] == threads]
            if not group:
                lines.append(f"| {precision} | {threads} | 0 | - | - | - |")
                continue
            mean = geometric_mean([r["ratio"] for r in group])
            counts = [
                sum(r["verdict"] == v for r in group)
                for v in ("faster", "same", "slower", "inconclusive")
            ]
            lines.append(
                f"| {precision} | {threads} | {len(group)} | **{mean.value:.2f}** | {mean.low:.2f} .. {mean.high:.2f} | "
                f"{' / '.join(map(str, counts))} |"
            )
    disturbed = sum(r["quiet"] is False for r in timed)
    lines += [
        "",
        f"{disturbed} of {len(timed)} rows were timed while others used a tenth of the machine or more.",
        "",
    ]
    lines += [
        "| precision | thr | case | ours us | peer | peer us | ratio | interval | verdict | ours of ceiling | peer of ceiling |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(r) for r in found if r["state"] in ("timed", "impossible")]
    missing = list(
        dict.fromkeys(f"{r['dtype']}: {r['reason']}" for r in found if r["state"] not in ("timed",))
    )
    if missing:
        lines += ["", "Not timed:", *(f"- {reason}" for reason in missing)]
    return "\n".join(lines) + "\n"


def _line(r: Row) -> str:
    def text(value: Any, form: str = ".4g") -> str:
        return format(value, form) if isinstance(value, int | float) else "-"

    return (
        f"| {r['dtype']} | {r['threads']} | {r['case']} | {text(r['median_us'])} | {r['peer_is']} | "
        f"{text(r['peer_median_us'])} | {text(r['ratio'], '.2f')} | {text(r['ratio_ci_low'], '.2f')} .. "
        f"{text(r['ratio_ci_high'], '.2f')} | {r['verdict']} | {text(r['ceiling_frac'], '.0%')} | "
        f"{text(r.get('peer_ceiling_frac'), '.0%')} |"
    )


def run(
    family: Annotated[str, typer.Argument(help="The family to compare.")],
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", metavar="NAME,...", help="Precisions; the first four if not given."
        ),
    ] = "",
    threads: Annotated[str, typer.Option("--threads", metavar="N,...", help="Thread counts.")] = "",
    against: Annotated[str, typer.Option("--against", metavar="PEER")] = "torch-best",
    flags: Annotated[
        str, typer.Option("--flags", metavar="K=V,...", help="Fix flags of our side.")
    ] = "",
    seconds: Annotated[float, typer.Option("--seconds", help="Time budget of a row.")] = 1.5,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    full: Annotated[bool, typer.Option("--full", help="Every combination of the sizes.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the sizes.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure everything again instead of going on.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.md", help="Where the table goes; printed if not given."
        ),
    ] = None,
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The rows as a bench document.")
    ] = None,
) -> None:
    """Compare a family's host kernel with a peer over the family's comparison sizes."""
    from tilewright.registry import family as family_named

    try:
        counts = [int(n) for n in _names(threads)] or sorted({1, usable_cores()})
    except ValueError:
        raise UsageError(f"--threads takes whole numbers such as 1,2, not '{threads}'") from None
    fixed = dict(part.partition("=")[::2] for part in _names(flags))
    study = make(
        family_named(family), _names(dtype), counts, against, seconds, full, quick, seed, fixed
    )
    store = data_folder("study", f"{study.family.name}.jsonl")
    if again:
        store.unlink(missing_ok=True)
    found: list[Row] = []
    try:
        for number, row in rows(study, store):
            found.append(row)
            ratio = "not timed" if row["ratio"] is None else f"ratio {row['ratio']:.2f}"
            what = f"{row['dtype']} {row['case']} {row['threads']} thr"
            print(f"{number} of {study.total}: {what}: {ratio}", file=sys.stderr)
    except KeyboardInterrupt:
        print(
            f"interrupted after {len(found)} of {study.total}; the same command goes on",
            file=sys.stderr,
        )
    command = shlex.join(["python", "-m", "tilewright.perf.study", *sys.argv[1:]])
    text = markdown(study, found, command, datetime.now(UTC).strftime("%Y-%m-%d"))
    if out is None:
        print(text)
    else:
        write_text(out, text)
    if json_ is not None:
        from tilewright.document import write

        write(str(json_), "bench", found)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def main() -> None:
    """Entry point; a known failure is one sentence and its exit code."""
    try:
        typer.run(run)
    except TilewrightError as error:
        print(f"study: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
