"""Hugging Face transformers: jobs on one model, and what was answered once is kept.

tilewright toolchain install transformers
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.errors import Unavailable
from tilewright.machine import cache_folder
from tilewright.toolchains import Installed

# Not called transformers.py: a script finds the modules beside it before all others.
Job = Mapping[str, Any]
_TIMEOUT_S = 3600
_PROBE = """
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=2, eos_token_id=None, pad_token_id=None)
print(LlamaForCausalLM(config)(__import__("torch").tensor([[1, 2, 3]])).logits.shape[-1])
"""


def ask(
    found: Installed, identity: str, folder: Callable[[], Path], jobs: Sequence[Job]
) -> list[dict[str, Any]]:
    """Answers in the order of the jobs; those that are not kept start one process on the model in `folder`.

    `identity` changes with the model. `file` of an answer is where its logits are. Jobs and answers are those of
    transformers_run.py. Raises Unavailable with the last line of what transformers said.
    """
    script = resources.files("tilewright.peer_engines") / "transformers_run.py"
    which = [identity, found.folder.name, hashlib.sha256(script.read_bytes()).hexdigest()[:12]]
    places = []
    for job in jobs:
        text = "/".join([*which, json.dumps(job, sort_keys=True)])
        digest = hashlib.sha256(text.encode()).hexdigest()[:24]
        places.append(cache_folder("oracle", "answers", f"{digest}.json"))
    missing = [i for i, place in enumerate(places) if not _kept(place)]
    if missing:
        places[0].parent.mkdir(parents=True, exist_ok=True)
        asked = [{**jobs[i], "file": str(_file(places[i]))} for i in missing]
        with resources.as_file(script) as path:
            said = run(found, [str(path)], {"folder": str(folder()), "jobs": asked})
        for i, line in zip(missing, said.splitlines(), strict=True):
            _keep(places[i], line)
    return [json.loads(p.read_text(encoding="utf-8")) | {"file": str(_file(p))} for p in places]


def run(found: Installed, arguments: Sequence[str], job: object = None) -> str:
    """What a Python with the toolchain's packages before ours prints; torch is that of this environment."""
    try:
        done = _started(found, arguments, job)
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"transformers took longer than {_TIMEOUT_S} s in {found.folder}"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"transformers failed in {found.folder}: {last}")
    return done.stdout


def _started(
    found: Installed, arguments: Sequence[str], job: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [found.python, *arguments],
        input=json.dumps(job),
        env={**os.environ, "PYTHONPATH": str(found.site)}
        | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def probe(found: Installed) -> None:
    """Raises Unavailable unless a forward pass of a tiny model gives logits."""
    if (said := run(found, ["-c", _PROBE])).strip() != "64":
        raise Unavailable(f"transformers does not work in {found.folder}: it answered {said!r}")


def _file(place: Path) -> Path:
    return place.with_suffix(".npy")


def _kept(place: Path) -> bool:
    """Whether an answer is there, and whole: one that is spoilt costs asking again."""
    try:
        shape = json.loads(place.read_text(encoding="utf-8")).get("shape")
        return shape is None or list(np.load(_file(place), mmap_mode="r").shape) == shape
    except (OSError, ValueError, AttributeError):
        return False


def _keep(place: Path, answer: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=place.parent, suffix=".partial", delete=False, encoding="utf-8"
    ) as file:
        file.write(answer)
    os.replace(file.name, place)
