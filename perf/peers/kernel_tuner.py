"""Kernel Tuner's strategies against our sampler on recorded spaces: the same budget, the same count, many seeds.

    tilewright toolchain install kernel-tuner
    python -m tilewright.perf.peers.kernel_tuner tests/data/spaces/*.gz --seeds 50 --out docs/replay.md

Both count unique legal configs, failed ones among them. Kernel Tuner runs with the defaults of each strategy,
in simulation mode, in its own environment. Runs are kept and not repeated; nothing depends on this machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from tilewright.document import write_text
from tilewright.errors import TilewrightError, Unavailable, UsageError
from tilewright.machine import cache_folder, usable_cores
from tilewright.perf.recorded import MARKS, Recording, read
from tilewright.toolchains import Installed, require

TOOLCHAIN = "kernel-tuner"
# Left out of 1.5.0: brute_force; skopt (crashes on failed configs); pyatf and pymoo (other packages); minimize,
# basinhopping, dual_annealing, greedy_mls, ordered_greedy_mls (stop early, or end behind mls); bayes_opt (behind
# random sampling on spaces with failures, and slow).
STRATEGIES = (
    "adaptive_tabu_greywolf",
    "hybrid_vndx",
    "genetic_algorithm",
    "simulated_annealing",
    "pso",
    "firefly_algorithm",
    "diff_evo",
    "mls",
    "greedy_ils",
    "random_sample",
)
_SEEDS_A_RUN = 10


@dataclass(frozen=True, slots=True)
class Run:
    """Fractions of the optimum after each unique config, padded with the last where a strategy stopped early."""

    space: str
    method: str
    seed: int
    best: tuple[float, ...]
    cpu_ms: float
    error: str = ""


def cache_content(recording: Recording) -> dict[str, Any]:
    """A recording in Kernel Tuner's cache format."""
    rows = {}
    for row in range(len(recording)):
        config = recording.config(row)
        time = float(recording.times_ms[row])
        told = time if math.isfinite(time) else "RuntimeFailedConfig"
        rows[",".join(str(v) for v in config.values())] = {**config, "time": told}
    return {
        "device_name": recording.device,
        "kernel_name": recording.kernel,
        "problem_size": [1],
        "tune_params_keys": list(recording.fields),
        "tune_params": {k: list(v) for k, v in recording.fields.items()},
        "objective": "time",
        "cache": rows,
    }


def probe(found: Installed) -> None:
    """Raises Unavailable unless Kernel Tuner tunes a space of three configs."""
    config = {"a": 1, "b": 1}
    rows = {f"{a},1": {**config, "a": a, "time": float(a)} for a in (1, 2, 3)}
    content = {
        "kernel_name": "k",
        "tune_params_keys": ["a", "b"],
        "tune_params": {"a": [1, 2, 3], "b": [1]},
        "cache": rows,
    }
    got = list(_runs(found, content, ("random_sample", "genetic_algorithm"), (0,), 3))
    # A genetic algorithm may stop short of the last config of so small a space.
    if len(got) != 2 or sorted(got[0]["values"]) != [1.0, 2.0, 3.0] or not got[1]["values"]:
        raise Unavailable(f"Kernel Tuner does not work in {found.folder}: it answered {got}")


def _runs(
    found: Installed,
    content: dict[str, Any],
    strategies: Sequence[str],
    seeds: Sequence[int],
    budget: int,
) -> Iterator[dict[str, Any]]:
    """The lines of the script that runs in Kernel Tuner's environment."""
    script = resources.files("tilewright.perf.peers") / "kernel_tuner_run.py"
    with TemporaryDirectory() as folder:
        cache = Path(folder) / "space.json"
        cache.write_text(json.dumps(content), encoding="utf-8")
        job = {
            "cache": str(cache),
            "strategies": list(strategies),
            "seeds": list(seeds),
            "budget": budget,
        }
        with resources.as_file(script) as path:
            done = subprocess.run(
                [found.python, "-S", str(path), str(found.site)],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                check=False,
            )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"Kernel Tuner failed in {found.folder}: {last}")
    for line in done.stdout.splitlines():
        yield json.loads(line)


