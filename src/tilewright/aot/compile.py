"""Source to cubin or hsaco on a machine without a GPU, kept in a cache on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.aot import cache, worker
from tilewright.aot.judge import judge
from tilewright.aot.metrics import Metrics, read_metrics
from tilewright.aot.source import AotSource, KernelArg, Requirement, TritonModule, source_of
from tilewright.errors import BuildFailed, Refused, Unavailable
from tilewright.evidence import Evidence
from tilewright.targets import Target
from tilewright.targets import target as find_target

FP_FUSION = True
"""Whether a*b+c may become one rounding. Always passed, since Triton's default is due to change; a family whose
codes must be exact says no by the option `enable_fp_fusion`."""

_BINARY = {"cuda": "cubin", "hip": "hsaco"}
# Fields of a row that say nothing where there is no binary.
_OF_THE_BINARY = (
    *("regs", "spill_bytes", "shared_bytes", "tmem_columns", "matrix_instructions", "async_copies"),
    *("blocks_per_sm", "occupancy", "threads", "dynamic_shared_bytes", "binary_sha256"),
)
# What a row says of each kernel after the first.
_OF_A_STEP = ("kernel_symbol", "ok", "error", *_OF_THE_BINARY)


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """One config compiled for one target: a row of `tilewright compile`, and all a launcher needs.

    If `ok` is False `error` says why, and the metrics are those of the binary if there is one.
    `parameters` is the kernel's whole parameter list with Triton's hidden trailing ones; the block
    is `(threads, 1, 1)`, the dynamic shared memory `dynamic_shared_bytes`. `sizes`, `free` and `workspace`
    are the source's; `then` are the kernels that the op starts after this one, and `ok` and `error` are
    of all of them.
    """

    family: str
    target: str
    precision: str
    flags: Mapping[str, str]
    config: Mapping[str, int]
    ok: bool
    error: str = ""
    binary: bytes = dataclasses.field(default=b"", repr=False)
    binary_sha256: str = ""
    kernel_symbol: str = ""
    regs: int = 0
    spill_bytes: int = 0
    shared_bytes: int = 0
    tmem_columns: int = 0
    matrix_instructions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    async_copies: Mapping[str, int] = dataclasses.field(default_factory=dict)
    blocks_per_sm: int = 0
    occupancy: float = 0.0
    notes: tuple[str, ...] = ()
    threads: int = 0
    dynamic_shared_bytes: int = 0
    grid: tuple[tuple[str | int, ...], ...] = ()
    parameters: tuple[KernelArg, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    toolchain: str = ""
    fp_fusion: bool = FP_FUSION
    cached: bool = False
    evidence: Evidence = Evidence.COMPILED
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    free: tuple[str, ...] = ()
    then: tuple[CompiledKernel, ...] = ()
    workspace: tuple[str | int, ...] = ()

    def row(self) -> dict[str, Any]:
        """The fields of a JSON row: everything but the binary and what only a launcher reads."""
        hidden = {"binary", "grid", "parameters", "requirements", "free", "then", "workspace"}
        row = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in hidden
        }
        for name in ("config", "flags", "sizes", "matrix_instructions", "async_copies"):
            row[name] = dict(row[name])
        row["then"] = [{n: step.row()[n] for n in _OF_A_STEP} for step in self.then]
        row |= {"dtype": self.precision, "notes": list(self.notes), "evidence": str(self.evidence)}
        # On-chip memories of Ascend; the GPU targets compiled here have none of them.
        row |= dict.fromkeys(("l0c_bytes", "l1_bytes", "ub_bytes"))
        if not self.binary:
            row |= dict.fromkeys((*_OF_THE_BINARY, "evidence"))
        return row

    def launch_record(self) -> dict[str, Any]:
        """What a launcher needs beside the binary, as JSON types."""
        return {
            "symbol": self.kernel_symbol,
            "threads": self.threads,
            "dynamic_shared_bytes": self.dynamic_shared_bytes,
            "grid": [list(axis) for axis in self.grid],
            "parameters": [dataclasses.asdict(p) for p in self.parameters],
            "requirements": [dataclasses.asdict(r) for r in self.requirements],
        }


def compile_config(
    module: TritonModule,
    precision: str,
    flags: Mapping[str, str],
    config: Mapping[str, int],
    target: str,
    *,
    aligned: bool = True,
    sizes: Mapping[str, int] | None = None,
    cache_dir: Path | None = None,
) -> CompiledKernel:
    """Compile one config of a family for a target such as `cuda:sm_90`.

    Of `sizes` those count that the family's binaries fix, see `tilewright.aot.source.source_of`.

    A config the family refuses, the compiler rejects or the target cannot launch comes back with
    `ok=False` and the sentence; an unknown target or precision raises UsageError, a missing or
    interpreting triton Unavailable.
    """
    found = find_target(target)
    try:
        source = source_of(module, precision, flags, config, target, aligned=aligned, sizes=sizes)
    except Refused as error:
        family = module.__name__.rsplit(".", 2)[-2] if hasattr(module, "__name__") else ""
        return CompiledKernel(
            family, found.name, precision, dict(flags), dict(config), False, str(error)
        )
    return compile_source(source, cache_dir=cache_dir)


def compile_source(source: AotSource, *, cache_dir: Path | None = None) -> CompiledKernel:
    """Compile, read the metrics and judge them. See `compile_config` for what raises."""
    first = _compile_one(source, cache_dir)
    then = tuple(compile_source(step, cache_dir=cache_dir) for step in source.then)
    failed = next((step for step in then if not step.ok), None)
    if first.ok and failed is not None:
        symbol = failed.kernel_symbol or "a later kernel"
        first = dataclasses.replace(first, ok=False, error=f"{symbol}: {failed.error}")
    return dataclasses.replace(first, then=then)


def _compile_one(source: AotSource, cache_dir: Path | None) -> CompiledKernel:
    target = find_target(source.target)
    if target.kind not in _BINARY:
        raise Unavailable(f"triton compiles for cuda and hip targets, not for {target.name}")
    row = CompiledKernel(
        source.family,
        target.name,
        source.precision,
        dict(source.flags),
        dict(source.config),
        False,
        grid=source.grid.postfix(),
        requirements=source.all_requirements,
        toolchain=toolchain(),
        fp_fusion=_fusing(source),
        sizes=dict(source.sizes),
        free=source.free,
        workspace=source.workspace.postfix()[0] if source.workspace else (),
    )
    folder = cache.root(cache_dir) / _key(source, target)
    stored = cache.load(folder)
    if stored is None:
        try:
            stored = _build(source, target)
        except BuildFailed as error:
            return dataclasses.replace(row, error=str(error))
        cache.store(folder, stored)
        cached = False
    else:
        cached = True
    metrics = stored.metrics
    verdict = judge(metrics, target, stored.num_warps)
    return dataclasses.replace(
        row,
        ok=verdict.ok,
        error=verdict.error,
        binary=stored.binary,
        binary_sha256=hashlib.sha256(stored.binary).hexdigest(),
        kernel_symbol=stored.symbol,
        regs=metrics.regs,
        spill_bytes=metrics.spill_bytes,
        shared_bytes=metrics.shared_bytes,
        tmem_columns=metrics.tmem_columns,
        matrix_instructions=metrics.matrix_instructions,
        async_copies=metrics.async_copies,
        blocks_per_sm=verdict.blocks_per_sm,
        occupancy=verdict.occupancy,
        notes=verdict.notes,
        threads=stored.num_warps * target.limit("warp_size"),
        dynamic_shared_bytes=stored.dynamic_shared,
        parameters=source.args + hidden_parameters(stored.scratch),
        cached=cached,
    )


def compile_pool(
    module: TritonModule,
    precision: str,
    flags: Mapping[str, str],
    configs: Sequence[Mapping[str, int]],
    targets: Sequence[str],
    *,
    aligned: bool = True,
    sizes: Mapping[str, int] | None = None,
    workers: int = 1,
    progress: Callable[[CompiledKernel, int, int], None] | None = None,
    cache_dir: Path | None = None,
) -> Iterator[CompiledKernel]:
    """Compile every config for every target, yielding rows in that order (targets outermost).

    `progress(row, done, total)` is called as each row comes. With `workers` above 1 processes of
    their own compile; stopping the iteration early ends them.
    """
    jobs = [(config, target) for target in targets for config in configs]
    for name in dict.fromkeys(targets):
        find_target(name)
    rows = (
        worker.spread(module, precision, flags, jobs, aligned, sizes, workers, cache_dir)
        if workers > 1 and len(jobs) > 1
        else (
            compile_config(
                *(module, precision, flags, config, target),
                aligned=aligned,
                sizes=sizes,
                cache_dir=cache_dir,
            )
            for config, target in jobs
        )
    )
    for done, row in enumerate(rows, start=1):
        if progress is not None:
            progress(row, done, len(jobs))
        yield row


def hidden_parameters(scratch: tuple[int, int, int, int]) -> tuple[KernelArg, ...]:
    """The two addresses Triton 3.8 appends to a kernel's parameters: global and profile scratch.

    `scratch` is their (bytes per program, alignment) in turn. Source: the launchers
    `triton/backends/{nvidia,amd}/driver.c`, which pass `num_args + 2` parameters.
    """
    names = ("global_scratch", "profile_scratch")
    return tuple(
        KernelArg(name, "*i8", "scratch", nullable=True, scratch_bytes=size, scratch_align=align)
        for name, size, align in zip(names, scratch[::2], scratch[1::2], strict=True)
    )


def toolchain() -> str:
    """The compiler and its version, such as `triton 3.8.0`; Unavailable if it is not there."""
    from importlib import metadata

    try:
        return f"triton {metadata.version('triton')}"
    except metadata.PackageNotFoundError:
        raise Unavailable(
            "triton is not installed; install it with: pip install triton==3.8.0"
        ) from None


def _key(source: AotSource, target: Target) -> str:
    """Everything the binary depends on, hashed.

    `cache_key` covers the kernel's code and what it calls, the backend's hash its assembler, the
    environment Triton's switches.
    """
    from triton._C.libtriton import get_cache_invalidating_env_vars
    from triton.compiler.compiler import make_backend

    parts = [
        cache.SCHEMA,
        toolchain(),
        make_backend(_gpu_target(target)).hash(),
        get_cache_invalidating_env_vars(),
        _jit(source).cache_key,
        source.signature,
        {name: str(value) for name, value in source.constexprs.items()},
        sorted((place, str(attr)) for place, attr in source.attrs.items()),
        dict(source.options),
        source.target,
        _fusing(source),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fusing(source: AotSource) -> bool:
    return bool(source.options.get("enable_fp_fusion", FP_FUSION))


def _jit(source: AotSource) -> Any:
    from triton.runtime.jit import JITFunction

    if not isinstance(source.fn, JITFunction):
        raise Unavailable(
            "TRITON_INTERPRET is set, so Triton's compiler is off in this process; unset it"
        )
    return source.fn


def _gpu_target(target: Target) -> Any:
    from triton.backends.compiler import GPUTarget

    arch = int(target.arch.removeprefix("sm_")) if target.kind == "cuda" else target.arch
    return GPUTarget(target.kind, arch, target.limit("warp_size"))


def _build(source: AotSource, target: Target) -> cache.Stored:
    import triton
    from triton import knobs
    from triton.compiler import ASTSource

    from tilewright.interpret import language_lock

    ast = ASTSource(_jit(source), source.signature, dict(source.constexprs), source.attrs)
    options = {**source.options, "enable_fp_fusion": _fusing(source)}
    errors = _compiler_errors()
    with (
        language_lock,
        tempfile.TemporaryDirectory(prefix="tilewright-triton-") as scratch,
        knobs.compilation.scope(),
        knobs.cache.scope(),
        # Triton prints the whole PTX when its assembler fails; stdout may be carrying our JSON.
        contextlib.redirect_stdout(io.StringIO()),
    ):
        # Line tables would put the paths of this checkout into the binary.
        knobs.compilation.disable_line_info = True
        knobs.cache.dir = os.fspath(scratch)
        try:
            compiled = triton.compile(ast, target=_gpu_target(target), options=options)
        except errors as error:
            raise BuildFailed(f"triton rejects it for {target.name}: {first_line(error)}") from None
        assembly, meta = dict(compiled.asm), compiled.metadata
    binary: bytes = assembly[_BINARY[target.kind]]
    metrics = read_metrics(
        target,
        binary,
        assembly.get("amdgcn", ""),
        meta.shared,
        getattr(meta, "tmem_size", 0) or 0,
    )
    scratch_sizes = (
        meta.global_scratch_size,
        meta.global_scratch_align,
        meta.profile_scratch_size,
        meta.profile_scratch_align,
    )
    return cache.Stored(binary, meta.name, metrics, meta.shared, meta.num_warps, scratch_sizes)


def _compiler_errors() -> tuple[type[BaseException], ...]:
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources, PTXASError

    # RuntimeError is what MLIR pass failures, ValueError what option parsing arrives as.
    return (CompilationError, OutOfResources, PTXASError, RuntimeError, ValueError)


def first_line(error: BaseException) -> str:
    """What went wrong in one line, without the compiler's listing of the source."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "")
    return text or type(error).__name__


__all__ = [
    "FP_FUSION",
    "CompiledKernel",
    "Metrics",
    "compile_config",
    "compile_pool",
    "compile_source",
    "hidden_parameters",
    "toolchain",
]
