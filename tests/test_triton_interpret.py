"""The interpreter beside the compiler: twins come and go, bf16 is guarded, helpers are followed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder
from triton.runtime.jit import JITFunction

from tilewright import interpret
from tilewright.errors import KernelFailed, Refused
from tilewright.kernels.gemm import triton as gemm

CONFIG = {"tile_m": 32, "tile_n": 32, "tile_k": 32, "num_warps": 4, "num_stages": 2, "group_m": 8}


def bf16_operands() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    a, b = (torch.randn(32, 32, generator=g).bfloat16() for _ in range(2))
    return a, b, torch.zeros(32, 32, dtype=torch.bfloat16)


def launch_unwidened(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
    """The gemm kernel as the compiler sees it: no cast of bf16 operands."""
    constexprs = gemm._constexprs(CONFIG, False, "none", widen=False)
    args = (a, b, None, None, None, c, None, 32, 32, 32, 32, 1, 32, 1, 0, 0, 0, 32, 1)
    interpret.run_interpreted(gemm.kernel, (1,), args, constexprs)


def test_without_the_cast_bf16_is_silently_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = bf16_operands()
    monkeypatch.setattr(interpret, "_mend_bf16", lambda *classes: None)
    launch_unwidened(a, b, c)
    want = a.double() @ b.double()
    assert (c.double() - want).norm() / want.norm() > 100
    gemm.launch({"a": a, "b": b, "c": c}, {}, CONFIG, interpret=True)
    # Even widened, Triton's own conversion back to bf16 truncates.
    assert not torch.equal(c, want.bfloat16())


def test_without_the_cast_bf16_is_refused_here() -> None:
    a, b, c = bf16_operands()
    with pytest.raises(Refused, match=r"cast to tl\.float32 right after the load"):
        launch_unwidened(a, b, c)
    gemm.launch({"a": a, "b": b, "c": c}, {}, CONFIG, interpret=True)
    assert torch.equal(c, (a.double() @ b.double()).bfloat16())


def test_a_kernel_that_raises_is_a_failed_kernel() -> None:
    """What the interpreter wraps arrives as one sentence, and the language is put back."""
    a, b, c = (torch.ones(32, 32) for _ in range(3))
    constexprs = gemm._constexprs({**CONFIG, "tile_k": 24}, False, "none", widen=False)
    args = (a, b, None, None, None, c, None, 32, 32, 32, 32, 1, 32, 1, 0, 0, 0, 32, 1)
    with pytest.raises(KernelFailed, match="failed in Triton's interpreter: .*power of 2"):
        interpret.run_interpreted(gemm.kernel, (1,), args, constexprs)
    gemm.launch({"a": a, "b": b, "c": c}, {}, CONFIG, interpret=True)
    assert torch.equal(c, a @ b)


def test_a_config_that_needs_more_than_the_gpu_has_is_refused() -> None:
    from triton.runtime.errors import OutOfResources

    class TooLarge:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def start(*args: Any, **options: Any) -> None:
                raise OutOfResources(321600, 232448, "shared memory")

            return start

    with pytest.raises(Refused, match="needs 321600 of shared memory .* this GPU has 232448"):
        interpret.launch(TooLarge(), (1,), (), {}, {}, interpret=False)


HELPER = """
import triton
import triton.language as tl

@triton.jit
def shifted(x, by: tl.constexpr):
    return x + by
"""
KERNEL = """
import triton
import triton.language as tl
import tw_interpret_helper
from tw_interpret_helper import shifted

