"""A Transformer of a checkpoint, its weights in one of the formats the engine runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tilewright.engine.experts import Experts, Stacked
from tilewright.engine.kept import Kept
from tilewright.engine.layout import finite
from tilewright.engine.linear import GROUP, Dense, Grouped4, Int8, Linear, Routed, Weight
from tilewright.engine.ops import Ops
from tilewright.engine.routing import Router
from tilewright.engine.transformer import Feed, Layer, Transformer
from tilewright.errors import TilewrightError, UsageError, unknown
from tilewright.models.checkpoint import Q4, Checkpoint, check_shapes, shapes

FORMATS = ("fp32", "bf16", "w8a8", "q4_1", "w4a8")
OWN = ("q4_1", "w4a8")  # the codes of the file
ROUTED = "routed"  # w8a8, with bf16 weights beside it where a Router keeps them


class BadWeights(TilewrightError):
    """A tensor of a model holds NaN or infinity."""


def build(
    checkpoint: Checkpoint,
    ops: Ops,
    form: str = "fp32",
    dtype: str = "",
    router: Router | None = None,
) -> Transformer:
    """Read, check and lay out every tensor, or map what was laid out before: see `Kept`.

    `form` of linears: fp32, bf16, w8a8 (int8 by rounding to nearest), q4_1 (the file's own codes),
    w4a8 (those, with activations rounded to int8 token by token), routed (w8a8 with what `router` keeps in bf16 beside it).
    `dtype` of activations: fp32 or bf16; by default fp32 for fp32 and q4_1, else bf16. The
    embedding and norms are of that type; the output projection of w8a8 is int8 too,
    that of q4_1 and w4a8 has the file's 8-bit codes if it is stored so.

    Raises UsageError for a format there is none of or that the file has not, BadModelFile for a tensor
    that is missing or has another shape, BadWeights for NaN; nothing is half loaded.
    """
    if form not in (*FORMATS, ROUTED):
        raise unknown("format of weights", form, list(FORMATS))
    dtype = dtype or ("fp32" if form in ("fp32", "q4_1") else "bf16")
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if dtype not in kinds:
        raise unknown("type of activations", dtype, list(kinds))
    if (form == ROUTED) != (router is not None):
        raise UsageError(f"{form} weights; accepted: {ROUTED} with a file of sensitive layers")
    if router and dtype != "bf16":
        raise UsageError(f"{dtype} activations with {ROUTED} weights; accepted: bf16")
    check_shapes(checkpoint)
    # Other backends than the host's take rows, of models so small that nothing is worth keeping.
    host = {ops.backends.of(op) for op in ("gemm", "gemm_w4", "mask_gemm")} == {"host"}
    more = (router.resident,) if router else ()
    kept = Kept(checkpoint.files() if host else (), form, kinds[dtype], checkpoint.config, *more)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small steps, for which threads would wait longer than they work
    try:
        return _Builder(checkpoint, ops, form, kinds[dtype], kept, router).model()
    finally:
        torch.set_num_threads(threads)


class _Builder:
    def __init__(
        self,
        checkpoint: Checkpoint,
        ops: Ops,
        form: str,
        dtype: torch.dtype,
        kept: Kept,
        router: Router | None,
    ) -> None:
        self._from, self._ops, self._form, self._dtype = checkpoint, ops, form, dtype
        self._kept, self._router, self._shapes = kept, router, shapes(checkpoint.config)
        self._read: dict[str, Tensor] = {}  # what two places of the model take

    def model(self) -> Transformer:
        config = self._from.config
        embedding = self._kept.parts("embed", lambda: {"rows": self._plain("embed")})["rows"]
        self._read["embed"] = embedding
        head = self._linear(["embed" if config.tied else "head"])
        layers = [self._layer(f"layers.{i}.") for i in range(config.layers)]
        made = Transformer(config, embedding, layers, self._plain("norm"), head, self._form)
        self._kept.save()
        return made

    def _layer(self, at: str) -> Layer:
        config = self._from.config
        bias = torch.cat([self._plain(f"{at}{n}_bias") for n in "qkv"]) if config.qkv_bias else None
        q_norm, k_norm = (self._plain(f"{at}{n}_norm") if config.qk_norm else None for n in "qk")
        return Layer(
            attn_norm=self._plain(at + "attn_norm"),
            qkv=self._linear([at + n for n in "qkv"], bias),
            o=self._linear([at + "o"]),
            ffn_norm=self._plain(at + "ffn_norm"),
            feed=self._experts(at) if config.experts else self._feed(at),
            q_norm=q_norm,
            k_norm=k_norm,
        )

    def _feed(self, at: str) -> Feed:
        return Feed(self._linear([at + "gate", at + "up"]), self._linear([at + "down"]))

    def _experts(self, at: str) -> Experts:
        """Experts are kept in the type of the activations, whatever the format."""
        config, numbers = self._from.config, range(self._from.config.experts)
        both = [
            torch.cat([self._plain(f"{at}experts.{e}.{n}") for n in ("gate", "up")])
            for e in numbers
        ]
        down = [self._plain(f"{at}experts.{e}.down") for e in numbers]
        return Experts(
            Dense(self._ops, self._plain(at + "router")),
            Stacked(self._ops, both),
            Stacked(self._ops, down),
            config.experts_used,
            config.norm_topk,
        )

    def _linear(self, names: Sequence[str], bias: Tensor | None = None) -> Linear:
        """One linear of several behind each other."""
        ops, n = self._ops, sum(self._shapes[name][0] for name in names)
        made: list[Weight] = []

        def parts() -> dict[str, Tensor]:
            codes = self._codes(names) if self._form in OWN else None
            if codes is not None:
                made.append(Grouped4.lay(ops, codes))
            else:
                w = [self._plain(name) for name in names]
                lay = Routed.lay if routed else kind.lay
                made.append(lay(ops, torch.cat(w) if len(w) > 1 else w[0]))
            return dict(made[0].parts)

        routed = self._router.place(names[0]) if self._router else None
        kind = Int8 if self._form in ("w8a8", ROUTED) else Dense
        found = self._kept.parts(" ".join(names) + " laid", parts)
        grouped, k = "minimum" in found, self._shapes[names[0]][1]
        if grouped and not made:
            k = GROUP * found["scale"].shape[1]
        # What is kept is what the host reads.
        w = made[0] if made else Weight(n, k, "panel16", found)
        if routed:
            return Routed(ops, w, bias, *routed)
        if grouped:
            return Grouped4(ops, w, bias, int8=self._form == "w4a8")
        return kind(ops, w, bias)

    def _codes(self, names: Sequence[str]) -> Q4 | None:
        """None: an output projection in floats."""
        parts = [self._from.q4(name) for name in names]
        found = [part for part in parts if part is not None]
        if not found and names[0] in ("embed", "head"):
            return None
        if len(found) != len(parts):
            raise UsageError(
                f"{names[parts.index(None)]} of {self._from.path.name} is not stored as Q4_1; "
                f"accepted formats: {', '.join(f for f in FORMATS if f not in OWN)}"
            )
        for name, part in zip(names, found, strict=True):
            _finite(name, part.scale)
            _finite(name, part.minimum)
        return Q4(*(torch.cat([getattr(p, n) for p in found]) for n in Q4.__slots__))

    def _plain(self, name: str) -> Tensor:
        if name in self._read:
            return self._read[name]
        return _finite(name, self._from.tensor(name)).to(self._dtype).contiguous()


def _finite(name: str, value: Tensor) -> Tensor:
    if not finite(value):
        bad = int((~torch.isfinite(value)).sum())
        raise BadWeights(f"{name} holds {bad} values that are NaN or infinite of {value.numel()}")
    return value
