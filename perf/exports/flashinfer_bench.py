"""A FlashInfer-Bench trace set: a folder of definitions, solutions, workloads and traces.

A definition is a family under one precision with the tensors its flags bring; the reference in it is the
family's own, self-contained. A solution carries our sources; they are built by tilewright, not by
FlashInfer-Bench, and its description says so. Source: flashinfer_bench/data of 0.1.2.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.dims import Expr
from tilewright.document import write_text
from tilewright.errors import Unavailable
from tilewright.perf.exports.runs import Run, now, unique
from tilewright.registry import Family, family

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import Tensor

# `uint8` and `float64` are no types of a definition.
_DTYPES = ("float32", "float16", "bfloat16", "int64", "int32", "int8")


def write(document: dict[str, Any], runs: list[Run], out: Path) -> list[Path]:
    """The folder `out`; traces of the same definition stand in one file."""
    definitions: dict[str, dict[str, Any]] = {}
    solutions: dict[str, dict[str, Any]] = {}
    workloads: dict[str, dict[str, dict[str, Any]]] = {}
    traces: dict[str, list[dict[str, Any]]] = {}
    for run in unique(runs):
        found = family(run.family)
        definition = _definition(found, run)
        name = definition["name"]
        definitions[name] = definition
        solution = _solution(found, run, name)
        solutions[solution["name"]] = solution
        workload = _workload(definition, run)
        workloads.setdefault(name, {})[workload["uuid"]] = {
            "definition": name,
            "workload": workload,
        }
        traces.setdefault(name, []).append(
            {
                "definition": name,
                "workload": workload,
                "solution": solution["name"],
                "evaluation": _evaluation(document, run),
            }
        )
    written = []
    for name, definition in definitions.items():
        op = definition["op_type"]
        written.append(_json(out / "definitions" / op / f"{name}.json", definition))
        written.append(
            _lines(out / "workloads" / op / f"{name}.jsonl", list(workloads[name].values()))
        )
        written.append(_lines(out / "traces" / op / f"{name}.jsonl", traces[name]))
    for name, solution in solutions.items():
        written.append(_json(out / "solutions" / solution["definition"] / f"{name}.json", solution))
    return written


def _json(path: Path, content: dict[str, Any]) -> Path:
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def _lines(path: Path, content: list[dict[str, Any]]) -> Path:
    write_text(path, "".join(json.dumps(one) + "\n" for one in content))
    return path


def _word(text: str) -> str:
    """A name that is a file's name everywhere."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text).strip("_")


def _case(found: Family, run: Run) -> Case:
    words = dict(part.split("=", 1) for part in run.settings.replace(" ", ",").split(",") if part)
    memory = words.pop("memory", "dense")
    return found.spec.case(run.sizes, str(run.row["dtype"]), words, memory)


def _tensor(found: Family, case: Case, tensor: Tensor) -> dict[str, Any]:
    for size in tensor.dims:
        if not isinstance(size, Expr) or size.op != "dim":
            raise Unavailable(
                f"{found.name} has a tensor {tensor.name} of size {size}; a definition takes names of axes only"
            )
    dtype = found.spec.dtype_of(tensor, case).torch_name
    if dtype not in _DTYPES:
        raise Unavailable(
            f"{found.name} has a tensor of {dtype}; a definition takes {', '.join(_DTYPES)}"
        )
    return {
        "shape": [str(size.args[0]) for size in tensor.dims if isinstance(size, Expr)],
        "dtype": dtype,
    }


def _definition(found: Family, run: Run) -> dict[str, Any]:
    spec, case = found.spec, _case(found, run)
    inputs = {t.name: _tensor(found, case, t) for t in spec.inputs if t.present(case)}
    outputs = {t.name: _tensor(found, case, t) for t in spec.outputs if t.present(case)}
    present = {t.when[0]: case.flags[t.when[0]] for t in spec.tensors if t.when is not None}
    flags = [f"{k}-{v}" for k, v in sorted(present.items())]
    return {
        "name": _word("_".join([spec.name, case.precision, *flags])),
        "op_type": spec.name,
        "axes": {name: {"type": "var"} for name in case.sizes},
        "inputs": inputs,
        "outputs": outputs,
        "reference": _reference(found, inputs, outputs),
        "description": f"{spec.summary} ({case.precision})",
        "tags": ["framework:tilewright"],
    }


