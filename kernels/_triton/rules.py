"""Rules of tunable spaces that families with Triton kernels share. Imported by specs, so nothing of Triton is."""

from __future__ import annotations

from tilewright.cases import Case
from tilewright.dtypes import INT8
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


def dot_depth(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    """Why a tile is too shallow for a dot of int8."""
    if spec.precision(case.precision).dtypes["a"] is INT8 and config["tile_k"] < 32:
        return f"tile_k={config['tile_k']} is below the 32 values of k an int8 dot takes"
    return None


def sums_fill_threads(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    """Why the sums of a tile are too many, or too few, for its threads."""
    elements = config["tile_m"] * config["tile_n"]
    threads = config["num_warps"] * target.limit("warp_size")
    if elements // threads > 256:
        return f"{elements // threads} accumulators per thread, above 256: they would spill"
    if elements < threads * 4:
        return f"{threads} threads for a tile of {elements} elements leave most of them idle"
    return None


def operands_fit_shared_memory(
    spec: KernelSpec, case: Case, config: Config, target: Target
) -> str | None:
    """Why the stages of a product's operands do not fit into shared memory."""
    operand = spec.precision(case.precision).dtypes["a"].bytes
    stages = max(1, config["num_stages"] - 1)
    need = (config["tile_m"] + config["tile_n"]) * config["tile_k"] * operand * stages
    limit = target.limit("shared_bytes")
    return f"needs {need} bytes of shared memory of {limit}" if need > limit else None
