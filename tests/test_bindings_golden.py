"""Golden vectors of the raw kernels: written, read again, and told apart from wrong ones."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tilewright import native
from tilewright.bindings.python import golden
from tilewright.errors import Unavailable, UsageError
from tilewright.registry import Family, family

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason=str(native.why_missing()))
GEMM = family("gemm")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tilewright.bindings.python.golden", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_vectors_of_every_precision_and_flag_are_written_and_pass(tmp_path: Path) -> None:
    path = tmp_path / "gemm.safetensors"
    written = command("gemm", str(path))
    assert written.returncode == 0, written.stderr
    stored = golden.load(path, GEMM)
    assert f"{len(stored)} vectors of gemm" in written.stdout
    for precision in GEMM.spec.precisions:
        met = [v.case for v in stored if v.case.precision == precision.name]
        assert all(0 in {c.sizes[name] for c in met} for name in ("M", "N", "K"))
        for flag in GEMM.spec.flags:
            wanted = GEMM.spec.flag_values(flag, precision, "host")
            assert {c.flags[flag.name] for c in met} == set(wanted)
    assert {v.case.memory for v in stored} == {"dense", "padded"}
    checked = command("gemm", str(path), "--check", "--threads", "1")
    assert checked.returncode == 0, checked.stdout
    assert f"{len(stored)} of {len(stored)} vectors of gemm ok" in checked.stdout


def test_a_file_gives_back_the_very_calls(tmp_path: Path) -> None:
    made = list(golden.vectors(GEMM, GEMM.spec.precision("bf16")))
    golden.save(tmp_path / "v.safetensors", GEMM, made)
    for one, again in zip(made, golden.load(tmp_path / "v.safetensors", GEMM), strict=True):
        assert (one.case, one.seed, one.tolerance) == (again.case, again.seed, again.tolerance)
        for name, value in one.inputs.items():
            other = again.inputs[name]
            if value is None or other is None:
                assert value is other
            else:
                assert value.equal(other) and _steps(value) == _steps(other)
        assert all(v.equal(again.expected[n]) for n, v in one.expected.items())


def _steps(value: torch.Tensor) -> list[int]:
    """Strides that are ever taken."""
    sizes = zip(value.shape, value.stride(), strict=True)
    return [stride for size, stride in sizes if size > 1 and value.numel()]


def test_a_kernel_that_answers_otherwise_fails(tmp_path: Path) -> None:
    good, *_ = (v for v in golden.vectors(GEMM, GEMM.spec.precision("fp32")) if v.case.sizes["M"])
    assert golden.check(GEMM, good).ok
    wrong = replace(good, expected={n: v + 1.0 for n, v in good.expected.items()})
    assert not golden.check(GEMM, wrong).ok
    golden.save(tmp_path / "v.safetensors", GEMM, [good, wrong])
    checked = command("gemm", str(tmp_path / "v.safetensors"), "--check")
    assert checked.returncode == 1
    assert "FAILED gemm fp32" in checked.stdout and "1 of 2 vectors" in checked.stdout


def test_other_files_and_families_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(b"nothing")
    assert command("gemm", str(path), "--check").returncode == 2
    golden.save(path, GEMM, [])
    other = Family(replace(GEMM.spec, name="other"), tmp_path, "other", str(tmp_path))
    with pytest.raises(UsageError, match=r"of gemm; accepted: .* of other"):
        golden.load(path, other)
    (vector, *_) = golden.vectors(GEMM, GEMM.spec.precision("fp32"))
    with pytest.raises(Unavailable, match="built without other"):
        golden.check(other, vector)
