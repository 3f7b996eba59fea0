"""The page of a study: what was measured how, means by precision and threads, then every row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tilewright.machine import host
from tilewright.perf.statistics import Estimate, geometric_mean
from tilewright.perf.study_rows import Row, Study, dates


def timed(found: Sequence[Row]) -> list[Row]:
    """The rows with a ratio."""
    return [r for r in found if r["state"] == "timed" and r["ratio"]]


def means(
    study: Study, found: Sequence[Row]
) -> Iterator[tuple[str, int | None, list[Row], Estimate | None]]:
    """Geometric means of the ratios: of each precision and thread count, then (None) of all its thread counts."""
    good = timed(found)
    for precision in dict.fromkeys(c.precision for c in study.cases):
        counts: list[int | None] = [*study.threads, *([None] if len(study.threads) > 1 else [])]
        for threads in counts:
            group = [r for r in good if r["dtype"] == precision and threads in (None, r["threads"])]
            mean = geometric_mean([r["ratio"] for r in group]) if group else None
            yield precision, threads, group, mean


def summary(study: Study, found: Sequence[Row]) -> list[str]:
    """One line a mean, for a terminal."""
    lines = []
    for precision, threads, group, mean in means(study, found):
        which = "all thread counts" if threads is None else f"{threads} thr"
        said = (
            f"{mean.value:.2f} ({mean.low:.2f} .. {mean.high:.2f} over {len(group)} rows)"
            if mean
            else "nothing timed"
        )
        lines.append(f"{precision}, {which}: ratio {said}")
    return lines


def markdown(study: Study, found: Sequence[Row], command: str) -> str:
    """The table and what stands behind it."""
    here = host()
    good = timed(found)
    lines = [
        f"# {study.family.name}: measured against {study.against}",
        "",
        f"Evidence: **measured**, on {here.cpu} ({here.cores} cores, level {here.isa}), {here.os}, {dates(found)}.",
        f"Command: `{command}`. Kernel {study.kernel}, torch {study.torch}.",
        "",
        coverage(study, found),
        "",
        "Both sides are timed in interleaved pairs in one run, called from Python, warm caches, outputs checked before "
        "and after. Constant operands are laid out once on both sides, where a side can. ratio = peer time / "
        "our time, above 1 we are faster. Intervals are 95 %.",
        "",
        "| precision | threads | rows | geometric mean ratio | interval over rows | faster / same / slower / open |",
        "|---|---|---|---|---|---|",
    ]
    for precision, threads, group, mean in means(study, found):
        which = "all" if threads is None else threads
        if mean is None:
            lines.append(f"| {precision} | {which} | 0 | - | - | - |")
            continue
        counts = [
            sum(r["verdict"] == v for r in group)
            for v in ("faster", "same", "slower", "inconclusive")
        ]
        lines.append(
            f"| {precision} | {which} | {len(group)} | **{mean.value:.2f}** | {mean.low:.2f} .. {mean.high:.2f} | "
            f"{' / '.join(map(str, counts))} |"
        )
    disturbed = sum(r["quiet"] is False for r in good)
    lines += [
        "",
        f"{disturbed} of {len(good)} rows were timed while others used a tenth of the machine or more.",
        "",
        "| precision | thr | case | ours us | peer | peer us | ratio | interval | verdict | ours of ceiling | "
        "peer of ceiling |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(r) for r in found if r["state"] in ("timed", "impossible")]
    missing = list(
        dict.fromkeys(f"{r['dtype']}: {r['reason']}" for r in found if r["state"] != "timed")
    )
    if missing:
        lines += ["", "Not timed:", *(f"- {reason}" for reason in missing)]
    return "\n".join(lines) + "\n"


def coverage(study: Study, found: Sequence[Row]) -> str:
    """How much of the study the rows are, and that it is not all where it is not."""
    share = f"{len(found)} of {study.total} rows, {len(timed(found))} of them timed."
    if len(found) == study.total:
        return share
    return f"**Incomplete**: {share} The study was interrupted; the same command goes on."


def _line(r: Row) -> str:
    def text(value: Any, form: str = ".4g") -> str:
        return format(value, form) if isinstance(value, int | float) else "-"

    return (
        f"| {r['dtype']} | {r['threads']} | {r['case']} | {text(r['median_us'])} | {r['peer_is']} | "
        f"{text(r['peer_median_us'])} | {text(r['ratio'], '.2f')} | {text(r['ratio_ci_low'], '.2f')} .. "
        f"{text(r['ratio_ci_high'], '.2f')} | {r['verdict']} | {text(r['ceiling_frac'], '.0%')} | "
        f"{text(r.get('peer_ceiling_frac'), '.0%')} |"
    )
