"""ship: spec + configs + binaries -> check again -> bundle + manifest."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright import __version__
from tilewright.errors import BuildFailed, VerificationFailed
from tilewright.registry import package_folder
from tilewright.ship import ascendc, dispatch, golden, gpu, layout, provenance, pyapi, receive
from tilewright.ship.device import hashed_sources
from tilewright.ship.library import compile_library
from tilewright.ship.readme import readme
from tilewright.ship.receiver.verify_parts.elf import dotted, read_elf
from tilewright.ship.receiver.verify_parts.host import LEVELS
from tilewright.ship.request import MANIFEST_SCHEMA, Request, read_bench

if TYPE_CHECKING:
    from tilewright.bindings.table import Op
    from tilewright.registry import Family

TORCH_TARGET = "2.11"
PYTHON_NEEDED = "3.10"
# What a library of one family stays under, and what each further one may add: more is debug information
# or a template that ran away.
LIBRARY_LIMIT = 2_000_000
FAMILY_LIMIT = 500_000
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A finished bundle: its manifest, the hash of it, and what its own verify.py said."""

    folder: Path
    manifest: dict[str, Any]
    manifest_sha256: str
    verdict: receive.Verdict


def build(
    request: Request, say: Say = lambda _: None, counting: gpu.Counting = gpu.uncounted
) -> Bundle:
    """Make the bundle beside its place, verify it with its own verify.py, and only then move it there.

    Raises VerificationFailed (and leaves nothing) if any stage does not pass, BuildFailed if a
    compiler refuses or the library is too large.
    """
    request.folder.parent.mkdir(parents=True, exist_ok=True)
    staging = request.folder.parent / f".{request.folder.name}.{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        manifest = _write(staging, request, say, counting)
        say("checking every op again, with the bundle's own verify.py")
        verdict = receive.verify(staging)
        if not verdict.ok:
            raise VerificationFailed(
                f"not shipped, since its own check fails: {verdict.first_problem()}"
            )
        if request.folder.exists():
            shutil.rmtree(request.folder)
        staging.replace(request.folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle(
        request.folder, manifest, layout.sha256(request.folder / layout.MANIFEST), verdict
    )


def _write(root: Path, request: Request, say: Say, counting: gpu.Counting) -> dict[str, Any]:
    from tilewright.bindings.table import op_of
    from tilewright.bindings.torch import generate
    from tilewright.tables import load
    from tilewright.targets import CPU

    pairs = [(f, op_of(f, load(f, CPU, every_level=True).entries)) for f in request.families]
    variant = root / "build" / layout.variant_name(TORCH_TARGET)
    variant.mkdir(parents=True)

    devices = [t for t in request.targets if t.is_gpu]
    part = gpu.GpuPart()
    if devices:
        say(f"compiling for {', '.join(t.name for t in devices)}")
        part = gpu.compile_gpu(request.families, devices, request.gpu_precisions, counting=counting)
    gpu.write_binaries(variant, part)
    has_ascend = any(t.kind == "ascend" for t in request.targets)
    shipped_ascendc = ascendc.write(root, request.families) if has_ascend else []
    table = dispatch.document(request.families, request.targets, part, shipped_ascendc)
    layout.write_json(variant / "dispatch.json", table)

    library, identifier = _compile(variant, request, pairs, part, say)
    levels = tuple(LEVELS) if platform.machine() == "x86_64" else ("scalar",)
    summary = (
        f"{', '.join(f.name for f in request.families)} for CPUs and for the GPUs of dispatch.json."
    )
    (variant / "_ops.py").write_text(
        pyapi.ops_module(identifier, library.name, [op for _, op in pairs]), encoding="utf-8"
    )
    (variant / "_fakes.py").write_text(
        generate.fake_module([op for _, op in pairs], identifier), encoding="utf-8"
    )
    for family, op in pairs:
        if layouts := pyapi.layouts_module(family, op):
            (variant / f"_layouts_{op.name}.py").write_text(layouts, encoding="utf-8")
    (variant / "__init__.py").write_text(
        pyapi.init_module(pairs, summary, levels), encoding="utf-8"
    )

    say("drawing golden vectors")
    for_gpus = any(t.is_gpu for t in request.targets)
    stored = golden.write_golden(root / "golden", pairs, request.golden_precisions, for_gpus)
    _write_receiver(root)
    source = provenance.git_state(package_folder("tilewright.ship"))
    described = layout.metadata(request.name, identifier, request.version, source, __version__)
    described["digest"] = layout.variant_digest(variant)
    layout.write_json(variant / layout.METADATA, described)
    manifest: dict[str, Any] = {
        "schema": MANIFEST_SCHEMA,
        "name": request.name,
        "id": identifier,
        "namespace": identifier,
        "version": request.version,
        "tilewright": __version__,
        "variant": variant.name,
        "source": source,
        "compiler": provenance.compiler(),
        "gpu_compiler": part.toolchain,
        "torch_target": TORCH_TARGET,
        "torch_built_with": provenance.torch_version(),
        "library": _library_facts(root, library, len(request.families)),
        "cpu_levels": list(levels),
        "ops": {op.name: op.as_dict() for _, op in pairs},
        "targets": table["targets"],
        "golden_calls": stored,
    }
    manifest["needs"] = _needs(request, manifest["library"])
    perf = _write_perf(root, request)
    (root / "README.md").write_text(readme(manifest, perf), encoding="utf-8")
    manifest["files"] = layout.file_table(root)
    layout.write_json(root / layout.MANIFEST, manifest)
    return manifest


def _compile(
    variant: Path, request: Request, pairs: list[tuple[Family, Op]], part: gpu.GpuPart, say: Say
) -> tuple[Path, str]:
    """Compile the library under a name made from its content; returns it and the name."""
    ops = [op for _, op in pairs]
    facts: list[object] = [
        __version__,
        TORCH_TARGET,
        provenance.compiler(),
        request.name,
        part.entries,
    ]
    facts += [op.as_dict() for op in ops]
    facts += [[entry.as_dict() for entry in op.tuned] for op in ops]
    digest = provenance.content_hash(
        request.families, facts, hashed_sources() if part.entries else ()
    )
    identifier = f"_{request.name.replace('-', '_')}_{digest[:12]}"
    say(f"compiling {identifier}")
    library = compile_library(
        request.families, ops, identifier, part.entries, TORCH_TARGET, variant
    )
    size, limit = library.stat().st_size, library_limit(len(request.families))
    if size >= limit:
        raise BuildFailed(
            f"{library.name} has {size} bytes; that of {len(request.families)} families stays under {limit}"
        )
    return library, identifier


def library_limit(families: int) -> int:
    """Bytes a library of that many families stays under."""
    return LIBRARY_LIMIT + FAMILY_LIMIT * (families - 1)


def _library_facts(root: Path, library: Path, families: int) -> dict[str, Any]:
    elf = read_elf(library)
    return {
        "path": library.relative_to(root).as_posix(),
        "bytes": library.stat().st_size,
        "limit_bytes": library_limit(families),
        "needed": list(elf.needed),
        "symbol_versions": {name: dotted(v) for name, v in sorted(elf.versions.items())},
    }


def _needs(request: Request, library: dict[str, Any]) -> dict[str, Any]:
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "glibc": library["symbol_versions"].get("GLIBC", "2.2"),
        "python": PYTHON_NEEDED,
        "torch": TORCH_TARGET,
        "cpu_level": request.cpu_level,
    }


