"""GPU binaries of a bundle: every precision and flag of a family compiled for a target, as launch entries."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from tilewright.aot import CompiledKernel, TritonModule, compile_config
from tilewright.aot.source import AotSource, fixed_sizes, source_of
from tilewright.errors import Refused
from tilewright.machine import usable_cores
from tilewright.registry import Family
from tilewright.registry import family as family_named
from tilewright.ship.launcher import compiled
from tilewright.ship.ranges import When, pieces
from tilewright.space import Config
from tilewright.tables import load
from tilewright.targets import Target
from tilewright.targets import target as target_named

# Below this a pool of processes takes longer to start than it saves.
FEW_JOBS = 12
FOLDER = "binaries"
_SUFFIX = {"cuda": "cubin", "hip": "hsaco"}

# Tells of long work: a context for so many steps, whose value is called with a note at each.
Counting = Callable[[str, int], AbstractContextManager[Callable[[str], None]]]


@contextmanager
def uncounted(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Tells nobody."""
    yield lambda note: None


@dataclass(slots=True)
class GpuPart:
    """`entries` are rows of dispatch.json; `binaries` maps their relative paths to bytes.

    `refused` says which combinations have no binary and why.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    binaries: dict[str, bytes] = field(default_factory=dict)
    refused: list[dict[str, Any]] = field(default_factory=list)
    toolchain: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One binary to be made; `whens` are the ranges of sizes it is tuned for, none for the default."""

    family: str
    precision: str
    flags: Mapping[str, str]
    config: Config
    target: str
    aligned: bool
    sizes: Mapping[str, int]
    whens: tuple[When, ...] = ()


def compile_gpu(
    families: Sequence[Family],
    targets: Sequence[Target],
    precisions: Sequence[str] = (),
    workers: int | None = None,
    counting: Counting = uncounted,
) -> GpuPart:
    """Every launchable combination of precision and flags of the families on the targets.

    Tuned configs come first, each for the ranges of sizes that the table of configs gives it, then the
    default ones for every size. The launcher takes the first entry that fits a call, so a binary
    specialised to 16-byte rows stands before the one that takes any. `workers` processes compile
    (default: one a core); `counting` is told of each binary.
    """
    part = GpuPart()
    jobs: list[Job] = []
    for target in targets:
        for family in families:
            if family.has("triton.py"):
                config = family.spec.default_config(target)
                jobs += _tuned_jobs(family, target, precisions)
                jobs += _jobs(family, target, config, precisions)
            else:
                part.refused.append(
                    _refusal(family.name, target.name, "the family has no triton.py")
                )
    by_name = {family.name: family for family in families}
    with counting("compiling for GPUs", len(jobs)) as step:
        for job, kernel in zip(jobs, _compile(jobs, workers or usable_cores()), strict=True):
            step(f"{job.family} {job.precision} {job.target}")
            _add(part, by_name[job.family], job, kernel)
    return part


def _add(part: GpuPart, family: Family, job: Job, kernel: CompiledKernel) -> None:
    part.toolchain = part.toolchain or kernel.toolchain
    if not kernel.ok:
        if job.aligned:
            part.refused.append(_refusal(job.family, job.target, kernel.error, job))
        return
    where = target_named(job.target)
    path, *then = (binary_path(family, one, where) for one in (kernel, *kernel.then))
    part.entries += [
        compiled.dispatch_row(family.spec, kernel, path, then=then, aligned=job.aligned, when=when)
        for when in job.whens or (None,)
    ]
    part.binaries[path] = kernel.binary
    part.binaries |= {p: one.binary for p, one in zip(then, kernel.then, strict=True)}


