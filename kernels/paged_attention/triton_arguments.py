"""The arguments of the compiled paged attention kernels: which of a format's tensors they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tilewright.aot.source import KernelArg, Requirement, argument

_POOLS = ("mask", "rank", "pool", "pool_scale", "fmask", "frank", "fpool")
# Tensors that the kernel takes dense, in its order.
DENSE = (
    *("k_channel_scale", "k_token_scale", "k_page_scale", "k_page_zero"),
    *("v_channel_scale", "v_token_scale", "v_token_zero", "k_open"),
    *(f"{prefix}_{name}" for prefix in "kv" for name in _POOLS),
    "alibi",
)
_OF_FORMAT: Mapping[str, tuple[str, ...]] = {
    "float": (),
    "c8s": ("k_channel_scale", "v_channel_scale"),
    "c8d": ("k_token_scale", "v_token_scale"),
    "kv4": ("k_page_scale", "k_page_zero", "v_token_scale", "v_token_zero", "k_open"),
}
_KINDS = {"mask": "int16", "rank": "int32", "pool": "int16", "fmask": "int16", "frank": "int32"}
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "int16": 2}
# Axes of page, token, head and block of lanes.
_PAGE_AXES = {"nd": {"p": 0, "t": 1, "h": 2}, "nz": {"p": 0, "t": 3, "h": 1, "b": 2}}


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments for queries of `compute`, a cache of `stored` lanes, and the format of `flags`."""

    compute: str
    stored: str
    flags: Mapping[str, str]
    aligned: bool

    def kernel(self, split: bool) -> tuple[KernelArg, ...]:
        """Of the first kernel: with `split` it writes into the workspace."""
        latent = self.flags.get("values") == "latent"
        values = argument(
            "v_cache", f"*{self.stored}", f"data:{'k' if latent else 'v'}_cache", self._by(16)
        )
        return (
            argument("q", f"*{self.compute}", "data:q", self._by(16)),
            *(argument(n, "*int32", f"data:{n}") for n in ("cu_q", "seq_lens", "block_table")),
            argument("k_cache", f"*{self.stored}", "data:k_cache", self._by(16)),
            values,
            *(
                argument(n, f"*{self._kind(n)}", f"data:{n}", nullable=n == "alibi")
                for n in self._dense()
            ),
            *self._outputs(),
            *((argument("partial", "*fp32", "workspace", 16),) if split else ()),
            argument("scale", "fp32", "number:scale"),
            argument("softcap", "fp32", "number:softcap"),
            argument("window", "int32", "number:window"),
            argument("TQ", "int32", "size:q:0"),
            argument("HQ", "int32", "size:q:1"),
            argument("HKV", "int32", f"size:k_cache:{self._axes()['h']}"),
            argument("NS", "int32", "size:block_table:0"),
            *self._strides("q", "q", {"t": 0, "h": 1}, self.compute),
            argument("stride_bt", "int64", "stride:block_table:0"),
            *self._strides("k", "k_cache", self._axes(), self.stored),
            *self._strides("v", "k_cache" if latent else "v_cache", self._axes(), self.stored),
            *self._output_strides(),
        )

    def merge(self) -> tuple[KernelArg, ...]:
        """Of the second."""
        return (
            argument("partial", "*fp32", "workspace", 16),
            *self._outputs(),
            argument("HQ", "int32", "size:q:1"),
            argument("MP", "int32", "size:block_table:1"),
            *self._output_strides(),
        )

    def unused(self) -> tuple[str, ...]:
        """Parameters of the first kernel that only some layouts have."""
        return ("stride_kb", "stride_vb")

    def requirements(self, given: Iterable[str]) -> tuple[Requirement, ...]:
        """What the kernel takes for granted of its tensors."""
        last = 4 if self.flags.get("kv_layout") == "nz" else 3
        units = {"q": 2, "o": 2, "cu_q": 0, "seq_lens": 0, "block_table": 1}
        units |= {name: last for name in ("k_cache", "v_cache") if self._is_there(name)}
        dense = [name for name in DENSE if name in given]
        return (
            *(Requirement(f"stride:{name}:{axis}", "equals", 1) for name, axis in units.items()),
            *(Requirement(f"dense:{name}", "equals", 1) for name in dense),
        )

    def _is_there(self, name: str) -> bool:
        return name == "k_cache" or self.flags.get("values") != "latent"

    def _by(self, nbytes: int) -> int:
        return nbytes if self.aligned else 1

    def _axes(self) -> Mapping[str, int]:
        return _PAGE_AXES[self.flags.get("kv_layout", "nd")]

    def _dense(self) -> tuple[str, ...]:
        residual = self.flags.get("residual", "none")
        names = {"alibi", *_OF_FORMAT[self.flags["kv"]]}
        if residual != "none":
            pools = [name for name in _POOLS if name != "pool_scale" or residual == "e3m0"]
            names |= {f"{prefix}_{name}" for prefix in "kv" for name in pools}
        return tuple(name for name in DENSE if name in names)

    def _kind(self, name: str) -> str:
        if name == "k_open" or name.endswith("fpool"):
            return self.compute
        if self.flags["kv"] == "kv4" and name.endswith(("token_scale", "page_scale", "zero")):
            return "fp16"
        return _KINDS.get(name[2:], "fp32")

    def _strides(
        self, letter: str, tensor: str, axes: Mapping[str, int], kind: str
    ) -> tuple[KernelArg, ...]:
        step = self._by(16) // _BYTES[kind] if self.aligned else 1
        return tuple(
            argument(f"stride_{letter}{name}", "int64", f"stride:{tensor}:{axis}", step)
            for name, axis in sorted(axes.items(), key=lambda item: "pthb".index(item[0]))
        )

    def _outputs(self) -> tuple[KernelArg, ...]:
        return (
            argument("o", f"*{self.compute}", "data:o", self._by(16)),
            argument("lse", "*fp32", "data:lse", nullable=True),
        )

    def _output_strides(self) -> tuple[KernelArg, ...]:
        return (
            *self._strides("o", "o", {"t": 0, "h": 1}, self.compute),
            argument("stride_lse_t", "int64", "stride:lse:0"),
            argument("stride_lse_h", "int64", "stride:lse:1"),
        )
