"""What the report says: each command's rows as tables and plots. A command without a section of its own
gets a plain table, so that nothing given is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tilewright.perf import plots
from tilewright.perf.cells import cell, compact, evidence, num, positive, yes
from tilewright.perf.replay_section import replayed
from tilewright.perf.report import Block, Documents, Row, Section, Tile
from tilewright.perf.rooflines import roofline_blocks
from tilewright.perf.tuning_section import tuning

_STATES = ("run", "interpret", "twin", "compile", "model", "absent")
_MOST_ROWS = 400
# States of checks that a backend declined: no verdict, and no failure.
_UNDECIDED = ("refused", "unavailable")


def sections(documents: Documents) -> list[Section]:
    """Every section that has something to show, in the order of the work."""
    makers: Sequence[tuple[str, Callable[[Documents], Section]]] = (
        ("list", _matrix),
        ("check", _checks),
        ("bench", _bench),
        ("tune", tuning),
        ("replay", replayed),
        ("compile", _compiled),
        ("twin", _twin),
        ("model", _modelled),
        ("ship", _shipped),
        ("verify", _verified),
        ("doctor", _doctor),
    )
    found = [make(documents) for command, make in makers if documents.rows(command)]
    rooflines = roofline_blocks(documents)
    if rooflines:
        place = next((i for i, s in enumerate(found) if s.id == "bench"), len(found))
        note = (
            "Each circle is a measured case, each hollow diamond a modelled one; they are never on one plot's verdict "
            "together. Slopes and peaks are ceilings measured on this machine."
        )
        found.insert(place, Section("roofline", "Roofline", rooflines, note))
    known = {command for command, _ in makers}
    others = [d for d in documents.all if d.command not in known and d.rows]
    found += [
        Section(f"other-{i}", d.command, [_plain_table(f"{d.command}: {len(d.rows)} rows", d.rows)])
        for i, d in enumerate(others)
    ]
    return found


def tiles(documents: Documents) -> list[Tile]:
    """The figures at the top."""
    made: list[Tile] = []
    cells = documents.rows("list")
    if cells:
        running = sum(r.get("state") in ("run", "interpret", "twin") for r in cells)
        made.append(Tile("cells of the matrix that run here", f"{running} of {len(cells)}"))
    checks = documents.rows("check")
    if checks:
        decided = [r for r in checks if r.get("state") not in _UNDECIDED]
        good = sum(bool(r.get("ok")) for r in decided)
        colour = "good" if good == len(decided) else "bad"
        made.append(Tile("checks ok", f"{good} of {len(decided)}", colour))
    ratios = [r for r in documents.rows("bench") if r.get("ratio") and r.get("state") == "timed"]
    if ratios:
        mean = math.exp(sum(math.log(float(r["ratio"])) for r in ratios) / len(ratios))
        names = sorted({str(r.get("peer")) for r in ratios})
        made.append(
            Tile(
                f"geometric mean of {len(ratios)} ratios to {', '.join(names)} (measured)",
                f"{mean:.2f}x",
            )
        )
    for document in documents.of("tune"):
        gain = document.top.get("gain")
        if isinstance(gain, int | float):
            word = compact(document.top.get("evidence")) or "see tuning"
            made.append(Tile(f"gain of tuning over the default ({word})", f"{gain:.2f}x"))
    compiled = documents.rows("compile")
    if compiled:
        good = sum(bool(r.get("ok")) for r in compiled)
        made.append(Tile("binaries that can launch (compiled)", f"{good} of {len(compiled)}"))
    verified = documents.rows("verify")
    if verified:
        good = sum(bool(r.get("ok")) for r in verified)
        failed = any(not r.get("ok") and r.get("state", "failed") == "failed" for r in verified)
        colour = "bad" if failed else "good" if good == len(verified) else "mid"
        made.append(Tile("verification stages passed", f"{good} of {len(verified)}", colour))
    return made


def _matrix(documents: Documents) -> Section:
    rows = documents.rows("list")
    columns = list(dict.fromkeys((r["backend"], r["target"]) for r in rows))
    lines: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        lines.setdefault((row["family"], row["dtype"]), {})[(row["backend"], row["target"])] = row
    body = [
        [f"{family} {dtype}"]
        + [
            cell(cells[c]["state"], str(cells[c]["state"])) if c in cells else cell("")
            for c in columns
        ]
        for (family, dtype), cells in lines.items()
    ]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.get("reason"):
            where = f"{row['family']} {row['backend']} {row['target']}"
            known = reasons.setdefault(str(row["reason"]), [])
            known += [where] if where not in known else []
    counts = ", ".join(f"{n} {s}" for s in _STATES if (n := sum(r["state"] == s for r in rows)))
    return Section(
        "matrix",
        "What runs where",
        [
            Block(
                caption=f"{len(rows)} cells: {counts}",
                columns=("family, precision", *(f"{b} {t}" for b, t in columns)),
                rows=body,
            ),
            Block(
                caption="Why not",
                columns=("reason", "cells"),
                rows=[(reason, ", ".join(where)) for reason, where in reasons.items()],
                folded=True,
            )
            if reasons
            else Block(),
        ],
        "run: runs on its hardware here. interpret and twin: right or wrong is real, time is not. "
        "compile: a binary is made and read, not run.",
    )


def _checks(documents: Documents) -> Section:
    declined = [r for r in documents.rows("check") if r.get("state") in _UNDECIDED]
    rows = [r for r in documents.rows("check") if r.get("state") not in _UNDECIDED]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(
            tuple(str(row.get(k)) for k in ("family", "backend", "target", "dtype")), []
        ).append(row)
    body = []
    for (family, backend, target, dtype), group in groups.items():
        good = sum(bool(r.get("ok")) for r in group)
        worst = max((_real(r.get("rel_err")) for r in group), default=0.0)
        limit = max((_real(r.get("tolerance")) for r in group), default=0.0)
        share = cell(f"{good} of {len(group)}", "good" if good == len(group) else "bad")
        body.append((f"{family} {dtype}", backend, target, share, num(worst, 3), num(limit, 3)))
    columns = ("family, precision", "backend", "target", "ok", "worst relative error", "tolerance")
    seeds = sorted({str(r.get("seed")) for r in rows})
    blocks = [
        Block(caption=f"{len(rows)} checks, seed {', '.join(seeds)}", columns=columns, rows=body)
    ]
    failed = [r for r in rows if not r.get("ok")]
    if failed:
        lines = [
            (
                f"{r.get('family')} {r.get('dtype')}", r.get("backend"), r.get("target"), r.get("case"),
                cell(r.get("reason"), "bad"), r.get("replay"),
            )
            for r in failed[:_MOST_ROWS]
        ]  # fmt: skip
        columns = ("family, precision", "backend", "target", "case", "reason", "replay")
        blocks.append(
            Block(heading="Failed", caption=f"{len(failed)} failed", columns=columns, rows=lines)
        )
    reasons = {f"{r.get('backend')} {r.get('state')}: {r.get('reason')}" for r in declined}
    blocks.append(Block(lines=sorted(reasons)))
    return Section("check", "Checks against the fp64 reference", blocks)


def _real(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.inf


def _bench(documents: Documents) -> Section:
    from markupsafe import Markup

    rows = [r for r in documents.rows("bench") if r.get("state", "timed") != "unavailable"]
    body = []
    for r in rows:
        verdict = str(r.get("verdict") or r.get("state") or "")
        bar: Any = ""
        if r.get("ratio"):
            low, high = r.get("ratio_ci_low"), r.get("ratio_ci_high")
            bar = Markup(plots.ratio_bar(float(r["ratio"]), positive(low), positive(high), verdict))
        share = r.get("ceiling_frac")
        body.append(
            (
                f"{r.get('family')} {r.get('dtype')}", r.get("backend"), r.get("case"), num(r.get("threads")),
                r.get("cache"), num(r.get("median_us")), f"{_text(r.get('ci_low_us'))} .. {_text(r.get('ci_high_us'))}",
                num(r.get("gflops"), 3), num(r.get("gbps"), 3),
                cell(f"{share:.0%}" if isinstance(share, int | float) else "-", "num"),
                r.get("bound_by") or "-", r.get("peer_is") or r.get("peer") or "-", num(r.get("ratio"), 3), bar,
                cell(verdict, verdict), evidence(r),
            )
        )  # fmt: skip
    columns = (
        "family, precision", "backend", "case", "threads", "cache", "median us", "95 % interval", "G/s", "GB/s",
        "of ceiling", "bound by", "peer", "ratio", "1/4 .. 4", "verdict", "evidence",
    )  # fmt: skip
    blocks = [
        Block(
            caption=f"{len(rows)} rows; ratio is peer time / our time", columns=columns, rows=body
        )
    ]
    disturbed = sum(r.get("quiet") is False for r in rows)
    lines = [
        f"{disturbed} of {len(rows)} rows were timed while others used a tenth of the machine or more."
    ]
    weak = {
        f"{r.get('peer_is')} in {r.get('dtype')} reaches less than a tenth of this machine's ceiling: "
        "a ratio to it says little."
        for r in rows
        if isinstance(r.get("peer_ceiling_frac"), float) and r["peer_ceiling_frac"] < 0.1
    }
    lines += sorted(weak)
    absent = {
        str(r.get("reason")) for r in documents.rows("bench") if r.get("state") == "unavailable"
    }
    lines += sorted(absent)
    blocks.append(Block(lines=lines if disturbed or absent or weak else ()))
    note = (
        "Checked before and after timing; pairs are interleaved in one run, and a verdict needs the whole interval "
        "on one side of 2 %. 'Of ceiling' is the measured limit of this machine over the measured time."
    )
    return Section("bench", "Benchmarks", blocks, note)


def _text(value: object) -> str:
    return plots.number(float(f"{value:.4g}")) if isinstance(value, int | float) else "-"


def _compiled(documents: Documents) -> Section:
    rows = documents.rows("compile")
    body = [
        (
            r.get("target"), r.get("precision") or r.get("dtype") or "", compact(r.get("config")), yes(r.get("ok")),
            num(r.get("regs")), num(r.get("spill_bytes")), num(r.get("shared_bytes")),
            num(r.get("matrix_instructions")), num(r.get("async_copies")),
            cell(str(r.get("binary_sha256") or "")[:12]), cell(r.get("error"), "bad"),
        )
        for r in rows[:_MOST_ROWS]
    ]  # fmt: skip
    columns = (
        "target", "precision", "config", "can launch", "registers", "spill bytes", "shared bytes", "matrix instr.",
        "async copies", "binary", "error",
    )  # fmt: skip
    note = "Evidence: compiled. Read from the binaries; nothing here ran."
    return Section(
        "compile",
        "Compiled kernels",
        [Block(caption=_count(rows), columns=columns, rows=body)],
        note,
    )


def _count(rows: Sequence[object]) -> str:
    shown = f", the first {_MOST_ROWS} shown" if len(rows) > _MOST_ROWS else ""
    return f"{len(rows)} rows{shown}"


def _twin(documents: Documents) -> Section:
    rows = documents.rows("twin")
    body = [
        (
            r.get("family") or r.get("file") or r.get("case") or "twin run", compact(r.get("case")), yes(r.get("ok")),
            num(r.get("rel_err"), 3), num(r.get("cycles")), compact(r.get("peak")), compact(r.get("findings")),
        )
        for r in rows
    ]  # fmt: skip
    columns = (
        "kernel",
        "case",
        "ok",
        "relative error",
        "cycles (modelled)",
        "peak bytes",
        "findings",
    )
    given = [f for d in documents.of("twin") for f in (d.top.get("findings") or [])]
    findings = [
        str(f.get("text") or compact(f)) if isinstance(f, dict) else compact(f) for f in given
    ]
    blocks = [Block(caption=_count(rows), columns=columns, rows=body), Block(lines=findings[:50])]
    note = "Values are computed and checked; cycles are a model of the 910B, not a measurement."
    return Section("twin", "AscendC on the twin", blocks, note)


def _modelled(documents: Documents) -> Section:
    note = "Evidence: modelled. No device ran this."
    return Section(
        "model", "Modelled times", [_plain_table("predictions", documents.rows("model"))], note
    )


def _stages(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """A stage's state in its own word (ok, failed, skipped), else from `ok`."""
    found = []
    for r in rows:
        word = str(r.get("state") or "")
        cls = "good" if r.get("ok") else "bad" if word == "failed" else "mid"
        found.append(
            (
                r.get("stage"),
                cell(word, cls) if word else yes(r.get("ok")),
                compact(r.get("detail")),
            )
        )
    return found


