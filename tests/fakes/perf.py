"""Stand-ins for tests of the benchmark: a machine of round numbers, a backend and a peer that go wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from tilewright.backends import Backend, Cell, Launch, State, all_backends
from tilewright.cases import Case
from tilewright.inputs import Inputs, reference_outputs
from tilewright.perf import ceilings
from tilewright.perf.bench import Ceiling, Plan, rows
from tilewright.perf.engine import Effort
from tilewright.perf.rows import BenchRow
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.spec import Precision
from tilewright.targets import Target

QUICK = Effort(width=0.5, seconds=0.5, fewest=3, warmup_s=0.005)
SHAPE = {"M": 8, "N": 48, "K": 32}


class FakeProbe:
    """A machine of round numbers: bandwidth falls with the footprint, peaks grow with threads."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def read_gbps(self, bytes_each: int, threads: int, seconds: float) -> float:
        level = 400 if bytes_each <= 64 << 10 else 200 if bytes_each <= 1 << 20 else 100
        return self.scale * threads * (30 if bytes_each > 24 << 20 else level)

    def write_gbps(self, bytes_each: int, threads: int, seconds: float) -> float:
        return self.read_gbps(bytes_each, threads, seconds) / 2

    def gops(self, kind: str, threads: int, seconds: float) -> float | None:
        return {"fp32": 100.0, "bf16": 200.0, "int8": 400.0}.get(
            kind, 0.0
        ) * threads * self.scale or None


LEVELS = tuple(
    ceilings.Level(n, s) for n, s in (("L1", 32 << 10), ("L2", 1 << 20), ("L3", 32 << 20))
)


def fake_ceilings(scale: float = 1.0) -> ceilings.Ceilings:
    return ceilings.measure(FakeProbe(scale), LEVELS, (1, 2), window_s=0.0, repeats=1)


def known(found: ceilings.Ceilings) -> Ceiling:
    return Ceiling(found, tried=True, refreshed=True)


def no_ceilings() -> Ceiling:
    return Ceiling(tried=True, reason="none in this test")


class Faulty(Backend):
    """The right answer for some calls, then another: `right` calls are right."""

    name = "faulty"

    def __init__(self, right: int, added: float = 0.0) -> None:
        self.right = right
        self.added = added

    def targets(self) -> tuple[str, ...]:
        return ("cpu",)

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        return Cell(family.name, self.name, target.name, precision.name, State.RUN)

    def refuses(self, family: Family, case: Case, config: Config, target: Target) -> str | None:
        return None

    def added_error(self, family: Family, case: Case) -> float:
        return self.added

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        inner = all_backends()["reference"].prepare(family, case, inputs, config, target, threads)
        calls = 0

        def run() -> None:
            nonlocal calls
            calls += 1
            inner.run()
            if calls > self.right:
                next(iter(inner.outputs.values())).view(-1)[3] += 100

        return Launch(run, inner.outputs)


@dataclass
class FakePeer:
    """The reference itself, wrong after `right` calls; asks for `flags` on our side."""

    family: Family
    case: Case
    inputs: Inputs
    right: int = 10**9
    flags: Mapping[str, str] = field(default_factory=dict)
    name: str = "other"
    summary: str = "the reference"

    @property
    def prepare(self) -> Callable[[], Callable[[], Any]]:
        outputs = reference_outputs(self.family, self.case, self.inputs)
        values = [v.to(torch.float32) for v in outputs.values()]
        calls = 0

        def call() -> torch.Tensor:
            nonlocal calls
            calls += 1
            return values[0] + (100 if calls > self.right else 0)

        return lambda: call


def timed_with(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, plan: Plan, ceiling: Ceiling
) -> list[BenchRow]:
    """The rows of a plan on a backend that is in no table."""
    table = {**all_backends(), backend.name: backend}
    monkeypatch.setattr("tilewright.perf.bench.backend_named", lambda name: table[name])
    return list(rows(replace(plan, backends=[backend.name]), ceiling))


def bench_row(**changed: Any) -> dict[str, Any]:
    row = {
        "family": "gemm", "backend": "host", "target": "cpu", "case": "M=64,N=1536,K=576", "dtype": "bf16",
        "threads": 2, "cache": "warm", "median_us": 123.4, "ci_low_us": 120.0, "ci_high_us": 125.0, "samples": 50,
        "gflops": 917.0, "gbps": 16.9, "ceiling_frac": 0.87, "bound_by": "compute", "peer": "torch-best",
        "peer_is": "torch-mkldnn", "ratio": 1.21, "ratio_ci_low": 1.15, "ratio_ci_high": 1.25, "verdict": "faster",
        "evidence": "measured", "state": "timed", "quiet": False, "reason": "",
    }  # fmt: skip
    return {**row, **changed}
