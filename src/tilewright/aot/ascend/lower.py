"""Configs of a family's Triton kernel to planned HIVM, and what the plan says, as rows."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from tilewright import toolchains
from tilewright.aot.ascend import failure
from tilewright.aot.ascend.hivm import INLINE_ASSEMBLY, Plan, read_plan
from tilewright.aot.ascend.kernel_text import kernel_text
from tilewright.aot.ascend.session import TIMEOUT_S, Session, worker_command
from tilewright.aot.source import AotSource, TritonModule, source_of
from tilewright.errors import CRASHES, BuildFailed, TilewrightError, UsageError
from tilewright.evidence import Evidence
from tilewright.space import Config
from tilewright.targets import Target
from tilewright.targets import target as find_target

TOOLCHAIN = "ascend-ir"
NO_BINARY = "planned HIVM, no binary: hivmc is CANN-only"
IGNORED = ("num_warps", "num_stages")
"""Fields of GPU configs that the Ascend road takes and does nothing with."""

_PREFIX, _HONOURED = "tile_", ("group_m", "l1_buffers", "unit_flag")
_OF_A_BINARY = (
    *("binary_sha256", "regs", "spill_bytes", "shared_bytes"),
    *("matrix_instructions", "async_copies"),
)


@dataclass(frozen=True, slots=True)
class LoweredKernel:
    """One config lowered for one Ascend target: a row of `tilewright compile`.

    Bytes are planned peaks per core (`workspace_bytes`: of global memory, per block); counts are of
    the code, not of what a run executes. If `ok` is False `error` says why and there are no figures
    but `overflow`, the memories that did not suffice. `fallbacks` are compiler options that the
    compiler turned off to make it fit. `then` are the kernels that the op starts after this one, and `ok`
    and `error` are of all of them.
    """

    family: str
    target: str
    precision: str
    flags: Mapping[str, str]
    config: Mapping[str, int]
    ok: bool
    error: str = ""
    symbol: str = ""
    ir_sha256: str | None = None
    ir: str = field(default="", repr=False)
    cores: str | None = None
    l0c_bytes: int | None = None
    l1_bytes: int | None = None
    ub_bytes: int | None = None
    workspace_bytes: int | None = None
    sync_flags: int | None = None
    barriers: int | None = None
    block_syncs: int | None = None
    cube_ops: int | None = None
    vector_ops: int | None = None
    copy_ops: int | None = None
    scalar_ops: int | None = None
    other_ops: int | None = None
    operations: Mapping[str, int] | None = None
    overflow: tuple[failure.Overflow, ...] = ()
    fallbacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    toolchain: str = ""
    artefact: str = NO_BINARY
    evidence: Evidence | None = None
    then: tuple[LoweredKernel, ...] = ()

    def row(self) -> dict[str, Any]:
        """The fields of a JSON row; those of a GPU binary are null."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "ir"}
        row["then"] = [step.row() for step in self.then]
        return row | {"dtype": self.precision, **dict.fromkeys(_OF_A_BINARY)}


def honoured(name: str) -> bool:
    """Whether the Ascend road of Triton does anything with this config field.

    Tiles and `group_m` are constants of the kernel; `l1_buffers` 1 turns the compiler's
    multi-buffering off, `unit_flag` 1 its unit-flag synchronisation on. The adapter has no warps
    and no stages, and the other fields are of the AscendC kernels.
    """
    return name.startswith(_PREFIX) or name in _HONOURED


def project(config: Mapping[str, int]) -> Config:
    """The config's fields that are honoured: configs that agree in them lower to the same HIVM."""
    return Config({name: value for name, value in config.items() if honoured(name)})


# The compiler knows parts, not lines of them: of the 910_93 the one whose cores are public.
_PARTS = {"910_93": "910_9382"}


def lower_pool(
    module: TritonModule,
    precision: str,
    flags: Mapping[str, str],
    configs: Sequence[Mapping[str, int]],
    target: str,
    *,
    aligned: bool = True,
    sizes: Mapping[str, int] | None = None,
    workers: int = 1,
    timeout_s: float = TIMEOUT_S,
    command: Sequence[str] | None = None,
) -> Iterator[LoweredKernel]:
    """Lower each config, yielding rows in their order; each worker is one process for many configs.

    What the family refuses, a stage rejects or a memory does not hold comes back with `ok=False`
    and the sentence, and so does a crash or no answer within `timeout_s`. `command` replaces the
    worker. Raises Unavailable, with the command that installs it, where the toolchain is missing.
    """
    found = find_target(target)
    if found.kind != "ascend":
        raise UsageError(
            f"{target} is no Ascend target; this road lowers for ascend:910b1..b4 and 910_93"
        )
    if command is None:
        command = worker_command(toolchains.require(TOOLCHAIN))
    # By id, with the kernel kept alive.
    texts: dict[int, tuple[Any, str]] = {}
    # What is asked is made by one thread at a time: Python 3.11 cannot parse in two (gh-106905).
    asking = threading.Lock()

    def lowered(session: Session, row: LoweredKernel, source: AotSource) -> LoweredKernel:
        row = dataclasses.replace(row, family=source.family, symbol=source.fn.fn.__name__)
        with asking:
            if id(source.fn) not in texts:
                texts[id(source.fn)] = source.fn, kernel_text(source.fn)
            request = _request(source, texts[id(source.fn)][1], found)
        return _judged(row, session.ask(request), found)

    def one(session: Session, config: Mapping[str, int]) -> LoweredKernel:
        row = _blank(module, precision, flags, config, found)
        try:
            with asking:
                source = _source(module, precision, flags, config, found, aligned, sizes)
            steps = [lowered(session, row, step) for step in (source, *source.then)]
        except TilewrightError as error:
            return dataclasses.replace(row, error=str(error))
        return _with_steps(steps[0], tuple(steps[1:]))

    yield from _spread(one, [project(c) for c in configs], command, timeout_s, workers)


