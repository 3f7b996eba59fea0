"""What the ascendc backend asks of a family, answered for attention: what it refuses, and its launch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.cases import Case
from tilewright.errors import Refused
from tilewright.targets import Target

from ...soc import find
from ...twin import runner
from ...twin.bounds import Bound, mixed
from ...twin.runner import TwinResult
from . import planning
from .planning import BYTES, Config, Layout, Problem


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    dk, dv = case.sizes["DK"], case.sizes["DV"]
    reason = planning.refusal(case.precision, dk, dv, int8_compute=case.flags["compute"] == "int8")
    if reason:
        return reason
    return next(iter(planning.illegal(_config(case, config), dk, dv, target.arch)), None)


def limits(precision: str, target: Target) -> str:
    """The sizes that are refused, in words."""
    return "DK and DV are multiples of 16 up to 256"


def _config(case: Case, config: Mapping[str, int]) -> Config:
    chosen = Config.of(config)
    if case.flags["batch_invariant"] == "no":
        return chosen
    return planning.settled(chosen, case.sizes["DK"], case.sizes["DV"])


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
    """Run the case on the twin; `tensors` holds the inputs and the outputs, which are written."""
    from . import host

    options = host.Options(
        causal=case.flags["mask"] == "causal",
        scale=case.number("scale"),
        softcap=case.number("softcap"),
        window=int(case.number("window")),
    )
    try:
        return host.launch(
            tensors,
            case.precision,
            options,
            config=_config(case, config),
            soc=target.arch,
            lib_path=lib_path,
            kernel_library=kernel_library,
            threads=threads,
            trace=trace,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses attention {case}: {error}") from None


def _even(total: int, parts: int) -> list[int]:
    return [total // parts + (i < total % parts) for i in range(parts)]


def problem_of(case: Case) -> Problem:
    """The case in numbers; sequences of any length count as equally long ones."""
    sizes = case.sizes
    ragged = case.flags["lengths"] == "ragged"
    parts = max(1, sizes["NS1"] - 1) if ragged else sizes["B"]
    queries, keys = sizes["SQ"], sizes["SK"]
    return Problem(
        _even(queries, parts) if ragged else [queries] * parts,
        _even(keys, parts) if ragged else [keys] * parts,
        sizes["HQ"],
        sizes["HKV"],
        sizes["DK"],
        sizes["DV"],
        ragged=ragged,
        causal=case.flags["mask"] == "causal",
        scale=case.number("scale"),
        softcap=case.number("softcap"),
        window=int(case.number("window")),
        alibi=case.flags["alibi"] == "yes",
        lse=case.flags["lse"] == "yes",
    )


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

    problem = problem_of(case)
    if planning.tiles(problem, _config(case, config)) == 0 or problem.dv == 0:
        return runner.empty_result(target.arch)
    try:
        ready = planning.plan(
            problem, Layout.dense(problem), case.precision, _config(case, config), target.arch
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses attention {case}: {error}") from None
    return host.run(
        ready,
        host.unbacked(problem, ready.workspace_bytes),
        target.arch,
        lib_path,
        kernel_library,
        threads,
        trace,
        skip_data=True,
    )


def floor(
    case: Case, config: Mapping[str, int], target: Target, result: TwinResult, cores: int
) -> Bound:
    """The lower bound on the launch's time that its instructions imply on `cores` cube cores.

    Each has two vector cores, whose copies are counted for themselves.
    """
    return mixed(result, BYTES, cores)


def on_cores(
    case: Case, config: Mapping[str, int], target: Target, cores: int
) -> Mapping[str, int]:
    """The config on at most `cores` cube cores."""
    return {**config, "blocks": min(cores, find(target.arch).cube_cores)}


def representatives(case: Case, config: Mapping[str, int], target: Target) -> dict[int, int]:
    """Blocks that stand for all in a model of time, and how many each stands for."""
    problem, chosen = problem_of(case), _config(case, config)
    if planning.tiles(problem, chosen) == 0 or problem.dv == 0:
        return {}
    return planning.representatives(problem, chosen, find(target.arch))


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    full = case.flags["mask"] == "full" and case.number("window") == 0
    if case.precision == "fp16" and full and case.sizes["DK"] == case.sizes["DV"] == 128:
        return "published fp16 attention of another kernel, one head of 128 lanes: docs/model.md"
    return "nothing: published are full masks, fp16 and one head of 128 lanes, of another kernel"
