"""What was found, as an error: one sentence that names the kernel and what it did."""

from __future__ import annotations

from tilewright.errors import CheckFailed


class Cheated(CheckFailed):
    """A kernel did something else while it was timed than what it is timed for; its time is dropped."""

    def __init__(self, who: str, what: str) -> None:
        super().__init__(f"{who} {what}, so its time is dropped")
        self.what = what
