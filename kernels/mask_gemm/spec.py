"""mask_gemm, declared once: int8 weights, and bf16 ones for the rows that a selection names.

`selection.py` has the layout of the selection and the rule. `counts` are the rows in bf16, the rows in int8,
and of the latter those that were selected while the layer's bf16 weights are not resident.
"""

from __future__ import annotations

from types import MappingProxyType

from tilewright.cases import Case, Flag, empty, grid, points
from tilewright.dims import cdiv, dims
from tilewright.dtypes import BF16, FP32, INT8, INT32, INT64, DType
from tilewright.kernels._triton import rules
from tilewright.kernels.gemm import tiles
from tilewright.kernels.gemm.spec import K_PER_LANE
from tilewright.kernels.gemm.spec import SPEC as GEMM
from tilewright.kernels.gemm.tiling import tiling
from tilewright.kernels.mask_gemm.layout import BITS, MOST_ROWS, STEP_WORDS, layer_bits
from tilewright.numerics import dot_product_error, exact
from tilewright.space import Config, Rule, Space
from tilewright.spec import KernelSpec, Layout, Precision, Ref, Tensor
from tilewright.targets import Target

M, N, K, W = dims("M N K W")
COUNTS = 3
# What `reference.make_inputs` selects, by layer % 4: the first rows, the layer, nothing, by chance.
FIRST, WHOLE, NOTHING, BY_CHANCE = range(4)

_BF16 = Precision(
    "bf16",
    dtypes=MappingProxyType(
        {
            "a8": INT8,
            "row_scale": FP32,
            "b8": INT8,
            "col_scale": FP32,
            "selection": INT64,
            "owner": INT32,
            "a": BF16,
            "b16": BF16,
            "bias": FP32,
            "c": BF16,
            "counts": INT32,
        }
    ),
    accumulate=FP32,
)


def layer_of(case: Case) -> int:
    """The layer of a launch."""
    return int(case.number("layer"))


def _valid(spec: KernelSpec, case: Case) -> str | None:
    if case.sizes["M"] > MOST_ROWS:
        return f"M={case.sizes['M']} rows are more than the {MOST_ROWS} of {BITS} groups of tokens"
    if case.sizes["W"] <= STEP_WORDS:
        return (
            f"W={case.sizes['W']} words have no bit for a layer; accepted: {STEP_WORDS + 1} or more"
        )
    layers, layer = layer_bits(case.sizes["W"]), case.number("layer")
    if layer != int(layer) or not 0 <= layer < layers:
        return f"layer={case.flags['layer']} has no bit in W={case.sizes['W']} words; accepted: 0 to {layers - 1}"
    return None


def scene_of(case: Case) -> int:
    """What is selected for a case; where a selected row would be an error, nothing."""
    refused = case.flags["resident"] == "no" and case.flags["missing"] == "error"
    return NOTHING if refused else layer_of(case) % 4


def rows_of_first(rows: int) -> int:
    """The rows of the one request that is selected."""
    return rows // 8


def rows_by_path(case: Case) -> tuple[int, int]:
    """How many rows a drawn case has in bf16 and in int8; those by chance count as int8, the least they can take."""
    m, scene = case.sizes["M"], scene_of(case)
    chosen = {FIRST: rows_of_first(m), WHOLE: m}.get(scene, 0)
    in_bf16 = chosen if case.flags["resident"] == "yes" else 0
    return in_bf16, m - in_bf16


def _bytes(spec: KernelSpec, case: Case) -> float:
    """What moves at the least: rows, weights and scales of each path that has rows, outputs, a word of each kind."""
    m, n, k = (case.sizes[name] for name in ("M", "N", "K"))
    in_bf16, in_int8 = rows_by_path(case)
    int8 = in_int8 * (k + 4) + (n * (k + 4) if in_int8 else 0)
    bf16 = 2 * k * (in_bf16 + (n if in_bf16 else 0))
    bias = 4 * n if case.flags["bias"] == "yes" else 0
    return float(int8 + bf16 + 4 * m + 8 * (1 + STEP_WORDS) + 2 * m * n + bias + 4 * COUNTS)


def _computes(spec: KernelSpec, case: Case) -> dict[DType, float]:
    """Each path by the share of its rows."""
    in_bf16, in_int8 = rows_by_path(case)
    shares = {INT8: in_int8, BF16: in_bf16} if case.sizes["M"] else {INT8: 1}
    whole = sum(shares.values())
    return {kind: rows / whole for kind, rows in shares.items() if rows}


