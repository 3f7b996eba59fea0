"""pytest-benchmark's saved run (`--benchmark-autosave` writes the same), for `pytest-benchmark compare A B`.

Statistics are those of pytest-benchmark over our samples, in seconds: a round is one sample, `iterations` the
calls of it. Source: pytest_benchmark/stats.py and storage/file.py of 5.3.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.document import write_text
from tilewright.perf.exports.runs import Run, now, unique

_WRITTEN_AS = "5.3.1"


def write(document: dict[str, Any], runs: list[Run], out: Path) -> list[Path]:
    """One file. The machine, with its fingerprint, is under `machine_info`."""
    host = document["host"]
    content = {
        "machine_info": {
            "node": host["fingerprint"],
            "processor": host["cpu"],
            "machine": host["os"].split(" ")[-1],
            "system": host["os"].split(" ")[0],
            "release": host["os"].split(" ")[1] if " " in host["os"] else "",
            "python_version": host["python"],
            "python_implementation": "CPython",
            "cpu": {"brand_raw": host["cpu"], "count": host["cores"], "isa": host["isa"]},
        },
        "commit_info": {
            "id": f"tilewright-{document['version']}",
            "time": None,
            "author_time": None,
            "dirty": False,
            "project": "tilewright",
            "branch": "(unknown)",
        },
        "benchmarks": [_benchmark(run) for run in unique(runs)],
        "datetime": now(),
        "version": _WRITTEN_AS,
    }
    write_text(out, json.dumps(content, indent=1) + "\n")
    return [out]


def _benchmark(run: Run) -> dict[str, Any]:
    params = {**run.sizes, "dtype": run.row["dtype"], "threads": run.threads, "who": run.who}
    return {
        "group": f"{run.family} {run.row['dtype']} {run.case} {run.threads}t {run.row['cache']}",
        "name": run.name,
        "fullname": run.name,
        "params": params,
        "param": None,
        "extra_info": run.about,
        "options": {"timer": str(run.row.get("clock")), "disable_gc": True, "warmup": True},
        "stats": stats(run),
    }


def stats(run: Run) -> dict[str, Any]:
    """The figures of pytest-benchmark's Stats, seconds."""
    data = sorted(float(v) * 1e-9 for v in run.require_samples())
    mean, spread = statistics.fmean(data), statistics.stdev(data) if len(data) > 1 else 0.0
    q1, median, q3 = (float(v) for v in np.quantile(data, (0.25, 0.5, 0.75)))
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    inside = [v for v in data if low <= v <= high]
    outliers = len(data) - len(inside)
    beyond = sum(1 for v in data if abs(v - mean) > spread)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": spread,
        "rounds": len(data),
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outliers,
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{outliers}",
        "ld15iqr": inside[0],
        "hd15iqr": inside[-1],
        "ops": 1 / mean,
        "total": sum(data),
        "iterations": run.batch,
    }
