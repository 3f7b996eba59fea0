"""README.md of a bundle, written from its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_PERF_COLUMNS = (
    "family",
    "backend",
    "target",
    "case",
    "dtype",
    "median_us",
    "gflops",
    "ceiling_frac",
    "evidence",
)


def readme(manifest: Mapping[str, Any], perf: Mapping[str, Any] | None) -> str:
    """Text of the README; `perf` is what `perf.json` holds, or None."""
    needs = manifest["needs"]
    ops = manifest["ops"]
    first = next(iter(ops))
    variant = f"build/{manifest['variant']}"
    gpu = any(target.startswith(("cuda:", "hip:")) for target in manifest["targets"])
    on_gpu = "Its ops take tensors on a GPU too, if Targets below has it. " if gpu else ""
    source = manifest["source"]
    commit = f"commit {source['commit']}" if source["commit"] else "no recorded commit"
    dirty = ", with local changes" if source["dirty"] else ""
    lines = [
        f"# {manifest['name']}",
        "",
        f"Compiled inference ops: {', '.join(f'`{name}`' for name in ops)}. Made by tilewright "
        f"{manifest['tilewright']} ({commit}{dirty}). No compiler, network or just-in-time compilation is needed.",
        "",
        "## Use",
        "",
        "```python",
        "from pathlib import Path",
        "",
        "from kernels import get_local_kernel  # pip install kernels",
        "",
        'ops = get_local_kernel(Path("path/of/this/folder"), backend="cpu")',
        f"help(ops.{first})",
        "```",
        "",
        '`backend="cpu"` names the build variant, the one there is: where torch is built for CUDA or ROCm the client '
        f"would look for another. {on_gpu}The variant's own folder is accepted too: "
        f'`Path("path/of/this/folder/{variant}")`.',
        "",
        "Without the `kernels` package:",
        "",
        "```python",
        "import importlib.util",
        "import sys",
        "from pathlib import Path",
        "",
        f'folder = Path("path/of/this/folder/{variant}")',
        f'spec = importlib.util.spec_from_file_location("{manifest["id"]}", folder / "__init__.py")',
        "ops = importlib.util.module_from_spec(spec)",
        "sys.modules[spec.name] = ops",
        "spec.loader.exec_module(ops)",
        f"help(ops.{first})",
        "```",
        "",
        "## Needs",
        "",
        f"{needs['system']} on {needs['machine']}, glibc {needs['glibc']} or later, Python {needs['python']} or "
        f"later, torch {needs['torch']} or later, a CPU with level `{needs['cpu_level']}`. Levels compiled in: "
        f"{', '.join(manifest['cpu_levels'])}; the best that the CPU has is used, and the environment variable "
        "`TILEWRIGHT_ISA` forces one.",
        "",
        "## Verify",
        "",
        "```sh",
        "python verify.py            # or: python verify.py --json -",
        "```",
        "",
        "It needs Python and torch only. Hashes of all files are compared before anything is loaded; then come "
        "platform, torch, CPU level, ABI, loading, opcheck, the golden vectors in `golden/` and the GPU binaries. "
        "Folders named `__pycache__` are neither compared nor used; Python makes them again, so delete those that "
        "came with a copy.",
        "",
        "## Targets",
        "",
        "| target | family | form |",
        "| --- | --- | --- |",
        *(
            f"| {target} | {family} | {row['form']} |"
            for target, families in manifest["targets"].items()
            for family, row in families.items()
        ),
        "",
        "## Ops",
        "",
        *(f"- {facts['summary']}: `{facts['schema']}`" for facts in ops.values()),
        "",
        "## Speed",
        "",
        *_speed(perf),
        "",
    ]
    return "\n".join(lines)


def _speed(perf: Mapping[str, Any] | None) -> Sequence[str]:
    if perf is None:
        return ["No timings were given when this bundle was made."]
    host = perf["host"]
    rows = [
        f"Timed on {host.get('cpu', '?')}, {host.get('cores', '?')} cores, {host.get('isa', '?')}.",
        "",
    ]
    rows += [f"| {' | '.join(_PERF_COLUMNS)} |", f"|{' --- |' * len(_PERF_COLUMNS)}"]
    for row in perf["rows"]:
        cells = (row.get(name) for name in _PERF_COLUMNS)
        rows.append(
            "| " + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells) + " |"
        )
    return rows
