"""The tables of docs/model.md, written by `tilewright model --validate --docs docs/model.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tilewright.errors import UsageError

from ..twin import model
from .validation import Outcome, Summary

_MARKS = {
    "rows": ("<!-- rows: written by tilewright model --validate --docs -->", "<!-- end rows -->"),
    "constants": (
        "<!-- constants: written by tilewright model --validate --docs -->",
        "<!-- end constants -->",
    ),
}


def summary_line(s: Summary) -> str:
    """The summary as a sentence."""
    if s.median_error is None or s.p90_error is None:
        return f"{s.predicted} of {s.rows} rows predicted and published: nothing to compare"
    rank = f"{s.gemm_spearman:.3f}" if s.gemm_spearman is not None else "not defined"
    return (
        f"{s.predicted} of {s.rows} rows predicted: median absolute error {s.median_error:.1%}, "
        f"90th percentile {s.p90_error:.1%}; Spearman over the gemm rows {rank}"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if value < 1000 else f"{value:.0f}"


def rows_table(outcomes: Sequence[Outcome], summary: Summary) -> str:
    """Markdown of the rows."""
    lines = [
        summary_line(summary) + ".",
        "",
        "| id | op | published us | predicted us (modelled) | ratio | used to fit | bound by | remark |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        ratio = f"{o.ratio:.3f}" if o.ratio is not None else ""
        used = "yes" if o.used_to_fit else ""
        lines.append(
            f"| {o.id} | {o.op} | {_number(o.published_us)} | {_number(o.predicted_us)} | {ratio} | {used} "
            f"| {o.bound_by} | {o.reason or o.note} |"
        )
    return "\n".join(lines)


def constants_table(lib_path: Path) -> str:
    """Markdown of the constants."""
    lines = ["| constant | value | unit | source |", "|---|---|---|---|"]
    for c in model.constants(lib_path):
        lines.append(f"| {c.name} | {c.value:g} | {c.unit} | {c.source} |")
    return "\n".join(lines)


def renew(page: Path, outcomes: Sequence[Outcome], summary: Summary, lib_path: Path) -> None:
    """Replaces what stands between the marks of ``page``. Raises UsageError where they are missing."""
    try:
        text = page.read_text()
    except OSError as error:
        raise UsageError(f"cannot read '{page}': {error.strerror}") from None
    parts = {"rows": rows_table(outcomes, summary), "constants": constants_table(lib_path)}
    for name, (begin, end) in _MARKS.items():
        head, found, rest = text.partition(begin)
        inside, closed, tail = rest.partition(end)
        if not found or not closed:
            raise UsageError(f"'{page}' has no place for {name}: the lines '{begin}' and '{end}'")
        text = f"{head}{begin}\n\n{parts[name]}\n\n{end}{tail}"
    page.write_text(text)
