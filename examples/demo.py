"""The main job on real input: gemm on SmolLM2's weights, from checks to a bundle verified elsewhere and a chat answer.

    python examples/demo.py [--out DIR] [--trials N]

Every step is what the command of the same name does. It ends with one summary and an HTML report.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import real_linear  # noqa: E402
from tilewright import check, tables  # noqa: E402
from tilewright.backends import all_backends, backend, cells  # noqa: E402
from tilewright.document import document  # noqa: E402
from tilewright.errors import TilewrightError  # noqa: E402
from tilewright.registry import Family, family  # noqa: E402
from tilewright.targets import target  # noqa: E402

QUESTION = "What is the capital of France?"
TOKENS = 256
TRIALS = 40
TARGETS = ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942")
SHIPPED = ("fp16", "bf16", "int8->bf16")
BENCHED = ("fp32", "bf16", "int8->int32")
# The twin and the interpreter run every instruction in software: they get the first tokens only.
TWIN_TOKENS, INTERPRETED_TOKENS = 64, 16


@dataclass(slots=True)
class Demo:
    """What the steps share: the family, where results go, and the lines of the summary."""

    family: Family
    out: Path
    trials: int
    summary: list[str] = field(default_factory=list)
    documents: list[Path] = field(default_factory=list)
    failed: bool = False

    def keep(self, command: str, rows: Sequence[Any], **top: Any) -> None:
        """Write a command's document beside the report."""
        path = self.out / f"{command}.json"
        path.write_text(json.dumps(document(command, rows, **top)), encoding="utf-8")
        self.documents.append(path)

    def conclude(self, ok: bool, line: str) -> None:
        """One line of the summary."""
        self.failed |= not ok
        self.summary.append(f"{'ok    ' if ok else 'FAILED'} {line}")


def real_layers(tokens: int) -> list[Any]:
    """q_proj, gate_proj and down_proj of three layers with normed embeddings of real text."""
    from tilewright.models import default_linears

    return list(default_linears(tokens))


def check_everything(demo: Demo) -> None:
    """Every backend on the spec's own cases, then on the real layers."""
    selected = check.jobs([demo.family], targets=("cpu", "cuda:sm_80", "ascend:910b1"))
    rows = list(check.run_all(selected))
    bad = sum(not r.ok for r in rows)
    by_backend = {b: sum(r.backend == b for r in rows) for b in all_backends()}
    counted = ", ".join(f"{b} {n}" for b, n in by_backend.items() if n)
    demo.conclude(
        not bad, f"check     {len(rows) - bad} of {len(rows)} cases of the spec ({counted})"
    )
    real = check_real_layers(demo)
    bad = sum(not r.ok for r in real)
    demo.conclude(
        not bad, f"check     {len(real) - bad} of {len(real)} real layers of SmolLM2-135M-Instruct"
    )
    demo.keep("check", [*rows, *real])


def check_real_layers(demo: Demo) -> list[check.CheckRow]:
    """The nine layers in every precision on the host, a few tokens of them on the slower backends."""
    rows = []
    plans = (
        ("host", "cpu", TOKENS, tuple(p.name for p in demo.family.spec.precisions)),
        ("ascendc", "ascend:910b1", TWIN_TOKENS, ("fp16", "bf16", "int8->int32")),
        ("triton", "cuda:sm_80", INTERPRETED_TOKENS, ("fp16", "bf16")),
    )
    for name, where, tokens, precisions in plans:
        layers = real_layers(tokens)
        for linear in layers if name != "triton" else layers[3:6]:
            for precision in precisions:
                case = real_linear.case_of(demo.family, linear, precision)
                config = demo.family.spec.default_config(target(where))
                job = check.Job(demo.family, backend(name), target(where), case, config, seed=0)
                rows.append(check.run(job, real_linear.inputs_of(demo.family, linear, case)))
    return rows


