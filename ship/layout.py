"""Names, hashes and descriptions of a bundle: the directory layout that the `kernels` client loads."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METADATA = "metadata.json"
MANIFEST = "manifest.json"


def variant_name(torch_target: str) -> str:
    """The build variant of a stable-ABI CPU library, such as `torch-stable-abi211-cpu-x86_64-linux`."""
    major, minor = torch_target.split(".")[:2]
    return f"torch-stable-abi{major}{minor}-cpu-{platform.machine()}-{platform.system().lower()}"


def write_json(path: Path, content: object) -> None:
    """JSON in one fixed form, so that the same content always has the same bytes."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_bytecode(path: Path) -> bool:
    """Whether a file is one that Python leaves behind."""
    return path.suffix == ".pyc" or "__pycache__" in path.parts


def files_below(root: Path) -> list[Path]:
    """Every file below a folder, sorted by its relative path, bytecode left out."""
    found = [p for p in root.rglob("*") if p.is_file() and not is_bytecode(p.relative_to(root))]
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def variant_digest(folder: Path) -> dict[str, Any]:
    """The digest of a variant as the `kernels` client computes it: base64 sha256 of all but metadata.json."""
    names = {METADATA, f"{METADATA}.sigstore"}
    files = {
        path.relative_to(folder).as_posix(): base64.b64encode(
            hashlib.sha256(path.read_bytes()).digest()
        ).decode("ascii")
        for path in files_below(folder)
        if path.relative_to(folder).as_posix() not in names
    }
    return {"algorithm": "sha256", "files": files}


def metadata(
    name: str, identifier: str, version: int, source: Mapping[str, Any], tool_version: str
) -> dict[str, Any]:
    """What the `kernels` client asks of a variant's metadata.json; the digest is added at the end."""
    content: dict[str, Any] = {
        "name": name,
        "id": identifier,
        "version": version,
        "license": "Apache-2.0",
        "python-depends": [],
        "backend": {"type": "cpu"},
        "x-tilewright": {"version": tool_version},
    }
    if source["commit"]:
        git = {"commit": source["commit"], "dirty": source["dirty"]}
        content["x-tilewright"]["source"] = git
    return content


def file_table(root: Path) -> dict[str, dict[str, Any]]:
    """Path to sha256 and size of every file but manifest.json itself."""
    return {
        path.relative_to(root).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in files_below(root)
        if path.relative_to(root).as_posix() != MANIFEST
    }
