"""Rules of tunable spaces that families with Triton kernels share. Imported by specs, so nothing of Triton is."""

from __future__ import annotations

from tilewright.cases import Case
from tilewright.space import Config
from tilewright.spec import KernelSpec
from tilewright.targets import Target


def attention_sums_fit(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    """Why a flash-attention tile would spill: its sums of DV channels and its scores, in fp32 registers."""
    threads = config["num_warps"] * target.limit("warp_size")
    each = config["tile_m"] * (case.sizes["DV"] + config["tile_n"]) // threads
    if each > 256:
        return f"{each} sums and scores per thread, above 256: they would spill"
    return None
