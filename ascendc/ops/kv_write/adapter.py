"""What the ascendc backend asks of a family, answered for kv_write."""

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
from ...twin.runner import Buffer, TwinResult
from .._kv.planning import PAGE
from .._vector import compute, floor, on_cores
from . import planning

__all__ = ["count", "floor", "launch", "limits", "on_cores", "refuses", "validated_by"]


def refuses(case: Case, config: Mapping[str, int], target: Target) -> str | None:
    """Why the kernel does not do this case with this config, or None."""
    kv = case.flags["kv"]
    if kv == "float":
        return None
    dims = (case.sizes["DK"], case.sizes["DV"])
    element = dtype(compute(case)).bytes
    return planning.too_large(
        dims, case.sizes["HKV"], kv, element, config["tile_elements"], find(target.arch).ub
    )


def limits(precision: str, target: Target) -> str:
    """In words, which sizes are refused."""
    if "-" not in precision:
        return ""
    ub, element = find(target.arch).ub, dtype(precision.split("-")[0]).bytes
    most = max(
        d
        for d in range(32, 2048, 32)
        if not planning.too_large((d, d), 1, precision.split("-")[1], element, 0, ub)
    )
    return f"heads of up to {most} channels, 16 tokens of one must fit UB"


def launch(
    tensors: Mapping[str, Any],
    case: Case,
    config: Mapping[str, int],
    target: Target,
    lib_path: Path,
    **options: Any,
) -> TwinResult:
    """Run the case on the twin; caches and what belongs to them are written."""
    from . import host

    try:
        return host.launch(
            tensors,
            kv=case.flags["kv"],
            nz=case.flags["kv_layout"] == "nz",
            precision=compute(case),
            config=config,
            soc=target.arch,
            lib_path=lib_path,
            **options,
        )
    except ValueError as error:
        raise Refused(f"ascendc refuses kv_write {case}: {error}") from None


def count(
    case: Case, config: Mapping[str, int], target: Target, lib_path: Path, **options: Any
) -> TwinResult:
    """Issue the case's instructions without data, as a batch of long prompts has them: whole pages."""
    import numpy as np

    from . import host

    size, kv, nz = case.sizes, case.flags["kv"], case.flags["kv_layout"] == "nz"
    tokens, heads, pages = size["T"], size["HKV"], size["P"]
    if 0 in (tokens, heads, pages) or not size["DK"] + size["DV"]:
        return runner.empty_result(target.arch)
    element = dtype(compute(case)).bytes
    code = {"float": 4 * element, "c8s": 4, "c8d": 4, "kv4": 2}[kv]  # bytes of four channels
    sides = tuple(_packed(size[name], heads, code, nz) for name in ("DK", "DV"))
    slots = np.arange(tokens, dtype=np.int32)
    slots[pages * PAGE :] = -1
    given = {"slots": slots, "open_row": np.zeros(tokens, dtype=np.int32)}
    elements = max(size["NS"], pages) * PAGE * heads * max(size["DK"], size["DV"])
    room = {
        "k": tokens * heads * size["DK"] * element,
        "v": tokens * heads * size["DV"] * element,
        "k_cache": pages * sides[0].page_stride,
        "v_cache": pages * sides[1].page_stride,
    }

    def argument(name: str) -> Buffer:
        if name in given:
            return Buffer.of(name, given[name])
        return Buffer.unbacked(name, room.get(name, 4 * elements))

    ready = planning.Launch(tokens, heads, kv, nz, element, (sides[0], sides[1]))
    return host.count(
        ready,
        argument,
        compute(case),
        config=config,
        soc=target.arch,
        lib_path=lib_path,
        **options,
    )


def _packed(dim: int, heads: int, code: int, nz: bool) -> planning.Side:
    row = dim * code // 4
    within = -(-row // 32) * 32 * PAGE if nz else heads * row
    page = (heads if nz else PAGE) * within
    return planning.Side(dim, heads * dim, dim, page, within)


def validated_by(case: Case, config: Mapping[str, int]) -> str:
    """What published timings stand behind a modelled time of this case."""
    return "nothing: no timing of a paged KV cache on a 910B is published"
