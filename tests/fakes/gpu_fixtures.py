"""The launcher with a table of toy kernels, built once a session, and the recording drivers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from fakes import gpu
from tilewright.ship.launcher.entries import read_entries


def _toys() -> list[tuple[dict[str, Any], bytes]]:
    # In a process of its own: another test may have switched Triton to its interpreter here.
    script = (
        "import sys, json, hashlib; from fakes import toy_triton as t\n"
        f"for target in {gpu.TARGETS!r}:\n"
        "    data, shared, symbol = t.compile_toy(target)\n"
        "    row = t.toy_row(target, data, shared, symbol, hashlib.sha256(data).hexdigest())\n"
        "    print(json.dumps([row, data.hex()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=gpu.FAKES.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [(row, bytes.fromhex(data)) for row, data in map(json.loads, done.stdout.splitlines())]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> gpu.Built:
    """The launcher and its toys in a folder of their own."""
    folder = tmp_path_factory.mktemp("launcher")
    (folder / "gpu").mkdir()
    rows = []
    for row, data in _toys():
        (folder / row["binary"]).write_bytes(data)
        rows.append(row)
    # One more for the same device, with a range of its own and scratch: it stands before the other.
    small = {**rows[1], "id": "toy.small", "when": {"M": [2, 3]}, "global_scratch_bytes": 64}
    rows.insert(1, small)
    objects = gpu.build_objects(folder)
    drivers = {
        "TILEWRIGHT_LIBCUDA": str(gpu.build_fake(folder, "libcuda")),
        "TILEWRIGHT_LIBHIP": str(gpu.build_fake(folder, "libamdhip64")),
    }
    entries = read_entries(rows)
    library = gpu.build_library(folder, objects, entries)
    return gpu.Built(library, folder, {e.id: e for e in entries}, rows, objects, drivers)
