"""Whether an op was registered as its bundle says."""

from __future__ import annotations

import re


def same_schema(registered: str, declared: str) -> bool:
    """Whether they differ in the namespace and in how default numbers are written only."""

    def normal(schema: str) -> str:
        numbers = re.compile(r"(?<==)-?[0-9][0-9.]*(?:e[+-]?[0-9]+)?")
        return numbers.sub(lambda found: repr(float(found.group())), schema)

    return normal(registered).rpartition("::")[2] == normal(declared)
