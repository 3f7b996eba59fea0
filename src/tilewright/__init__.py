"""tilewright: declare an inference kernel once; check, benchmark, tune, model and ship it."""

from __future__ import annotations

__version__ = "0.1.0"
