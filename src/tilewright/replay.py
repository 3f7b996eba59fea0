"""The file a failed check leaves: everything needed to run that one call again and see the same error."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.errors import CRASHES, UsageError
from tilewright.machine import ISA_VARIABLE, cache_folder, host
from tilewright.numerics import Comparison
from tilewright.registry import FAMILIES_VARIABLE
from tilewright.space import Config

if TYPE_CHECKING:
    import torch

    from tilewright.check import Job
    from tilewright.inputs import Inputs

SCHEMA = "tilewright/failure/1"
# A file above this would not be mailed to anyone: larger inputs are drawn again from the seed.
LARGEST_KEPT = 8 << 20


def command(path: Path) -> str:
    """The one command that runs a failure file again, with the environment the kernel was found and run under."""
    kept = [
        f"{name}={shlex.quote(os.environ[name])} "
        for name in (ISA_VARIABLE, FAMILIES_VARIABLE)
        if os.environ.get(name)
    ]
    return f"{''.join(kept)}tilewright check --replay {shlex.quote(str(path.absolute()))}"


def save(
    job: Job,
    inputs: Inputs,
    outputs: Mapping[str, torch.Tensor],
    verdict: Comparison,
    folder: Path | None,
    keep_inputs: bool,
) -> Path:
    """Write inputs, config, outputs and worst elements to one safetensors file; returns its path."""
    from safetensors.torch import save_file

    from tilewright.document import plain

    description = {
        "schema": SCHEMA,
        "family": job.family.name,
        "backend": job.backend.name,
        "target": job.target.name,
        "case": job.case.as_dict(),
        "config": dict(job.config),
        "seed": job.seed,
        "threads": job.threads,
        "isa": host().isa,
        "verdict": plain(asdict(verdict)),
        "worst": _worst_elements(job, inputs, outputs),
    }
    tensors = {f"input.{k}": v.contiguous() for k, v in inputs.logical.items() if v is not None}
    if (
        not keep_inputs
        and sum(t.numel() * t.element_size() for t in tensors.values()) > LARGEST_KEPT
    ):
        tensors = {}
    tensors |= {
        f"output.{k}": v.detach().cpu().contiguous()
        for k, v in outputs.items()
        if v.numel() * v.element_size() <= LARGEST_KEPT
    }
    text = json.dumps(description)
    name = f"{job.family.name}-{job.backend.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}.safetensors"
    path = (folder or cache_folder("failures")) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"tilewright": text})
    return path


def _worst_elements(
    job: Job, inputs: Inputs, outputs: Mapping[str, torch.Tensor]
) -> list[dict[str, Any]]:
    """The ten elements furthest from the reference, not-a-number first."""
    import torch

    from tilewright.inputs import reference_outputs

    rows: list[dict[str, Any]] = []
    try:
        references = reference_outputs(job.family, job.case, inputs)
    except CRASHES:
        # The reference is what failed: there is nothing to be far from.
        return rows
    for name, ref in references.items():
        if name not in outputs or outputs[name].shape != ref.shape or ref.numel() == 0:
            continue
        got = outputs[name].detach().cpu().to(torch.float64)
        error = torch.nan_to_num((got - ref.to(torch.float64)).abs(), nan=float("inf"))
        values, places = error.flatten().topk(min(10, error.numel()))
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            index = [int(i) for i in torch.unravel_index(torch.tensor(place), error.shape)]
            rows.append(
                {
                    "output": name,
                    "index": index,
                    "got": str(float(got[tuple(index)])),
                    "want": str(float(ref[tuple(index)])),
                    "error": str(value),
                }
            )
    return rows


def load(path: Path) -> tuple[Job, Inputs]:
    """Read a failure file back into the job and the inputs.

    Raises UsageError when it is not one, or when a host kernel ran at another instruction level than now.
    """
    from safetensors import SafetensorError, safe_open

    from tilewright.backends import backend
    from tilewright.check import Job
    from tilewright.inputs import draw, from_logical
    from tilewright.registry import family
    from tilewright.targets import target

    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {})["tilewright"])
            stored = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} is not a failure file of tilewright check: {error}") from None
    isa = description.get("isa", host().isa)
    if description["backend"] == "host" and isa != host().isa:
        raise UsageError(
            f"{path} was left at level {isa}, this run is at {host().isa}; set {ISA_VARIABLE}={isa}"
        )
    found = family(description["family"])
    content = description["case"]
    case = found.spec.case(
        content["sizes"], content["precision"], content["flags"], content["memory"]
    )
    job = Job(
        found,
        backend(description["backend"]),
        target(description["target"]),
        case,
        Config(description["config"]),
        description["seed"],
        description["threads"],
    )
    logical = {k.removeprefix("input."): v for k, v in stored.items() if k.startswith("input.")}
    if not logical:
        return job, draw(found, case, job.seed)
    return job, from_logical(found, case, {t.name: logical.get(t.name) for t in found.spec.given})
