"""What the ascendc backend asks of a family, answered for gemm: what it refuses, and how it is launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilewright.cases import Case
from tilewright.errors import Refused
from tilewright.targets import Target

from ...soc import find
from ...twin import runner
from ...twin.bounds import Bound, bound, mixed
from ...twin.runner import TwinResult
from . import planning

# Fixpipe keeps 10 mantissa bits of a per-column scale (VDEQF16), cutting the rest off.
_SCALE_CUT = 2.0**-10


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    bias = case.flags["bias"] == "yes"
    scale = case.flags["scale"]
    layout = case.flags["b_layout"]
    reason = planning.refusal(
        case.precision,
        b_layout=layout,
        bias=bias,
        row_scale=scale == "row_col",
        col_scale=scale != "none",
    )
    if reason:
        return reason
    chosen = planning.Config.of(config)
    why = planning.illegal(
        case.precision, layout, chosen, target.arch, bias=bias, row_scale=scale == "row_col"
    )
    return next(iter(why), None)


def _kind(case: Case) -> planning.Precision:
    return planning.precision_of(
        case.precision,
        bias=case.flags["bias"] == "yes",
        row_scale=case.flags["scale"] == "row_col",
    )


def _invariant(case: Case) -> bool:
    return case.flags.get("batch_invariant") == "yes"


def added_error(case: Case) -> float:
    """Relative error the hardware's own arithmetic adds to what the dtypes imply."""
    return _SCALE_CUT if _kind(case).per_column_scale else 0.0


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    *,
    kernel_library: Path | None = None,
    threads: int = 0,
    trace: Path | None = None,
) -> TwinResult:
    """Run the case on the twin; `tensors` holds the inputs and the output `c`, which is written."""
    from . import host

    try:
        return host.launch(
            tensors,
            tensors["c"],
            case.precision,
            b_layout=case.flags["b_layout"],
            config=dict(config),
            invariant=_invariant(case),
            soc=target.arch,
            lib_path=lib_path,
            kernel_library=kernel_library,
            threads=threads,
            trace=trace,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses gemm {case}: {error}") from None


def floor(
    case: Case, config: Mapping[str, int], target: Target, result: TwinResult, cores: int
) -> Bound:
    """The lower bound on the launch's time that its instructions imply on `cores` cube cores.

    Blocks whose share of the grid holds no tile do not count as busy.
    """
    m, n, k = (case.sizes[name] for name in ("M", "N", "K"))
    chosen = planning.Config.of(config)
    if 0 not in (m, n, k):
        grid = chosen.grid_m, chosen.grid_n
        if not chosen.grid_m:
            grid = planning.choose_grid(planning.Dims(m, n, k), chosen, find(target.arch))
        busy = min(grid[0], -(-m // chosen.tile_m)) * min(grid[1], -(-n // chosen.tile_n))
        cores = min(cores, busy)
    size = _kind(case).input_bytes
    return mixed(result, size, cores) if _kind(case).mix else bound(result, size, cores)


def _grid(case: Case, chosen: planning.Config, target: Target, cores: int = 0) -> tuple[int, int]:
    if chosen.grid_m:
        return chosen.grid_m, chosen.grid_n
    m, n, k = (case.sizes[name] for name in ("M", "N", "K"))
    part = find(target.arch)
    if cores:
        part = replace(part, cube_cores=min(cores, part.cube_cores))
    return planning.choose_grid(planning.Dims(m, n, k), chosen, part)


def on_cores(
    case: Case, config: Mapping[str, int], target: Target, cores: int
) -> Mapping[str, int]:
    """The config with a grid on at most `cores` cube cores."""
    chosen = planning.Config.of(config)
    if 0 in case.sizes.values():
        return config
    grid = _grid(case, chosen, target, cores)
    if grid[0] * grid[1] > cores:
        raise Refused(
            f"grid {grid[0]}x{grid[1]} takes {grid[0] * grid[1]} cores, {cores} are allowed"
        )
    return {**config, "grid_m": grid[0], "grid_n": grid[1]}


def representatives(case: Case, config: Mapping[str, int], target: Target) -> dict[int, int]:
    """Blocks that stand for all in a model of time, and how many each stands for."""
    m, n, k = (case.sizes[name] for name in ("M", "N", "K"))
    if 0 in (m, n, k):
        return {}
    chosen = planning.Config.of(config)
    return planning.representatives(planning.Dims(m, n, k), chosen, _grid(case, chosen, target))


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    tile = f"{config['tile_m']}x{config['tile_n']}"
    if case.precision not in ("fp16", "int8->int32", "int8->fp16"):
        return f"nothing: no timing of a {case.precision} gemm on a 910B is published"
    if config["tile_m"] * config["tile_n"] < 64 * 64:
        return f"nothing: no timing of a gemm with tiles of {tile} is published"
    if case.precision == "fp16":
        return "published fp16 gemms with tiles of 64x64 to 128x256: docs/model.md"
    return "published int8 gemms of other kernels: docs/model.md"


def count(
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    *,
    kernel_library: Path | None = None,
    threads: int = 0,
    trace: Path | None = None,
) -> TwinResult:
    """Issue the case's instructions without data: checks, counts and peaks at any size."""
    from . import host

    m, n, k = (case.sizes[name] for name in ("M", "N", "K"))
    if 0 in (m, n, k):
        return runner.empty_result(target.arch)
    kind = _kind(case)
    bias, row_scale = case.flags["bias"] == "yes", case.flags["scale"] == "row_col"
    try:
        ready = planning.plan(
            planning.Dims(m, n, k),
            case.precision,
            case.flags["b_layout"],
            planning.Config.of(dict(config)),
            target.arch,
            bias=bias,
            row_scale=row_scale,
            invariant=_invariant(case),
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses gemm {case}: {error}") from None
    return runner.run(
        lib_path,
        ready.kernel,
        ready.block_dim,
        host.unbacked(m, n, k, kind, ready, bias=bias, row_scale=row_scale),
        ready.tiling,
        target.arch,
        threads=threads,
        skip_data=True,
        trace=trace,
        kernel_library=kernel_library,
    )
