"""What one side hands its kernel for a benchmark: run with that side's own package, so it uses only what every side has.

As a script it reads a list of benchmarks as JSON from standard input and writes their calls to standard output:
`python -S describe.py < benchmarks.json > calls.json`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from tilewright.backends.host import attributes
from tilewright.errors import CRASHES
from tilewright.inputs import draw_typical
from tilewright.registry import family
from tilewright.tables import choose
from tilewright.targets import target


def call(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    """The call of one benchmark: a digest of each input as laid out, integer attributes, config and its source.

    A benchmark this side cannot express has a `reason` instead.
    """
    try:
        found = family(benchmark["family"])
        case = found.spec.case(
            benchmark["sizes"], benchmark["precision"], benchmark["flags"], benchmark["memory"]
        )
        choice = choose(found, case, target("cpu"))
        inputs = draw_typical(found, case, benchmark["seed"])
        return {
            "inputs": {name: _digest(value) for name, value in inputs.physical.items()},
            "outputs": [t.name for t in found.spec.outputs],
            "attributes": attributes(found.spec, case, choice.config),
            "config": dict(choice.config),
            "config_source": choice.source,
        }
    except CRASHES as error:
        return {"reason": f"{type(error).__name__}: {error}"}


def _digest(value: Any) -> str | None:
    """Of dtype, shape, strides and the values; None for an absent input."""
    if value is None:
        return None
    import torch

    about = f"{value.dtype} {tuple(value.shape)} {tuple(value.stride())}"
    raw = value.contiguous().view(torch.uint8).numpy() if value.dim() else value.numpy()
    return hashlib.sha256(about.encode() + raw.tobytes()).hexdigest()[:16]


def main() -> None:
    """Standard input to standard output."""
    json.dump([call(benchmark) for benchmark in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
