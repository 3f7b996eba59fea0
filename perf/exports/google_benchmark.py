"""Google Benchmark's JSON, for its `compare.py benchmarks A B`.

Up to 32 repetitions a run, each the median of that many consecutive samples, so that the U test sees drift
and not twenty thousand dependent values. Source: docs/user_guide.md and tools/gbench/report.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.document import write_text
from tilewright.perf.exports.runs import Run, now, unique

_REPETITIONS = 32


def write(document: dict[str, Any], runs: list[Run], out: Path) -> list[Path]:
    """One file. Processor time is not measured a call: `cpu_time` repeats `real_time`, and the context says so."""
    host = document["host"]
    context = {
        "date": now(),
        "host_name": host["fingerprint"],
        "executable": f"tilewright {document['version']}",
        "num_cpus": host["cores"],
        "mhz_per_cpu": 0,
        "cpu_scaling_enabled": False,
        "caches": [],
        "load_avg": [],
        "library_build_type": "release",
        "json_schema_version": 1,
        "cpu": host["cpu"],
        "evidence": "measured",
        "cpu_time": "not measured; repeats real_time",
    }
    benchmarks = []
    for index, run in enumerate(unique(runs)):
        benchmarks += _repetitions(run, index)
    write_text(out, json.dumps({"context": context, "benchmarks": benchmarks}, indent=1) + "\n")
    return [out]


def _repetitions(run: Run, index: int) -> list[dict[str, Any]]:
    if run.samples is None:
        blocks = [np.array([run.median_us * 1e3])]
    else:
        blocks = np.array_split(run.samples, min(_REPETITIONS, len(run.samples)))
    return [
        {
            "name": run.name,
            "family_index": index,
            "per_family_instance_index": 0,
            "run_name": run.name,
            "run_type": "iteration",
            "repetitions": len(blocks),
            "repetition_index": number,
            "threads": run.threads,
            "iterations": run.batch * len(block),
            "real_time": float(np.median(block)),
            "cpu_time": float(np.median(block)),
            "time_unit": "ns",
            "label": f"{run.row['evidence']}, median of {len(block)} samples, {run.row.get('clock')} clock",
        }
        for number, block in enumerate(blocks)
    ]
