"""tilewright model: floors on time from the twin's instruction stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, say, table

app = options.application()


@app.command()
def run(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="The family to model.")] = "gemm",
    target: options.TargetNames = "ascend:910b1",
    shape: options.Shape = None,
    dtype: options.Dtype = None,
    flags: options.Flags = None,
    config: options.ConfigText = None,
    cores: Annotated[
        int | None, typer.Option("--cores", metavar="N", help="Cube cores to use; all of the chip.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="One JSON object per instruction and line."),
    ] = None,
    validate: Annotated[
        bool,
        typer.Option("--validate", help="Compare with published timings (not in this version)."),
    ] = False,
    json: options.Json = None,
) -> None:
    """Bound the time of an AscendC kernel from below, from the instructions it issues.

    The twin issues every instruction without data; each pipe is charged at its best published rate and
    all pipes overlap perfectly. The result is a floor: modelled, not measured, and not a prediction.

    \b
    Example:
      tilewright model gemm --shape M=1024,N=1024,K=1024 --dtype fp16 --config '{"tile_m":128,"tile_n":256,"tile_k":64}'
    """
    from tilewright.ascendc.twin.bounds import VALIDATED_BY
    from tilewright.backends.ascendc import AscendC
    from tilewright.errors import Refused, Unavailable, UsageError
    from tilewright.registry import family as family_named
    from tilewright.targets import targets

    if validate:
        raise Unavailable(
            "this version gives floors from instruction counts; a model that can be held against published "
            "timings needs the pipes' latencies and overlaps, which it does not have"
        )
    found, backend = family_named(family), AscendC()
    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    precisions = found.spec.select_precisions(options.names(dtype))
    if trace is not None and len(precisions) * len(targets(target or "ascend:910b1")) > 1:
        raise UsageError("--trace holds one run; give one --target and one --dtype")
    for where in targets(target or "ascend:910b1"):
        if where.kind != "ascend":
            raise Unavailable(
                f"{where.name} has no model; `tilewright bench` measures cpu, `compile` reads binaries"
            )
        most = where.limit("aic_cores")
        if cores is not None and not 1 <= cores <= most:
            raise UsageError(f"--cores {cores} is not in 1..{most}, the cube cores of {where.name}")
        space, default = found.spec.space_for(where), found.spec.default_config(where)
        chosen = space.complete(options.config(config) or {}, default) if space else default
        for precision in precisions:
            sizes = options.shape(shape) or dict(
                next(iter(found.spec.benchmark_cases(precision))).sizes
            )
            case = backend.case(found, sizes, precision, options.flags(flags), chosen, where)
            try:
                result, floor = backend.model(found, case, chosen, where, trace=trace)
            except Refused as error:
                refused.append(f"{precision.name} on {where.name}: {error}")
                continue
            if cores is not None:
                floor = backend.bound(found, case, chosen, where, result, cores)
            rows.append(
                {
                    "family": found.name,
                    "target": where.name,
                    "dtype": precision.name,
                    "case": str(case),
                    "config": dict(chosen),
                    "predicted_us": floor.microseconds(where.limit("mhz")),
                    "kind": "floor",
                    "cycles": floor.cycles,
                    "pipes": dict(floor.pipes),
                    "bound_by": floor.bound_by,
                    "findings": len(result.findings),
                    "peak": dict(result.peak),
                    "evidence": "modelled",
                    "validated_by": VALIDATED_BY,
                }
            )
    if not rows:
        raise Refused("; ".join(refused))
    emit(json, "model", rows, refused=refused)
    table(
        (
            "target",
            "dtype",
            "case",
            "floor us",
            "bound by",
            "m",
            "mte1",
            "mte2",
            "mte3",
            "fix",
            "v cycles",
            "evidence",
        ),
        [
            (
                r["target"],
                r["dtype"],
                r["case"],
                number(r["predicted_us"], 4),
                r["bound_by"],
                *(number(r["pipes"][p], 4) for p in ("m", "mte1", "mte2", "mte3", "fix", "v")),
                r["evidence"],
            )
            for r in rows
        ],
        json=json,
    )
    for reason in refused:
        say(f"REFUSED {reason}", json)
    say("floors: no kernel of this structure can be faster; nothing here was measured", json)