def _write_receiver(root: Path) -> None:
    source = package_folder("tilewright.ship") / "receiver"
    shutil.copyfile(source / "verify.py", root / "verify.py")
    parts = root / "verify_parts"
    parts.mkdir()
    for path in sorted((source / "verify_parts").glob("*.py")):
        shutil.copyfile(path, parts / path.name)
    (parts / "compare.py").write_text(golden.compare_source(), encoding="utf-8")
    (root / "LICENSE").write_bytes(_license())


def _license() -> bytes:
    beside = package_folder("tilewright.kernels").resolve().parent / "LICENSE"
    if beside.is_file():
        return beside.read_bytes()
    from importlib import metadata

    try:
        files = metadata.files("tilewright") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "LICENSE":
            return file.read_binary()
    raise BuildFailed("the LICENSE file of tilewright cannot be found; a bundle must carry it")


def _write_perf(root: Path, request: Request) -> dict[str, Any] | None:
    if request.bench is None:
        return None
    content = read_bench(request.bench)
    names = {family.name for family in request.families}
    rows = [row for row in content.get("rows", []) if row.get("family") in names]
    perf = {"schema": "tilewright/perf/1", "host": content.get("host", {}), "rows": rows}
    layout.write_json(root / "perf.json", perf)
    return perf
