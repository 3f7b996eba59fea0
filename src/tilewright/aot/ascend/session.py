"""Talking to the worker process: one process for many kernels, replaced when it dies or hangs."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tilewright.errors import BuildFailed
from tilewright.toolchains import Installed

TIMEOUT_S = 120.0
"""Longest wait for one kernel, seconds. Good configs take 0.1 to 0.5 s, the slowest seen 2.2 s."""


def worker_command(found: Installed) -> list[str]:
    """How the worker of an ascend-ir environment is started: isolated from every other environment."""
    return [found.python, "-I", "-S", str(Path(__file__).with_name("worker.py")), str(found.site)]


class Session:
    """A worker that is started at the first request and again after a crash or a timeout.

    `command` speaks JSON lines on its standard input and output. A context manager; not for use by
    several threads at once.
    """

    def __init__(self, command: Sequence[str], timeout_s: float = TIMEOUT_S) -> None:
        self.command = list(command)
        self.timeout_s = timeout_s
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = Path()
        self._unread = b""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's answer. Raises BuildFailed if it crashes or gives none within `timeout_s`."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, time.monotonic() + self.timeout_s)
        except BrokenPipeError:
            line = b""
        except KeyboardInterrupt:
            self.close()
            raise
        if line is None:
            self.close()
            raise BuildFailed(
                f"the Ascend compiler gave no answer within {self.timeout_s:g} s and was stopped"
            )
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise BuildFailed(self._obituary(process, ended=not line)) from None
        return answer

    def close(self) -> None:
        """End the worker and what it started; a later request starts a new one."""
        process, self._process = self._process, None
        if process is None:
            return
        # The worker leads a process group: a compiler that hangs is its child.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        self._scratch = Path(tempfile.mkdtemp(prefix="tilewright-ascend-ir-"))
        self._unread = b""
        # No PATH: a machine with CANN must give the same artefact as one without. Triton's
        # switches of the user's environment stay out too.
        places = dict.fromkeys(("HOME", "TMPDIR", "TRITON_CACHE_DIR"), str(self._scratch))
        with (self._scratch / "stderr").open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": "", "LC_ALL": "C.UTF-8", **places},
                start_new_session=True,
            )
        self.starts += 1
        return self._process

    def _line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
        """The next line; b"" at the end of the stream, None at the deadline."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    return b""
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _obituary(self, process: subprocess.Popen[bytes], ended: bool) -> str:
        log = self._scratch / "stderr"
        with contextlib.suppress(subprocess.TimeoutExpired):
            # What closed its output is about to end; what wrote something else is not.
            process.wait(timeout=5 if ended else 0)
        lines: list[str] = []
        # Another thread that ends the session takes the log away.
        with contextlib.suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        status = process.returncode
        self.close()
        how = "answered with something else than JSON"
        if ended:
            how = died(status) if status is not None else "closed its output"
        return f"the Ascend compiler {how}" + (f": {lines[-1].strip()[:200]}" if lines else "")


def died(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        return f"crashed ({signal.Signals(-status).name})"
    return f"ended with status {status}"
