"""What the ascendc backend asks of a family, answered for beam_topk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.cases import Case
from tilewright.dtypes import dtype
from tilewright.errors import Refused
from tilewright.targets import Target

from ...soc import find
from ...twin import runner
from ...twin.runner import TwinResult
from .._kv.planning import VECTOR_CORES
from .._vector import floor, on_cores
from . import planning

__all__ = ["count", "floor", "launch", "on_cores", "refuses", "validated_by"]


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    if _empty(case):
        return None
    cores = config.get("cores", 0) or VECTOR_CORES * find(target.arch).cube_cores
    return planning.refusal(_launch(case), config["tile_v"], target.arch, cores)


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case on the twin; `ids` and `probs`, or what a beam step gives, are written."""
    from . import host

    try:
        return host.launch(
            tensors,
            temperature=case.number("temperature"),
            whole_row=case.flags["softmax"] == "row",
            invariant=case.flags["batch_invariant"] == "yes",
            coded=_coded(case),
            eos=int(case.number("eos")) if case.flags["step"] == "yes" else None,
            precision=case.precision,
            config=config,
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses beam_topk {case}: {error}") from None


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data."""
    from . import host

    if _empty(case):
        return runner.empty_result(target.arch)
    return host.count(
        _launch(case),
        case.precision,
        config=config,
        soc=target.arch,
        lib_path=lib_path,
        **options,
    )


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    return (
        "the model's sort and merge rate; another kernel's top-k of k = 1000 is published (T1, T3)"
    )


def _empty(case: Case) -> bool:
    return 0 in (case.sizes["B"], case.sizes["K"])


def _coded(case: Case) -> bool:
    """Whether floats are ranked by codes that the kernel makes of them."""
    return case.flags["int8"] == "yes" and case.precision != "int8"


def _launch(case: Case) -> planning.Launch:
    rows, columns, results = (case.sizes[name] for name in ("B", "V", "K"))
    coded, step = _coded(case), case.flags["step"] == "yes"
    k = min(results, columns)
    beams = (case.sizes["W"], results, int(case.number("eos"))) if step else (0, 0, 0)
    return planning.Launch(
        *(rows, columns, k, planning.survivors(results, columns) if coded else k, columns),
        *(dtype(case.precision).bytes, case.number("temperature")),
        *(case.flags["softmax"] == "row", case.flags["batch_invariant"] == "yes", coded),
        *beams,
    )
