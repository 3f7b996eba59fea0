"""Runs Kernel Tuner's strategies on recorded spaces in simulation mode, in Kernel Tuner's own environment.

Imports nothing of this package. The argument is the folder of that environment's packages. Input: one JSON job on standard input,
`{"cache": FILE, "strategies": [...], "seeds": [...], "budget": N}`. Output: one JSON line a run,
`{"strategy", "seed", "values": [time of each unique config in order, null where it failed], "cpu_s"}`.
"""

import contextlib
import io
import json
import os
import random
import sys
import time
import warnings
from typing import Any

sys.path.insert(0, sys.argv[1])

import numpy as np  # noqa: E402
from kernel_tuner import interface, util  # noqa: E402
from kernel_tuner.searchspace import Searchspace  # noqa: E402


def main() -> None:
    job = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    with open(job["cache"], encoding="utf-8") as file:
        content = json.load(file)
    keys = content["tune_params_keys"]
    legal = {tuple(row[k] for k in keys) for row in content["cache"].values()}
    # The values that occur, each in its declared order: a declared value without a config slows strategies down.
    params = {
        k: [v for v in content["tune_params"][k] if any(c[i] == v for c in legal)]
        for i, k in enumerate(keys)
    }

    # Kernel Tuner reads the source of a restriction: it must be a function on lines of its own.
    def ok(p):  # type: ignore[no-untyped-def]
        return tuple(p[k] for k in keys) in legal

    # The space and the cache are built once, not once a run: only the strategy is compared.
    space = Searchspace(params, ok, 1_000_000_000)
    interface.Searchspace = lambda *args, **kwargs: space
    rows = content["cache"]
    for row in rows.values():
        if not isinstance(row["time"], int | float):
            row["time"] = row["__error__"] = util.CompilationFailedConfig()
    util.process_cache = lambda *args, **kwargs: rows
    util.close_cache = lambda *args, **kwargs: None
    assert {",".join(str(v) for v in c) for c in space.list} == set(rows), "keys differ"

    for strategy in job["strategies"]:
        for seed in job["seeds"]:
            # A process a run: a searchspace remembers whose neighbours were looked at, which would tell later
            # runs where earlier ones ended.
            child = os.fork()
            if child == 0:
                one_run(job, content, keys, params, ok, strategy, seed)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                raise SystemExit(f"{strategy} with seed {seed} ended with status {status}")


def one_run(job, content, keys, params, ok, strategy, seed) -> None:  # type: ignore[no-untyped-def]
    """Tune once and print the line of this run."""
    random.seed(seed)
    np.random.seed(seed)
    began = time.process_time()
    error = ""
    seen = _Seen()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            results, _ = interface.tune_kernel(
                content["kernel_name"],
                'extern "C" __global__ void k(){}',
                (1, 1),
                [],
                params,
                restrictions=ok,
                cache=job["cache"],
                simulation_mode=True,
                strategy=strategy,
                strategy_options={"max_fevals": job["budget"]},
                quiet=True,
                lang="CUDA",
            )
        for row in results:
            seen.add(tuple(row[k] for k in keys), row)
    except Exception as raised:
        # A strategy that crashes is a result about it, not about this script.
        error = f"{type(raised).__name__}: {raised}"
    cpu = time.process_time() - began
    done = {"strategy": strategy, "seed": seed, "values": seen.values, "cpu_s": cpu}
    print(json.dumps(done | ({"error": error} if error else {})), flush=True)


class _Seen:
    """Values of the unique configs, in the order in which they were first tried."""

    def __init__(self) -> None:
        self.keys: set[tuple[object, ...]] = set()
        self.values: list[float | None] = []

    def add(self, key: tuple[object, ...], row: dict[str, Any]) -> None:
        if key not in self.keys:
            self.keys.add(key)
            time_ms = row.get("time")
            if isinstance(time_ms, int | float) and "__error__" not in row:
                self.values.append(float(time_ms))
            else:
                self.values.append(None)


if __name__ == "__main__":
    main()
