"""tilewright export: a saved bench document in the formats of the field's own tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, say

app = options.application()


@app.command()
def run(
    format: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="pytest-benchmark, nvbench, flashinfer-bench, google-benchmark or perfetto.",
        ),
    ],
    document: Annotated[
        Path, typer.Argument(metavar="BENCH.json", help="Written by `tilewright bench --json`.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file, or for flashinfer-bench the folder.")
    ],
    json: options.Json = None,
) -> None:
    """Write measured rows of a bench document in a format that other tools read.

    Only what was measured and right is exported; other rows are counted in what is said. All but
    google-benchmark and flashinfer-bench need the raw samples, which lie in the data folder of the machine
    that measured (TILEWRIGHT_DATA). `tilewright bench --export FORMAT:OUT` does the same at once.

    \b
    Examples:
      tilewright bench gemm --json before.json
      tilewright export nvbench before.json before.nv.json
      nvbench-compare-robust before.nv.json after.nv.json
      tilewright export pytest-benchmark before.json before.pb.json
      pytest-benchmark compare before.pb.json after.pb.json
    """
    from tilewright.perf.exports import export, require
    from tilewright.perf.exports.runs import read, runs_of

    require(format)
    loaded = read(document)
    runs = runs_of(loaded)
    written = export(format, loaded, out)
    rows = [{"format": format, "path": str(path)} for path in written]
    exported = len({id(one.row) for one in runs})
    emit(json, "export", rows, exported=exported, left_out=len(loaded["rows"]) - exported)
    left = len(loaded["rows"]) - exported
    remark = f"; {left} rows that were not measured, or not right, are not in it" if left else ""
    say(f"{out}: {exported} rows in {len(written)} files{remark}", json)
