"""How often the regression gate is wrong on this machine: false alarms, and slowdowns it misses.

    python -m tilewright.perf.studies.gate_errors --alarm-runs 300 --slow-runs 60 --out docs/gate_errors.md

Whole gates are run over and over: of a revision against itself (every `slower` is a false alarm), and
against a build of it that truly is 5 % slower (every benchmark not called `slower` is a miss). Each gate is a
process of its own. Finished gates are kept, a line each, so an interrupted study goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tilewright import build as tools
from tilewright.document import plain, write_text
from tilewright.machine import cache_folder, data_folder, host
from tilewright.perf.regression import builds
from tilewright.perf.regression.builds import Side
from tilewright.perf.regression.decide import Policy
from tilewright.perf.regression.gate import Gate, GateRow, verdict
from tilewright.perf.regression.session import Benchmark
from tilewright.perf.studies import gate_errors_page
from tilewright.registry import family

SLOWDOWN_PERCENT = 5
ALARM, SLOW = "alarm", "slow"
# Cases of the host kernels that differ in what bounds them: overhead, cache bandwidth, multiply-adds; each dtype.
CASES: tuple[tuple[str, str, Mapping[str, int]], ...] = (
    ("gemm", "fp32", {"M": 1, "N": 576, "K": 576}),
    ("gemm", "fp32", {"M": 16, "N": 576, "K": 576}),
    ("gemm", "int8->int32", {"M": 64, "N": 1536, "K": 576}),
    ("gemm", "fp32", {"M": 64, "N": 576, "K": 576}),
    ("gemm", "fp16", {"M": 64, "N": 576, "K": 576}),
    ("gemm", "bf16", {"M": 256, "N": 576, "K": 576}),
)
# The kernel as it is, then a wait on the time-stamp counter for a share of what it took. The wait lies in a section
# of its own and the kernel's name is all that changes of its sources: where its code comes to lie stays the same,
# since shifting that alone was seen to make a kernel 2 % faster.
_SLOWER = """#include <x86intrin.h>
extern "C" int whole_tw_{name}(const tw_call* call);
extern "C" __attribute__((section("tw_slower"), visibility("default"))) int tw_host_{name}(const tw_call* call) {{
  const unsigned long long begin = __rdtsc();
  const int status = whole_tw_{name}(call);
  const unsigned long long end = __rdtsc();
  while (__rdtsc() - end < (end - begin) * {percent} / 100) {{
  }}
  return status;
}}
"""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a study is about; results of another setup are not mixed in."""

    library: str
    slow_library: str
    fingerprint: str
    policy: Mapping[str, Any]
    cases: tuple[str, ...]

    def key(self, kind: str) -> str:
        """Of gates of one kind: those of equal builds do not depend on the slower one."""
        about = {k: v for k, v in plain(self).items() if kind == SLOW or k != "slow_library"}
        return _short_hash(json.dumps(about, sort_keys=True))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def slower_side(base: Side, percent: int = SLOWDOWN_PERCENT) -> Side:
    """The same sources with every host kernel followed by a wait of `percent` of what it took, built by the same rules."""
    name = f"{base.name}, {percent} % slower"
    with tempfile.TemporaryDirectory(prefix="tilewright-slower-") as folder:
        kernels = Path(folder) / "kernels"
        shutil.copytree(base.sources / "kernels", kernels)
        families = {}
        for file in sorted(kernels.glob("*/host.cpp")):
            family_name = file.parent.name
            renamed = f"#define tw_host_{family_name} whole_tw_{family_name}\n#line 1\n"
            file.write_text(renamed + file.read_text())
            text = _SLOWER.format(name=family_name, percent=percent)
            (file.parent / "host_slower.cpp").write_text(text)
            families[family_name] = file.parent
        key = tools.digest(tools.sources(kernels), words=[*sorted(families), "slower"])
        library = cache_folder("gate", "builds", key, "libhost.so")
        if not library.exists():
            dirs = ";".join(f"{one}={place}" for one, place in families.items())
            options = {"TW_FAMILY_DIRS": dirs, "TW_OUTPUT": library.stem}
            tools.build(kernels / "_host", options, library, name)
    return Side(name, f"{base.tree}-slower", base.sources, library)


def benchmarks() -> list[Benchmark]:
    """Those of the study's gates."""
    found = []
    for name, precision, sizes in CASES:
        one = family(name)
        found.append(Benchmark(one, one.spec.case(sizes, precision, {}), 1, 0))
    return found