def _shipped(documents: Documents) -> Section:
    rows = documents.rows("ship")
    block = Block(caption=_count(rows), columns=("stage", "", "detail"), rows=_stages(rows))
    return Section("ship", "The bundle", [block])


def _verified(documents: Documents) -> Section:
    rows = documents.rows("verify")
    block = Block(caption=_count(rows), columns=("stage", "", "detail"), rows=_stages(rows))
    return Section("verify", "Verification of the bundle", [block])


def _doctor(documents: Documents) -> Section:
    rows = documents.rows("doctor")
    body = [
        (
            r.get("name"), num(r.get("value")) if isinstance(r.get("value"), int | float) else r.get("value"),
            r.get("unit"), yes(r.get("ok")), r.get("evidence") or "", r.get("hint"),
        )
        for r in rows
    ]  # fmt: skip
    columns = ("name", "value", "unit", "", "evidence", "hint")
    return Section(
        "doctor",
        "This machine",
        [Block(caption=_count(rows), columns=columns, rows=body, folded=True)],
    )


def _plain_table(caption: str, rows: Sequence[Row]) -> Block:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = [
        tuple(
            num(row.get(c))
            if isinstance(row.get(c), int | float) and not isinstance(row.get(c), bool)
            else compact(row.get(c))
            for c in columns
        )
        for row in rows[:_MOST_ROWS]
    ]
    return Block(caption=f"{caption}, {_count(rows)}", columns=columns, rows=body)
