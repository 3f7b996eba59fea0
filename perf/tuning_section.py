"""The report's section on tuning: history, best against default, what failed and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilewright.perf import plots
from tilewright.perf.cells import compact, num, positive
from tilewright.perf.report import Block, Document, Documents, Section


def tuning(documents: Documents) -> Section:
    """One history per document of `tilewright tune`."""
    blocks = [block for d in documents.of("tune") for block in _study(d)]
    note = (
        "The default config is trial 0 and is timed again with the best at the end, in interleaved rounds. "
        "Values other than measured times are models: they rank configs and are no times."
    )
    return Section("tune", "Tuning", blocks, note)


def _study(document: Document) -> list[Block]:
    from markupsafe import Markup

    top = document.top
    unit, word = str(top.get("unit") or "us"), str(top.get("evidence") or "")
    valued = [(row, value) for row in document.rows if (value := _value(row)) is not None]
    values = [(int(row.get("number", i)), value) for i, (row, value) in enumerate(valued)]
    word = word or str(valued[0][0].get("evidence") if valued else "")
    default, best = top.get("default"), top.get("best")
    title = " ".join(
        str(_look(top.get("key"), k) or "") for k in ("family", "target", "dtype")
    ).strip()
    title = title or document.name
    svg = plots.history(f"Tuning history: {title}", values, _value(default), unit, word)
    facts = [
        f"best: {compact(_look(best, 'config'))}, {_amount(best, unit)} ({word})" if best else "",
        f"default: {compact(_look(default, 'config'))}, {_amount(default, unit)}"
        if default
        else "",
        _gain(top),
        f"tied with the best: {compact(top.get('tie_set'))}" if top.get("tie_set") else "",
        f"{top.get('pool')} legal configs, sampler {top.get('sampler')}, seed {top.get('seed')}"
        if top.get("pool")
        else "",
    ]
    ranked = sorted(valued, key=lambda item: item[1])[:15]
    failed: dict[str, int] = {}
    for row in document.rows:
        if row.get("reason"):
            reason = f"{row.get('stage')}: {row['reason']}"
            failed[reason] = failed.get(reason, 0) + 1
    common = sorted(failed.items(), key=lambda item: -item[1])[:10]
    return [
        Block(heading=title, svg=Markup(svg) if svg else None, lines=[f for f in facts if f]),
        Block(
            caption=f"The best of {len(document.rows)} trials ({word})",
            columns=("trial", f"value, {unit}", "stage", "config"),
            rows=[
                (r.get("number"), num(v), r.get("stage"), compact(r.get("config")))
                for r, v in ranked
            ],
            folded=True,
        ),
        Block(lines=[f"{count} x {reason}" for reason, count in common]),
    ]


def _value(row: object) -> float | None:
    """The value of a trial or of a finalist, in the objective's unit."""
    found = positive(_look(row, "value"))
    return found if found is not None else positive(_look(row, "value_us"))


def _amount(scored: object, unit: str) -> str:
    value = _value(scored)
    return "-" if value is None else f"{plots.number(value)} {unit}"


def _gain(top: Mapping[str, Any]) -> str:
    gain, best = positive(top.get("gain")), top.get("best")
    score = positive(top.get("score_ratio"))
    if score is not None:
        return f"{top.get('verdict')} (modelled): {score:.2f} is the ratio of scores, not of times"
    if gain is None:
        return ""
    low, high = positive(_look(best, "ratio_low")), positive(_look(best, "ratio_high"))
    interval = f", 95 % interval {low:.2f} .. {high:.2f}" if low and high else ""
    return (
        f"gain over the default: {gain:.2f}x{interval}; verdict {top.get('verdict', 'not given')}"
    )


def _look(value: object, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None
