"""What the scripts of this folder share: jobs come as JSON lines on standard input, answers leave the same way.

    PYTHON -S SCRIPT.py SITE OPTIONS

SITE is the folder of the toolchain's packages, OPTIONS a JSON object: `model`, `weights`, `threads`, `batch` (requests
at once at most), `context` (tokens of a request at most), `extra` (folders of more packages). A job is `{"prompts":
[[id, ...], ...], "steps": N}`: all prompts are computed up to their first greedy token, and with steps 0 that is what
is timed; else the N tokens of each that follow. The answer: `{"seconds": S, "tokens": [[id, ...], ...]}`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Tokens = list[list[int]]


def options() -> Any:
    """The options, with the toolchain's packages put on the path and as many processors to run on as threads."""
    found = json.loads(sys.argv[2])
    sys.path[1:1] = [sys.argv[1]]
    sys.path += found.get("extra", [])
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.argv[1], *found.get("extra", [])])
    os.environ["OMP_NUM_THREADS"] = str(found["threads"])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: found["threads"]])
    return found


Calls = tuple[Callable[[Tokens], Tokens], Callable[[], Tokens], Callable[[], object]]


def serve(load: Callable[[Any], Calls]) -> None:
    """Answer jobs until the input ends. `load(options)` gives three calls: `start(prompts)` gives each request's
    first token, `step()` the next one of each, and `drop()`, which is not timed, ends them."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    start, step, drop = load(options())
    answer: dict[str, Any] = {"ready": True}
    while True:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # libraries with threads may crash where a process ends in order
        job = json.loads(line)
        before = time.perf_counter()
        tokens = start(job["prompts"])
        if job["steps"]:
            before = time.perf_counter()
            for _ in range(job["steps"]):
                for own, new in zip(tokens, step(), strict=True):
                    own += new
        answer = {"seconds": time.perf_counter() - before, "tokens": tokens}
        drop()
        _settle()


def _settle() -> None:
    """Wait until no thread of this process spins: it would slow whoever is timed next."""
    for _ in range(200):
        busy = time.process_time()
        time.sleep(0.001)
        if time.process_time() - busy < 2e-4:
            return
