"""beam_topk as engines do it without one: a softmax over the row, then a top-k; ONNX Runtime and torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tilewright.errors import Unavailable
from tilewright.peers import Peer, module, tried

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs

Call = Callable[[], tuple[Tensor, ...]]


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """ONNX Runtime's LogSoftmax and TopK in one graph (fp32), and torch's log_softmax and topk."""
    if 0 in (case.sizes["B"], case.sizes["V"], case.sizes["K"]):
        return []
    softmax = "LogSoftmax, TopK" if case.flags["softmax"] == "row" else "TopK, Softmax"
    return [
        Peer("onnxruntime", softmax, lambda: _onnxruntime(case, inputs, threads)),
        Peer("torch", f"{softmax}, of torch", lambda: _torch(case, inputs)),
    ]


def _logits(case: Case, inputs: Inputs, who: str) -> Tensor:
    logits = inputs.physical["logits"]
    if logits is None or case.precision == "int8" or case.flags["step"] == "yes":
        raise Unavailable(f"{who} has no top-k of int8 logits and no beam step")
    return logits


def _torch(case: Case, inputs: Inputs) -> Call:
    logits, k = _logits(case, inputs, "torch"), case.sizes["K"]
    temperature = case.number("temperature")

    def row() -> tuple[Tensor, ...]:
        scaled = logits if temperature == 1 else logits / temperature
        best, ids = torch.topk(torch.log_softmax(scaled, dim=1, dtype=torch.float32), k)
        return ids.to(torch.int32), best.exp()

    def survivors() -> tuple[Tensor, ...]:
        best, ids = torch.topk(logits, k)
        return ids.to(torch.int32), torch.softmax(best.float() / temperature, dim=1)

    return tried(row if case.flags["softmax"] == "row" else survivors)


def _onnxruntime(case: Case, inputs: Inputs, threads: int) -> Call:
    logits = _logits(case, inputs, "ONNX Runtime")
    runtime, onnx = module("onnxruntime", "onnxruntime"), module("onnxruntime", "onnx")
    if case.precision != "fp32" or case.number("temperature") != 1:
        raise Unavailable("ONNX Runtime is met in fp32 at a temperature of 1")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    graph = _graph(onnx, case)
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    given = {"x": logits.contiguous().numpy()}

    def call() -> tuple[Tensor, ...]:
        ids, weights = (torch.from_numpy(v) for v in session.run(["ids", "probs"], given))
        return ids.to(torch.int32), weights.exp() if case.flags["softmax"] == "row" else weights

    return tried(call, "ONNX Runtime")


def _graph(onnx: Any, case: Case) -> bytes:
    """`ids`, and as `probs` the logarithms of probabilities over the row or a softmax of the survivors."""
    helper, proto, k = onnx.helper, onnx.TensorProto, case.sizes["K"]
    if case.flags["softmax"] == "row":
        nodes = [
            helper.make_node("LogSoftmax", ["x"], ["y"], axis=-1),
            helper.make_node("TopK", ["y", "k"], ["probs", "ids"]),
        ]
    else:
        nodes = [
            helper.make_node("TopK", ["x", "k"], ["y", "ids"]),
            helper.make_node("Softmax", ["y"], ["probs"], axis=-1),
        ]
    shape, results = (case.sizes["B"], case.sizes["V"]), (case.sizes["B"], k)
    graph = helper.make_graph(
        nodes,
        "topk",
        [helper.make_tensor_value_info("x", proto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("ids", proto.INT64, results),
            helper.make_tensor_value_info("probs", proto.FLOAT, results),
        ],
        initializer=[helper.make_tensor("k", proto.INT64, [1], [k])],
    )
    opsets = [helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return model
