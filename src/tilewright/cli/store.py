"""tilewright store: where measurements live, in and out of other tools' formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, number, say, table

if TYPE_CHECKING:
    from tilewright.autotune.store.catalogue import Catalogue
    from tilewright.autotune.store.reading import StudyRecords

app = options.application()
_SHOWN = 40

Study = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="URL",
        help="The storage: journal:PATH, sqlite:///PATH, postgresql://..., grpc://HOST:PORT; "
        "by default all of your own journals.",
    ),
]
FamilyName = Annotated[str, typer.Option("--family", metavar="NAME", help="Only this family.")]
TargetName = Annotated[str, typer.Option("--target", metavar="T", help="Only this target.")]
Name = Annotated[
    str,
    typer.Option("--name", metavar="TEXT", help="Only studies whose name or file contains this."),
]


@app.callback()
def store() -> None:
    """Every config that was measured, with where its value comes from; in and out of other tools' formats.

    What `tune` finds lives in its study and is read from there: there is no second copy. What is imported
    goes to a file of yours that is only ever appended to. A record says family, backend, source hash,
    precision, flags, shape and bucket, target, device, compiler and driver versions, how it was timed,
    the unit, the evidence, the hash of the space, the config, and the value with its samples or why it failed.
    """


@app.command("list")
def show(
    study: Study = None,
    family: FamilyName = "",
    target: TargetName = "",
    name: Name = "",
    records: Annotated[
        bool, typer.Option("--records", help="One JSON row a config instead of one a study.")
    ] = False,
    json: options.Json = None,
) -> None:
    """Show the studies there are: what each is bound to, how many configs, the best value.

    \b
    Examples:
      tilewright store list
      tilewright store list --study sqlite:///studies.db --records --json records.json
    """
    found = _select(study, family, target, name)
    emit(json, "store", _rows(found, records), damaged=found.damaged)
    lines = [
        (
            s.key.family,
            s.key.target or s.key.device,
            s.key.shape,
            s.key.precision,
            sum(r.value is not None for r in s.records),
            sum(r.value is None for r in s.records),
            s.running,
            number(s.best.value if s.best else None, 4),
            s.key.unit,
            s.evidence,
            s.origin,
        )
        for s in found.studies[:_SHOWN]
    ]
    columns = ("family", "on", "shape", "dtype", "ok", "failed", "open", "best", "unit", "evidence", "kept in")  # fmt: skip
    table(columns, lines, "", json)
    hidden = len(found.studies) - len(lines)
    if hidden:
        say(f"and {hidden} more; --family, --target and --name narrow, --json lists all", json)
    if not found.studies:
        say("no study here: `tilewright tune` makes one, `tilewright store import` reads one", json)
    if found.damaged:
        say(f"{found.damaged} damaged lines of the imports were passed over", json)


@app.command("export")
def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The file to write.", callback=options.writable)
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help="t4, kernel-tuner (one study) or jsonl (ours)."
        ),
    ] = "t4",
    study: Study = None,
    family: FamilyName = "",
    target: TargetName = "",
    name: Name = "",
    json: options.Json = None,
) -> None:
    """Write measured configs for other tools.

    `t4` is the open autotuning results schema 1.0.0; `kernel-tuner` a cache file that Kernel Tuner resumes
    and simulates from, which holds one study (narrow with --name); `jsonl` one record a line. All three read
    back with `import` without loss.

    \b
    Examples:
      tilewright store export results.json --family gemm
      tilewright store export cache.json --format kernel-tuner --name "M=64,N=1536,K=576 bf16"
    """
    from pathlib import Path

    from tilewright.autotune.store import formats

    found = _select(study, family, target, name)
    records = found.records
    formats.write(Path(file), form, records)
    emit(json, "store", _rows(found, False), file=file, format=form, records=len(records))
    say(f"{len(records)} configs in {file} as {form}", json)


@app.command("import")
def bring(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="T4 results, Kernel Tuner caches, KTT results, aiter tables or .jsonl; .gz too.",
        ),
    ],
    family: Annotated[
        str, typer.Option("--family", metavar="NAME", help="The family, where a file names none.")
    ] = "",
    target: Annotated[
        str, typer.Option("--target", metavar="T", help="The target, where a file names none.")
    ] = "",
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="The device, where a file names none.")
    ] = "",
    shape: options.Shape = None,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="NAME", help="The precision, where a file names none.")
    ] = "",
    json: options.Json = None,
) -> None:
    """Take in measurements of others; the same one twice is kept once.

    Figures of others keep the evidence `published` with their file as source. They serve `tune` as guarded
    hints for neighbouring shapes and devices and never as results.

    \b
    Examples:
      tilewright store import convolution-A100.json.gz a8w8_tuned_gemm.csv
      tilewright store import t4.json --family gemm --device "RTX 3090" --shape M=4096,N=4096,K=4096
    """
    from pathlib import Path

    from tilewright.autotune.store import formats, measurements

    sizes = options.shape(shape)
    text = ",".join(f"{k}={v}" for k, v in (sizes or {}).items())
    loaded = {
        f: formats.load(
            Path(f), family=family, target=target, device=device, shape=text, precision=dtype
        )
        for f in files
    }
    rows: list[dict[str, Any]] = []
    for file, found in loaded.items():
        fresh = measurements.append(found)
        rows.append({"file": file, "records": len(found), "new": fresh})
        say(f"{file}: {len(found)} configs, {fresh} of them new", json)
    emit(json, "store", rows, kept=measurements.default_path())
    say(f"kept in {measurements.default_path()}", json)


@app.command("serve")
def serve(
    study: Annotated[
        str,
        typer.Option(
            "--study", metavar="URL", help="The database: sqlite:///PATH or postgresql://..."
        ),
    ],
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="The port to listen on.")
    ] = 13000,
    host: Annotated[
        str,
        typer.Option("--host", metavar="NAME", help="The address to listen on; 0.0.0.0 for all."),
    ] = "localhost",
) -> None:
    """Offer a database of studies to other machines: they tune with --study grpc://HOST:PORT.

    It runs until Ctrl-C. Whoever reaches the port can read and write every study and nothing is encrypted,
    so it listens on this machine alone unless --host says otherwise. Workers on a network that all reach a
    PostgreSQL need no proxy.

    \b
    Example:
      tilewright store serve --study sqlite:///studies.db --host 0.0.0.0 --port 13000
      tilewright tune gemm --study grpc://build-7:13000 --workers 2
    """
    from tilewright.autotune.sharing import storage

    place = storage.open_url(study)
    say(f"serving {place.shown} as grpc://{host}:{port} until Ctrl-C")
    try:
        storage.serve(place, host, port)
    except KeyboardInterrupt:
        say("ended")


def _select(study: str | None, family: str, target: str, name: str) -> Catalogue:
    from tilewright.autotune.store.catalogue import catalogue

    return catalogue(study).select(family, target, name)


def _rows(found: Catalogue, records: bool) -> list[Any]:
    if records:
        return [r.as_dict() for r in found.records]
    return [_row(s) for s in found.studies]


def _row(study: StudyRecords) -> dict[str, Any]:
    """One study for the document."""
    from tilewright.document import plain

    best = study.best
    return {
        "study": study.name,
        "origin": study.origin,
        **plain(study.key),
        "evidence": study.evidence,
        "bucket": list(study.records[0].bucket) if study.records else None,
        "ok": sum(r.value is not None for r in study.records),
        "failed": sum(r.value is None for r in study.records),
        "running": study.running,
        "best": best.value if best else None,
        "best_config": dict(best.config) if best else None,
    }
