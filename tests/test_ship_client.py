"""A bundle as Hugging Face's `kernels` client loads it, and as a Python without that client does."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from tilewright.ship.bundle import Bundle
from tilewright.ship.clean_venv import CleanVenv

pytest_plugins = ("fakes.bundle_fixtures",)

CLIENT = """
import importlib.util, json, sys
import torch
from kernels import get_local_kernel
from kernels._rust import Digest, DigestAlgorithm, Metadata
from pathlib import Path

root = Path(sys.argv[1])
ops = get_local_kernel(root)
a, w = torch.randn(33, 70), torch.randn(577, 70)
bias = torch.randn(577)
want = torch.nn.functional.linear(a.double(), w.double(), bias.double())
close = lambda x: float((x.double() - want).norm() / want.norm())
packed = ops.pack_b(w.t().contiguous())
errors = {
    "NK": close(ops.gemm(a, w, bias=bias)),
    "KN": close(ops.gemm(a, w.t(), bias=bias, b_layout="KN")),
    "panel16": close(ops.gemm(a, packed, bias=bias, b_layout="panel16", N=577)),
}
compiled = torch.compile(lambda x, y: ops.gemm(x, y) * 2, fullgraph=True, backend="aot_eager")
errors["compiled"] = float((compiled(a, w) / 2 - ops.gemm(a, w)).abs().max())
variant = next((root / "build").iterdir())
metadata = json.loads((variant / "metadata.json").read_text())
digest = Digest.hash_variant(DigestAlgorithm.SHA256, variant)
print(json.dumps({
    "errors": errors, "all": sorted(ops.__all__), "levels": ops.levels(), "name": ops.__name__,
    "digest": digest.files == metadata["digest"]["files"],
    "id": Metadata.read_from_file(variant / "metadata.json").id,
    "tilewright": importlib.util.find_spec("tilewright") is not None,
    "cuda": torch._C._dispatch_has_kernel_for_dispatch_key(f"{metadata['id']}::gemm", "CUDA"),
}))
"""


def test_the_kernels_client_loads_and_runs_it(made: Bundle, clean: CleanVenv, copy: Path) -> None:
    script = copy.parent / "client.py"
    script.write_text(CLIENT)
    done = clean.run([str(script), str(copy)])
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert max(answer["errors"].values()) < 1e-5, answer
    assert set(answer["errors"]) == {"NK", "KN", "panel16", "compiled"}
    assert answer["all"] == ["gemm", "levels", "pack_b"]
    assert answer["id"] == answer["name"] == made.manifest["id"]
    assert answer["levels"]["current"] in answer["levels"]["available"]
    assert answer["digest"] is True
    assert answer["tilewright"] is False
    assert answer["cuda"] is True, "tensors on a GPU would reach the launcher"


# The client as it is where torch is built for a GPU: it takes that backend unless it is told another.
ON_CUDA = """
import kernels.backends
from packaging.version import Version
kernels.backends._backend = lambda: kernels.backends.CUDA(version=Version("12.8"))
"""
ON_ROCM = """
import kernels.backends
from packaging.version import Version
kernels.backends._backend = lambda: kernels.backends.ROCm(version=Version("7.1"))
"""
CALL = """
import torch
a, w = torch.randn(3, 70), torch.randn(17, 70)
assert torch.allclose(ops.gemm(a, w), a @ w.t(), atol=1e-4)
print("called", ops.__name__)
"""


def blocks(readme: str) -> list[str]:
    """The Python of a README, as it is printed there."""
    return re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)


def run_there(
    clean: CleanVenv, bundle: Path, code: str, tmp_path: Path, path: str = "path/of/this/folder"
) -> subprocess.CompletedProcess[str]:
    """Run code where `path` is the bundle."""
    place = tmp_path / path
    place.parent.mkdir(parents=True)
    place.symlink_to(bundle)
    return clean.run(["-c", code], cwd=tmp_path)


@pytest.mark.parametrize("machine", ["", ON_CUDA, ON_ROCM], ids=["cpu", "cuda", "rocm"])
@pytest.mark.parametrize("number", [0, 1], ids=["with the client", "without it"])
def test_the_readme_runs_as_it_is_printed(
    made: Bundle, clean: CleanVenv, copy: Path, tmp_path: Path, machine: str, number: int
) -> None:
    found = blocks((made.folder / "README.md").read_text())
    assert len(found) == 2 and ("kernels" in found[0]) and ("kernels" not in found[1])
    done = run_there(clean, copy, machine + found[number] + CALL, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "gemm(" in done.stdout, "what help() prints"
    assert f"called {made.manifest['id']}" in done.stdout


@pytest.mark.parametrize("machine", ["", ON_CUDA], ids=["cpu", "cuda"])
def test_the_variants_own_folder_is_accepted_on_every_machine(
    made: Bundle, clean: CleanVenv, copy: Path, tmp_path: Path, machine: str
) -> None:
    text = (made.folder / "README.md").read_text()
    folder = re.search(r"accepted too: `(Path\(.*?\))`", text)
    assert folder is not None
    code = (
        "from pathlib import Path\nfrom kernels import get_local_kernel\n"
        f"ops = get_local_kernel({folder.group(1)})\n"
    )
    done = run_there(clean, copy, machine + code + CALL, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"called {made.manifest['id']}" in done.stdout


def test_the_line_of_the_documentation_runs(
    made: Bundle, clean: CleanVenv, copy: Path, tmp_path: Path
) -> None:
    lines = (ROOT / "docs" / "ship.md").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "get_local_kernel(" in line)
    code = "\n".join(line.strip() for line in lines[at - 2 : at + 1])
    done = run_there(clean, copy, f"{ON_CUDA}\n{code}\n{CALL}", tmp_path, "out/bundle")
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'backend="cpu"' in (made.folder / "README.md").read_text()


RESOLVE = """
import json, sys
from pathlib import Path
from packaging.version import Version
from kernels import variants as v
from kernels.backends import CPU, CUDA

build = Path(sys.argv[1]) / "build"
(variant,) = build.iterdir()
given = {"cpu": sys.argv[2], "os": "linux", "torch_cxx11_abi": True, "tvm_ffi_version": None}

def accepted(folder, backend):
    found, trace = v._resolve_variant_for_system(
        variants=v.get_variants_local(folder), selected_backend=backend,
        torch_version=Version("2.13"), **given
    )
    return [one.variant_str for one in found], [getattr(t, "reason", "") for t in trace]

cuda = CUDA(version=Version("12.8"))
print(json.dumps({
    "cuda": accepted(build, cuda), "cpu": accepted(build, CPU()), "inside": accepted(variant, cuda),
}))
"""


def test_what_the_client_decides_where_torch_is_built_for_cuda(
    made: Bundle, clean: CleanVenv
) -> None:
    """Why the README says `backend="cpu"`: without it the one variant is passed over."""
    machine = made.manifest["needs"]["machine"]
    done = clean.run(["-c", RESOLVE, str(made.folder), machine])
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    names, reasons = answer["cuda"]
    assert names == [] and "does not match selected backend (cu128)" in reasons[0]
    assert answer["cpu"] == [[made.manifest["variant"]], [""]]
    assert answer["inside"] == [[], []], "nothing in the variant's folder looks like a variant"
    plain = (
        "from pathlib import Path\nfrom kernels import get_local_kernel\n"
        f"get_local_kernel(Path({str(made.folder)!r}))\n"
    )
    passed_over = clean.run(["-c", ON_CUDA + plain])
    assert "Cannot find a build variant for this system" in passed_over.stderr