def _reference(found: Family, inputs: dict[str, Any], outputs: dict[str, Any]) -> str:
    """The family's reference with a `run` that calls it and rounds to the declared types."""
    module, _, function = found.spec.reference.path.partition(":")
    source = (found.folder / f"{module}.py").read_text(encoding="utf-8")
    if "from ." in source or "import tilewright" in source or "from tilewright" in source:
        raise Unavailable(
            f"the reference of {found.name} imports its neighbours; a definition holds one file on its own"
        )
    arguments = ", ".join(inputs)
    call = ", ".join(f"{name}={name}" for name in inputs)
    types = ", ".join(f"torch.{one['dtype']}" for one in outputs.values())
    return (
        f"{source}\n\ndef run({arguments}):\n"
        f"    import torch\n\n"
        f"    found = {function}({call})\n"
        f"    values = found if isinstance(found, tuple) else (found,)\n"
        f"    rounded = tuple(v.to(t) for v, t in zip(values, ({types},)))\n"
        f"    return rounded if len(rounded) > 1 else rounded[0]\n"
    )


def _solution(found: Family, run: Run, definition: str) -> dict[str, Any]:
    files = {
        "host": ("host.cpp", f"tw_host_{found.name}"),
        "reference": tuple(found.spec.reference.path.replace(":", ".py:").split(":")),
    }
    entry = files.get(run.who)
    if run.is_peer or entry is None:
        assert found.spec.peers is not None or not run.is_peer
        ref = found.spec.peers if run.is_peer else None
        module, _, function = (ref.path if ref else f"{run.who}:{found.name}").partition(":")
        entry = (f"{module}.py", function)
    path, function = entry
    stem, suffix = path.rsplit(".", 1)
    sources = sorted(found.folder.glob(f"{stem}*.{suffix}"))
    config = json.dumps(run.row.get("config"), sort_keys=True) if not run.is_peer else "{}"
    kind = hashlib.sha256(
        f"{config}{run.settings}{run.threads}{run.row['cache']}".encode()
    ).hexdigest()[:8]
    return {
        "name": _word(f"{definition}_{run.who}_{kind}"),
        "definition": definition,
        "author": "tilewright",
        "spec": {
            "language": "python" if suffix == "py" else "cpp",
            "target_hardware": [str(run.row["target"])],
            "entry_point": f"{path}::{function}",
            "destination_passing_style": not run.is_peer,
        },
        "sources": [{"path": p.name, "content": p.read_text(encoding="utf-8")} for p in sources],
        "description": (
            f"{run.who} with {run.settings or 'no flags'}, config {config}, {run.threads} threads, "
            f"{run.row['cache']} caches; built and called by tilewright"
        ),
    }


def _workload(definition: dict[str, Any], run: Run) -> dict[str, Any]:
    digest = hashlib.sha256(f"{definition['name']} {run.sizes}".encode()).hexdigest()
    return {
        "axes": run.sizes,
        "inputs": {name: {"type": "random"} for name in definition["inputs"]},
        "uuid": f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}",
    }


def _evaluation(document: dict[str, Any], run: Run) -> dict[str, Any]:
    """Status and latency. The largest elementwise relative error is not kept by us: NaN says so.

    The reference is not timed: its latency and the speed-up stay 0, which readers take for unknown.
    """
    row, host = run.row, document["host"]
    checked = (
        {}
        if run.is_peer
        else {"relative_norm_error": row["rel_err"], "tolerance": row["tolerance"]}
    )
    return {
        "status": "PASSED",
        "environment": {
            "hardware": host["fingerprint"],
            "libs": {"tilewright": document["version"], "python": host["python"]},
        },
        "timestamp": now(),
        "log": (
            f"{row['evidence']} on {host['cpu']} by the {row.get('clock')} clock, {row['cache']} caches, "
            f"{run.threads} threads; reference not timed"
        ),
        "correctness": {
            "max_relative_error": "NaN",
            "max_absolute_error": "NaN" if run.is_peer else row["max_abs_err"],
            "extra": checked or None,
        },
        "performance": {
            "latency_ms": run.median_us / 1e3,
            "reference_latency_ms": 0.0,
            "speedup_factor": 0.0,
        },
    }
