"""The frozen text that activations, calibration and perplexity are computed on."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from functools import lru_cache
from pathlib import Path

from .errors import CorruptData

TEXT_NAME = "pydoc_topics"
TEXT_SHA256 = "71f2ff5d99bdc1f9c48c5c2353ad138201c5ca1c377e0226857ef8fa89b8bcee"
TEXT_PATH = Path(__file__).parent / "data" / "pydoc_topics.txt.gz"


def read_frozen(path: Path, sha256: str) -> str:
    """The UTF-8 text inside the gzip file `path`, whose unpacked bytes hash to `sha256`.

    Raises:
        CorruptData: the file is missing, is no gzip file, or hashes to something else.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptData(f"cannot unpack {path.name}: {error}") from error
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise CorruptData(f"{path.name} has sha256 {found}, expected {sha256}")
    return raw.decode("utf-8")


@lru_cache(maxsize=1)
def default_text() -> str:
    """CPython 3.11's 79 `pydoc` topics as one text: 466,273 bytes, PSF (`data/README.md`)."""
    return read_frozen(TEXT_PATH, TEXT_SHA256)
