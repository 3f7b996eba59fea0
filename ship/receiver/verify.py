"""Verify this bundle on this machine: `python verify.py`. Needs Python and torch, nothing else.

Every file's sha256 is compared with manifest.json before anything else of the bundle is run or
loaded. What loads compiled code runs in a process of its own, so that a crash becomes a sentence.
Exit codes: 0 verified, 1 a stage failed, 2 wrong usage, 3 could not be decided here.
"""

# ruff: noqa: E402
# No `from __future__`, which would be an import too: Python puts a script's own folder first in sys.path,
# and a file planted there under a standard name would run before it is hashed.
import sys

_given = list(sys.path)
del sys.path[:1]
import os

_here = os.path.dirname(os.path.realpath(__file__))
sys.path[:] = [entry for entry in _given if os.path.realpath(entry) != _here]

import argparse
import hashlib
import importlib
import importlib.util
import json
import platform
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.dont_write_bytecode = True

HERE = Path(_here)
SCHEMA = "tilewright/bundle/1"
STAGES = ("manifest", "platform", "torch", "cpu", "abi", "load", "opcheck", "golden", "gpu")
IN_CHILD = STAGES[5:]
IGNORED = ("__pycache__", ".git")
Row = dict[str, Any]


class Each(NamedTuple):
    """An object with any names, whose values all have one shape."""

    value: Any