def _weights(name: str, lane: int, when: tuple[str, tuple[str, ...]] | None = None) -> Tensor:
    """[N,K], or panels as in `gemm` with `lane` values of k together."""
    panels = Layout(
        (cdiv(N, 16), cdiv(K, lane), 16, lane), Ref(f"reference:panels_of_{lane}"), ("host",), 3
    )
    return Tensor(
        name,
        N,
        K,
        layouts={"NK": Layout((N, K)), "panel16": panels},
        layout_flag="b_layout",
        when=when,
    )


def _fits_ascend(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
    from tilewright.ascendc.ops.mask_gemm import adapter

    return adapter.refuses(case, config, target)


_GPU = Space(
    tile_m=(16, 32, 64, 128),
    tile_n=(16, 32, 64, 128, 256),
    tile_k=(32, 64, 128),
    num_warps=(1, 2, 4, 8),
    num_stages=(1, 2, 3, 4),
).where(
    Rule("accumulators", rules.sums_fill_threads),
    Rule("shared memory", rules.operands_fit_shared_memory),
)


def _tiling(spec: KernelSpec, case: Case, target: Target) -> Config | None:
    """As gemm's; on the host, where most rows are in int8, and on Ascend, whose tile_k counts codes, as for int8."""
    if target.kind not in ("cpu", "ascend"):
        return tiling(spec, case, target)
    sizes = {name: case.sizes[name] for name in ("M", "N", "K")}
    flags = {"b_layout": case.flags["b_layout"], "scale": "row_col"}
    if target.kind == "ascend":
        flags["batch_invariant"] = case.flags["batch_invariant"]
    config = GEMM.config_for(GEMM.case(sizes, "int8->bf16", flags), target)
    return Config({name: config[name] for name in spec.space[target.kind].fields})


def _size(m: int, n: int, k: int, w: int = 4) -> dict[str, int]:
    return {"M": m, "N": n, "K": k, "W": w}


_RESIDENT = ("resident", ("yes",))

SPEC = KernelSpec(
    name="mask_gemm",
    summary="c[M,N] = a[M,K] @ b[N,K]^T (+ bias[N]), each row in bf16 or in int8 by a packed selection",
    inputs=(
        Tensor("a8", M, K),
        Tensor("row_scale", M, init="scale"),
        _weights("b8", K_PER_LANE[INT8]),
        Tensor("col_scale", N, init="scale"),
        Tensor("selection", W),
        Tensor("owner", M),
        Tensor("a", M, K, when=_RESIDENT),
        _weights("b16", K_PER_LANE[BF16], when=_RESIDENT),
        Tensor("bias", N, when=("bias", ("yes",))),
    ),
    outputs=(Tensor("c", M, N), Tensor("counts", COUNTS, tolerance=exact())),
    precisions=(_BF16,),
    flags=(
        Flag("b_layout", ("NK", "panel16"), "NK"),
        # What inputs are drawn for a layer: see reference.make_inputs.
        Flag.number("layer", ("0", "1", "66", "3"), "0"),
        Flag.yes_no("resident", "yes"),
        # A selected row without resident bf16 weights is refused, or runs in int8 and is counted.
        Flag("missing", ("error", "keep_int8"), "error"),
        Flag.yes_no("bias"),
        Flag.yes_no("batch_invariant"),
    ),
    reference=Ref("reference:mask_gemm"),
    make_inputs=Ref("reference:make_inputs"),
    valid=_valid,
    cases=points(
        _size(1, 1, 1, 3),
        _size(1, 17, 63),
        _size(2, 530, 1000),
        _size(7, 16, 128, 3),
        _size(16, 96, 576),
        _size(33, 577, 63, 5),
        _size(65, 48, 576),
        _size(64, 33, 130, 3),
        _size(130, 100, 200),
        _size(96, 80, 256),
        _size(300, 130, 96),
        _size(12, 700, 320, 6),
        _size(257, 64, 129),
        _size(200, 257, 64),
        _size(MOST_ROWS, 17, 8),
    )
    + points(_size(70, 96, 192))
    + empty("M", "N", "K")
    + points(_size(256, 576, 1536)),
    bench_cases=grid(M=(1, 16, 64, 256, 1024), N=(1536, 4096), K=(4096,), W=(4,)),
    tolerance=dot_product_error(K),
    flops=2 * M * N * K,
    bytes=_bytes,
    computes=_computes,
    space={
        "cpu": Space(**tiles.HOST),
        "cuda": _GPU,
        "hip": _GPU,
        "ascend": Space(**tiles.CUBE, unit_flag=(0, 1)).where(
            Rule("what the kernel takes", _fits_ascend)
        ),
    },
    default={
        "cpu": tiles.HOST_BASELINE,
        "cuda": tiles.GPU_BASELINE,
        "hip": tiles.GPU_BASELINE,
        "ascend": Config({**tiles.CUBE_BASELINE, "unit_flag": 0}),
    },
    tiling=_tiling,
    peers=Ref("peers:peers"),
)
