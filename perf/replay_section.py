"""Replayed tuning in the report: fraction of the optimum over evaluations, by space and sampler."""

from __future__ import annotations

from statistics import fmean, quantiles
from typing import Any

from tilewright.perf import plots
from tilewright.perf.cells import num
from tilewright.perf.report import Block, Documents, Row, Section


def replayed(documents: Documents) -> Section:
    """A plot per space from the rows of every seed (else from the summaries), and the summaries as a table."""
    from markupsafe import Markup

    rows = documents.rows("replay")
    told = [
        s for d in documents.of("replay") for s in d.top.get("summary") or [] if isinstance(s, dict)
    ]
    points = _points(rows) or [
        (str(s["space"]), str(s["sampler"]), float(s["at"]), float(s["mean"]), s.get("p10"))
        for s in told
        if {"space", "sampler", "at", "mean"} <= s.keys()
    ]
    blocks = []
    for space in dict.fromkeys(p[0] for p in points):
        curves = [
            plots.Curve(name, [p[2:] for p in points if p[:2] == (space, name)])
            for name in dict.fromkeys(p[1] for p in points if p[0] == space)
        ]
        svg = plots.quality(f"Fraction of the optimum: {space}", curves)
        blocks.append(Block(heading=space, svg=Markup(svg) if svg else None))
    body = [
        (s.get("space"), s.get("sampler"), num(s.get("at")), num(s.get("mean")), num(s.get("p10")), num(s.get("seeds")))
        for s in told
    ]  # fmt: skip
    if body:
        columns = ("space", "sampler", "evaluations", "mean", "10th percentile", "seeds")
        blocks.append(Block(caption=f"{len(body)} summaries", columns=columns, rows=body))
    if not points and not body:
        lines = [", ".join(f"{k}={v}" for k, v in r.items()) for r in rows[:50]]
        blocks.append(Block(lines=lines))
    note = (
        "Simulated on recorded measurements: the time of the optimum over the time of the best config so far, mean over seeds. "
        "Thin lines: the worst tenth of seeds."
    )
    return Section("replay", "Replayed tuning", blocks, note)


def _points(rows: list[Row]) -> list[tuple[str, str, float, float, Any]]:
    """Mean and tenth percentile over seeds per space, sampler and count of evaluations."""
    groups: dict[tuple[str, str, float], list[float]] = {}
    for row in rows:
        at, value = row.get("at"), row.get("fraction_of_optimum")
        if isinstance(at, int | float) and isinstance(value, int | float):
            key = (str(row.get("space")), str(row.get("sampler")), float(at))
            groups.setdefault(key, []).append(float(value))
    return [
        (space, sampler, at, fmean(found), quantiles(found, n=10)[0] if len(found) > 1 else None)
        for (space, sampler, at), found in sorted(groups.items())
    ]
