"""Run by a Python of the kernel-tuner toolchain: Kernel Tuner itself simulates from a cache file.

Arguments: the folder of its packages, the cache. Prints one JSON line: each config with its value (null where
it failed), the same as T4 results by Kernel Tuner, and the T4 schema of that release.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

from kernel_tuner import interface  # noqa: E402
from kernel_tuner.file_utils import get_t4_results, output_file_schema  # noqa: E402
from kernel_tuner.util import NpEncoder  # noqa: E402


def main() -> None:
    with open(sys.argv[2], encoding="utf-8") as file:
        content = json.load(file)
    names, objective = content["tune_params_keys"], content["objective"]
    legal = {tuple(row[n] for n in names) for row in content["cache"].values()}

    # Kernel Tuner reads the source of a restriction: it must be a function on lines of its own.
    def known(p):  # type: ignore[no-untyped-def]
        return tuple(p[n] for n in names) in legal

    results, environment = interface.tune_kernel(
        content["kernel_name"],
        'extern "C" __global__ void k(){}',
        tuple(content["problem_size"]),
        [],
        content["tune_params"],
        restrictions=known,
        cache=sys.argv[2],
        simulation_mode=True,
        strategy="brute_force",
        objective=objective,
        objective_higher_is_better=False,
        quiet=True,
        lang="CUDA",
    )
    rows = [
        {"config": {n: r[n] for n in names}, "value": None if "__error__" in r else r[objective]}
        for r in results
    ]
    schema = output_file_schema("results")[1]
    answer = {"rows": rows, "device": environment["device_name"], "schema": schema}
    answer["t4"] = get_t4_results(results, content["tune_params"], objective)
    for result in answer["t4"]["results"]:
        # An error is an object of Kernel Tuner's; it writes none of these files itself without dropping them.
        result["measurements"] = [m for m in result["measurements"] if m["name"] != "__error__"]
    print(json.dumps(answer, cls=NpEncoder))


main()