def peer_runs(
    recording: Recording, strategies: Sequence[str], seeds: int, budget: int, kept: Path
) -> Iterator[Run]:
    """Runs of each strategy with seeds 0 to `seeds` - 1; those kept in a file from before are not run again."""
    found = require(TOOLCHAIN)
    known = {}
    if kept.exists():
        for line in kept.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            known[one["strategy"], one["seed"]] = one
    blocks = [
        (strategy, block)
        for low in range(0, seeds, _SEEDS_A_RUN)
        for strategy in strategies
        if (
            block := [
                s for s in range(low, min(seeds, low + _SEEDS_A_RUN)) if (strategy, s) not in known
            ]
        )
    ]
    for key, one in known.items():
        if key[0] in strategies and key[1] < seeds:
            yield _run(recording, one, budget)
    content = cache_content(recording)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(usable_cores()) as pool, kept.open("a", encoding="utf-8") as file:
        waiting = [
            pool.submit(lambda s, b: list(_runs(found, content, (s,), b, budget)), strategy, block)
            for strategy, block in blocks
        ]
        for done in as_completed(waiting):
            for one in done.result():
                file.write(json.dumps(one) + "\n")
                file.flush()
                yield _run(recording, one, budget)


def _run(recording: Recording, one: dict[str, Any], budget: int) -> Run:
    values = np.array([math.inf if v is None else v for v in one["values"]][:budget])
    best = recording.optimum_ms / np.minimum.accumulate(values) if len(values) else np.zeros(1)
    padded = np.concatenate([best, np.full(budget - len(best), best[-1])])
    return Run(
        recording.name,
        one["strategy"],
        one["seed"],
        tuple(padded.tolist()),
        1e3 * one["cpu_s"] / max(1, len(values)),
        one.get("error", ""),
    )


def our_runs(path: Path, sampler: str, seeds: int, budget: int) -> list[Run]:
    """The same of `tilewright replay`, started as anyone would start it."""
    start = "import sys; from tilewright.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "replay", str(path), "--json", "-"]
    command += ["--sampler", sampler, "--seeds", str(seeds), "--budget", str(budget)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"`tilewright replay {path}` ended with {done.returncode}")
    curves: dict[tuple[str, int], dict[int, Any]] = {}
    for row in json.loads(done.stdout)["rows"]:
        curves.setdefault((row["sampler"], row["seed"]), {})[row["at"]] = row
    return [
        Run(
            path.name,
            f"tilewright {name}",
            seed,
            tuple(_steps({at: r["fraction_of_optimum"] for at, r in points.items()}, budget)),
            next(iter(points.values()))["cpu_ms"],
        )
        for (name, seed), points in curves.items()
    ]


def _steps(points: dict[int, float], budget: int) -> list[float]:
    """Values at the marks, as a curve of the full length."""
    found, last = [], 0.0
    for at in range(1, budget + 1):
        last = points.get(at, last)
        found.append(last)
    return found