def bench_against_torch(demo: Demo) -> None:
    """The host kernel beside torch's fastest way, interleaved, on the real layers."""
    from tilewright.perf import bench
    from tilewright.perf.engine import Effort

    layers = real_layers(TOKENS)[3:6]
    found = []
    for linear in layers:
        for precision in BENCHED:
            case = real_linear.case_of(demo.family, linear, precision)
            plan = bench.Plan(
                [demo.family],
                dtypes=[precision],
                cases=[case],
                threads=[2] if bench.usable_cores() > 1 else [1],
                against=["torch-best"],
                effort=Effort(seconds=2.0),
                inputs=lambda fam, c, seed, layer=linear: real_linear.inputs_of(fam, layer, c),
            )
            found += list(bench.rows(plan))
    timed = [r for r in found if r.state == "timed" and r.ratio]
    demo.keep("bench", found)
    for precision in BENCHED:
        ratios = [r.ratio for r in timed if r.dtype == precision]
        if ratios:
            mean = _geometric_mean(ratios)
            demo.conclude(
                True,
                f"bench     {precision}: {mean:.2f} x torch's fastest way (measured, {len(ratios)} layers)",
            )
    for row in found:
        if row.state != "timed":
            demo.conclude(False, f"bench     {row.state} {row.dtype} {row.case}: {row.reason}")


def tune_host(demo: Demo) -> None:
    """Tune the host kernel for the middle gate_proj."""
    from tilewright.autotune.study import tune

    linear = real_layers(TOKENS)[4]
    case = real_linear.case_of(demo.family, linear, "bf16")
    result = tune(
        demo.family, case, "cpu", demo.trials, storage=f"journal:{demo.out / 'study.journal'}"
    )
    demo.keep("tune", result.rows, **result.top())
    gain = result.gain
    chosen = tables.choose(demo.family, case, target("cpu"))
    demo.conclude(
        result.best is not None and len(result.rows) >= demo.trials,
        f"tune      {len(result.rows)} trials of {result.pool} legal configs: "
        f"{gain:.2f} x the default (measured); {chosen.config}"
        if gain
        else "tune      no config succeeded",
    )


def compile_for_gpus(demo: Demo) -> None:
    """The Triton kernel to real binaries for four architectures."""
    from tilewright.aot import compile_pool

    rows = []
    spec = demo.family.spec
    for precision in ("bf16", "int8->int32"):
        flags = dict(spec.case(dict.fromkeys(spec.dim_names(), 1), precision).flags)
        for name in TARGETS:
            config = spec.default_config(target(name))
            rows += list(
                compile_pool(demo.family.module("triton"), precision, flags, [config], [name])
            )
    demo.keep("compile", [r.row() for r in rows])
    ok = sum(r.ok for r in rows)
    spills = sum(r.spill_bytes for r in rows)
    demo.conclude(
        ok == len(rows),
        f"compile   {ok} of {len(rows)} binaries for {len(TARGETS)} GPUs, {spills} bytes spilled (compiled)",
    )


def run_twin(demo: Demo) -> None:
    """The AscendC kernel on the twin of the 910B, with a bigger tile than the default."""
    from tilewright.backends.ascendc import AscendC

    where, one = target("ascend:910b1"), AscendC()
    spec = demo.family.spec
    space = spec.space_for(where)
    assert space is not None
    default = spec.default_config(where)
    wide = space.complete(
        {"tile_m": 128, "tile_n": 128, "tile_k": 64, "step_ka": 2, "step_kb": 2}, default
    )
    rows, findings = [], []
    linear = real_layers(TWIN_TOKENS)[4]
    for config in (default, wide):
        case = real_linear.case_of(demo.family, linear, "fp16")
        inputs = real_linear.inputs_of(demo.family, linear, case)
        launch = one.prepare(demo.family, case, inputs, config, where)
        launch.run()
        job = check.Job(demo.family, one, where, case, config, seed=0)
        verdict = check.compare_outputs(job, inputs, launch.outputs)
        result = launch.details["result"]
        rows.append(
            {
                "family": demo.family.name,
                "target": where.name,
                "case": str(case),
                "dtype": "fp16",
                "config": dict(config),
                "ok": verdict.ok and result.ok,
                "rel_err": verdict.rel_err,
                "findings": len(result.findings),
                "peak": dict(result.peak),
                "cycles": launch.details["cycles"],
                "evidence": "modelled",
            }
        )
        findings += [str(f) for f in result.findings]
    demo.keep("twin", rows, findings=findings)
    floors = " -> ".join(f"{r['cycles'] / where.limit('mhz'):.1f} us" for r in rows)
    demo.conclude(
        all(r["ok"] for r in rows),
        f"twin      {linear.name} on ascend:910b1, {len(findings)} findings; floor {floors} from 32x32 to 128x128 tiles (modelled)",
    )


