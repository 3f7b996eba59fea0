"""tilewright compile: Triton kernels to GPU binaries, or to planned HIVM, on a machine without the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, progress, quiet, say

if TYPE_CHECKING:
    from tilewright.aot import CompiledKernel
    from tilewright.aot.ascend import LoweredKernel
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.spec import Precision
    from tilewright.targets import Target

app = options.application()

DEFAULT_TARGETS = "cuda:sm_80,cuda:sm_90,cuda:sm_100,hip:gfx942"
ASCEND_TARGETS = "ascend:910b1..b4, ascend:910_93"


@app.command()
def run(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="The family to compile.")],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="T,...",
            help="cuda:sm_80, cuda:sm_90, cuda:sm_100, hip:gfx942; ascend:910b1, 910b2, 910b3, 910b4, 910_93.",
        ),
    ] = DEFAULT_TARGETS,
    dtype: options.Dtype = None,
    flags: options.Flags = None,
    shape: options.Shape = None,
    config: options.ConfigText = None,
    pool: Annotated[
        bool,
        typer.Option("--pool", help="Every legal config of the family's space instead of one."),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=1, help="At most N configs of the pool, spread over it."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Processes that compile.")
    ] = 1,
    any_size: Annotated[
        bool,
        typer.Option("--any-size", help="Binaries for sizes that are not multiples of 16 bytes."),
    ] = False,
    json: options.Json = None,
) -> None:
    """Compile ahead of time and read registers, spills, shared memory, matrix and async-copy instructions.

    The compilers do not check whether a config can launch; the limit table of each architecture does. A
    config that cannot is reported with the limit it breaks and makes the exit code 1 (not with --pool,
    where finding those is the point). Every number is compiled: read from the binary, not measured.

    For ascend the kernel is lowered to planned HIVM by `tilewright toolchain install ascend-ir`: peaks of
    UB, L1 and L0C or the memory that overflows, synchronisation, cube, vector and copy operations; no
    binary, which needs CANN's hivmc. Of the config, tile_m, tile_n and tile_k count, l1_buffers (1: no
    multi-buffering) and unit_flag; num_warps and num_stages are taken and ignored, and so are the fields
    of the AscendC kernels. --pool there is every tile of the space, whatever the shape.

    \b
    Examples:
      tilewright compile gemm --target cuda:sm_90 --config '{"tile_m":128}'
      tilewright compile gemm --target cuda:sm_80 --pool --limit 50 --json pool.json
      tilewright compile gemm --target ascend:910b1 --config '{"tile_m":128,"l1_buffers":1}'
      tilewright compile attention --target cuda:sm_90 --shape DK=64,DV=64
    """
    from tilewright.cli import compile_tables
    from tilewright.errors import UsageError
    from tilewright.registry import family as family_named
    from tilewright.targets import targets as targets_named

    found = family_named(family)
    chosen = targets_named(target)
    precisions = _precisions(found, options.names(dtype), options.flags(flags) or {})
    if shape is not None and not pool and not _fixed_sizes(found):
        raise UsageError("--shape decides which configs --pool takes; a single config needs none")
    _refuse_what_has_no_compiler(found, chosen)
    chosen = _lowered(found, chosen, json)
    jobs: list[tuple[Precision, Target, list[Config]]] = [
        (precision, where, _configs(found, precision, where, shape, flags, config, pool, limit))
        for precision in precisions
        for where in chosen
    ]
    given = {} if pool else (options.config(config) or {})
    rows: list[CompiledKernel | LoweredKernel] = []
    interrupted = False
    with progress("compile", sum(len(c) for _, _, c in jobs), json) as step:
        try:
            for precision, where, configs in jobs:
                for row in _compile(
                    found, precision, where, configs, flags, not any_size, workers, shape
                ):
                    rows.append(row)
                    step(f"{row.target} {row.precision}")
        except KeyboardInterrupt:
            interrupted = True
            say(f"interrupted: {len(rows)} configs compiled so far are kept", json)
    emit(json, "compile", [r.row() for r in rows], interrupted=interrupted)
    if not quiet(json):
        compile_tables.show(rows)
    for line in compile_tables.verdict(rows):
        say(line, json)
    for where in chosen:
        if where.kind == "ascend" and (ignored := _ignored(given)):
            say(f"{where.name} ignores {', '.join(ignored)}", json)
    if any(not r.ok for r in rows) and not pool:
        raise typer.Exit(1)
    if interrupted:
        raise typer.Exit(3)


def _refuse_what_has_no_compiler(family: Family, targets: tuple[Target, ...]) -> None:
    from tilewright.backends.triton import NO_TRITON, installed
    from tilewright.errors import Unavailable

    for where in targets:
        if where.kind not in ("cuda", "hip", "ascend"):
            raise Unavailable(
                f"{where.name} has no ahead-of-time compiler; accepted: {DEFAULT_TARGETS},{ASCEND_TARGETS}"
            )
    if not installed():
        raise Unavailable(NO_TRITON)
    if not family.has("triton.py"):
        raise Unavailable(f"{family.name} has no triton.py to compile")
    if any(where.kind == "ascend" for where in targets):
        from tilewright import toolchains
        from tilewright.aot.ascend import TOOLCHAIN

        toolchains.require(TOOLCHAIN)


def _lowered(family: Family, targets: tuple[Target, ...], json: str | None) -> tuple[Target, ...]:
    """The targets, without Ascend ones, and said so, where the family's kernel cannot be lowered for those.

    Raises Refused where no target is left.
    """
    from tilewright.errors import Refused

    if not family.spec.unlowered:
        return targets
    left = tuple(where for where in targets if where.kind != "ascend")
    reason = f"the Triton {family.name} is not lowered for Ascend: {family.spec.unlowered}"
    if not left:
        raise Refused(reason)
    if len(left) < len(targets):
        say(reason, json)
    return left


def _fixed_sizes(family: Family) -> bool:
    """Whether a binary of the family is for sizes, which --shape then chooses."""
    from tilewright.aot.source import fixed_sizes

    return fixed_sizes(family.module("triton")) != ({},)


def _precisions(family: Family, names: list[str], flags: Mapping[str, str]) -> list[Precision]:
    """The precisions that go with the flags; raises UsageError for none, Refused for what is not for Triton."""
    from tilewright.errors import Refused, UsageError

    spec = family.spec
    spec.require_flags(flags)
    chosen = spec.select_precisions(names)
    found = [p for p in chosen if all(spec.takes(k, v, p) for k, v in flags.items())]
    if not found:
        text = ",".join(f"{k}={v}" for k, v in flags.items())
        raise UsageError(f"--flags {text} do not go with {', '.join(p.name for p in chosen)}")
    for name, value in flags.items():
        accepted = spec.flag_values(spec.flag(name), found[0], "triton")
        if value not in accepted:
            raise Refused(f"{name}={value} is not for triton; accepted: {', '.join(accepted)}")
    return found


def _configs(
    family: Family,
    precision: Precision,
    where: Target,
    shape: str | None,
    flags: str | None,
    config: str | None,
    pool: bool,
    limit: int | None,
) -> list[Config]:
    """One config, or the legal pool of the shape; the pool is thinned evenly to `limit`."""
    if where.kind == "ascend":
        return _ascend_configs(family, where, config, pool, limit)
    spec = family.spec
    space = spec.space_for(where)
    default = spec.default_config(where)
    if space is None:
        return [default]
    if not pool:
        return [space.complete(options.config(config) or {}, default)]
    sizes = options.shape(shape) or dict(next(iter(spec.benchmark_cases(precision))).sizes)
    return _thinned(
        space.pool(spec, spec.case(sizes, precision.name, options.flags(flags)), where), limit
    )


def _thinned(configs: list[Config], limit: int | None) -> list[Config]:
    if limit is None or limit >= len(configs):
        return configs
    return list(islice(configs, 0, None, -(-len(configs) // limit)))


def _ascend_configs(
    family: Family, where: Target, config: str | None, pool: bool, limit: int | None
) -> list[Config]:
    """What the Ascend road honours of one config, or every combination of those fields.

    The rules of the space are about the AscendC kernels; what does not fit here the compiler says.
    """
    from tilewright.aot import ascend
    from tilewright.space import Space

    space, default = family.spec.space_for(where), family.spec.default_config(where)
    if space is None:
        return [ascend.project(default)]
    if pool:
        fields = {n: values for n, values in space.fields.items() if ascend.honoured(n)}
        return _thinned(list(Space(**fields).points()), limit)
    given = {n: v for n, v in (options.config(config) or {}).items() if n not in ascend.IGNORED}
    return [ascend.project(space.complete(given, default))]


def _ignored(given: Mapping[str, int]) -> list[str]:
    """Fields of `--config` that the Ascend road does nothing with."""
    from tilewright.aot.ascend import honoured

    return [name for name in given if not honoured(name)]


def _compile(
    family: Family,
    precision: Precision,
    where: Target,
    configs: list[Config],
    flags: str | None,
    aligned: bool,
    workers: int,
    shape: str | None,
) -> Iterator[CompiledKernel] | Iterator[LoweredKernel]:
    from tilewright.aot import compile_pool
    from tilewright.aot.ascend import lower_pool

    values = {f.name: family.spec.flag_values(f, precision, "triton")[0] for f in family.spec.flags}
    values |= {
        f.name: f.default
        for f in family.spec.flags
        if f.default in family.spec.flag_values(f, precision)
    }
    values |= options.flags(flags) or {}
    module = family.module("triton")
    sizes = options.shape(shape)
    if where.kind == "ascend":
        return lower_pool(
            *(module, precision.name, values, configs, where.name),
            aligned=aligned,
            sizes=sizes,
            workers=workers,
        )
    return compile_pool(
        module,
        precision.name,
        values,
        configs,
        [where.name],
        aligned=aligned,
        sizes=sizes,
        workers=workers,
    )
