"""The built-in torch ops: opcheck, compile, export, values against the reference, and the border's sentences."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tilewright import native, registry
from tilewright.bindings.torch.ops import torch_op
from tilewright.cases import Case
from tilewright.inputs import draw, reference_outputs
from tilewright.numerics import compare
from tilewright.registry import family
from tilewright.targets import CPU

pytestmark = pytest.mark.skipif(
    "ops" not in native.library_paths(), reason="_ops.abi3.so is not built; run `make setup`"
)
GEMM = family("gemm")
SIZES = {"M": 5, "N": 19, "K": 33}


@pytest.fixture(scope="module")
def op() -> Callable[..., Any]:
    return torch_op(GEMM)


def call(case: Case, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the op for a case."""
    inputs = draw(GEMM, case, seed).physical
    out = GEMM.spec.dtype_of(GEMM.spec.outputs[0], case).torch()
    options = {n: inputs[n] for n in ("bias", "row_scale", "col_scale") if inputs[n] is not None}
    options.update(b_layout=case.flags["b_layout"], out_dtype=out)
    if case.flags["b_layout"] == "panel16":
        options["N"] = case.sizes["N"]
    return (inputs["a"], inputs["b"]), options


@pytest.mark.parametrize("precision", [p.name for p in GEMM.spec.precisions])
def test_values_against_the_reference(op: Callable[..., Any], precision: str) -> None:
    spec = GEMM.spec
    for case in spec.check_cases(spec.precision(precision), "host"):
        if case.sizes["M"] * case.sizes["N"] * case.sizes["K"] > 10**6:
            continue
        arguments, options = call(case, seed=7)
        before = [a.clone() for a in arguments]
        got = op(*arguments, **options)
        want = reference_outputs(GEMM, case, draw(GEMM, case, 7))["c"]
        result = compare(got, want, spec.tolerance.of(spec, case))
        assert result.ok, f"{case}: {result.reason}"
        assert all(torch.equal(x, y) for x, y in zip(arguments, before, strict=True))


@pytest.mark.parametrize(
    ("precision", "sizes", "flags", "memory"),
    [
        ("fp32", SIZES, {"bias": "yes"}, "dense"),
        ("fp32", {"M": 0, "N": 19, "K": 33}, {}, "dense"),
        ("fp32", {"M": 5, "N": 19, "K": 0}, {"bias": "yes"}, "dense"),
        ("bf16", SIZES, {"b_layout": "KN"}, "padded"),
        ("fp16", SIZES, {"b_layout": "panel16"}, "dense"),
        ("int8->int32", SIZES, {"bias": "yes"}, "dense"),
        ("int8->bf16", SIZES, {"scale": "row_col", "bias": "yes"}, "padded"),
        ("int8->fp16", SIZES, {"scale": "col"}, "dense"),
    ],
)
def test_opcheck(
    op: Any, precision: str, sizes: dict[str, int], flags: dict[str, str], memory: str
) -> None:
    arguments, options = call(GEMM.spec.case(sizes, precision, flags, memory))
    results = torch.library.opcheck(op.default, arguments, options)
    assert len(results) == 4 and set(results.values()) == {"SUCCESS"}


def test_compile_in_one_graph(op: Callable[..., Any]) -> None:
    compiled = torch.compile(
        lambda a, b: op(a, b).relu(), fullgraph=True, backend="aot_eager", dynamic=True
    )
    b = torch.randn(19, 33)
    for rows in (5, 9):
        a = torch.randn(rows, 33)
        assert torch.equal(compiled(a, b), op(a, b).relu())


