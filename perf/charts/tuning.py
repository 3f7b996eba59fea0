"""Plots of a search: history, importance of fields, parallel coordinates, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.perf.charts.base import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    colour,
    cross,
    key_of_failures,
    key_of_line,
    legend,
    line,
    linear_scale,
    log_scale,
    mark,
    number,
    opening,
    shorten,
    text,
    x_axis,
    x_scale,
    y_axis,
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a search: its value (None where it failed) and what proposed it."""

    number: int
    value: float | None
    arm: str
    evidence: str
    label: str


def history(title: str, trials: Sequence[Trial], default: float | None, unit: str) -> str:
    """Value of each trial in the colour of its arm, the best so far as a step line, failures on top."""
    good = [(t, t.value) for t in trials if t.value is not None and t.value > 0]
    if not good:
        return ""
    failed = [t for t in trials if t.value is None]
    top = TOP + (18 if failed else 0)
    values = [v for _, v in good]
    y = log_scale([*values, *([default] if default else [])], HEIGHT - BOTTOM, top, 0.04)
    first, last = min(t.number for t in trials), max(t.number for t in trials)
    x = x_scale(first, last)
    best = min(values)
    said = f"{len(trials)} trials, {len(failed)} failed, best {number(best)} {unit}"
    step = max(1, round((last - first) / 8))
    parts = [opening(title, said)]
    parts += y_axis(y, unit) + x_axis(x, "trial", ticks=range(first, last + 1, step))
    if default:
        parts.append(line(LEFT, y(default), WIDTH - RIGHT, y(default), "roof"))
        parts.append(
            text(WIDTH - RIGHT - 4, y(default) - 4, "default config", "rooflabel halo", "end")
        )
    parts.append(f'<path d="{_best_so_far(good, x, y)}H{WIDTH - RIGHT:.1f}" class="best"/>')
    arms = list(dict.fromkeys(t.arm for t, _ in good))
    for trial, value in good:
        tip = f"trial {trial.number}: {number(value)} {unit}, {trial.label}"
        parts.append(mark(x(trial.number), y(value), arms.index(trial.arm), trial.evidence, tip))
    parts += [cross(x(t.number), TOP + 4, f"trial {t.number} failed: {t.label}") for t in failed]
    more = [key_of_line("best", "best so far")]
    more += [key_of_failures(f"failed ({len(failed)})")] if failed else []
    names = [f"by {arm}" for arm in arms] if any(arms) else []
    return "".join([*parts, "</svg>", legend(names, {t.evidence for t, _ in good}, more)])


def _best_so_far(good: Sequence[tuple[Trial, float]], x: Scale, y: Scale) -> str:
    best, path = math.inf, ""
    for trial, value in sorted(good, key=lambda pair: pair[0].number):
        if value < best:
            start = f"H{x(trial.number):.1f} V" if path else f"M{x(trial.number):.1f} "
            path += f"{start}{y(value):.1f} "
            best = value
    return path


def importance(title: str, shares: Mapping[str, float]) -> str:
    """One bar a field, the most important first; shares add up to 1."""
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    if not ordered:
        return ""
    step, left = 26, 150
    height = TOP + step * len(ordered) + 30
    x = Scale(0.0, max(max(shares.values()), 0.1), left, WIDTH - RIGHT - 50)
    said = ", ".join(f"{name} {share:.0%}" for name, share in ordered)
    parts = [opening(title, said, height)]
    for tick in x.ticks():
        parts += [
            line(x(tick), TOP, x(tick), height - 26, "grid"),
            text(x(tick), height - 10, f"{tick:.0%}"),
        ]
    for i, (name, share) in enumerate(ordered):
        y = TOP + i * step
        width = max(1.5, x(share) - left)
        parts.append(text(left - 8, y + 17, shorten(name, 20), "axis", "end"))
        parts.append(
            f'<rect x="{left}" y="{y + 4:.1f}" width="{width:.1f}" height="{step - 8}" rx="3" class="point s0"/>'
        )
        parts.append(text(left + width + 6, y + 17, f"{share:.0%}", "tick", "start"))
    return "".join([*parts, "</svg>"])


