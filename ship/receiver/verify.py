"""Verify this bundle on this machine: `python verify.py`. Needs Python and torch, nothing else.

Every file's sha256 is compared with manifest.json before anything else of the bundle is run or
loaded. What loads compiled code runs in a process of its own, so that a crash becomes a sentence.
Exit codes: 0 verified, 1 a stage failed, 2 wrong usage, 3 could not be decided here.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True

HERE = Path(__file__).resolve().parent
SCHEMA = "tilewright/bundle/1"
STAGES = ("manifest", "platform", "torch", "cpu", "abi", "load", "opcheck", "golden", "gpu")
IN_CHILD = STAGES[5:]
IGNORED = ("__pycache__", ".git")
Row = dict[str, Any]


def own(name: str) -> Any:
    """Import a module of the bundle from its source: bytecode beside it is not hashed, so not trusted."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    before = sys.pycache_prefix
    sys.pycache_prefix = str(Path(tempfile.gettempdir()) / f"tilewright-verify-{os.getpid()}")
    try:
        return importlib.import_module(name)
    finally:
        sys.pycache_prefix = before


def row(stage: str, state: str, detail: str) -> Row:
    """One result; `state` is passed, failed, undecided or "not run"."""
    return {"stage": stage, "ok": state == "passed", "detail": detail, "state": state}


def files_of(root: Path) -> list[str]:
    """Relative paths of every file, bytecode and git's own folder left out."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in IGNORED)
        linked = [f for f in folders if (Path(folder) / f).is_symlink()]
        for name in [*names, *linked]:
            path = (Path(folder) / name).relative_to(root).as_posix()
            if not name.endswith(".pyc") and path != "manifest.json":
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
    except ValueError as error:
        return {}, row("manifest", "failed", f"manifest.json is not JSON: {error}.")
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        return {}, row("manifest", "failed", f"manifest.json has schema {found!r}, not {SCHEMA!r}.")
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
    own = sha256(HERE / "manifest.json")
    return row(
        "manifest",
        "passed",
        f"All {len(expected)} files ({size / 1e6:.2f} MB) have the sha256 that manifest.json gives; "
        f"manifest.json itself has {own}.",
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
    host = own("verify_parts.host")
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
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command, pass_fds=(writer,), stdout=errors, stderr=errors, cwd=tempfile.gettempdir()
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
    run = own("verify_parts.run")
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