def test_export_keeps_a_dynamic_size() -> None:
    # A fixed size would appear as a number in the exported graph's range constraints.
    op = torch_op(GEMM)

    class Linear(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = op(a, b)
            return result

    a, b = torch.randn(5, 33), torch.randn(19, 33)
    program = torch.export.export(
        Linear(), (a, b), dynamic_shapes={"a": {0: torch.export.Dim("M")}, "b": None}
    )
    longer = torch.randn(11, 33)
    assert torch.equal(program.module()(longer, b), op(longer, b))


A, B = torch.randn(5, 33), torch.randn(19, 33)


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((A, B), {"b_layout": "NN"}, "gemm: unknown b_layout 'NN'; accepted: KN, NK, panel16"),
        ((A, B[:, :32]), {}, r"b has shape \[19, 32\]; accepted: \[N, K\] with K = 33 from a"),
        ((A[0], B), {}, r"a has shape \[33\]; accepted: \[M, K\]"),
        (
            (A.half(), B),
            {},
            r"no precision for a fp16, b fp32; accepted: a fp32, b fp32, \[bias fp32\] -> fp32; ",
        ),
        ((A, B), {"out_dtype": torch.float16}, "no precision for a fp32, b fp32 -> fp16; accepted"),
        ((A, B), {"config": [32, 32]}, r"config has 2 values; accepted: 5 \(tile_m"),
        ((A, B), {"config": [31, 32, 32, 2, 1]}, r"config tile_m=31; accepted: \[8, 16"),
        (
            (A.to(torch.int8), B.to(torch.int8)),
            {"row_scale": torch.ones(5)},
            "only row_scale given; accepted: none / row_scale and col_scale / col_scale",
        ),
        (
            (A, torch.zeros(2, 33, 16, 1)),
            {"b_layout": "panel16"},
            "the tensors given do not tell N; pass N",
        ),
    ],
)
def test_the_border_refuses_in_one_sentence(
    op: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        op(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((A, B), {"b_layout": "NN"}),
        ((A, B[:, :32]), {}),
        ((A.half(), B), {}),
        ((A.to(torch.int8), B.to(torch.int8)), {"row_scale": torch.ones(5)}),
    ],
)
def test_the_fake_refuses_what_the_op_refuses(
    op: Callable[..., Any], arguments: tuple[torch.Tensor, ...], options: dict[str, Any]
) -> None:
    meta = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    with pytest.raises(ValueError, match="^gemm: "):
        op(*(a.to("meta") for a in arguments), **meta)


def test_a_config_reaches_the_kernel(op: Callable[..., Any]) -> None:
    default = GEMM.spec.default_config(CPU)
    for config in (dict(default), {**default, "tile_m": 8, "tile_n": 16, "stages": 1}):
        got = op(A, B, config=list(config.values()))
        assert torch.allclose(got, A @ B.t(), atol=1e-4)


def _symbols(path: Path, *options: str) -> str:
    command = ["objdump", "-T", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_library_exports_one_symbol_and_asks_little() -> None:
    text = _symbols(native.library("ops"))
    defined = [
        line.split()[-1] for line in text.splitlines() if " g " in line and "*UND*" not in line
    ]
    assert defined == ["PyInit__ops"]
    glibc = [tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", text)]
    assert glibc and max(glibc) <= (2, 28)
    libstdcxx = [tuple(map(int, v.split("."))) for v in re.findall(r"GLIBCXX_([\d.]+)", text)]
    assert max(libstdcxx) <= (3, 4, 24)
    families = sum(f.built_in and f.has("host.cpp") for f in registry.families().values())
    assert native.library("ops").stat().st_size < families * 2**20


def test_the_host_library_exports_its_interface_only() -> None:
    text = _symbols(native.library("host"))
    defined = [
        line.split()[-1] for line in text.splitlines() if " g " in line and "*UND*" not in line
    ]
    assert "tw_host_gemm" in defined and all(name.startswith("tw_") for name in defined)


def test_libraries_hold_no_path_of_the_machine() -> None:
    root = str(Path(__file__).resolve().parent.parent).encode()
    for kind in ("host", "ops", "twin"):
        assert root not in native.library(kind).read_bytes(), kind
