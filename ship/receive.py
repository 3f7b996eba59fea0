"""Running a bundle's own verify.py and reading what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.errors import UsageError, VerificationFailed

Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`rows` are dicts with `stage`, `ok`, `detail`, `state`; `exit_code` is verify.py's own."""

    rows: tuple[dict[str, Any], ...]
    exit_code: int

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    def first_problem(self) -> str:
        """The sentence of the first stage that did not pass, with the stage's name."""
        bad = next((r for r in self.rows if r["state"] not in ("passed", "not run")), None)
        return f"{bad['stage']}: {bad['detail']}" if bad else ""


def verify(folder: Path, options: Sequence[str] = (), runner: Runner | None = None) -> Verdict:
    """Run `folder`/verify.py with this Python, or with `runner`, and return its verdict.

    Raises UsageError if the folder is no bundle, VerificationFailed if its verify.py does not
    answer.
    """
    script = folder / "verify.py"
    if not script.is_file():
        raise UsageError(f"{folder} has no verify.py; `tilewright ship {folder}` makes a bundle")
    arguments = ["-B", str(script.resolve()), "--json", "-", *options]
    done = (runner or _here)(arguments)
    try:
        document = json.loads(done.stdout)
        return Verdict(tuple(document["rows"]), int(document["exit_code"]))
    except (json.JSONDecodeError, KeyError, TypeError):
        words = (done.stderr or done.stdout).strip().splitlines()
        last = words[-1] if words else "it printed nothing"
        if done.returncode == 2:
            raise UsageError(f"{script}: {last}") from None
        raise VerificationFailed(
            f"{script} gave no verdict (exit code {done.returncode}): {last}"
        ) from None


def _here(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
