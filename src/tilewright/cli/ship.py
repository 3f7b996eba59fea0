"""tilewright ship: write a bundle of compiled ops that installs with no compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, progress, say, table

app = typer.Typer()


@app.command()
def run(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Where the bundle goes; a bundle there is replaced."),
    ],
    families: Annotated[
        str | None,
        typer.Option(
            "--families",
            metavar="NAME,...",
            help="Families, or all: all with a host kernel, also if not given.",
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            "--targets",
            metavar="T,...",
            help="cpu (always in), cuda:sm_80, hip:gfx942, ascend:910b1, ...",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Name of the bundle; tilewright-<families>, of all tilewright-kernels, by default.",
        ),
    ] = None,
    version: Annotated[
        int, typer.Option("--version", metavar="N", help="Version of the ops' interface.")
    ] = 1,
    cpu_level: Annotated[
        str,
        typer.Option(
            "--cpu-level", metavar="LEVEL", help="The least CPU level a receiver must have."
        ),
    ] = "scalar",
    gpu_dtype: Annotated[
        str | None,
        typer.Option(
            "--gpu-dtype",
            metavar="NAME,...",
            help="Precisions to compile for GPUs; all if not given.",
        ),
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option(
            "--bench",
            metavar="FILE",
            help="JSON of `tilewright bench`, for the README's table of speeds.",
        ),
    ] = None,
    json: options.Json = None,
) -> None:
    """Write a bundle: the layout that Hugging Face's `kernels` client loads, and its own verify.py.

    CPU ops of every instruction level stand in one library through torch's stable ABI; GPU binaries
    are compiled ahead of time and started by the launcher in it; AscendC goes as source. The bundle
    is verified with its own verify.py before it is moved to DIR, and not shipped unless every stage
    passes. The same sources give the same bytes.

    Example:  tilewright ship out/bundle --families gemm --targets cpu,cuda:sm_90
    """
    from tilewright.ship.bundle import build
    from tilewright.ship.request import make_request

    named = options.names(families)
    request = make_request(
        folder,
        [] if named == ["all"] else named,
        options.names(targets),
        name=name,
        version=version,
        cpu_level=cpu_level,
        gpu_precisions=options.names(gpu_dtype),
        bench=bench,
    )
    made = build(request, lambda text: say(text, json), progress)
    manifest = made.manifest
    emit(
        json,
        "ship",
        made.verdict.rows,
        folder=str(made.folder),
        id=manifest["id"],
        variant=manifest["variant"],
        manifest_sha256=made.manifest_sha256,
        library=manifest["library"],
        files=manifest["files"],
    )
    table(
        ("stage", "state", "detail"),
        [(r["stage"], r["state"], r["detail"]) for r in made.verdict.rows],
        json=json,
    )
    size = sum(f["bytes"] for f in manifest["files"].values())
    say(
        f"{made.folder}: {len(manifest['files'])} files, {size / 1e6:.2f} MB, library "
        f"{manifest['library']['bytes'] / 1e6:.2f} MB, manifest sha256 {made.manifest_sha256}",
        json,
    )
    say(f"verify it where it goes: python {made.folder / 'verify.py'}", json)
