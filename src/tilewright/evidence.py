"""How a number was obtained. Every number that leaves the program carries one of these words."""

from __future__ import annotations

from enum import StrEnum


class Evidence(StrEnum):
    """See docs/honesty.md: these words are never mixed in one comparison without saying so."""

    MEASURED = "measured"
    MODELLED = "modelled"
    COMPILED = "compiled"
    PUBLISHED = "published"