@triton.jit
def kernel(x, out, n, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    row = tl.load(x + at, mask=at < n, other=float("-inf"))
    top = row.max(0)
    e = tl.exp(row - top)
    tl.store(out + at, shifted(e / tl.sum(e, 0), 1), mask=at < n)
    tl.store(out + n, tw_interpret_helper.shifted(top, 2))

@triton.jit
def add_bf16(x, out, WIDEN: tl.constexpr):
    at = tl.arange(0, 8)
    v = tl.load(x + at)
    if WIDEN:
        v = v.to(tl.float32)
    tl.store(out + at, tl.sum(v, 0).to(tl.bfloat16) + tl.zeros((8,), tl.bfloat16))

@triton.jit
def sum_bf16(x, out):
    at = tl.arange(0, 8)
    tl.store(out, tl.sum(tl.load(x + at), 0))

@triton.jit
def round_bf16(x, out, back):
    at = tl.arange(0, 16)
    narrow = tl.load(x + at).to(tl.bfloat16)
    tl.store(out + at, narrow)
    tl.store(back + at, narrow.to(tl.float32))
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("kernels")

    def load(name: str, text: str) -> ModuleType:
        (folder / f"{name}.py").write_text(text)
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    load("tw_interpret_helper", HELPER)
    return load("tw_interpret_kernels", KERNEL)


def test_jit_helpers_and_library_functions_are_followed(kernels: ModuleType) -> None:
    x = torch.randn(13)
    out = torch.full((15,), float("nan"))
    interpret.launch(kernels.kernel, (1,), (x, out, 13), {"SIZE": 16}, {}, interpret=True)
    assert torch.allclose(out[:13], torch.softmax(x, 0) + 1, atol=1e-6)
    assert out[13].item() == pytest.approx(x.max().item() + 2)
    assert out[14].isnan()
    assert isinstance(kernels.shifted, JITFunction)


def test_bf16_sums_and_additions_are_refused(kernels: ModuleType) -> None:
    x, out = torch.ones(8).bfloat16(), torch.zeros(8).bfloat16()
    with pytest.raises(Refused, match="bf16"):
        interpret.launch(kernels.sum_bf16, (1,), (x, out), {}, {}, interpret=True)
    with pytest.raises(Refused, match="bf16"):
        interpret.launch(kernels.add_bf16, (1,), (x, out), {"WIDEN": True}, {}, interpret=True)


def test_bf16_conversion_is_torchs(kernels: ModuleType) -> None:
    odd = [0.0, -0.0, 1.0, 1.00390625, 1.01171875, 1e-40, -3e38, 3.4e38, float("inf"), float("nan")]
    x = torch.tensor([*odd, 0.1, -0.3, 255.5, 1e-38, 65504.0, -7.0])
    out, back = torch.zeros(16).bfloat16(), torch.zeros(16)
    interpret.launch(kernels.round_bf16, (1,), (x, out, back), {}, {}, interpret=True)
    want = x.bfloat16()
    number = ~x.isnan()
    assert torch.equal(out[number].view(torch.int16), want[number].view(torch.int16))
    assert out[~number].isnan().all()
    assert torch.equal(back[number], want[number].float())


def test_the_language_is_put_back_even_after_an_error() -> None:
    gemm.launch(small(0), {}, CONFIG, interpret=True)
    places: tuple[Any, ...] = (tl, tl.core, tl.standard, tl.math, tl.tensor, InterpreterBuilder)
    before = [dict(vars(place)) for place in places]
    gemm.launch(small(1), {}, CONFIG, interpret=True)
    with pytest.raises(Refused):
        launch_unwidened(*bf16_operands())
    for place, names in zip(places, before, strict=True):
        assert dict(vars(place)) == names
    assert isinstance(tl.standard.sum, JITFunction)
    assert isinstance(gemm.kernel, JITFunction)


def small(seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(40, 40, generator=g), torch.randn(40, 40, generator=g)
    return {"a": a, "b": b, "c": torch.full((40, 40), float("nan"))}


def test_threads_take_turns() -> None:
    work = [small(seed) for seed in range(4)]

    def run(t: dict[str, torch.Tensor]) -> None:
        gemm.launch(t, {"b_layout": "KN"}, CONFIG, interpret=True)

    with ThreadPoolExecutor(len(work)) as pool:
        list(pool.map(run, work))  # raises what a thread raised
    for t in work:
        torch.testing.assert_close(t["c"], t["a"] @ t["b"], atol=1e-4, rtol=1e-5)


def test_a_process_under_triton_interpret_still_interprets_and_says_it_cannot_compile(
    tmp_path: Path,
) -> None:
    program = f"""
import pathlib, torch
from tilewright import aot, errors
from tilewright.kernels.gemm import triton as gemm
a = torch.eye(8, dtype=torch.bfloat16); c = torch.zeros_like(a)
gemm.launch({{"a": a, "b": a, "c": c}}, {{}}, {CONFIG!r}, interpret=True)
assert torch.equal(a, c)
place = pathlib.Path({str(tmp_path)!r})
try:
    aot.compile_config(gemm, "fp16", {{}}, {CONFIG!r}, "cuda:sm_80", cache_dir=place)
except errors.Unavailable as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "TRITON_INTERPRET is set" in done.stdout