def parallel(
    title: str, configs: Sequence[Mapping[str, Any]], values: Sequence[float | None], unit: str
) -> str:
    """One line a trial through its fields to its value; the best tenth stands out, failures are dotted.

    Values of a field lie evenly, in order: what is legal is a list, not a continuum.
    """
    fields = [
        f
        for f in dict.fromkeys(k for c in configs for k in c)
        if len({c.get(f) for c in configs}) > 1
    ]
    good = sorted(v for v in values if v is not None and v > 0)
    if not fields or len(good) < 2:
        return ""
    places = {f: sorted({c[f] for c in configs if f in c}, key=_order) for f in fields}
    top, bottom = TOP + 22, HEIGHT - 34
    columns = [LEFT + i * (WIDTH - LEFT - 80) / len(fields) for i in range(len(fields) + 1)]
    y = log_scale(good, bottom, top, 0.01)
    limit = good[max(0, math.ceil(len(good) / 10) - 1)]

    def height(name: str, value: Any) -> float:
        order = places[name]
        return bottom - (bottom - top) * order.index(value) / max(1, len(order) - 1)

    def path(config: Mapping[str, Any], value: float | None) -> str:
        points = [
            (cx, height(f, config[f]))
            for cx, f in zip(columns, fields, strict=False)
            if f in config
        ]
        points += [(columns[-1], y(value))] if value is not None and value > 0 else []
        return "M" + " L".join(f"{px:.1f} {py:.1f}" for px, py in points)

    def kind(value: float | None) -> str:
        return "way failed" if value is None else "way top" if value <= limit else "way"

    drawn = sorted(zip(configs, values, strict=True), key=lambda cv: -(cv[1] or math.inf))
    said = f"{len(configs)} trials over {', '.join(fields)}; the best tenth is at most {number(limit)} {unit}"
    parts = [opening(title, said)]
    parts += [f'<path d="{path(c, v)}" class="{kind(v)}"/>' for c, v in drawn]
    for cx, name in zip(columns, fields, strict=False):
        parts += [
            line(cx, top, cx, bottom, "axisline"),
            text(cx, HEIGHT - 12, shorten(name, 12), "axis"),
        ]
        shown = places[name] if len(places[name]) <= 12 else [places[name][0], places[name][-1]]
        parts += [text(cx - 6, height(name, v) + 4, _said(v), "tick halo", "end") for v in shown]
    parts += [line(columns[-1], top, columns[-1], bottom, "axisline")]
    parts += [text(columns[-1], HEIGHT - 12, unit, "axis")]
    parts += [text(columns[-1] + 6, y(t) + 4, number(t), "tick", "start") for t in y.ticks()]
    more = [key_of_line("way top", "the best tenth"), key_of_line("way", "the others")]
    more += [key_of_line("way failed", "failed")] if None in values else []
    return "".join([*parts, "</svg>", legend([], (), more)])


def _order(value: Any) -> tuple[bool, Any]:
    """Numbers in their order, before words in theirs."""
    word = not isinstance(value, int | float)
    return word, str(value) if word else value


def _said(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else shorten(str(value), 10)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trial with two objectives, and whether no other is at least as good in every objective."""

    x: float
    y: float
    front: bool
    label: str
    evidence: str


def pareto(title: str, candidates: Sequence[Candidate], x_label: str, y_label: str) -> str:
    """Two objectives against each other, smaller is better in both; the front is joined by a line."""
    usable = [c for c in candidates if c.x >= 0 and c.y >= 0]
    if not usable:
        return ""
    x = _amounts([c.x for c in usable], LEFT, WIDTH - RIGHT)
    y = _amounts([c.y for c in usable], HEIGHT - BOTTOM, TOP)
    front = sorted((c for c in usable if c.front), key=lambda c: (c.x, c.y))
    parts = [
        opening(
            title, f"{len(usable)} trials, {len(front)} on the front; smaller is better in both"
        )
    ]
    parts += x_axis(x, x_label) + y_axis(y, y_label)
    steps = _lower_steps(front, x, y)
    parts += [f'<path d="{steps}" class="best"/>'] if steps else []
    for c in sorted(usable, key=lambda c: c.front):
        parts.append(mark(x(c.x), y(c.y), 1 if c.front else 5, c.evidence, c.label))
    names = [
        f'<li><svg viewBox="0 0 12 12" class="key" aria-hidden="true"><rect width="12" height="12" rx="2" '
        f'class="{colour(i)} point"/></svg>{words}</li>'
        for i, words in ((1, "on the front"), (5, "dominated"))
    ]
    return "".join([*parts, "</svg>", legend([], {c.evidence for c in usable}, names)])


def _amounts(values: Sequence[float], start: float, end: float) -> Scale:
    """Logarithmic, unless something is 0."""
    if min(values) > 0:
        return log_scale(values, start, end, 0.04)
    return linear_scale(values, start, end)


def _lower_steps(front: Sequence[Candidate], x: Scale, y: Scale) -> str:
    """The front of these two objectives alone as steps: with a third one, some of its points lie above."""
    path, lowest = "", math.inf
    for c in front:
        if c.y < lowest:
            path += (
                f"H{x(c.x):.1f} V{y(c.y):.1f} " if path else f"M{x(c.x):.1f} {TOP} V{y(c.y):.1f} "
            )
            lowest = c.y
    return f"{path}H{WIDTH - RIGHT}" if path else ""
