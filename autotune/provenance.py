"""What a measured config depends on: the identity of a study and the record beside a tuned config."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from tilewright.machine import host
from tilewright.perf.sources import source_hash

if TYPE_CHECKING:
    from tilewright.autotune.objective import Objective
    from tilewright.autotune.pool import Pool
    from tilewright.backends.base import Backend
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.targets import Target


def rules_hash(family: Family) -> str:
    """Identifies the Python sources that may decide which configs are legal."""
    digest = hashlib.sha256()
    for folder in (family.folder, family.ascendc_folder):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class StudyKey:
    """Two tunings share a study, and so each other's measurements, only if all of this agrees."""

    family: str
    backend: str
    target: str
    device: str
    shape: str
    precision: str
    flags: str
    memory: str
    threads: int
    source_hash: str
    space_hash: str
    mode: str
    unit: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """The name of the study: what a person wants to see in a dashboard, and a digest of everything."""
        return f"{self.family} {self.target} {self.shape} {self.precision} {self.digest}"


def device(target: Target) -> str:
    """What the values are bound to: this processor, or the architecture of any other target."""
    return host().fingerprint if target.kind == "cpu" else target.arch


def key_of(
    family: Family,
    case: Case,
    target: Target,
    backend: Backend,
    pool: Pool,
    objective: Objective,
    threads: int,
) -> StudyKey:
    """The identity of a study."""
    return StudyKey(
        family=family.name,
        backend=backend.name,
        target=target.name,
        device=device(target),
        shape=case.shape_text,
        precision=case.precision,
        flags=case.flags_text,
        memory=case.memory,
        threads=threads or (host().cores if target.kind == "cpu" else 0),
        source_hash=source_hash(family, backend.name),
        space_hash=pool.hash,
        mode=objective.mode,
        unit=objective.unit,
    )


def versions(objective: Objective) -> Mapping[str, Any]:
    """Versions that the values depend on."""
    from tilewright import __version__

    return {
        "tilewright": __version__,
        "python": platform.python_version(),
        "optuna": metadata.version("optuna"),
        "isa": host().isa,
        **objective.versions(),
    }