def _spread(
    one: Callable[[Session, Mapping[str, int]], LoweredKernel],
    configs: Sequence[Mapping[str, int]],
    command: Sequence[str],
    timeout_s: float,
    workers: int,
) -> Iterator[LoweredKernel]:
    workers = max(1, min(workers, len(configs)))
    sessions = [Session(command, timeout_s) for _ in range(workers)]
    free: SimpleQueue[Session] = SimpleQueue()
    for session in sessions:
        free.put(session)

    def job(config: Mapping[str, int]) -> LoweredKernel:
        session = free.get()
        try:
            return one(session, config)
        finally:
            free.put(session)

    executor = ThreadPoolExecutor(workers)
    try:
        yield from map(job, configs) if workers == 1 else executor.map(job, configs)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for session in sessions:
            session.close()


def _with_steps(first: LoweredKernel, then: tuple[LoweredKernel, ...]) -> LoweredKernel:
    failed = next((step for step in then if not step.ok), None)
    if first.ok and failed is not None:
        first = dataclasses.replace(first, ok=False, error=f"{failed.symbol}: {failed.error}")
    return dataclasses.replace(first, then=then)


def _blank(
    module: TritonModule,
    precision: str,
    flags: Mapping[str, str],
    config: Mapping[str, int],
    target: Target,
) -> LoweredKernel:
    family = getattr(module, "__name__", "").rpartition(".")[0].rpartition(".")[2]
    return LoweredKernel(
        family,
        target.name,
        precision,
        dict(flags),
        dict(config),
        False,
        toolchain=toolchains.toolchain(TOOLCHAIN).versions,
    )


def _source(
    module: TritonModule,
    precision: str,
    flags: Mapping[str, str],
    config: Mapping[str, int],
    target: Target,
    aligned: bool,
    sizes: Mapping[str, int] | None,
) -> AotSource:
    try:
        return source_of(
            module, precision, flags, config, target.name, aligned=aligned, sizes=sizes
        )
    except TilewrightError:
        raise
    except CRASHES as error:
        raise BuildFailed(
            f"the family's aot() does not take a config of {target.name}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _request(source: AotSource, text: str, target: Target) -> dict[str, Any]:
    """What the worker is asked, as JSON types."""
    config = source.config
    options = [
        f"--enable-auto-multi-buffer={'true' if config.get('l1_buffers', 2) > 1 else 'false'}",
        "--enable-auto-bind-sub-block=true",
    ]
    if config.get("unit_flag", 0):
        options.append("--enable-hivm-unit-flag-sync=true")
    return {
        "text": text,
        "entry": source.fn.fn.__name__,
        "arch": f"Ascend{_PARTS.get(target.arch, target.arch).upper()}",
        "signature": {arg.name: arg.type for arg in source.args},
        "constexprs": {name: _plain(name, value) for name, value in source.constexprs.items()},
        # triton-ascend knows multiples of 16 and nothing below.
        "divisible": [arg.name for arg in source.args if arg.multiple_of % 16 == 0],
        "options": options,
    }


def _plain(name: str, value: Any) -> Any:
    value = getattr(value, "value", value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value).__name__ == "dtype":
        return {"dtype": value.name}
    raise BuildFailed(
        f"constant {name} is a {type(value).__name__}; numbers, strings, None and Triton dtypes travel"
    )


def _judged(row: LoweredKernel, answer: Mapping[str, Any], target: Target) -> LoweredKernel:
    if not answer["ok"]:
        overflow = failure.overflows(answer["log"])
        return dataclasses.replace(
            row,
            error=failure.sentence(answer["stage"], answer["log"], answer["status"]),
            overflow=overflow,
            evidence=Evidence.COMPILED if overflow else None,
        )
    plan = read_plan(answer["ir"])
    return dataclasses.replace(
        row,
        ok=True,
        ir=answer["ir"],
        ir_sha256=hashlib.sha256(answer["ir"].encode()).hexdigest(),
        cores=plan.cores,
        l0c_bytes=plan.peaks.get("cc", 0),
        l1_bytes=plan.peaks.get("cbuf", 0),
        ub_bytes=plan.peaks.get("ub", 0),
        workspace_bytes=plan.workspace_bytes,
        sync_flags=plan.sync_flags,
        barriers=plan.barriers,
        block_syncs=plan.block_syncs,
        cube_ops=plan.cube_ops,
        vector_ops=plan.vector_ops,
        copy_ops=plan.copy_ops,
        scalar_ops=plan.scalar_ops,
        other_ops=plan.other_ops,
        operations=plan.operations,
        fallbacks=failure.fallbacks(answer["log"]),
        notes=(*failure.fallback_notes(answer["log"]), *_remarks(plan, target)),
        evidence=Evidence.COMPILED,
    )


def _remarks(plan: Plan, target: Target) -> Iterator[str]:
    peak, most = plan.peaks.get("ub", 0), target.limit("ub_bytes")
    if peak > most:
        yield f"plans {peak} bytes of UB; AscendC keeps what is above {most} for itself"
    if INLINE_ASSEMBLY in plan.operations:
        yield "carries the kernel's inline assembly, which nothing before hivmc reads"
    if plan.unplaced:
        yield f"{plan.unplaced} buffers of unknown size or place are not in the peaks"