def one_gate(base: Side, new: Side, chosen: Sequence[Benchmark], policy: Policy) -> dict[str, Any]:
    """A gate in a process of its own, forked off with everything imported; its rows, verdict and duration."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            began = time.monotonic()
            rows = Gate(base, new, chosen, policy, own=(True, True), keep_samples=False).rows()
            found = {
                "seconds": round(time.monotonic() - began, 2),
                "cpu_seconds": round(time.process_time(), 2),
                "verdict": verdict(rows),
                "rows": [_short(row) for row in rows],
            }
            with os.fdopen(writing, "w") as out:
                json.dump(plain(found), out)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as result:
        text = result.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError("a gate of the study ended without a result; its words are above")
    outcome: dict[str, Any] = json.loads(text)
    return outcome


def _short(row: GateRow) -> dict[str, Any]:
    keep = ("case", "dtype", "verdict", "reason", "base_us", "new_us", "ratio", "ci", "passes", "quads", "seconds",
            "clock", "mhz", "others_busy", "steal", "load", "log_ratios")  # fmt: skip
    return {k: v for k, v in asdict(row).items() if k in keep}


def plan(kept: Sequence[Mapping[str, Any]], alarm_runs: int, slow_runs: int) -> Iterator[str]:
    """Which kind of gate comes next: spread so that both kinds see the same hours."""
    done = {kind: sum(r["kind"] == kind for r in kept) for kind in (ALARM, SLOW)}
    while done[ALARM] < alarm_runs or done[SLOW] < slow_runs:
        behind = done[SLOW] * alarm_runs <= done[ALARM] * slow_runs
        kind = SLOW if done[SLOW] < slow_runs and (behind or done[ALARM] >= alarm_runs) else ALARM
        done[kind] += 1
        yield kind


def read(path: Path, setup: Setup) -> list[dict[str, Any]]:
    """Finished gates of this setup."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [line for line in lines if line["setup"] == setup.key(line["kind"])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, write the page; 0 unless a target is missed by what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--alarm-runs", type=int, default=300, help="gates of equal builds")
    parser.add_argument("--slow-runs", type=int, default=60, help="gates of a slower build")
    parser.add_argument("--base", default="HEAD", help="the revision that is compared with itself")
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[data_folder("studies", "gate_errors.jsonl")],
        help="files of finished gates; the first is added to, so several studies may run side by side",
    )
    parser.add_argument("--out", type=Path, default=None, help="the page (Markdown) of the results")
    parser.add_argument("--pass-seconds", type=float, default=0.1)
    parser.add_argument("--report-only", action="store_true", help="write the page, run nothing")
    given = parser.parse_args(arguments)
    root = builds.repository()
    base = builds.build(root, builds.tree_of(root, given.base), given.base)
    slow = slower_side(base)
    chosen, policy = benchmarks(), Policy(pass_s=given.pass_seconds)
    setup = Setup(
        base.library_hash,
        slow.library_hash,
        host().fingerprint,
        plain(policy),
        tuple(f"{b.case.precision} {b.case}" for b in chosen),
    )
    kept = [line for path in given.data for line in read(path, setup)]
    if not given.report_only:
        run(
            given.data[0],
            setup,
            kept,
            (base, slow),
            chosen,
            policy,
            given.alarm_runs,
            given.slow_runs,
        )
    summary = gate_errors_page.summarise(kept, plain(setup))
    text = gate_errors_page.page(summary)
    if given.out:
        write_text(given.out, text)
        write_text(given.out.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
    else:
        print(text)
    return 0 if summary["within_targets"] else 1


def run(
    path: Path,
    setup: Setup,
    kept: list[dict[str, Any]],
    sides: tuple[Side, Side],
    chosen: Sequence[Benchmark],
    policy: Policy,
    alarm_runs: int,
    slow_runs: int,
) -> None:
    """The gates that are missing; each is appended to the file as it ends."""
    import torch

    # A fork takes no threads along: nothing here may have started any. The call loads what torch loads late.
    torch.set_num_threads(1)
    torch.unravel_index(torch.tensor(1), (2, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    todo = list(plan(kept, alarm_runs, slow_runs))
    began = time.monotonic()
    for i, kind in enumerate(todo, 1):
        found = one_gate(sides[0], sides[1] if kind == SLOW else sides[0], chosen, policy)
        line = {
            "setup": setup.key(kind),
            "kind": kind,
            "at": round(time.time()),
            "load": os.getloadavg()[0],
            **found,
        }
        kept.append(line)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        alarms = sum(r["verdict"] == "slower" for r in kept if r["kind"] == ALARM)
        left = (time.monotonic() - began) / i * (len(todo) - i) / 60
        print(
            f"{i} of {len(todo)}: {kind} {found['verdict']} in {found['seconds']} s; false alarms so far {alarms}; "
            f"about {left:.0f} min left",
            flush=True,
        )


if __name__ == "__main__":
    raise SystemExit(main())
