"""Which kernel of the AscendC gemm does a precision, and which kinds of cases there are none for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_BYTES: Mapping[str, int] = MappingProxyType(
    {"float32": 4, "float16": 2, "uint16": 2, "int8": 1, "int32": 4}
)


@dataclass(frozen=True, slots=True)
class Precision:
    """A kernel entry: types by numpy name, bfloat16 as uint16; ``acc``: of L0C and the cube's bias.

    ``mix``: vector cores scale what the cube cores make, and add the bias, in fp32.
    """

    kernel: str
    inputs: str
    acc: str
    output: str
    per_column_scale: bool = False
    mix: bool = False

    @property
    def input_bytes(self) -> int:
        """Bytes of one element of A and B."""
        return _BYTES[self.inputs]

    @property
    def output_bytes(self) -> int:
        """Bytes of one element of C."""
        return _BYTES[self.output]


PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        "fp32": Precision("gemm_fp32", "float32", "float32", "float32"),
        "fp16": Precision("gemm_fp16", "float16", "float32", "float16"),
        "fp16->fp32": Precision("gemm_fp16_fp32", "float16", "float32", "float32"),
        "bf16": Precision("gemm_bf16", "uint16", "float32", "uint16"),
        "int8->int32": Precision("gemm_int8", "int8", "int32", "int32"),
        "int8->fp16": Precision(
            "gemm_int8_fp16", "int8", "int32", "float16", per_column_scale=True
        ),
        "int8->fp32": Precision("gemm_scaled_fp32", "int8", "int32", "float32", mix=True),
        "int8->bf16": Precision("gemm_scaled_bf16", "int8", "int32", "uint16", mix=True),
    }
)
_SCALED_FP16 = Precision("gemm_scaled_fp16", "int8", "int32", "float16", mix=True)


def precision_of(name: str, *, bias: bool = False, row_scale: bool = False) -> Precision:
    """The kernel of a precision: int8->fp16 scaled by column alone is done by Fixpipe itself."""
    if name == "int8->fp16" and (bias or row_scale):
        return _SCALED_FP16
    return PRECISIONS[name]


B_LAYOUTS = ("KN", "NK")
# Of the kernel alone, no layout of the family: B [K,N] in fractals of 16 rows, as weights are kept.
NZ = "NZ"
KERNEL_LAYOUTS = (*B_LAYOUTS, NZ)


def refusal(
    precision: str,
    *,
    b_layout: str = "KN",
    bias: bool = False,
    row_scale: bool = False,
    col_scale: bool = False,
) -> str | None:
    """Why this kind of case is not done by the ascendc gemm, or None if it is."""
    if b_layout not in B_LAYOUTS:
        return f"b_layout '{b_layout}' is a host format; the ascendc gemm takes KN and NK"
    if precision not in PRECISIONS:
        return f"precision '{precision}' is unknown here, known are {', '.join(PRECISIONS)}"
    scaled = PRECISIONS[precision].per_column_scale or PRECISIONS[precision].mix
    if scaled and not col_scale:
        return f"{precision} needs col_scale"
    if (col_scale or row_scale) and not scaled:
        return f"{precision} takes no {'row' if row_scale else 'col'}_scale"
    return None
