"""Other products with 4-bit weights on a processor, each as a user would call it, weights laid out once.

They take float activations. Where ours are int8, a peer is given the same values as floats, and ONNX Runtime is
asked to compute in int8 too (accuracy level 4), which includes quantising them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.errors import Unavailable
from tilewright.kernels.gemm_w4.formats import SYM_ZERO
from tilewright.peers import Call, Peer, module, tried

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs

_PREPACKED = MappingProxyType({"b_layout": "panel16"})


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """Every peer; the caller sets torch's threads to `threads` before preparing and calling."""
    if 0 in case.sizes.values():
        return []
    found = [
        Peer(
            "onnxruntime",
            "com.microsoft.MatMulNBits of ONNX Runtime, fp32 activations quantised to int8 (level 4)",
            lambda: _onnxruntime(case, inputs, threads, 4),
            _PREPACKED,
        ),
        Peer(
            "torch-int4",
            "torch.ops.aten._weight_int4pack_mm_for_cpu",
            lambda: _torch(case, inputs),
            _PREPACKED,
        ),
    ]
    if case.flags["activations"] == "float":
        found.append(
            Peer(
                "onnxruntime-fp32",
                "com.microsoft.MatMulNBits of ONNX Runtime, computing in fp32 (level 1)",
                lambda: _onnxruntime(case, inputs, threads, 1),
                _PREPACKED,
            )
        )
    return found


def _given(inputs: Inputs, name: str) -> Tensor:
    value = inputs.logical[name]
    if value is None:
        raise Unavailable(f"the case lacks {name}")
    return value


def _activations(inputs: Inputs) -> Tensor:
    a, scale = _given(inputs, "a").float(), inputs.logical.get("row_scale")
    return (a if scale is None else a * scale.float()[:, None]).contiguous()


def _bytes(codes: Tensor, per_row: int) -> Tensor:
    """[rows, n] codes to [rows, per_row] uint8, the even one in the low nibble, padded with 8."""
    room = torch.full((codes.shape[0], 2 * per_row), SYM_ZERO, dtype=torch.uint8)
    room[:, : codes.shape[1]] = codes.to(torch.uint8)
    return room[:, ::2] | room[:, 1::2] << 4


def _onnxruntime(case: Case, inputs: Inputs, threads: int, level: int) -> Call:
    if case.flags["zero"] == "min":
        raise Unavailable(
            "ONNX Runtime's MatMulNBits on processors takes codes as zero points, no minima"
        )
    runtime, onnx = module("onnxruntime", "onnxruntime"), module("onnxruntime", "onnx")
    sizes, group = case.sizes, int(case.flags["group"])
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    b = _bytes(_given(inputs, "b"), sizes["G"] * group // 2).view(
        sizes["N"], sizes["G"], group // 2
    )
    constants = {"B": b, "scales": _given(inputs, "scale").float()}
    if case.flags["zero"] == "asym":
        constants["zero"] = _bytes(_given(inputs, "zero"), -(-sizes["G"] // 2))
    if case.flags["bias"] == "yes":
        constants["bias"] = _given(inputs, "bias").float()
    zero, bias = (n if n in constants else "" for n in ("zero", "bias"))
    node = helper.make_node(
        "MatMulNBits", ["A", "B", "scales", zero, "", bias], ["C"], domain="com.microsoft",
        K=sizes["K"], N=sizes["N"], bits=4, block_size=group, accuracy_level=level,
    )  # fmt: skip
    real = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "gemm_w4",
        [helper.make_tensor_value_info("A", real, (sizes["M"], sizes["K"]))],
        [helper.make_tensor_value_info("C", real, None)],
        initializer=[
            numpy_helper.from_array(v.contiguous().numpy(), n) for n, v in constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except runtime.capi.onnxruntime_pybind11_state.Fail as error:
        raise Unavailable(f"ONNX Runtime does not take this case here: {error}") from None
    feed = {"A": _activations(inputs).numpy()}
    return tried(lambda: torch.from_numpy(session.run(["C"], feed)[0]), "ONNX Runtime")


def _torch(case: Case, inputs: Inputs) -> Call:
    """Its weights are (code - 8) * scale + zero, which says all of ours."""
    if case.flags["bias"] == "yes":
        raise Unavailable("torch's product with 4-bit weights adds no bias")
    group = int(case.flags["group"])
    if case.sizes["K"] % group:
        raise Unavailable(f"torch takes whole groups, K={case.sizes['K']} has none of {group}")
    scale, zero = _given(inputs, "scale").float(), torch.zeros(())
    if case.flags["zero"] == "asym":
        zero = (SYM_ZERO - _given(inputs, "zero").float()) * scale
    if case.flags["zero"] == "min":
        zero = _given(inputs, "minimum").float() + SYM_ZERO * scale
    a = _activations(inputs)
    if case.flags["activations"] == "float":
        a = a.to(_given(inputs, "a").dtype)
    both = (
        torch.stack((scale, zero.expand_as(scale)), dim=-1).transpose(0, 1).contiguous().to(a.dtype)
    )
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(
            _given(inputs, "b").to(torch.int32), 1
        )
    except RuntimeError as error:
        raise Unavailable(f"torch cannot pack these weights: {error}") from None
    multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
    return tried(lambda: multiply(a, packed, group, both))
