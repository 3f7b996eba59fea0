"""The report's section on tuning: history, what decided, trade-offs, best against default, what failed and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tilewright.perf import plots
from tilewright.perf.cells import compact, num, positive
from tilewright.perf.importance import shares
from tilewright.perf.report import Block, Document, Documents, Row, Section
from tilewright.perf.tables_section import sweep_blocks

_MOST_ROWS = 15
# Units of the objectives that trials may carry beside their value.
_OBJECTIVES = {
    "time_us": "time, us",
    "memory_bytes": "memory, bytes",
    "size_bytes": "binary, bytes",
}


def tuning(documents: Documents) -> Section:
    """One history per document of `tilewright tune`; a sweep has its table first."""
    blocks = [block for d in documents.of("tune") for block in _blocks(d)]
    note = (
        "The default config is trial 0 and is timed again with the best at the end, in interleaved rounds. "
        "Values other than measured times are models: they rank configs and are no times."
    )
    return Section("tune", "Tuning", blocks, note)


def _blocks(document: Document) -> list[Block]:
    sweep = document.top.get("sweep")
    if not isinstance(sweep, Mapping):
        return _study(document, document.rows, _title(document))
    blocks = sweep_blocks(document, sweep, _title(document))
    by_shape: dict[str, list[Row]] = {}
    for row in document.rows:
        by_shape.setdefault(str(row.get("shape")), []).append(row)
    unit, word = str(document.top.get("unit") or "us"), str(document.top.get("evidence") or "")
    for shape, rows in by_shape.items():
        title = f"Tuning history: {_title(document)} {shape}"
        default = next((_value(r) for r in rows if r.get("number") == 0), None)
        blocks.append(
            _picture(title, plots.history(title, _trials(rows, word), default, unit), folded=True)
        )
        blocks.append(Block(lines=_failures(rows)))
    return [b for b in blocks if b != Block()]


def _title(document: Document) -> str:
    key = document.top.get("key")
    words = [str(_look(key, k) or "") for k in ("family", "target", "precision", "dtype")]
    if "sweep" not in document.top:
        words.insert(2, str(_look(key, "shape") or ""))
    return " ".join(w for w in words if w) or document.name


def _study(document: Document, rows: Sequence[Row], title: str) -> list[Block]:
    from markupsafe import Markup

    top = document.top
    unit, word = str(top.get("unit") or "us"), str(top.get("evidence") or "")
    valued = [(row, value) for row in rows if (value := _value(row)) is not None]
    word = word or str(valued[0][0].get("evidence") if valued else "")
    default = _value(top.get("default")) or next(
        (v for r, v in valued if r.get("number") == 0), None
    )
    history = plots.history(f"Tuning history: {title}", _trials(rows, word), default, unit)
    finished = [r for r in rows if str(r.get("state", "ok")) != "running"]
    configs = [r["config"] for r in finished if isinstance(r.get("config"), Mapping)]
    values = [_value(r) for r in finished if isinstance(r.get("config"), Mapping)]
    ranked = sorted(valued, key=lambda item: item[1])[:_MOST_ROWS]
    blocks = [
        Block(
            heading=title, svg=Markup(history) if history else None, lines=_facts(top, unit, word)
        ),
        _importance(title, configs, values),
        _picture(
            "Parallel coordinates",
            plots.parallel(f"Parallel coordinates: {title}", configs, values, unit),
        ),
        *_pareto(document, rows, title, word),
        Block(
            caption=f"The best of {len(rows)} trials ({word})",
            columns=("trial", f"value, {unit}", "stage", "from", "config"),
            rows=[
                (r.get("number"), num(v), r.get("stage"), r.get("arm"), compact(r.get("config")))
                for r, v in ranked
            ],
            folded=True,
        ),
        Block(lines=_failures(rows)),
    ]
    return [b for b in blocks if b != Block()]


def _trials(rows: Sequence[Row], word: str) -> list[plots.Trial]:
    return [
        plots.Trial(
            int(row.get("number", i)),
            _value(row),
            str(row.get("arm") or ""),
            str(row.get("evidence") or word),
            compact(row.get("config")) if _value(row) is not None else str(row.get("reason") or ""),
        )
        for i, row in enumerate(rows)
        if str(row.get("state", "ok")) != "running"
    ]


def _picture(heading: str, svg: str, caption: str = "", folded: bool = False) -> Block:
    from markupsafe import Markup

    if not svg:
        return Block()
    return Block(heading=heading, svg=Markup(svg), caption=caption, folded=folded)


def _importance(
    title: str, configs: Sequence[Mapping[str, Any]], values: Sequence[float | None]
) -> Block:
    found = shares(configs, values)
    svg = plots.importance(f"Importance of fields: {title}", found)
    said = (
        f"PED-ANOVA over {len(values)} trials: how differently the best ones choose a field. It speaks of the trials that "
        "were made, by a sampler that prefers good ones."
    )
    return _picture("Importance of fields", svg, said)


def _pareto(document: Document, rows: Sequence[Row], title: str, word: str) -> list[Block]:
    """A plot for each pair of objectives that trials carry; the front is the document's, else computed."""
    carried = [(r, v) for r in rows if isinstance(v := r.get("values"), Mapping)]
    names = list(dict.fromkeys(n for _, v in carried for n, x in v.items() if _amount_of(x)))
    whole = [(r, v) for r, v in carried if all(_amount_of(v.get(n)) for n in names)]
    if len(names) < 2 or not whole:
        return []
    given = document.top.get("pareto")
    points = [tuple(float(v[n]) for n in names) for _, v in whole]
    listed = set(given) if isinstance(given, list) and given else None
    front = [
        r.get("number") in listed if listed is not None else not any(map(_dominates(p), points))
        for (r, _), p in zip(whole, points, strict=True)
    ]
    said = "" if len(names) == 2 else f"The front is that of all {len(names)} objectives."
    blocks: list[Block] = []
    for i, x in enumerate(names):
        for j, y in list(enumerate(names))[i + 1 :]:
            candidates = [
                plots.Candidate(
                    p[i],
                    p[j],
                    on,
                    f"trial {r.get('number')}: {compact(r.get('config'))}",
                    str(r.get("evidence") or word),
                )
                for (r, _), p, on in zip(whole, points, front, strict=True)
            ]
            labels = (_OBJECTIVES.get(x, x), _OBJECTIVES.get(y, y))
            svg = plots.pareto(
                f"Pareto front: {title}, {labels[0]} against {labels[1]}", candidates, *labels
            )
            blocks.append(_picture("Pareto front" if not blocks else "", svg, said))
    best = [(r, v) for (r, v), on in zip(whole, front, strict=True) if on]
    blocks.append(
        Block(
            caption=f"{len(best)} trials on the Pareto front of {len(whole)}",
            columns=("trial", *(_OBJECTIVES.get(n, n) for n in names), "config"),
            rows=[
                (r.get("number"), *(num(v[n]) for n in names), compact(r.get("config")))
                for r, v in sorted(best, key=lambda rv: float(rv[1][names[0]]))
            ],
            folded=len(best) > _MOST_ROWS,
        )
    )
    return blocks


def _amount_of(value: object) -> bool:
    """Whether it is a number of something: 0 bytes are one too."""
    return value == 0 or positive(value) is not None


def _dominates(point: Sequence[float]) -> Any:
    """Whether another point is at least as good in everything and better in something."""

    def better(other: Sequence[float]) -> bool:
        pairs = list(zip(other, point, strict=True))
        return all(o <= p for o, p in pairs) and any(o < p for o, p in pairs)

    return better


def _facts(top: Mapping[str, Any], unit: str, word: str) -> list[str]:
    default, best = top.get("default"), top.get("best")
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
    return [f for f in facts if f]


def _failures(rows: Sequence[Row]) -> list[str]:
    """The ten most common reasons, with how often."""
    failed: dict[str, int] = {}
    for row in rows:
        if row.get("reason") and str(row.get("state")) != "running":
            reason = f"{row.get('stage')}: {row['reason']}"
            failed[reason] = failed.get(reason, 0) + 1
    common = sorted(failed.items(), key=lambda item: -item[1])[:10]
    return [f"{count} x {reason}" for reason, count in common]


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
