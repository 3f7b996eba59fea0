"""Element types: names, sizes and rounding, with no torch import until a tensor is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.errors import unknown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class DType:
    """One element type.

    `code` is its number in `kernels/_host/abi.h`; `unit_roundoff` is 2**-p for p significand bits
    (0 for integers), the relative error of one rounding to nearest (Higham, Accuracy and
    Stability of Numerical Algorithms, ch. 2).
    """

    name: str
    bytes: int
    code: int
    unit_roundoff: float
    torch_name: str

    @property
    def is_integer(self) -> bool:
        return self.unit_roundoff == 0.0

    def torch(self) -> torch.dtype:
        """The torch dtype (imports torch)."""
        import torch

        dtype: torch.dtype = getattr(torch, self.torch_name)
        return dtype


FP32 = DType("fp32", 4, 0, 2.0**-24, "float32")
BF16 = DType("bf16", 2, 1, 2.0**-8, "bfloat16")
FP16 = DType("fp16", 2, 2, 2.0**-11, "float16")
INT8 = DType("int8", 1, 3, 0.0, "int8")
INT32 = DType("int32", 4, 4, 0.0, "int32")
INT64 = DType("int64", 8, 5, 0.0, "int64")
UINT8 = DType("uint8", 1, 6, 0.0, "uint8")
FP64 = DType("fp64", 8, 7, 2.0**-53, "float64")
INT16 = DType("int16", 2, 8, 0.0, "int16")

ALL = {d.name: d for d in (FP32, BF16, FP16, INT8, INT32, INT64, UINT8, FP64, INT16)}


def dtype(name: str) -> DType:
    """Look a dtype up by name; raises UsageError naming the accepted ones."""
    try:
        return ALL[name]
    except KeyError:
        raise unknown("dtype", name, list(ALL)) from None


def from_torch(value: torch.dtype) -> DType:
    """The DType of a torch dtype; raises UsageError for one the kernels do not know."""
    name = str(value).removeprefix("torch.")
    for candidate in ALL.values():
        if candidate.torch_name == name:
            return candidate
    raise unknown("torch dtype", name, [d.torch_name for d in ALL.values()])
