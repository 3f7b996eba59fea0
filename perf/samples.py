"""Raw samples beside the tables: one .npz per measurement, named by what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.errors import UsageError
from tilewright.machine import data_folder
from tilewright.perf.statistics import Samples


def save(
    arrays: Mapping[str, Samples], about: Mapping[str, Any], folder: Path | None = None
) -> str:
    """Write samples (ns, float32, in the order taken) with a description; returns their id."""
    kept = {name: np.asarray(values, dtype=np.float32) for name, values in arrays.items()}
    text = json.dumps(dict(about), sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode())
    for name in sorted(kept):
        digest.update(name.encode() + kept[name].tobytes())
    identity = digest.hexdigest()[:16]
    place = folder or data_folder("samples")
    place.mkdir(parents=True, exist_ok=True)
    described: dict[str, Any] = {**kept, "about": np.frombuffer(text.encode(), dtype=np.uint8)}
    np.savez_compressed(place / f"{identity}.npz", **described)
    return identity


def load(identity: str, folder: Path | None = None) -> tuple[dict[str, Samples], dict[str, Any]]:
    """Samples (ns) and description by id; raises UsageError when there are none of that id."""
    path = (folder or data_folder("samples")) / f"{identity}.npz"
    if not path.is_file():
        raise UsageError(f"no samples with id {identity} under {path.parent}")
    with np.load(path) as stored:
        arrays = {name: stored[name].astype(np.float64) for name in stored.files if name != "about"}
        about = json.loads(stored["about"].tobytes().decode())
    return arrays, about
