"""Watching a kernel while it is timed: what a benchmark can be cheated with, and how it shows.

Code that is timed knows when it is checked: before timing and after it. Here it does not. It is timed on
inputs of a secret seed, in memory of its own, whose values change between samples; its outputs are taken
at moments nobody can foresee and compared once timing is over, with references that do not exist before.
All of it happens between samples: what is inside two readings of the clock is the call and nothing else.
`docs/cheats.md` lists what is caught, by which test, and what is not.
"""

from __future__ import annotations

from tilewright.perf.watch.caught import Cheated

__all__ = ["Cheated"]
