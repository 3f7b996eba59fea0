"""tilewright compile: Triton kernels to GPU binaries on a machine without a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, progress, quiet, say, table

if TYPE_CHECKING:
    from tilewright.aot import CompiledKernel
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.spec import Precision
    from tilewright.targets import Target

app = options.application()

DEFAULT_TARGETS = "cuda:sm_80,cuda:sm_90,cuda:sm_100,hip:gfx942"


@app.command()
def run(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="The family to compile.")],
    target: Annotated[
        str,
        typer.Option(
            "--target", metavar="T,...", help="cuda:sm_80, cuda:sm_90, cuda:sm_100, hip:gfx942."
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

    \b
    Examples:
      tilewright compile gemm --target cuda:sm_90 --config '{"tile_m":128}'
      tilewright compile gemm --target cuda:sm_80 --pool --limit 50 --json pool.json
    """
    from tilewright.errors import UsageError
    from tilewright.registry import family as family_named
    from tilewright.targets import targets as targets_named

    found = family_named(family)
    chosen = targets_named(target)
    precisions = _precisions(found, options.names(dtype), options.flags(flags) or {})
    if shape is not None and not pool:
        raise UsageError("--shape decides which configs --pool takes; a single config needs none")
    _refuse_what_has_no_compiler(found, chosen)
    jobs: list[tuple[Precision, Target, list[Config]]] = [
        (precision, where, _configs(found, precision, where, shape, flags, config, pool, limit))
        for precision in precisions
        for where in chosen
    ]
    rows: list[CompiledKernel] = []
    interrupted = False
    with progress("compile", sum(len(c) for _, _, c in jobs), json) as step:
        try:
            for precision, where, configs in jobs:
                for row in _compile(found, precision, where, configs, flags, not any_size, workers):
                    rows.append(row)
                    step(f"{row.target} {row.precision}")
        except KeyboardInterrupt:
            interrupted = True
            say(f"interrupted: {len(rows)} configs compiled so far are kept", json)
    emit(json, "compile", [r.row() for r in rows], interrupted=interrupted)
    if not quiet(json):
        _show(rows)
    bad = [r for r in rows if not r.ok]
    for row in bad[:5]:
        say(f"cannot launch: {row.target} {row.precision} {dict(row.config)}: {row.error}", json)
    say(
        f"{len(rows) - len(bad)} of {len(rows)} binaries can launch; all figures compiled, none measured",
        json,
    )
    if bad and not pool:
        raise typer.Exit(1)
    if interrupted:
        raise typer.Exit(3)


def _refuse_what_has_no_compiler(family: Family, targets: tuple[Target, ...]) -> None:
    from tilewright.backends.triton import NO_TRITON, installed
    from tilewright.errors import Unavailable

    for where in targets:
        if where.kind == "ascend":
            raise Unavailable(
                f"lowering Triton to {where.name} needs the ascend-ir toolchain, which this version does not have; "
                f"`tilewright twin run {family.name}` runs the AscendC kernel on the twin"
            )
        if where.kind not in ("cuda", "hip"):
            raise Unavailable(
                f"{where.name} has no ahead-of-time compiler; accepted: {DEFAULT_TARGETS}"
            )
    if not installed():
        raise Unavailable(NO_TRITON)
    if not family.has("triton.py"):
        raise Unavailable(f"{family.name} has no triton.py to compile")


def _precisions(family: Family, names: list[str], flags: Mapping[str, str]) -> list[Precision]:
    """The precisions that go with the flags; raises UsageError for none, Refused for what is not for Triton."""
    from tilewright.errors import Refused, UsageError

    spec = family.spec
    spec.require_flags(flags)
    chosen = spec.select_precisions(names)
    found = [
        p for p in chosen if all(v in spec.flag_values(spec.flag(k), p) for k, v in flags.items())
    ]
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
    spec = family.spec
    space = spec.space_for(where)
    default = spec.default_config(where)
    if space is None:
        return [default]
    if not pool:
        return [space.complete(options.config(config) or {}, default)]
    sizes = options.shape(shape) or dict(next(iter(spec.benchmark_cases(precision))).sizes)
    legal = space.pool(spec, spec.case(sizes, precision.name, options.flags(flags)), where)
    if limit is None or limit >= len(legal):
        return legal
    return list(islice(legal, 0, None, -(-len(legal) // limit)))


def _compile(
    family: Family,
    precision: Precision,
    where: Target,
    configs: list[Config],
    flags: str | None,
    aligned: bool,
    workers: int,
) -> Iterator[CompiledKernel]:
    from tilewright.aot import compile_pool

    values = {f.name: family.spec.flag_values(f, precision, "triton")[0] for f in family.spec.flags}
    values |= {
        f.name: f.default
        for f in family.spec.flags
        if f.default in family.spec.flag_values(f, precision)
    }
    return compile_pool(
        family.module("triton"),
        precision.name,
        {**values, **(options.flags(flags) or {})},
        configs,
        [where.name],
        aligned=aligned,
        workers=workers,
    )


def _show(rows: list[CompiledKernel]) -> None:
    def counted(values: Mapping[str, int]) -> str:
        return " ".join(f"{k} {v}" for k, v in values.items() if v)

    table(
        (
            "target",
            "dtype",
            "config",
            "launches",
            "regs",
            "spill B",
            "shared B",
            "matrix",
            "async",
            "occupancy",
        ),
        [
            (
                r.target,
                r.precision,
                " ".join(f"{k}={v}" for k, v in r.config.items()),
                "yes" if r.ok else "no",
                r.regs,
                r.spill_bytes,
                r.shared_bytes,
                counted(r.matrix_instructions),
                counted(r.async_copies),
                f"{r.occupancy:.2f}",
            )
            for r in rows[:200]
        ],
        title="compiled" + (f" (first 200 of {len(rows)})" if len(rows) > 200 else ""),
    )