def page(runs: Sequence[Run], budget: int, seeds: int) -> str:
    """The comparison as Markdown: one table a space, means over the seeds, best at the end first."""
    marks = [m for m in MARKS if m <= budget]
    lines = [
        "# Our sampler and Kernel Tuner's strategies on recorded spaces",
        "",
        f"Mean fraction of the optimum (optimum's time / best time found) after {', '.join(map(str, marks))} unique",
        f"legal configs, {seeds} seeds, cold. Simulated on recorded GPU times: no device was used, nothing depends on",
        "the machine but the last column, the method's own processor time a trial. Kernel Tuner 1.5.0, defaults of",
        "each strategy. Written by `python -m tilewright.perf.peers.kernel_tuner`.",
    ]
    lines += ["", *_overview(runs, marks)]
    for space in dict.fromkeys(r.space for r in runs):
        lines += ["", f"## {space.removesuffix('.json.gz')}", ""]
        lines += [f"| method | {' | '.join(f'@{m}' for m in marks)} | p10 | runs | cpu ms |"]
        lines += [f"|---|{'---:|' * (len(marks) + 3)}"]
        own = [r for r in runs if r.space == space]
        table = []
        for method in dict.fromkeys(r.method for r in own):
            found = [r for r in own if r.method == method]
            best = np.array([r.best for r in found])
            means = [float(best[:, m - 1].mean()) for m in marks]
            cells = [f"{m:.3f}" for m in means]
            cells += [f"{np.quantile(best[:, marks[-1] - 1], 0.1):.3f}", str(len(found))]
            cells += [f"{np.mean([r.cpu_ms for r in found]):.1f}"]
            name = f"**{method}**" if method.startswith("tilewright") else method
            table.append((means[-1], f"| {name} | {' | '.join(cells)} |"))
        lines += [line for _, line in sorted(table, reverse=True)]
    failed = sorted({(r.method, r.space, r.error) for r in runs if r.error})
    lines += [f"\n{m} on {s} raised {e}" for m, s, e in failed]
    return "\n".join(lines) + "\n"


def _overview(runs: Sequence[Run], marks: Sequence[int]) -> list[str]:
    """Ours at each mark beside the best strategy of Kernel Tuner at that mark, a line a space."""
    lines = [
        f"| space | {' | '.join(f'ours @{m}' for m in marks)} | best of Kernel Tuner @{marks[-1]} |"
    ]
    lines.append(f"|---|{'---:|' * len(marks)}---|")
    for space in dict.fromkeys(r.space for r in runs):
        means: dict[str, list[float]] = {}
        for method in dict.fromkeys(r.method for r in runs if r.space == space):
            best = np.array([r.best for r in runs if (r.space, r.method) == (space, method)])
            means[method] = [float(best[:, m - 1].mean()) for m in marks]
        theirs = {k: v for k, v in means.items() if not k.startswith("tilewright")}
        name = max(theirs, key=lambda k: theirs[k][-1], default="")
        found = f"{theirs[name][-1]:.3f} {name}" if name else "-"
        for method in (m for m in means if m not in theirs):
            cells = " | ".join(f"{v:.3f}" for v in means[method])
            lines.append(f"| {space.removesuffix('.json.gz')} | {cells} | {found} |")
    return lines


def run(
    spaces: Annotated[list[Path], typer.Argument(metavar="SPACE.json.gz...")],
    seeds: Annotated[int, typer.Option("--seeds", metavar="N")] = 50,
    budget: Annotated[int, typer.Option("--budget", metavar="N")] = 200,
    strategies: Annotated[str, typer.Option("--strategies", metavar="NAME,...")] = ",".join(
        STRATEGIES
    ),
    sampler: Annotated[str, typer.Option("--sampler", metavar="NAME,...")] = "portfolio",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.md")] = None,
) -> None:
    """Compare Kernel Tuner's strategies with ours on recorded spaces."""
    names = [n.strip() for n in strategies.split(",") if n.strip()]
    if seeds < 1 or budget < 1:
        raise UsageError(f"--seeds {seeds} --budget {budget}: both must be at least 1")
    found: list[Run] = []
    for path in spaces:
        recording = read(path)
        identity = f"{budget} {require(TOOLCHAIN).folder.name}".encode()
        digest = hashlib.sha256(path.read_bytes() + identity).hexdigest()[:12]
        kept = cache_folder("replay", f"{recording.name}-{digest}.jsonl")
        for number, one in enumerate(peer_runs(recording, names, seeds, budget, kept), 1):
            found.append(one)
            if number % _SEEDS_A_RUN == 0:
                total = seeds * len(names)
                print(f"{recording.name}: {number} of {total} {one.method}", file=sys.stderr)
        found += our_runs(path, sampler, seeds, budget)
    text = page(found, budget, seeds)
    if out is None:
        print(text)
    else:
        write_text(out, text)


def main() -> None:
    """Entry point; a known failure is one sentence and its exit code."""
    try:
        typer.run(run)
    except TilewrightError as error:
        print(f"kernel_tuner: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
