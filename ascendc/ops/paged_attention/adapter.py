"""What the ascendc backend asks of a family, answered for paged_attention: what it refuses, how it is launched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.cases import Case
from tilewright.errors import Refused
from tilewright.targets import Target

from ...soc import find
from ...twin import runner
from ...twin.bounds import Bound, bound
from ...twin.runner import TwinResult
from . import planning


def problem(case: Case) -> planning.Problem:
    """The case as the kernel knows it."""
    s, flags = case.sizes, case.flags
    kind = flags["kv"]
    compute, _, _ = case.precision.partition("-")
    return planning.Problem(
        compute=compute,
        kind=kind,
        heads=s["HQ"],
        kv_heads=s["HKV"],
        dk=s["DK"],
        dv=s["DV"],
        table_width=s["MP"],
        nz=flags["kv_layout"] == "nz",
        residual=flags["residual"] != "none",
        lse=flags["lse"] == "yes",
        alibi=flags["alibi"] == "yes",
        invariant=flags["batch_invariant"] == "yes",
        scale=case.number("scale") or s["DK"] ** -0.5,
        softcap=case.number("softcap"),
        window=case.number("window"),
    )


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    flags, given = case.flags, problem(case)
    reason = planning.refusal(given, flags["values"], flags["residual"])
    if reason:
        return reason
    settled = planning.settle(given, planning.Config.of(config), find(target.arch), 1)
    return settled if isinstance(settled, str) else None


def limits(precision: str, target: Target) -> str:
    """Which sizes the kernel takes, in words."""
    heads = "64 or 128" if "-" in precision else "multiples of 16 up to 256"
    return f"DK and DV of {heads}, where a tile of them fits the core"


def added_error(case: Case) -> float:
    """Relative error the kernel's own arithmetic adds to what the dtypes imply: none."""
    return 0.0


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case on the twin; `tensors` holds the inputs and the outputs, which are written."""
    from . import host

    try:
        return host.launch(
            tensors,
            problem(case),
            config=planning.Config.of(config),
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses paged_attention {case}: {error}") from None


def floor(
    case: Case, config: Mapping[str, int], target: Target, result: TwinResult, cores: int
) -> Bound:
    """The lower bound on the launch's time that its instructions imply on `cores` cube cores."""
    return bound(result, problem(case).cube_item, min(cores, max(result.blocks, 1)))


def sequences(case: Case) -> tuple[list[int], list[int]]:
    """Starts of queries and lengths of a case that is counted without data: the first as long as the
    table allows, the others as long as the spec's draws are on average."""
    n, longest = case.sizes["NS"], case.sizes["MP"] * planning.PAGE
    starts = [i * case.sizes["TQ"] // max(n, 1) for i in range(n + 1)]
    return starts, [longest if i == 0 else longest * 7 // 16 for i in range(n)]


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data: checks, counts and peaks at any size."""
    from . import host

    if case.sizes["TQ"] == 0:
        return runner.empty_result(target.arch)
    starts, lengths = sequences(case)
    try:
        return host.count(
            problem(case),
            starts,
            lengths,
            config=planning.Config.of(config),
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses paged_attention {case}: {error}") from None


def on_cores(
    case: Case, config: Mapping[str, int], target: Target, cores: int
) -> Mapping[str, int]:
    """The config on at most `cores` cube cores."""
    chosen = config.get("cores", 0) or find(target.arch).cube_cores
    return {**config, "cores": min(cores, chosen)}


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case: none."""
    return "nothing: no timing of attention over pages on a 910B is published"
