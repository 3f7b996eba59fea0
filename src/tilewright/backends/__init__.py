"""The ways of running a family: reference, host, triton, ascendc. One module each; none knows a family."""

from __future__ import annotations

from tilewright.backends.base import Backend, Cell, Launch, OnDevice, State
from tilewright.backends.table import all_backends, backend, cells

__all__ = ["Backend", "Cell", "Launch", "OnDevice", "State", "all_backends", "backend", "cells"]
