"""Lowers kernels inside the ascend-ir environment: a script, not a module of tilewright.

    python -I -S worker.py SITE

SITE is the environment's folder of packages. One JSON request a line comes on standard input, one
JSON answer a line goes to standard output; see `tilewright.aot.ascend.session`. Only the standard
library and what SITE holds can be imported here. The artefact of a good run is the file that
bishengir-compile saves before it looks for hivmc, which only CANN has: its exit status is 1 then.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PLANNED = "module.hivm.opt.mlir"
# What the front end raises about a kernel; anything else ends this process and becomes a crash.
_FRONT_END_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    NameError,
    AssertionError,
    LookupError,
    ImportError,
    SyntaxError,
)


class Rejected(Exception):
    """A stage did not take the kernel; `stage` is triton, adapter or bishengir."""

    def __init__(self, stage: str, log: str, status: int) -> None:
        super().__init__(log)
        self.stage, self.log, self.status = stage, log, status


class Lowering:
    """The compiler's parts, imported once; kernels are imported once a text."""

    def __init__(self, site: Path) -> None:
        from triton.backends.ascend import compiler as ascend
        from triton.backends.compiler import GPUTarget
        from triton.compiler import compiler
        from triton.compiler.errors import CompilationError

        self.ascend, self.compiler, self.target = ascend, compiler, GPUTarget
        self.errors = (*_FRONT_END_ERRORS, CompilationError)
        self.bishengir = site / "ascendnpuir" / "bin" / "bishengir-compile"
        self.kernels: dict[str, Any] = {}
        self.folder = tempfile.mkdtemp(prefix="kernels-")

    def kernel(self, text: str, entry: str) -> Any:
        """The `@triton.jit` function `entry` of a text; Triton wants its source in a file."""
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        if key not in self.kernels:
            path = Path(self.folder) / f"kernel_{key}.py"
            path.write_text(text, encoding="utf-8")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)
            self.kernels[key] = module
        return getattr(self.kernels[key], entry)

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Triton IR, linalg, planned HIVM; raises Rejected where a stage says no."""
        try:
            module, metadata, options = self._triton_ir(request)
        except self.errors as error:
            raise Rejected("triton", _deepest(error), 1) from error
        try:
            linalg = self.ascend.ttir_to_linalg(module, metadata, options, named_ops=True)
            linalg, metadata = self.ascend._parse_linalg_metadata(linalg, metadata)
        except subprocess.CalledProcessError as error:
            log = (error.stderr or b"").decode(errors="replace")
            raise Rejected("adapter", log, error.returncode) from error
        except self.errors as error:
            raise Rejected("adapter", _deepest(error), 1) from error
        return self._hivm(linalg, request)

    def _triton_ir(self, request: dict[str, Any]) -> tuple[Any, dict[str, Any], Any]:
        from triton._C.libtriton import ir

        kernel = self.kernel(request["text"], request["entry"])
        target = self.target("npu", request["arch"], 0)
        backend = self.compiler.make_backend(target)
        options = backend.parse_options({})
        names = list(kernel.arg_names)
        hints = {names.index(name): 16 for name in request["divisible"]}
        source = self.compiler.ASTSource(
            kernel,
            request["signature"],
            constants={name: _constexpr(value) for name, value in request["constexprs"].items()},
            attrs=self.ascend.AscendAttrsDescriptor.from_hints(hints),
        )
        context = ir.context()
        ir.load_dialects(context)
        backend.load_dialects(context)
        metadata = {"target": target, **options.__dict__}
        implementation = backend.get_codegen_implementation()
        module = source.make_ir(options, implementation, backend.get_module_map(), context)
        return self.ascend.make_ttir(module, metadata, options), metadata, options

    def _hivm(self, linalg: str, request: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="hivm-") as folder:
            source = Path(folder) / "kernel.mlir"
            source.write_text(linalg, encoding="utf-8")
            command = [
                *(str(self.bishengir), str(source), f"--target={request['arch']}"),
                *("--enable-hfusion-compile=true", "--enable-hivm-compile=true"),
                *("--enable-triton-kernel-compile=true", *request["options"]),
                *(f"--save-temps={folder}", "-o", str(Path(folder) / "kernel.o")),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            planned = Path(folder) / PLANNED
            log = (done.stdout + done.stderr).replace(folder, "")
            if not planned.is_file():
                raise Rejected("bishengir", log, done.returncode)
            return {"ir": planned.read_text(encoding="utf-8"), "log": log}


def _constexpr(value: Any) -> Any:
    import triton.language as tl

    return tl.dtype(value["dtype"]) if isinstance(value, dict) else value


def _deepest(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def main() -> None:
    """Answer requests until standard input ends."""
    site = Path(sys.argv[1])
    sys.path.insert(0, str(site))
    # The compiler prints to standard output; that must not get into the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        lowering = Lowering(site)
        for line in sys.stdin:
            try:
                answer = {"ok": True, **lowering.run(json.loads(line))}
            except Rejected as error:
                answer = {
                    "ok": False,
                    "stage": error.stage,
                    "log": error.log,
                    "status": error.status,
                }
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
