"""Runs inside the environment of the toolchain `transformers`, which has none of ours: answers jobs on one model.

    python transformers_run.py    < {"folder": ..., "jobs": [{"do": "greedy", ...}, ...]}

One line of JSON a job: what `greedy`, `logits` and `beams` below return.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NOBODY = -1  # stands behind sequences that ended before others


def main() -> None:
    """Answer each job on standard output."""
    import torch
    from transformers import AutoModelForCausalLM  # type: ignore[import-not-found]
    from transformers.utils import logging  # type: ignore[import-not-found]

    logging.set_verbosity_error()
    job = json.load(sys.stdin)
    model = AutoModelForCausalLM.from_pretrained(
        Path(job["folder"]), dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    # What a checkpoint's own generation_config.json asks for is not asked for here.
    model.generation_config = type(model.generation_config)()
    with torch.no_grad():
        for one in job["jobs"]:
            print(
                json.dumps(
                    {"greedy": greedy, "logits": logits, "beams": beams}[one["do"]](model, one)
                )
            )
            sys.stdout.flush()


def greedy(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The most likely continuation; of each token by how much its logit led."""
    found = _generate(model, job, output_logits=True)
    tops = [step[0].topk(2).values for step in found.logits]
    return {
        "tokens": found.sequences[0, len(job["prompt"]) :].tolist(),
        "gaps": [float(top[0] - top[1]) for top in tops],
    }


def logits(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The logits of every token of the prompt, as fp32 in the file that the job names."""
    import numpy as np
    import torch

    found = model(torch.tensor([job["prompt"]])).logits[0]
    np.save(job["file"], found.numpy())
    return {"shape": list(found.shape)}


def beams(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The answers of a beam search with their scores, the best first."""
    width = job["width"]
    found = _generate(
        model,
        job,
        num_beams=width,
        num_return_sequences=width,
        length_penalty=job["penalty"],
        early_stopping=False,
        output_scores=True,
    )
    answers = found.sequences[:, len(job["prompt"]) :].tolist()
    return {
        "answers": [[t for t in answer if t != NOBODY] for answer in answers],
        "scores": found.sequences_scores.tolist() if width > 1 else [0.0],
    }


def _generate(model: Any, job: dict[str, Any], **more: Any) -> Any:
    import torch

    prompt = torch.tensor([job["prompt"]])
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=job["most"],
        eos_token_id=job["ends"] or None,
        pad_token_id=NOBODY,
        return_dict_in_generate=True,
        **more,
    )


if __name__ == "__main__":
    main()
