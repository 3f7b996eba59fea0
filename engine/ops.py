"""The ops of a model, each one call of a family on the backend it is assigned to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tilewright.dtypes import from_torch
from tilewright.engine.calls import Between, Call, HostRunner, Runner, empty, runner
from tilewright.errors import UsageError, unknown

# The families the engine calls: what `--backend OP=NAME` accepts.
OPS = (
    "gemm",
    "gemm_w4",
    "mask_gemm",
    "grouped_gemm",
    "quantize",
    "rmsnorm",
    "silu_mul",
    "rope",
    "kv_write",
    "kv_residual",
    "paged_attention",
    "beam_topk",
)


@dataclass(frozen=True, slots=True)
class Backends:
    """Which backend runs each op: `default`, but for those in `by_op`."""

    default: str = "host"
    by_op: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Backends:
        """From `host` or `host,rope=triton,gemm=ascendc`; raises UsageError for an op the engine lacks, or one
        that is named twice."""
        named: dict[str, str] = {}
        for part in filter(None, text.split(",")):
            left, equals, right = part.partition("=")
            op, name = (left, right) if equals else ("", part)
            if op and op not in OPS:
                raise unknown("op of the engine", op, list(OPS))
            if op in named:
                raise UsageError(
                    f"backends {named[op]} and {name} for {op or 'all ops'}; accepted: one of them"
                )
            named[op] = name
        return cls(named.pop("", "host"), named)

    def __str__(self) -> str:
        """What `parse` makes it of."""
        return ",".join([self.default, *(f"{op}={name}" for op, name in self.by_op.items())])

    def of(self, op: str) -> str:
        """The backend of an op."""
        return self.by_op.get(op, self.default)


class Ops:
    """Ops on torch tensors. Outputs are new tensors, but for `kv_write`, which changes pages in place.

    `threads` 0 is all. `invariant`: the bits of a row do not depend on its batch mates. `owner` [T] int32
    is that of the batch in hand: see Batch.
    """

    def __init__(self, backends: Backends, threads: int = 0, invariant: bool = False) -> None:
        if threads < 0:
            raise UsageError(f"threads={threads}; accepted: 1 or more, 0 for all")
        self.backends, self.threads = backends, threads
        self.after: Callable[[Call], None] | None = None  # told of each call once it ran
        self._invariant = "yes" if invariant else "no"
        self.owner: Tensor | None = None
        made: dict[str, Runner] = {}
        self._runners: dict[str, Runner] = {}
        for op in OPS:
            name = backends.of(op)
            if name not in made:
                made[name] = runner(name, threads)
            self._runners[op] = made[name]

    @property
    def host(self) -> HostRunner:
        """The runner of the host backend. Raises UsageError unless every op runs there."""
        runners = set(self._runners.values())
        one = next(iter(runners))
        if len(runners) != 1 or not isinstance(one, HostRunner):
            others = [op for op in OPS if self.backends.of(op) != "host"]
            raise UsageError(
                f"graphs, and threads that change, are of the host backend; {', '.join(others)} run elsewhere"
            )
        return one

    def call(
        self,
        op: str,
        precision: str,
        flags: Mapping[str, str],
        sizes: Mapping[str, int],
        inputs: Mapping[str, Tensor | None],
        outputs: Mapping[str, Tensor],
        logical: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Run one call; `batch_invariant` is added to the flags."""
        flags = {**flags, "batch_invariant": self._invariant}
        call = Call(op, precision, flags, sizes, inputs, outputs, logical or {})
        self._runners[op].run(call)
        if self.after is not None:
            self.after(call)

    def between(self, work: Callable[[], object]) -> None:
        """Do torch arithmetic whose inputs and outputs are tensors that stay, and do it again in a replay."""
        work()
        for one in self._runners.values():
            if isinstance(one, HostRunner) and one.recording is not None:
                one.recording.append((done := Between(work), done))
                break

    def rmsnorm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x[T,D] normed."""
        return self._rmsnorm(x, None, weight, eps, {})

    def add_rmsnorm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """h = x + residual [T,D] normed, and h."""
        h = empty(x, *x.shape)
        return self._rmsnorm(x, residual, weight, eps, {"h": h}), h

    def _rmsnorm(
        self, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, h: dict[str, Tensor]
    ) -> Tensor:
        y = empty(x, *x.shape)
        flags = {"residual": "no" if residual is None else "yes", "eps": repr(eps)}
        sizes = {"T": x.shape[0], "D": x.shape[1]}
        inputs = {"x": x, "weight": weight, "residual": residual}
        self.call("rmsnorm", name_of(x), flags, sizes, inputs, {"y": y, **h})
        return y

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up of gate_up[T,2F], the gate's columns first."""
        rows, width = gate_up.shape
        y = empty(gate_up, rows, width // 2)
        sizes = {"T": rows, "W": width}
        self.call("silu_mul", name_of(gate_up), {}, sizes, {"gate_up": gate_up}, {"y": y})
        return y

    def rope(self, x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
        """x[T,H,D] turned by the angles of its positions [T] int32, by halves (rotate-half)."""
        y = empty(x, *x.shape)
        rows, heads, width = x.shape
        sizes = {"T": rows, "H": heads, "D": width}
        sizes |= {"MAXPOS": cos_sin.shape[0], "ROT": cos_sin.shape[1]}
        inputs = {"x": x, "positions": positions, "cos_sin": cos_sin}
        self.call("rope", name_of(x), {"style": "neox"}, sizes, inputs, {"y": y})
        return y

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x[T,D] as int8 with one scale a row, fp32."""
        rows, width = x.shape
        q, scale = empty(x, rows, width, dtype=torch.int8), empty(x, rows, dtype=torch.float32)
        self.call(
            "quantize",
            name_of(x),
            {"scales": "token"},
            {"T": rows, "D": width},
            {"x": x},
            {"q": q, "token_scale": scale},
        )
        return q, scale

    def topk(self, logits: Tensor, k: int, softmax: str = "row") -> tuple[Tensor, Tensor]:
        """ids int32 and probabilities [B,k] of the k largest of logits[B,V].

        `softmax` is over the whole row, or over the survivors.
        """
        rows, vocab = logits.shape
        ids = empty(logits, rows, k, dtype=torch.int32)
        probs = empty(logits, rows, k, dtype=torch.float32)
        flags = {"softmax": softmax, "temperature": repr(1.0)}
        sizes = {"B": rows, "V": vocab, "K": k, "G": rows, "W": 1}
        self.call(
            "beam_topk",
            name_of(logits),
            flags,
            sizes,
            {"logits": logits},
            {"ids": ids, "probs": probs},
        )
        return ids, probs

    def beam_step(self, logits: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k best continuations of W beams: beam, token [k] int32 and score [k] fp32.

        logits [W,V]; scores [1,W] fp32 are log-probabilities of the beams so far.
        """
        width, vocab = logits.shape
        beams, tokens = (empty(logits, 1, k, dtype=torch.int32) for _ in range(2))
        best = empty(logits, 1, k, dtype=torch.float32)
        self.call(
            "beam_topk",
            name_of(logits),
            {"softmax": "row", "step": "yes"},
            {"B": width, "V": vocab, "K": k, "G": 1, "W": width},
            {
                "logits": logits,
                "scores": scores,
                "finished": torch.zeros(1, width, dtype=torch.int8),
            },
            {"next_beam": beams, "next_id": tokens, "next_score": best},
        )
        return beams[0], tokens[0], best[0]


def name_of(x: Tensor) -> str:
    """The name a spec has for an element type."""
    return from_torch(x.dtype).name
