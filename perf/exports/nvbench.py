"""nvbench's JSON 1.0.0 with binary samples beside it, for `nvbench-compare-robust A B`.

Its readers take times from the tags of a GPU's isolated calls, so ours stand there; name and description of
each say that a processor's calls were timed. The device is the processor. Source: nvbench's
json_printer and python/scripts of cuda-bench 0.3.0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.document import write_text
from tilewright.perf.exports.runs import Run, unique

_JSON_VERSION = {"major": 1, "minor": 0, "patch": 0, "string": "1.0.0"}


def write(document: dict[str, Any], runs: list[Run], out: Path) -> list[Path]:
    """The JSON file and, in `<file>-bin/`, float32 seconds of each state."""
    folder = out.with_name(f"{out.name}-bin")
    written = [out]
    groups: dict[str, list[Run]] = {}
    for run in unique(runs):
        groups.setdefault(run.family, []).append(run)
    benchmarks: list[dict[str, Any]] = []
    for family, group in groups.items():
        states: list[dict[str, Any]] = []
        for run in group:
            seconds = (run.require_samples() * 1e-9).astype("<f4")
            path = folder / f"{len(written) - 1}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(seconds.tobytes())
            written.append(path)
            states.append(_state(run, f"{folder.name}/{path.name}"))
        benchmarks.append(_benchmark(family, len(benchmarks), _axes(group), states))
    content = {
        "meta": {
            "argv": ["tilewright", "export", "nvbench"],
            "version": {
                "json": _JSON_VERSION,
                "tilewright": {"string": document["version"]},
            },
        },
        "devices": [_device(document["host"])],
        "benchmarks": benchmarks,
    }
    write_text(out, json.dumps(content, indent=1) + "\n")
    return written


def _device(host: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": 0,
        "name": f"{host['cpu']} ({host['isa']}, processor)",
        "number_of_cores": host["cores"],
        "fingerprint": host["fingerprint"],
    }


def _benchmark(
    name: str, index: int, axes: list[dict[str, Any]], states: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "name": name,
        "index": index,
        "min_samples": 10,
        "devices": [0],
        "axes": axes,
        "states": states,
    }


def _values(run: Run) -> dict[str, tuple[str, str]]:
    """Each axis of a run with its type and value."""
    named = {name: ("int64", str(size)) for name, size in run.sizes.items()}
    words = {
        "dtype": run.row["dtype"],
        "flags": run.settings or "-",
        "cache": run.row["cache"],
        "who": run.who,
    }
    return {
        **named,
        "threads": ("int64", str(run.threads)),
        **{k: ("string", str(v)) for k, v in words.items()},
    }


def _axes(group: list[Run]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for run in group:
        for name, (kind, value) in _values(run).items():
            axis = found.setdefault(name, {"name": name, "type": kind, "flags": "", "values": []})
            entry: dict[str, Any] = {"input_string": value, "description": "", "value": value}
            if kind == "int64":
                entry["value"] = int(value)
            if entry not in axis["values"]:
                axis["values"].append(entry)
    return list(found.values())


def _state(run: Run, binary: str) -> dict[str, Any]:
    values = _values(run)
    return {
        "name": " ".join(["Device=0", *(f"{k}={v}" for k, (_, v) in values.items())]),
        "device": 0,
        "type_config_index": 0,
        "axis_values": [{"name": k, "type": t, "value": v} for k, (t, v) in values.items()],
        "summaries": _summaries(run, binary),
        "is_skipped": False,
    }


def _summaries(run: Run, binary: str) -> list[dict[str, Any]]:
    seconds = run.require_samples() * 1e-9
    count = len(seconds)
    mean = float(seconds.mean())
    spread = float(seconds.std(ddof=1)) if count > 1 else 0.0
    q1, median, q3 = (float(v) for v in np.quantile(seconds, (0.25, 0.5, 0.75)))
    figures = {
        "min": float(seconds.min()),
        "max": float(seconds.max()),
        "mean": mean,
        "median": median,
        "q1": q1,
        "q3": q3,
        "stdev/absolute": spread,
        "stdev/relative": spread / mean,
        "iqr/absolute": q3 - q1,
        "iqr/relative": (q3 - q1) / median,
    }
    note = f"of one call on the processor, {run.row['evidence']} by tilewright's {run.row.get('clock')} clock"
    found = [_summary("nv/cold/sample_size", "Samples", "Samples kept", "sample_size", count)]
    for tag, value in figures.items():
        hint = "percentage" if tag.endswith("relative") else "duration"
        found.append(
            _summary(f"nv/cold/time/gpu/{tag}", f"CPU {tag}", f"{tag} {note}", hint, value)
        )
    found.append(_summary("nv/cold/time/cpu/mean", "CPU Time", f"mean {note}", "duration", mean))
    found += _clock(run)
    found.append(
        {
            "tag": "nv/json/bin:nv/cold/sample_times",
            "name": "Samples Times File",
            "description": f"Binary file of float32 seconds, each {note}",
            "hint": "file/sample_times",
            "hide": "Not needed in table.",
            "data": [
                {"name": "filename", "type": "string", "value": binary},
                {"name": "size", "type": "int64", "value": str(count)},
            ],
        }
    )
    return found


def _clock(run: Run) -> list[dict[str, Any]]:
    """The core's clock, by which the comparison tells a slower kernel from a slower machine; where it was read."""
    read = run.row.get("mhz")
    if not read:
        return []
    source = f"midway between the lowest and the highest reading of a core's clock ({run.row.get('mhz_source')})"
    hertz = sum(map(float, read)) / len(read) * 1e6
    return [_summary("nv/cold/sm_clock_rate/mean", "Core Clock", source, "frequency", hertz)]


def _summary(tag: str, name: str, description: str, hint: str, value: float) -> dict[str, Any]:
    kind = "int64" if isinstance(value, int) else "float64"
    return {
        "tag": tag,
        "name": name,
        "description": description,
        "hint": hint,
        "data": [{"name": "value", "type": kind, "value": str(value)}],
    }
