"""What a measured config depends on: the identity of a study and the record beside a tuned config."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.document import plain
from tilewright.machine import host
from tilewright.perf.sources import source_hash

if TYPE_CHECKING:
    from optuna.study import Study

    from tilewright.autotune.sampling.pool import Pool
    from tilewright.autotune.valuing.objective import Objective
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
        "system": host().os,
        "isa": host().isa,
        **drivers(),
        **objective.versions(),
    }


# Drivers of accelerators and the files in which the kernel tells their versions.
_DRIVERS = {
    "nvidia": Path("/proc/driver/nvidia/version"),
    "amdgpu": Path("/sys/module/amdgpu/version"),
    "ascend": Path("/usr/local/Ascend/driver/version.info"),
}


def drivers() -> Mapping[str, str]:
    """Versions of the drivers that are loaded here; empty on a machine without an accelerator."""
    found = {}
    for name, path in _DRIVERS.items():
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        found[f"{name} driver"] = lines[0].strip() if lines else ""
    return found


# User attributes of a study: its identity, and `versions DIGEST` for each set its values were made with.
STUDY_KEY, STUDY_EVIDENCE = "key", "evidence"
STUDY_VERSIONS = "versions "


def keep_versions(study: Study, objective: Objective) -> str:
    """Write the versions into the study, unless they are there, and return their digest.

    Each set has a name of its own, so that processes with different compilers do not overwrite each other.
    """
    content = plain(versions(objective))
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    if STUDY_VERSIONS + digest not in study.user_attrs:
        study.set_user_attr(STUDY_VERSIONS + digest, content)
    return digest
