"""Linear layers by how their weights are kept; each is applied through the ops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from tilewright.engine.calls import empty
from tilewright.engine.layout import code_panels, group_panels, panels, rounded
from tilewright.engine.ops import Ops, name_of
from tilewright.kernels.gemm_w4 import formats
from tilewright.models.checkpoint import Q4

__all__ = ["Dense", "Grouped4", "Int8", "Linear", "Weight", "rounded"]

GROUP = 32  # of GGUF's Q4_1


@dataclass(frozen=True, slots=True)
class Weight:
    """W [N,K] as the backend of its op reads it: panels on the host, rows elsewhere.

    `parts` are inputs of the op by name, `logical` what the reference takes in their place (none on the host).
    """

    n: int
    k: int
    layout: str
    parts: Mapping[str, Tensor]
    logical: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, ops: Ops, op: str, w: Tensor) -> Weight:
        """Laid out for the backend that `op` is assigned to."""
        n, k = w.shape
        if ops.backends.of(op) != "host":
            return cls(n, k, "NK", {"b": w}, {"b": w.t()})
        return cls(n, k, "panel16", {"b": panels(w)})

    @property
    def bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.parts.values())


class Linear(ABC):
    """y[T,N] = x[T,K] W^T (+ bias)."""

    def __init__(self, w: Weight, bias: Tensor | None) -> None:
        self._w, self._bias = w, bias
        self.n, self.k = w.n, w.k

    @abstractmethod
    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """y in the type of x."""

    @property
    def bytes(self) -> int:
        """Bytes of weights that a call reads."""
        return self._w.bytes

    def _flags(self) -> dict[str, str]:
        return {"b_layout": self._w.layout, "bias": "no" if self._bias is None else "yes"}


class Dense(Linear):
    """Weights in the type of the activations."""

    def __init__(self, ops: Ops, w: Tensor | Weight, bias: Tensor | None = None) -> None:
        super().__init__(w if isinstance(w, Weight) else self.lay(ops, w), bias)

    @staticmethod
    def lay(ops: Ops, w: Tensor) -> Weight:
        """What a call reads of W [N,K]."""
        return Weight.of(ops, "gemm", w)

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """See Linear."""
        y = empty(x, x.shape[0], self.n)
        ops.call(
            "gemm",
            name_of(x),
            {**self._flags(), "scale": "none"},
            {"M": x.shape[0], "N": self.n, "K": self.k},
            {"a": x, "bias": self._bias, **self._w.parts},
            {"c": y},
            logical=self._w.logical,
        )
        return y


class Int8(Linear):
    """W8A8: int8 weights with a scale a column of C, activations quantised token by token in the call."""

    def __init__(self, ops: Ops, w: Tensor | Weight, bias: Tensor | None = None) -> None:
        laid = w if isinstance(w, Weight) else self.lay(ops, w)
        super().__init__(laid, None if bias is None else bias.float())

    @staticmethod
    def lay(ops: Ops, w: Tensor) -> Weight:
        """What a call reads of W [N,K], which is rounded here."""
        codes, scale = rounded(w)
        laid = Weight.of(ops, "gemm", codes)
        return replace(laid, parts={**laid.parts, "col_scale": scale})

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """See Linear."""
        y = empty(x, x.shape[0], self.n)
        q, row_scale = ops.quantize(x)
        ops.call(
            "gemm",
            f"int8->{name_of(x)}",
            {**self._flags(), "scale": "row_col"},
            {"M": x.shape[0], "N": self.n, "K": self.k},
            {"a": q, "bias": self._bias, "row_scale": row_scale, **self._w.parts},
            {"c": y},
            logical=self._w.logical,
        )
        return y


class Routed(Linear):
    """W8A8 with bf16 weights beside the int8 ones: each row takes those that a selection says.

    `words` are the selection, read anew by every call, and `counts` int32 [3] is written by it: see
    kernels/mask_gemm. Activations are bf16; whose token a row is stands in `ops.owner`.
    """

    def __init__(
        self,
        ops: Ops,
        w: Tensor | Weight,
        bias: Tensor | None,
        layer: int,
        words: Tensor,
        counts: Tensor,
    ) -> None:
        laid = w if isinstance(w, Weight) else self.lay(ops, w)
        super().__init__(laid, None if bias is None else bias.float())
        self._layer, self._words, self._counts = layer, words, counts

    @staticmethod
    def lay(ops: Ops, w: Tensor) -> Weight:
        """What a call reads of W [N,K], rounded to int8 and to bf16."""
        codes, scale = rounded(w)
        b8, b16 = (Weight.of(ops, "mask_gemm", v) for v in (codes, w.to(torch.bfloat16)))
        parts = {"b8": b8.parts["b"], "b16": b16.parts["b"], "col_scale": scale}
        return replace(b8, parts=parts, logical={})

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """See Linear."""
        y = empty(x, x.shape[0], self.n)
        q, row_scale = ops.quantize(x)
        ops.call(
            "mask_gemm",
            name_of(x),
            {**self._flags(), "layer": str(self._layer)},
            {"M": x.shape[0], "N": self.n, "K": self.k, "W": len(self._words)},
            {"a8": q, "a": x, "row_scale": row_scale, "bias": self._bias, **self._w.parts}
            | {"selection": self._words, "owner": ops.owner},
            {"c": y, "counts": self._counts},
        )
        return y


class Grouped4(Linear):
    """W4A16 on the codes of a GGUF Q4_1 tensor: bit for bit what its dequantisation gives; W4A8 with `int8`.

    Codes of 8 bits come as [N,2K] of their halves (see Checkpoint.q4), which `x` is repeated for.
    """

    def __init__(
        self, ops: Ops, w: Q4 | Weight, bias: Tensor | None = None, int8: bool = False
    ) -> None:
        laid = w if isinstance(w, Weight) else self.lay(ops, w)
        super().__init__(laid, bias.float() if int8 and bias is not None else bias)
        self._int8 = int8

    @staticmethod
    def lay(ops: Ops, w: Q4) -> Weight:
        """What a call reads of the codes."""
        n, k = w.codes.shape
        shared = {"scale": w.scale, "minimum": w.minimum}
        if ops.backends.of("gemm_w4") == "host":
            parts = {name: group_panels(value) for name, value in shared.items()}
            return Weight(n, k, "panel16", parts | {"b": code_panels(w.codes)})
        codes = w.codes.int()
        parts = shared | {"b": formats.codes_to_rows(codes, {})}
        return Weight(n, k, "rows", parts, {"b": codes, **shared})

    def __call__(self, ops: Ops, x: Tensor) -> Tensor:
        """See Linear."""
        y = empty(x, x.shape[0], self.n)
        precision, row_scale = name_of(x), None
        if self._int8:
            precision = f"int8->{precision}"
            x, row_scale = ops.quantize(x)
        if self.k > x.shape[1]:
            once, x = x, empty(x, x.shape[0], self.k)
            ops.between(partial(torch.cat, [once] * (self.k // once.shape[1]), dim=1, out=x))
        flags = {**self._flags(), "group": str(GROUP), "zero": "min"}
        flags |= {"activations": "int8" if self._int8 else "float"}
        ops.call(
            "gemm_w4",
            precision,
            flags,
            {"M": x.shape[0], "N": self.n, "K": self.k, "G": -(-self.k // GROUP)},
            {"a": x, "row_scale": row_scale, "bias": self._bias, **self._w.parts},
            {"c": y},
            logical=self._w.logical,
        )
        return y
