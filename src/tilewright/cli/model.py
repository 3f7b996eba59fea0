"""tilewright model: modelled times of AscendC kernels, and the model held against published timings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, say, table

if TYPE_CHECKING:
    from tilewright.ascendc.twin.model import Prediction

app = options.application()

_TRACES = (".json", ".png", ".svg")
_DRAWN = 600  # instructions of each core in a picture


@app.command()
def run(
    family: Annotated[
        str | None,
        typer.Argument(
            metavar="[FAMILY|ROWS.csv]",
            help="The family to model (gemm); with --validate a file of published rows, or an op.",
        ),
    ] = None,
    target: options.TargetNames = "ascend:910b1",
    shape: options.Shape = None,
    dtype: options.Dtype = None,
    flags: options.Flags = None,
    config: options.ConfigText = None,
    cores: Annotated[
        int | None, typer.Option("--cores", metavar="N", help="Cube cores to use; all of the chip.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="The timeline: .json for ui.perfetto.dev, .png or .svg as a picture; the first instructions of each core.",
        ),
    ] = None,
    validate: Annotated[
        bool,
        typer.Option("--validate", help="Predict published timings, those shipped or of ROWS.csv."),
    ] = False,
    docs: Annotated[
        Path | None,
        typer.Option(
            "--docs", metavar="FILE", help="With --validate: renew the tables of this page."
        ),
    ] = None,
    json: options.Json = None,
) -> None:
    """Predict the time of an AscendC kernel on a 910B from the instructions it issues.

    A cycle model of the cores' pipes and of the memory they share: modelled, not measured. --validate
    shows how near it comes to timings that others published.

    \b
    Examples:
      tilewright model gemm --dtype fp16 --shape M=8192,N=8192,K=8192 --config '{"tile_m":128,"tile_n":256,"tile_k":64}'
      tilewright model --validate --json -
    """
    from tilewright.errors import Refused, UsageError

    if validate:
        return _validate(family, docs, json)
    if docs is not None:
        raise UsageError("--docs goes with --validate")
    if trace is not None and trace.suffix not in _TRACES:
        raise UsageError(f"--trace '{trace}' ends in none of {', '.join(_TRACES)}")
    rows, refused = _predictions(
        family or "gemm", target or "ascend:910b1", shape, dtype, flags, config, cores, trace
    )
    if not rows:
        raise Refused("; ".join(refused))
    emit(json, "model", rows, refused=refused)
    table(
        ("target", "dtype", "case", "us", "bound by", *_PIPES, "evidence"),
        [
            (
                r["target"],
                r["dtype"],
                r["case"],
                number(r["predicted_us"], 4),
                r["bound_by"],
                *(number(r["pipes"][p], 4) for p in _PIPES),
                r["evidence"],
            )
            for r in rows
        ],
        json=json,
    )
    for r in rows:
        walked = r["critical_path_cycles"]
        say(
            f"critical path, its last {number(walked, 4)} cycles of {number(r['cycles'], 4)}:", json
        )
        for step in r["critical_path"][:4]:
            share = step["cycles"] / walked
            say(f"  {share:4.0%} {step['pipe']} {step['op']} {step['file']}:{step['line']}", json)
        if r["untraced"]:
            say(f"the trace leaves out {r['untraced']} later instructions", json)
        say(f"validated by {r['validated_by']}", json)
    for reason in refused:
        say(f"REFUSED {reason}", json)
    say("pipes: busy cycles of the average core; modelled: nothing here was measured", json)


_PIPES = ("m", "mte1", "mte2", "mte3", "fix", "v", "s")


def _predictions(
    name: str,
    target: str,
    shape: str | None,
    dtype: str | None,
    flags: str | None,
    config: str | None,
    cores: int | None,
    trace: Path | None,
) -> tuple[list[dict[str, Any]], list[str]]:
    from tilewright.ascendc.twin import model_family
    from tilewright.backends.ascendc import AscendC
    from tilewright.errors import Refused, Unavailable, UsageError
    from tilewright.registry import family as family_named
    from tilewright.targets import targets

    found, backend = family_named(name), AscendC()
    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    precisions = found.spec.select_precisions(options.names(dtype))
    if trace is not None and len(precisions) * len(targets(target)) > 1:
        raise UsageError("--trace holds one run; give one --target and one --dtype")
    for where in targets(target):
        if where.kind != "ascend":
            raise Unavailable(
                f"{where.name} has no model; `tilewright bench` measures cpu, `compile` reads binaries"
            )
        most = where.limit("aic_cores")
        if cores is not None and not 1 <= cores <= most:
            raise UsageError(f"--cores {cores} is not in 1..{most}, the cube cores of {where.name}")
        space, default = found.spec.space_for(where), found.spec.default_config(where)
        given = options.config(config)
        fixed = space.complete(given or {}, default) if space else default
        for precision in precisions:
            sizes = options.shape(shape) or dict(
                next(iter(found.spec.benchmark_cases(precision))).sizes
            )
            case = backend.case(found, sizes, precision, options.flags(flags), fixed, where)
            chosen = found.spec.config_for(case, where) if given is None else fixed
            try:
                with _Timeline(trace, f"{found.name} {case} on {where.name}") as file:
                    predicted = model_family.predict(
                        found,
                        case,
                        chosen,
                        where,
                        cores=cores,
                        trace=file,
                        trace_events=_events(trace),
                    )
            except Refused as error:
                refused.append(f"{precision.name} on {where.name}: {error}")
                continue
            row = _row(predicted)
            rows.append(
                {
                    "family": found.name,
                    "target": where.name,
                    "dtype": precision.name,
                    "case": str(case),
                    "config": dict(chosen),
                    **row,
                    "evidence": "modelled",
                    "validated_by": model_family.validated_by(found, case, chosen),
                }
            )
    return rows, refused


def _row(p: Prediction) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "predicted_us": p.predicted_us,
        "cycles": p.cycles,
        "pipes": {name: p.pipes[name] for name in _PIPES},
        "bound_by": p.bound_by,
        "msprof": p.msprof(),
        "critical_path_cycles": p.path_cycles,
        "untraced": p.untraced,
        "critical_path": [asdict(step) for step in p.critical_path],
        "blocks": p.blocks,
        "hbm_slow": p.hbm_slow,
        "l2_slow": p.l2_slow,
        "findings": p.findings,
        "peak": dict(p.peak),
    }


def _events(trace: Path | None) -> int:
    """A picture shows the beginning, so that single instructions can be told apart."""
    return _DRAWN if trace is not None and trace.suffix != ".json" else 0


class _Timeline:
    """The file the model writes its trace to, and the picture made of it where one is asked for."""

    def __init__(self, trace: Path | None, title: str) -> None:
        self._wanted, self._title = trace, title
        self._picture = trace is not None and trace.suffix != ".json"

    def __enter__(self) -> Path | None:
        import tempfile

        if not self._picture:
            return self._wanted
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "trace.json"
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._picture:
            return
        from tilewright.ascendc.twin.model_plot import draw

        try:
            if kind is None and self._wanted is not None:
                draw(self._file, self._wanted, self._title)
        finally:
            self._folder.cleanup()


def _validate(rows: str | None, docs: Path | None, json: str | None) -> None:
    from dataclasses import asdict

    from tilewright import native
    from tilewright.ascendc.bench import page, validation, variants

    if rows in variants.OPS:
        chosen = [row for row in validation.read(None) if row["op"] == rows]
    else:
        chosen = validation.read(rows)
    outcomes = validation.validate(native.library("twin"), chosen)
    summary = validation.summary(outcomes)
    emit(
        json,
        "model",
        [{**asdict(o), "evidence": "modelled"} for o in outcomes],
        summary=asdict(summary),
    )
    table(
        ("id", "op", "published us", "predicted us", "ratio", "used to fit", "bound by", "reason"),
        [
            (
                o.id,
                o.op,
                number(o.published_us, 5) if o.published_us is not None else "",
                number(o.predicted_us, 5) if o.predicted_us is not None else "",
                f"{o.ratio:.3f}" if o.ratio is not None else "",
                "yes" if o.used_to_fit else "",
                o.bound_by,
                o.reason,
            )
            for o in outcomes
        ],
        json=json,
    )
    say(page.summary_line(summary), json)
    say("predictions are modelled; published times are others' measurements", json)
    if docs is not None:
        page.renew(docs, outcomes, summary, native.library("twin"))
        say(f"renewed the tables of {docs}", json)
