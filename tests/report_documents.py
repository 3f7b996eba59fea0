"""Documents as tilewright's commands write them, full enough to fill every view of a report."""

from __future__ import annotations

import math
import random
from typing import Any

HOST = {
    "cpu": "a processor",
    "cores": 2,
    "isa": "avx2",
    "os": "Linux",
    "python": "3.11",
    "fingerprint": "x",
}
VALUES = {
    "tile_m": (8, 16, 32, 64, 128, 256),
    "tile_n": (16, 32, 64, 128),
    "tile_k": (32, 128, 512, 2048),
    "stages": (1, 2),
}


def document(command: str, rows: list[dict[str, Any]], **top: Any) -> dict[str, Any]:
    return {"schema": f"tilewright/{command}/1", "version": "0", "host": HOST, "rows": rows, **top}


def trials(
    count: int, seed: int = 0, evidence: str = "measured", objectives: bool = False, size: int = 64
) -> list[dict[str, Any]]:
    """Trials of a search whose time depends on tile_m most, then tile_k; some fail."""
    rng = random.Random(seed)
    found: list[dict[str, Any]] = []
    for n in range(count):
        config = (
            {k: rng.choice(v) for k, v in VALUES.items()}
            if n
            else {"tile_m": 32, "tile_n": 32, "tile_k": 32, "stages": 2}
        )
        slow = (
            2 * abs(math.log2(config["tile_m"]) - math.log2(size))
            + abs(math.log2(config["tile_k"]) - 9) * 0.5
        )
        value = round(80 * (1 + 0.3 * slow) * rng.lognormvariate(0, 0.03), 2)
        failed = n % 9 == 5
        row: dict[str, Any] = {
            "number": n, "target": "cpu", "config": config, "state": "failed" if failed else "ok",
            "value": None if failed else value, "value_us": None if failed else value, "unit": "us",
            "stage": rng.choice(("gate", "check")) if failed else "time",
            "reason": "element (0, 3) is 1.5 instead of 2.25, beyond the tolerance of fp32" if failed else "",
            "arm": rng.choice(("neighbour", "surrogate", "restart")), "evidence": None if failed else evidence,
        }  # fmt: skip
        if objectives and not failed:
            row["values"] = {
                "time_us": value,
                "memory_bytes": config["tile_m"] * config["tile_k"] * 4,
                "size_bytes": 4000 + 900 * config["stages"] + 11 * config["tile_n"],
            }
        found.append(row)
    return found


def tune(objectives: bool = False, **top: Any) -> dict[str, Any]:
    rows = trials(60, 1, objectives=objectives)
    good = [r for r in rows if r["value"]]
    best = min(good, key=lambda r: r["value"])
    given: dict[str, Any] = {
        "best": {"config": best["config"], "trial": best["number"], "value": best["value"], "unit": "us", "ratio": 1.7, "ratio_low": 1.6, "ratio_high": 1.8},
        "default": {"config": rows[0]["config"], "trial": 0, "value": rows[0]["value"], "unit": "us"},
        "gain": 1.7, "tie_set": [best["config"]], "verdict": "faster", "evidence": "measured", "unit": "us", "pool": 1008,
        "sampler": "portfolio", "seed": 0,
        "key": {"family": "gemm", "target": "cpu", "shape": "M=64,N=1536,K=576", "precision": "bf16"},
    }  # fmt: skip
    return document("tune", rows, **{**given, **top})


def swept() -> dict[str, Any]:
    """A sweep of 13 sizes in four buckets."""
    sizes = [1 << i for i in range(13)]
    configs = [{"tile_m": m, "tile_n": 64, "tile_k": 512, "stages": 2} for m in (32, 8, 64, 256)]
    cuts = [(0, 8), (8, 64), (64, 512), (512, 4096)]
    rng = random.Random(4)
    buckets = []
    for i, (over, upper) in enumerate(cuts):
        told = [
            {"size": s, "value": v, "low": v - 0.01, "high": v + 0.012}
            for s in sizes if over < s <= upper
            for v in [round(rng.uniform(-0.004, 0.03), 4)]
        ]  # fmt: skip
        worst = max(told, key=lambda t: float(t["value"]))
        buckets.append({
            "over": over, "upper": upper, "config": configs[i], "mean": 0.01, "worst": worst["value"],
            "worst_at": worst["size"], "cannot": 0, "regret": told,
        })  # fmt: skip
    values = [[round(3.0 * s * rng.uniform(1, 2), 2) for _ in configs] for s in sizes]
    rows = [{"shape": f"M={s},N=1536,K=576", **r} for s in sizes[:2] for r in trials(14, s, size=s)]
    sweep = {
        "dim": "M", "sizes": sizes, "shape": {"N": 1536, "K": 576}, "most_buckets": 8, "configs": configs,
        "rounds": [16] * 13, "values": values, "buckets": buckets,
        "regret": {"mean": 0.011, "worst": 0.03, "worst_at": 256, "cannot": 0},
        "one_config": {"mean": 0.06, "worst": 0.31, "worst_at": 1, "cannot": 0},
        "default": {"mean": 0.9, "worst": 2.1, "worst_at": 4096, "cannot": 0}, "studies": [],
    }  # fmt: skip
    key = {"family": "gemm", "target": "cpu", "shape": "M=1,N=1536,K=576", "precision": "bf16"}
    return document("tune", rows, sweep=sweep, key=key, evidence="measured", unit="us", gain=1.9)


def replay() -> dict[str, Any]:
    rows, summary = [], []
    for space in ("gemm-rtx3090.json.gz", "convolution-a100.json.gz"):
        for i, sampler in enumerate(("portfolio", "tpe", "random")):
            for at in (25, 50, 100, 200):
                mean = 1 - (0.12 + 0.07 * i) * (25 / at) ** 0.6
                summary.append(
                    {
                        "space": space,
                        "sampler": sampler,
                        "at": at,
                        "mean": mean,
                        "p10": mean - 0.06,
                        "seeds": 20,
                    }
                )
                rows += [
                    {"space": space, "sampler": sampler, "seed": s, "at": at, "fraction_of_optimum": min(1.0, mean + 0.003 * (s - 10))}
                    for s in range(20)
                ]  # fmt: skip
    return document("replay", rows, summary=summary)


def doctor() -> dict[str, Any]:
    facts = (
        ("L1 read, 2 threads", 850.0, "GB/s"), ("L2 read, 2 threads", 210.0, "GB/s"), ("memory read, 2 threads", 21.0, "GB/s"),
        ("bf16 peak, 2 threads", 960.0, "GFLOP/s"), ("fp32 peak, 2 threads", 240.0, "GFLOP/s"),
    )  # fmt: skip
    rows = [
        {"name": n, "value": v, "unit": u, "ok": True, "hint": "", "evidence": "measured"}
        for n, v, u in facts
    ]
    return document("doctor", rows)
