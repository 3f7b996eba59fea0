"""Keys and values of every layer in pages of 16 tokens, written and read through the ops."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tilewright.engine.batch import Batch, alone
from tilewright.engine.calls import empty
from tilewright.engine.kv_formats import KvFormat, lay_out, parts_of
from tilewright.engine.kv_open import OpenPages, Pass
from tilewright.engine.kv_residuals import clear, encode
from tilewright.engine.ops import Ops, name_of
from tilewright.errors import UsageError
from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._kv.reference import Stored, decode
from tilewright.models.config import ModelConfig
from tilewright.registry import family

FLOATS = KvFormat()
# Static scales of keys and of values, each [layers,HKV,D] fp32.
Scales = tuple[Tensor, Tensor]


class KvCache:
    """Pages in one format for each layer; a page has the same number in all layers.

    `dtype` is that of keys and values that come in. `rows` requests are computed at once without other
    memory being taken. c8s needs `scales`. Raises UsageError without them, or for heads the format has not.
    """

    def __init__(
        self,
        config: ModelConfig,
        pages: int,
        dtype: torch.dtype,
        form: KvFormat = FLOATS,
        rows: int = 16,
        scales: Scales | None = None,
    ) -> None:
        self.pages, self.heads, self.width = pages, config.kv_heads, config.head_dim
        self.form, self.dtype, self.residual_pages = form, dtype, 0
        self.quotas = form.quotas(self.heads)
        parts = parts_of(config, pages, dtype, form, rows)
        self.tensors = lay_out(config.layers, parts)
        self._by_page = [name for name, part in parts.items() if part.by == "P"]
        if form.kv == "c8s":
            if scales is None:
                raise UsageError("c8s keys and values need static scales; accepted: c8d without")
            for side, scale in zip("kv", scales, strict=True):
                self.tensors[f"{side}_channel_scale"].copy_(scale)
        windows = {n: self.tensors.pop(n) for n in [*self.tensors] if n.endswith("_open")}
        self._open = OpenPages(windows) if windows else None
        self._pass: Pass | None = None
        self._layers = [{n: t[i] for n, t in self.tensors.items()} for i in range(config.layers)]
        self._sides = [[_side(own, f"{s}_") for s in "kv"] for own in self._layers]
        spec = family("kv_write").spec
        self._scales = [t.name for t in spec.inputs if t.name in self.tensors]
        self._written = [t.name for t in spec.outputs if t.name in self.tensors]
        self._closing: tuple[Tensor, Tensor] | None = None
        static = b"".join(self.tensors[name].numpy().tobytes() for name in self._scales)
        # Keeps prefixes of this cache apart from those of another format, or of other scales.
        self.salt = form.salt + hashlib.blake2b(static, digest_size=8).digest()

    @property
    def moved(self) -> int:
        """How often captured passes became void because memory moved."""
        return self._open.moved if self._open else 0

    @property
    def carried(self) -> int:
        """How often floats of an open page followed their request to another place in a pass."""
        return self._open.carried if self._open else 0

    @property
    def windows(self) -> dict[str, Tensor]:
        """Floats [layers,rows,16,HKV,D] of pages that are not full, where the format needs them."""
        return self._open.windows if self._open else {}

    def reserve(self, rows: int) -> None:
        """Make room for passes of so many requests; see `moved`."""
        if self._open:
            self._open.reserve(rows)

    def begin(self, batch: Batch) -> None:
        """Before the first layer of a pass, and before a captured one is replayed."""
        if self._open is None:
            return
        self._pass = self._open.begin(batch)
        if self.quotas[0] and self._pass.fresh:
            clear(self.tensors, self._pass.fresh)

    def probe(self, ops: Ops, queries: int) -> None:
        """Run each op on a token of nobody, with so many query heads; the cache stays as it was.

        Raises Refused with the sentence of a backend that has not this format.
        """
        before = {name: whole[0].clone() for name, whole in self.tensors.items()}
        batch = replace(alone([0]), slots=torch.tensor([-1], dtype=torch.int32))
        q = torch.zeros(1, queries, self.width, dtype=self.dtype)
        k = q[:, : self.heads]
        self.begin(batch)
        self.write(ops, 0, k, k, batch)
        self.attend(ops, 0, q, batch, 1.0)
        if self.quotas[0]:
            pages = torch.zeros(1, PAGE, self.heads, self.width, dtype=self.dtype)
            self._close(ops, 0, (pages, pages), torch.zeros(1, dtype=torch.int32))
            self.residual_pages = 0
        for name, value in before.items():
            self.tensors[name][0] = value

    def keep(self, pages: Iterable[int]) -> None:
        """`pages` are those begun and not full that somebody owns: what is kept of others goes."""
        if self._open:
            self._open.keep(pages)

    def write(self, ops: Ops, layer: int, k: Tensor, v: Tensor, batch: Batch) -> None:
        """Keys and values [T,HKV,D] of a layer to their slots."""
        own, step = self._layers[layer], self._pass
        count = batch.seq_lens.shape[0]
        sizes = {"T": k.shape[0], "HKV": self.heads, "DK": self.width, "DV": self.width}
        sizes |= {"P": self.pages, "NS": count}
        inputs: dict[str, Tensor | None] = {"k": k, "v": v, **{n: own[n] for n in self._scales}}
        outputs = {n: own[n] for n in self._written}
        if self.form.kv == "kv4" and step:
            outputs["k_open"] = self.windows["k_open"][layer, :count]
            inputs["open_row"] = step.rows
        precision = self._precision(k)
        logical = self._logical(ops, "kv_write", own)
        if self.quotas[0] and step:
            self._closing = self._full(layer, k, v, step)
        for slots in step.slots if step else (batch.slots,):
            inputs = {**inputs, "slots": slots}
            ops.call("kv_write", precision, self.form.flags, sizes, inputs, outputs, logical)
        if self.quotas[0] and step:
            windows = [self.windows[f"{side}_open"][layer] for side in "kv"]
            inputs = {"k": k, "v": v, "slots": step.window}
            outputs = dict(zip(("k_cache", "v_cache"), windows, strict=True))
            sizes["P"] = len(windows[0])
            ops.call("kv_write", name_of(k), FLOATS.flags, sizes, inputs, outputs)

    def attend(self, ops: Ops, layer: int, q: Tensor, batch: Batch, scale: float) -> Tensor:
        """o[T,HQ,D]: each query over its request's tokens up to its own."""
        o, own = empty(q, *q.shape), self._layers[layer]
        count, pages = batch.block_table.shape
        sizes = {"TQ": q.shape[0], "HQ": q.shape[1], "HKV": self.heads, "DK": self.width}
        sizes |= {"DV": self.width, "NS": count, "P": self.pages, "MP": pages}
        sizes |= {"R": self.pages * self.quotas[0], "F": self.pages * self.quotas[1]}
        inputs = {"q": q, "cu_q": batch.cu_q, "seq_lens": batch.seq_lens}
        inputs |= {"block_table": batch.block_table, **own}
        if self.form.kv == "kv4":
            inputs["k_open"] = self.windows["k_open"][layer, :count]
        flags = self.form.flags | {"residual": self.form.residual, "scale": repr(scale)}
        logical = self._logical(ops, "paged_attention", own)
        ops.call("paged_attention", self._precision(q), flags, sizes, inputs, {"o": o}, logical)
        if self._closing and self._pass:
            self._close(ops, layer, self._closing, self._pass.closing)
        return o

    def settle(self, ops: Ops) -> None:
        """After a captured pass was replayed: pages that it filled get their residuals."""
        if (
            self._open is None
            or not self.quotas[0]
            or not self._pass
            or not len(self._pass.closing)
        ):
            return
        places = self._pass.sources[:, :1] + torch.arange(PAGE)  # all of them are in the window now
        for layer in range(len(self._layers)):
            k, v = (self.windows[f"{s}_open"][layer].flatten(0, 1)[places] for s in "kv")
            self._close(ops, layer, (k, v), self._pass.closing)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy pages that are not full, of every layer, from the first of each pair to the second.

        They have no residuals yet.
        """
        if not pairs:
            return
        source, target = (torch.tensor(side) for side in zip(*pairs, strict=True))
        for whole in (self.tensors[name] for name in self._by_page):
            whole[:, target] = whole[:, source]
        if self._open:
            self._open.copy(pairs)

    def floats(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [P,16,HKV,D] fp32 that the pages of a layer stand for, as attention reads them now."""
        found = []
        for key, side in zip((True, False), self._sides[layer], strict=True):
            parts = {n: t for n, t in side.items() if n != "codes"}
            codes = self.form.nd(side["codes"], self.width)
            found.append(decode(Stored(codes, **parts), self.form.kv, self.form.residual, key))
        if self.form.kv == "kv4" and self._open:
            for row, page in enumerate(self._open.pages):
                if page >= 0:
                    found[0][page] = self.windows["k_open"][layer, row].float()
        return found[0].float(), found[1].float()

    def _full(self, layer: int, k: Tensor, v: Tensor, step: Pass) -> tuple[Tensor, Tensor] | None:
        """Floats [N,16,HKV,D] of pages that are full with this pass, before the window takes others."""
        if not len(step.closing):
            return None
        own = (self.windows[f"{side}_open"][layer].flatten(0, 1) for side in "kv")
        both = [torch.cat([w, x])[step.sources] for w, x in zip(own, (k, v), strict=True)]
        return both[0], both[1]

    def _close(self, ops: Ops, layer: int, floats: tuple[Tensor, Tensor], pages: Tensor) -> None:
        for key, side, x in zip((True, False), self._sides[layer], floats, strict=True):
            encode(ops, self.form, side, x, pages, key)
        self.residual_pages += len(pages)

    def _precision(self, x: Tensor) -> str:
        return name_of(x) if self.form.kv == "float" else f"{name_of(x)}-{self.form.kv}"

    def _logical(self, ops: Ops, op: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Pages as the reference takes them, where it is the one that is called."""
        if self.form.layout == "nd" or ops.backends.of(op) != "reference":
            return {}
        return {name: self.form.nd(own[name], self.width) for name in ("k_cache", "v_cache")}


def _side(own: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of keys or of values by the names `kv_residual` has for them."""
    return {
        name.removeprefix(prefix).replace("cache", "codes"): value
        for name, value in own.items()
        if name.startswith(prefix)
    }