# What manifest.json must hold: a type, alternatives in a tuple, a list of one shape, or an object.
_OP = {
    "schema": str,
    "tensors": [{"name": str, "role": str}],
    "flags": [{"name": str, "values": [str]}],
}
SHAPE: dict[str, Any] = {
    "schema": str,
    "name": str,
    "id": str,
    "namespace": str,
    "version": int,
    "variant": str,
    "tilewright": str,
    "source": {"commit": (str, type(None)), "dirty": (bool, type(None))},
    "compiler": str,
    "gpu_compiler": str,
    "torch_target": str,
    "torch_built_with": str,
    "golden_calls": int,
    "cpu_levels": [str],
    "files": Each({"sha256": str, "bytes": int}),
    "library": {
        "path": str,
        "bytes": int,
        "limit_bytes": int,
        "needed": [str],
        "symbol_versions": Each(str),
    },
    "needs": dict.fromkeys(("system", "machine", "glibc", "python", "torch", "cpu_level"), str),
    "ops": Each(_OP),
    "targets": Each(Each({"form": str})),
}
_NAMES = {
    str: "a text",
    int: "an integer",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


def misfit(value: Any, shape: Any, where: str = "") -> str:
    """The first thing about a JSON value that is not of a shape, as a part of a sentence; "" if none is."""
    kinds = (
        (list,)
        if isinstance(shape, list)
        else (dict,)
        if isinstance(shape, dict | Each)
        else shape
        if isinstance(shape, tuple)
        else (shape,)
    )
    # JSON's true is no number, though Python's True is an int.
    if type(value) not in kinds:
        wanted = " or ".join(_NAMES[kind] for kind in kinds)
        return f"{where or 'the whole'} is {json.dumps(value)[:60]}, not {wanted}"
    items: list[tuple[str, Any, Any]] = []
    if isinstance(shape, list):
        items = [(f"{where}[{i}]", item, shape[0]) for i, item in enumerate(value)]
    elif isinstance(shape, Each):
        items = [(f"{where}.{name}", item, shape.value) for name, item in value.items()]
    elif isinstance(shape, dict):
        inside = f"{where}." if where else ""
        absent = next((name for name in shape if name not in value), None)
        if absent is not None:
            return f"{inside}{absent} is missing"
        items = [(f"{inside}{name}", value[name], part) for name, part in shape.items()]
    return next(filter(None, (misfit(item, part, place) for place, item, part in items)), "")


def own(name: str) -> Any:
    """Import a module of verify_parts, by its place and from its source: no bytecode was hashed."""
    before = sys.pycache_prefix
    sys.pycache_prefix = os.devnull
    try:
        if "verify_parts" not in sys.modules:
            place = HERE / "verify_parts" / "__init__.py"
            spec = importlib.util.spec_from_file_location("verify_parts", place)
            if spec is None or spec.loader is None:
                raise ImportError(f"{place} cannot be imported")
            package = importlib.util.module_from_spec(spec)
            sys.modules["verify_parts"] = package
            spec.loader.exec_module(package)
        return importlib.import_module(f"verify_parts.{name}")
    finally:
        sys.pycache_prefix = before


def row(stage: str, state: str, detail: str) -> Row:
    """One result; `state` is passed, failed, undecided or "not run"."""
    return {"stage": stage, "ok": state == "passed", "detail": detail, "state": state}


def files_of(root: Path) -> list[str]:
    """Relative paths of every file; Python's and git's own folders are left out."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in IGNORED)
        linked = [f for f in folders if (Path(folder) / f).is_symlink()]
        for name in [*names, *linked]:
            path = (Path(folder) / name).relative_to(root).as_posix()
            if path != "manifest.json":
                found.append(path)
    return sorted(found)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(pinned: str | None) -> tuple[dict[str, Any], Row | None]:
    """The manifest, and a failed row if there is none that can be used."""
    path = HERE / "manifest.json"
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except OSError as error:
        return {}, row("manifest", "failed", f"manifest.json cannot be read: {error.strerror}.")
    except (ValueError, RecursionError) as error:
        return {}, row("manifest", "failed", f"manifest.json is not JSON: {error}.")
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        return {}, row("manifest", "failed", f"manifest.json has schema {found!r}, not {SCHEMA!r}.")
    wrong = misfit(content, SHAPE)
    if not wrong and content["library"]["path"] not in content["files"]:
        wrong = f"library.path is {content['library']['path']!r}, which is not among files"
    if wrong:
        return {}, row("manifest", "failed", f"manifest.json does not fit {SCHEMA}: {wrong}.")
    actual = hashlib.sha256(text).hexdigest()
    if pinned and actual != pinned:
        return {}, row(
            "manifest", "failed", f"manifest.json has sha256 {actual}, not the {pinned} asked for."
        )
    return content, None


def check_files(manifest: dict[str, Any]) -> Row:
    """Compare every file with the manifest; nothing of the bundle has been loaded yet."""
    expected: dict[str, dict[str, Any]] = manifest["files"]
    present = set(files_of(HERE))
    missing = sorted(expected.keys() - present)
    extra = sorted(present - expected.keys())
    changed = []
    size = 0
    for path in sorted(expected.keys() & present):
        actual = sha256(HERE / path)
        size += (HERE / path).stat().st_size
        if actual != expected[path]["sha256"]:
            changed.append(
                f"{path} (sha256 {actual[:12]} instead of {expected[path]['sha256'][:12]})"
            )
    problems = [
        f"{len(names)} {what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        for what, names in (("changed", changed), ("missing", missing), ("extra", extra))
        if names
    ]
    if problems:
        detail = f"Of {len(expected)} files in manifest.json, {'; '.join(problems)}."
        return row("manifest", "failed", detail)
    caches = sorted(p.relative_to(HERE).as_posix() for p in HERE.rglob("__pycache__"))
    left = f" Not looked at, nor used here: {', '.join(caches[:5])}." if caches else ""
    return row(
        "manifest",
        "passed",
        f"All {len(expected)} files ({size / 1e6:.2f} MB) have the sha256 that manifest.json gives; "
        f"manifest.json itself has {sha256(HERE / 'manifest.json')}.{left}",
    )


def verify(options: argparse.Namespace) -> Iterator[Row]:
    """Run the stages in order; those that need a failed one are reported as not run."""
    manifest, broken = read_manifest(options.manifest_sha256)
    first = broken or check_files(manifest)
    yield first
    if not first["ok"]:
        for stage in STAGES[1:]:
            yield row(stage, "not run", "Not run: the files are not those of the manifest.")
        return
    host = own("host")
    failed = []
    for stage, result in host.stages(
        HERE, manifest, options.assume_torch, options.assume_cpu_level
    ):
        yield row(stage, *result)
        if result[0] != "passed":
            failed.append(stage)
    if failed:
        for stage in IN_CHILD:
            yield row(stage, "not run", f"Not run: stage {failed[0]} did not pass.")
        return
    yield from _in_child(options)


def _in_child(options: argparse.Namespace) -> Iterator[Row]:
    reader, writer = os.pipe()
    command = [sys.executable, "-B", str(HERE / "verify.py"), "--child", str(writer)]
    if options.quick:
        command.append("--quick")
    # The variable is what -P sets, and Python 3.10, which has neither, does not mind it.
    variables = {**os.environ, "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command,
            pass_fds=(writer,),
            stdout=errors,
            stderr=errors,
            cwd=os.path.abspath(os.sep),
            env=variables,
        ) as child:
            os.close(writer)
            done: list[str] = []
            with os.fdopen(reader, encoding="utf-8") as lines:
                for line in lines:
                    stage, state, detail = json.loads(line)
                    done.append(stage)
                    yield row(stage, state, detail)
            status = child.wait()
        remaining = [stage for stage in IN_CHILD if stage not in done]
        if not remaining:
            return
        errors.seek(0)
        words = [line.strip() for line in errors.read().splitlines() if line.strip()]
        last = f" Its last words: {words[-1][:300]}" if words else ""
    how = (
        f"exit code {status}"
        if status >= 0
        else f"signal {-status} ({signal.Signals(-status).name})"
    )
    yield row(remaining[0], "failed", f"The process running this stage ended with {how}.{last}")
    for stage in remaining[1:]:
        yield row(stage, "not run", f"Not run: stage {remaining[0]} did not finish.")


def run_child(fd: int, quick: bool) -> int:
    """Load the library, run it, and write one JSON line a stage to `fd`."""
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    importlib.import_module("torch")  # First, with its own bytecode.
    run = own("run")
    with os.fdopen(fd, "w", encoding="utf-8") as out:
        for stage, (state, detail) in run.stages(HERE, manifest, quick):
            out.write(json.dumps([stage, state, detail]) + "\n")
            out.flush()
    return 0


def overall(rows: list[Row]) -> tuple[Row, int]:
    """The verdict and the exit code."""
    failed = [r["stage"] for r in rows if r["state"] == "failed"]
    undecided = [r["stage"] for r in rows if r["state"] == "undecided"]
    if failed:
        text = f"Not verified: stage {', '.join(failed)} failed."
        return row("overall", "failed", text), 1
    if undecided:
        text = f"Undecided: stage {', '.join(undecided)} could not be run here."
        return row("overall", "undecided", text), 3
    return row("overall", "passed", f"Verified: all {len(rows)} stages passed."), 0


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="verify.py", description=__doc__)
    parser.add_argument("--json", metavar="FILE|-", help="write one JSON document there")
    parser.add_argument(
        "--manifest-sha256", metavar="HEX", help="what manifest.json itself must hash to"
    )
    parser.add_argument("--quick", action="store_true", help="opcheck one case an op")
    parser.add_argument("--assume-torch", metavar="VERSION", help="pretend this torch is installed")
    parser.add_argument(
        "--assume-cpu-level", metavar="LEVEL", help="pretend the CPU has at most this"
    )
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Verify, print, return the exit code."""
    options = arguments(given)
    if options.child is not None:
        return run_child(options.child, options.quick)
    rows = []
    for result in verify(options):
        rows.append(result)
        if options.json != "-":
            print(f"{result['state']:9} {result['stage']:9} {result['detail']}", flush=True)
    verdict, code = overall(rows)
    rows.append(verdict)
    if options.json != "-":
        print(f"{verdict['state']:9} {verdict['stage']:9} {verdict['detail']}")
    if options.json is not None:
        document = {
            "schema": "tilewright/verify/1",
            "host": {"os": platform.platform(), "python": platform.python_version()},
            "rows": rows,
            "exit_code": code,
        }
        text = json.dumps(document, indent=1) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
        else:
            Path(options.json).write_text(text, encoding="utf-8")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
