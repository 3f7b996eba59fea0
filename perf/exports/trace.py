"""Trace events (Chrome's JSON), which Perfetto reads: one track a run, one slice a sample.

When a sample began is not kept, only how long it took: slices stand one after the other, and the track's
name says so. Source: the Trace Event Format document, events X (complete) and M (metadata).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tilewright.document import write_text
from tilewright.perf.exports.runs import Run, unique

_MOST_SLICES = 2000


def write(document: dict[str, Any], runs: list[Run], out: Path) -> list[Path]:
    """One file; times in us, as the format has them."""
    host = document["host"]
    events: list[dict[str, Any]] = []
    families: dict[str, int] = {}
    for thread, run in enumerate(unique(runs), 1):
        process = families.setdefault(run.family, len(families) + 1)
        if process == len(families) and not any(e["pid"] == process for e in events):
            events.append(_meta("process_name", process, 0, f"{run.family} on {host['cpu']}"))
        events.append(_meta("thread_name", process, thread, f"{run.name} ({run.row['evidence']})"))
        events += _slices(run, process, thread)
    content = {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "producer": f"tilewright {document['version']}",
            "fingerprint": host["fingerprint"],
            "timeline": "samples in the order taken, one after the other; gaps between them are not kept",
        },
    }
    write_text(out, json.dumps(content) + "\n")
    return [out]


def _meta(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _slices(run: Run, process: int, thread: int) -> list[dict[str, Any]]:
    events = []
    # Whole ns: readers keep times as such, and a slice that ends after the next begins is dropped by them.
    start = 0
    about = {k: v for k, v in run.about.items() if isinstance(v, str | int | float)}
    for number, ns in enumerate(run.require_samples()[:_MOST_SLICES]):
        length = max(1, round(float(ns) * run.batch))
        events.append(
            {
                "ph": "X",
                "cat": str(run.row["evidence"]),
                "name": f"{run.family} {run.who}",
                "pid": process,
                "tid": thread,
                "ts": start / 1e3,
                "dur": length / 1e3,
                "args": {"sample": number, "calls": run.batch, "ns_per_call": float(ns), **about},
            }
        )
        start += length
    return events