def _tuned_jobs(family: Family, target: Target, precisions: Sequence[str]) -> Iterator[Job]:
    """The tuned configs of a target's table, with the ranges of sizes that each is for."""
    table, spec = load(family, target), family.spec
    default = spec.default_config(target)
    layouts = [t.layout_flag for t in spec.tensors if t.layout_flag]
    for precision in spec.precisions if table.entries else ():
        if precisions and precision.name not in precisions:
            continue
        seen: set[tuple[str, ...]] = set()
        for flags in spec.flag_combinations(precision, "triton"):
            kind = tuple(flags[name] for name in layouts)
            if kind in seen:
                continue
            seen.add(kind)
            whens: dict[Config, list[When]] = {}
            for piece in pieces(family, target, table, precision, flags):
                whens.setdefault(piece.config, []).append(piece.when)
            whens.pop(default, None)
            same = {name: flags[name] for name in layouts}
            for config, ranges in whens.items():
                for job in _jobs(family, target, config, [precision.name], same):
                    yield replace(job, whens=tuple(ranges))


def _jobs(
    family: Family,
    target: Target,
    config: Config,
    precisions: Sequence[str],
    layouts: Mapping[str, str] | None = None,
) -> Iterator[Job]:
    """The combinations whose sources differ: a flag that no source looks at makes no second binary."""
    module = cast(TritonModule, family.module("triton"))
    seen: set[str] = set()
    for precision in family.spec.precisions:
        if precisions and precision.name not in precisions:
            continue
        for flags in family.spec.flag_combinations(precision, "triton"):
            if any(flags[name] != value for name, value in (layouts or {}).items()):
                continue
            for sizes, aligned in _kinds(module):
                job = Job(
                    *(family.name, precision.name, flags, config, target.name, aligned),
                    dict(sizes),  # a job travels to another process
                )
                try:
                    source = source_of(
                        module,
                        *(precision.name, flags, config, target.name),
                        aligned=aligned,
                        sizes=sizes,
                    )
                except Refused as error:
                    if (key := f"{precision.name} {error}") not in seen:
                        seen.add(key)
                        yield job  # The compiler of one config says why.
                    continue
                key = f"{precision.name} {[_facts(one) for one in (source, *source.then)]}"
                if key not in seen:
                    seen.add(key)
                    yield job


def _facts(source: AotSource) -> tuple[object, ...]:
    """What tells one kernel's binary, and where it runs, from another's."""
    facts = (source.signature, source.constexprs, source.attrs, source.options)
    return (*facts, source.all_requirements)


def _kinds(module: TritonModule) -> Iterator[tuple[Mapping[str, int], bool]]:
    """The dims a binary fixes, and whether its rows are multiples of 16 bytes.

    Rows of a fixed width are, but for views of odd strides: no binary is made for those.
    """
    for sizes in fixed_sizes(module):
        yield from ((sizes, aligned) for aligned in ((True,) if sizes else (True, False)))


def _compile(jobs: Sequence[Job], workers: int) -> Iterator[CompiledKernel]:
    if workers < 2 or len(jobs) < FEW_JOBS:
        yield from map(compile_job, jobs)
        return
    # Spawned, not forked: a fork would inherit the locks of torch's and LLVM's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (list(sys.path),)) as pool:
        yield from pool.map(compile_job, jobs)


def _start(search: list[str]) -> None:
    sys.path[:] = search


def compile_job(job: Job) -> CompiledKernel:
    """Compile one, or take it from the cache of compiled kernels."""
    module = cast(TritonModule, family_named(job.family).module("triton"))
    return compile_config(
        module,
        *(job.precision, job.flags, job.config, job.target),
        aligned=job.aligned,
        sizes=job.sizes,
    )


def binary_path(family: Family, kernel: CompiledKernel, target: Target) -> str:
    """Where the bundle keeps a binary; named by content, since flags may share one."""
    precision = kernel.precision.replace("->", "-to-")
    name = f"{family.name}-{precision}-{target.arch}-{kernel.binary_sha256[:12]}"
    return f"{FOLDER}/{name}.{_SUFFIX[target.kind]}"


def write_binaries(variant: Path, part: GpuPart) -> None:
    """Write the binaries below the variant's folder."""
    for path, data in sorted(part.binaries.items()):
        (variant / path).parent.mkdir(parents=True, exist_ok=True)
        (variant / path).write_bytes(data)


def _refusal(family: str, target: str, reason: str, job: Job | None = None) -> dict[str, Any]:
    return {
        "family": family,
        "target": target,
        "precision": job.precision if job else None,
        "flags": dict(job.flags) if job else {},
        "reason": reason,
    }
