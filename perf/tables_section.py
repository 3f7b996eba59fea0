"""A sweep in the report: the dispatch table, and what it loses on each size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tilewright.perf import plots
from tilewright.perf.cells import cell, compact, num
from tilewright.perf.report import Block, Document


def sweep_blocks(document: Document, sweep: Mapping[str, Any], title: str) -> list[Block]:
    """The table with regret, the plot over sizes, and every config's value on every size."""
    from markupsafe import Markup

    dim, word = str(sweep.get("dim") or "size"), str(document.top.get("evidence") or "")
    unit = str(document.top.get("unit") or "us")
    buckets = [b for b in sweep.get("buckets") or [] if isinstance(b, Mapping)]
    tail = compact(sweep.get("shape"))
    if not buckets:
        return [
            Block(
                heading=f"Dispatch table: {title}", lines=[f"no table: {document.top.get('doubt')}"]
            )
        ]
    sizes = [
        plots.SizeRegret(
            int(one["size"]),
            float(one["value"]),
            one.get("low"),
            one.get("high"),
            i,
            f"{dim} {_span(bucket)}",
        )
        for i, bucket in enumerate(buckets)
        for one in bucket.get("regret") or []
        if one.get("value") is not None
    ]
    others = {
        name: float(found["mean"])
        for name, key in (("one config", "one_config"), ("default", "default"))
        if isinstance(found := sweep.get(key), Mapping) and found.get("mean") is not None
    }
    # A level far above every bar would flatten them all: it is said in words below.
    top = max([abs(s.value) for s in sizes] + [s.high or 0.0 for s in sizes], default=0.0)
    shown = {name: v for name, v in others.items() if v <= max(4 * top, 0.02)}
    svg = plots.regrets(f"Regret of each size: {title} {tail}", sizes, dim, shown)
    rows = [
        (
            _span(b), cell(_percent(b.get("mean")), "num"), cell(_percent(b.get("worst")), "num"),
            num(b.get("worst_at")), compact(b.get("config")),
        )
        for b in buckets
    ]  # fmt: skip
    return [
        Block(
            heading=f"Dispatch table: {title} {tail}",
            caption=f"{len(buckets)} buckets of at most {sweep.get('most_buckets')} ({word})",
            columns=(dim, "mean regret", "worst", f"at {dim}", "config"),
            rows=rows,
        ),
        Block(
            svg=Markup(svg) if svg else None,
            lines=[*_words(sweep, dim, others), *filter(None, [document.top.get("doubt")])],
        ),
        _values(sweep, dim, unit, word),
    ]


def _span(bucket: Mapping[str, Any]) -> str:
    low, high = int(bucket["over"]) + 1, int(bucket["upper"])
    return str(high) if low == high else f"{low} .. {high}"


def _words(sweep: Mapping[str, Any], dim: str, others: Mapping[str, float]) -> list[str]:
    found = sweep.get("regret")
    whole = found if isinstance(found, Mapping) else {}
    rounds = [int(r) for r in sweep.get("rounds") or []]
    lines = [
        f"whole table: mean regret {_percent(whole.get('mean'))}, worst {_percent(whole.get('worst'))} "
        f"at {dim}={whole.get('worst_at')}",
        *(f"{name} on every size: mean regret {_percent(value)}" for name, value in others.items()),
    ]
    if rounds and min(rounds) > 1:
        lines.append(
            f"at least {min(rounds)} interleaved rounds a size: every other one chose configs and ranges, regret is told "
            "from the rest; bars below zero are noise"
        )
    return lines


def _values(sweep: Mapping[str, Any], dim: str, unit: str, word: str) -> Block:
    configs: Sequence[Any] = sweep.get("configs") or []
    sizes: Sequence[Any] = sweep.get("sizes") or []
    values: Sequence[Sequence[Any]] = sweep.get("values") or []
    rows = []
    for i, config in enumerate(configs):
        told = []
        for row in values:
            known = [v for v in row if v is not None]
            best = row[i] is not None and row[i] == min(known)
            told.append(cell(plots.number(row[i]), "num good") if best else num(row[i]))
        rows.append((compact(config), *told))
    return Block(
        caption=f"Every config on every size, {unit} ({word}); the best of a size is marked",
        columns=("config", *(f"{dim}={s}" for s in sizes)),
        rows=rows,
        folded=True,
    )


def _percent(value: object) -> str:
    return f"{100 * value:.2f} %" if isinstance(value, int | float) else "-"
