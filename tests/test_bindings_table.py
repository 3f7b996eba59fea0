"""The table of ops: what it derives from a spec, and that both generators say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tilewright.bindings.python import generate as python_generator
from tilewright.bindings.table import Op, op_of
from tilewright.bindings.torch import generate as torch_generator
from tilewright.cases import Flag, points
from tilewright.dims import cdiv, dims
from tilewright.dtypes import FP16, FP32, INT8
from tilewright.errors import UsageError
from tilewright.numerics import rounding_error
from tilewright.registry import Family, families
from tilewright.space import Config
from tilewright.spec import KernelSpec, Layout, Precision, Ref, Tensor
from tilewright.tables import Entry

A, B = dims("A B")


def make(**changes: object) -> Op:
    """The op of a small spec with some fields replaced."""
    fields: dict[str, object] = {
        "name": "small",
        "summary": "y = x",
        "inputs": (Tensor("x", A, B),),
        "outputs": (Tensor("y", A, B),),
        "precisions": (Precision("fp32", {"x": FP32, "y": FP32}, FP32),),
        "cases": points({"A": 1, "B": 1}),
        "tolerance": rounding_error(),
        "flops": A * B,
        "space": {},
        "default": {},
        "reference": Ref("reference:small"),
    }
    spec = KernelSpec(**{**fields, **changes})  # type: ignore[arg-type]
    return op_of(Family(spec, Path(), "small", "test"))


def gemm() -> Op:
    return op_of(families()["gemm"])


def test_gemm_schema() -> None:
    assert gemm().schema() == (
        "gemm(Tensor a, Tensor b, *, Tensor? bias=None, Tensor? row_scale=None, "
        'Tensor? col_scale=None, str b_layout="NK", bool batch_invariant=False, '
        "ScalarType? out_dtype=None, SymInt? N=None, int[]? config=None, int threads=0) -> Tensor"
    )


def test_a_flag_that_decides_presence_is_no_argument() -> None:
    bias = Tensor("bias", B, when=("bias", ("yes",)))
    op = make(
        inputs=(Tensor("x", A, B), bias),
        flags=(Flag.yes_no("bias"), Flag("round", ("up", "down"), "down"), Flag.yes_no("relu")),
        precisions=(Precision("fp32", {"x": FP32, "bias": FP32, "y": FP32}, FP32),),
    )
    assert [f.kind for f in op.flags] == ["presence", "choice", "choice"]
    names = [a.schema() for a in op.arguments()]
    assert names == [
        "Tensor x",
        "Tensor? bias=None",
        'str round="down"',
        "bool relu=False",
        "int threads=0",
    ]


def test_a_flag_whose_values_need_the_same_tensors_stays_an_argument() -> None:
    op = make(
        inputs=(Tensor("x", A, B), Tensor("w", B, when=("mode", ("soft", "hard")))),
        flags=(Flag("mode", ("none", "soft", "hard"), "none"),),
        precisions=(Precision("fp32", {"x": FP32, "w": FP32, "y": FP32}, FP32),),
    )
    assert op.flag("mode").kind == "choice"
    assert 'str mode="none"' in op.schema()


def test_sizes_no_input_tells_are_asked_for() -> None:
    packed = {"plain": Layout((A, B)), "packed": Layout((A, cdiv(B, 4), 4))}
    flags = (Flag("x_layout", ("plain", "packed"), "plain"),)
    op = make(inputs=(Tensor("x", A, B, layouts=packed),), flags=flags)
    assert (op.asked, op.required_sizes) == (("B",), ())
    assert "SymInt? B=None" in op.schema()
    unknown = make(outputs=(Tensor("y", A, dims("C")[0]),))
    assert unknown.required_sizes == ("C",)
    assert unknown.schema().startswith("small(Tensor x, *, SymInt C,")


def test_layouts_of_other_backends_are_not_accepted() -> None:
    layouts = {"plain": Layout((A, B)), "tiled": Layout((B, A), None, ("triton",))}
    op = make(
        inputs=(Tensor("x", A, B, layouts=layouts),),
        flags=(Flag("x_layout", ("plain", "tiled"), "plain"),),
    )
    assert [one.accepted for one in op.inputs[0].layouts] == [True, False]
    assert "tiled" not in python_generator.doc(op)


def test_a_precision_narrows_flags_that_are_there() -> None:
    """One that is not would be looked up by everything that reads the table: ops, fakes, bundles."""
    narrow = Precision("fp32", {"x": FP32, "y": FP32}, FP32, flags={"residual": ("none",)})
    with pytest.raises(UsageError, match="flag that fp32 of small narrows 'residual'"):
        make(precisions=(narrow,))


def test_out_dtype_only_where_inputs_leave_it_open() -> None:
    assert not make().chooses_out_dtype
    op = make(
        precisions=(
            Precision("int8->fp32", {"x": INT8, "y": FP32}, FP32),
            Precision("int8->fp16", {"x": INT8, "y": FP16}, FP32),
        )
    )
    assert "ScalarType? out_dtype=None" in op.schema()


def test_several_outputs_return_a_tuple() -> None:
    op = make(
        outputs=(Tensor("y", A, B), Tensor("top", A)),
        precisions=(Precision("fp32", {"x": FP32, "y": FP32, "top": FP32}, FP32),),
    )
    assert op.schema().endswith("-> (Tensor, Tensor)")
    assert "std::tuple<Tensor, Tensor> small(" in torch_generator.source([op], "ns", "mod")


def test_the_table_is_json() -> None:
    table = json.loads(json.dumps(gemm().as_dict()))
    b = next(t for t in table["tensors"] if t["name"] == "b")
    assert b["layouts"][2]["shape"] == ["cdiv(N, 16)", "cdiv(K, KR)", "16", "KR"]
    assert table["schema"] == gemm().schema()


@pytest.mark.parametrize("name", [n for n, f in families().items() if f.has("host.cpp")])
def test_both_generators_say_what_the_table_says(name: str) -> None:
    op = op_of(families()[name])
    python = python_generator.source([op])
    torch = torch_generator.source([op], "space", "module")
    registered = python[python.index("ops.def(") :]
    assert re.findall(r'py::arg\("(\w+)"\)', registered) == [a.name for a in op.raw_arguments()]
    schema = re.search(r'm\.def\("(.*)"\);', torch)
    assert schema is not None and schema[1].replace('\\"', '"') == op.schema()
    tables = [text[text.index(f"namespace {name}_op {{") :] for text in (python, torch)]
    cut = [text[: text.index("constexpr OpSpec spec")] for text in tables]
    assert cut[0] == cut[1], "one table of C++ data serves both"


def test_tuned_configs_are_data_of_the_generated_source() -> None:
    entry = Entry(
        (64, 1536, 576),
        "bf16",
        {"b_layout": "NK"},
        Config(tile_m=64, tile_n=128, tile_k=256, stages=1),
        level="amx",
    )
    op = op_of(families()["gemm"], [entry])
    text = torch_generator.source([op], "ns", "ns")
    assert "t0_bucket[] = {64, 1536, 576}" in text
    assert "t0_config[] = {64, 128, 256, 1, 1}" in text
    assert '{"amx", 1, t0_flags, 32, t0_bucket, t0_config}' in text
    # What the tiling says follows, for any level.
    assert '{"", 1, t' in text and len(op.tiling) > 0