def ship_and_verify(demo: Demo) -> None:
    """A bundle, verified by its own verify.py where there is torch but no tilewright and no compiler."""
    from tilewright.ship import bundle, clean_venv, receive
    from tilewright.ship.request import make_request

    place = demo.out / "bundle"
    bench = demo.out / "bench.json"
    request = make_request(
        place,
        [demo.family.name],
        ["cpu", *TARGETS, "ascend:910b1"],
        gpu_precisions=SHIPPED,
        bench=bench,
    )
    built = bundle.build(request)
    receiver = demo.out / "receiver"
    shutil.rmtree(receiver, ignore_errors=True)
    verdict = receive.verify(place, runner=clean_venv.make(receiver).run)
    demo.keep("verify", verdict.rows)
    stages = ", ".join(f"{r['stage']} {'ok' if r['ok'] else 'FAILED'}" for r in verdict.rows)
    files = [p for p in place.rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files) / 1e6
    demo.conclude(
        True,
        f"ship      {len(files)} files, {size:.1f} MB, manifest {built.manifest_sha256[:12]}: {place}",
    )
    demo.conclude(verdict.ok, f"verify    in a clean environment: {stages}")


def answer_for_real(demo: Demo) -> None:
    """SmolLM2 answers a question on the engine; 4-bit weights in graphs must give the tokens of fp32 ones without."""
    from tilewright.engine.requests import Sampling
    from tilewright.engine.session import Choices, chat_ids, open_engine
    from tilewright.models.checkpoint import open_model

    model = open_model("smollm2")
    fast, plain = (
        open_engine(model, Choices(form=form, graphs=graphs, prefixes=False))
        for form, graphs in (("q4_1", True), ("fp32", False))
    )
    assert fast.tokenizer is not None and fast.graphs is not None
    ids = chat_ids(fast.tokenizer, [("user", QUESTION)])
    (right,) = plain.generate([ids], Sampling(most=64))
    fast.generate([ids], Sampling(most=2))  # captures
    request = fast.add(ids, Sampling(most=64))
    fast.step()
    started = time.monotonic()
    for _ in fast.run():
        pass
    rate = (len(request.answer) - 1) / (time.monotonic() - started)
    same, replays = request.tokens == right.tokens, fast.graphs.counts.replays
    row = {"prompt": QUESTION, "text": request.text, "same_as_fp32": same, "replays": replays}
    demo.keep("engine", [row | {"tokens_per_s": rate, "evidence": "measured", "target": "cpu"}])
    demo.conclude(
        same and replays >= len(request.answer) - 1 > 0 and "Paris" in request.text,
        f"engine    {QUESTION} - {request.text.strip()} ({rate:.0f} tokens/s from 4-bit weights, measured; "
        f"{len(request.answer)} tokens as fp32 gives them, {replays} replays)",
    )


def write_report(demo: Demo) -> None:
    """One offline HTML file over everything above."""
    from tilewright.perf import doctor, report

    demo.keep("list", list(cells([demo.family])))
    demo.keep("doctor", list(doctor.findings()))
    path = demo.out / "report.html"
    report.write(path, [report.read(p) for p in demo.documents], "tilewright demo")
    demo.conclude(path.stat().st_size > 0, f"report    {path}")


STEPS: tuple[tuple[str, Callable[[Demo], None]], ...] = (
    ("check every backend", check_everything),
    ("bench the host kernel against torch", bench_against_torch),
    ("tune the host kernel", tune_host),
    ("compile the Triton kernel", compile_for_gpus),
    ("run the AscendC kernel on the twin", run_twin),
    ("ship a bundle and verify it", ship_and_verify),
    ("answer a question on the engine", answer_for_real),
    ("write the report", write_report),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every step; 0 when all of them hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="where results go")
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials of the tuner")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    demo = Demo(family("gemm"), options.out.resolve(), options.trials)
    began = time.monotonic()
    for number, (what, step) in enumerate(STEPS, 1):
        print(f"[{number}/{len(STEPS)}] {what} ...", flush=True)
        started = time.monotonic()
        try:
            step(demo)
        except TilewrightError as error:
            demo.conclude(False, f"{what}: {error}")
        print(f"      {time.monotonic() - started:.0f} s", flush=True)
    print(
        f"\ntilewright demo: {time.monotonic() - began:.0f} s on {document('demo', [])['host']['cpu']}"
    )
    print("\n".join(f"  {line}" for line in demo.summary))
    return 1 if demo.failed else 0


def _geometric_mean(values: Sequence[float]) -> float:
    import math

    return math.exp(sum(math.log(v) for v in values) / len(values))


if __name__ == "__main__":
    raise SystemExit(main())
