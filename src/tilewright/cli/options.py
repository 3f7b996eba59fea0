"""Options that several commands share, so that they read and behave the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer


def application() -> typer.Typer:
    """One command's application: plain help that keeps its line breaks, errors left to `main`."""
    return typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)


def writable(where: str | None) -> str | None:
    """The place of a document, refused at once where it cannot be written."""
    if where is not None and where != "-":
        from pathlib import Path

        from tilewright.document import require_writable

        require_writable(Path(where))
    return where


Json = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE|-",
        help="Write one JSON document there; - is standard output.",
        callback=writable,
    ),
]
Families = Annotated[
    list[str] | None,
    typer.Argument(metavar="FAMILY", help="Families; all of them if none is named."),
]
Backend = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME,...", help="reference, host, triton or ascendc."),
]
TargetNames = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="T,...", help="cpu, cuda:sm_90, hip:gfx942, ascend:910b1, ..."
    ),
]
Shape = Annotated[
    str | None,
    typer.Option("--shape", metavar="K=V,...", help="Sizes of the case, such as M=64,N=576,K=576."),
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", metavar="NAME,...", help="Precisions, such as bf16 or int8->fp16."),
]
Flags = Annotated[
    str | None,
    typer.Option(
        "--flags", metavar="K=V,...", help="Flags of the family, such as b_layout=NK,bias=yes."
    ),
]
ConfigText = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="JSON",
        help="Fields to change in the baseline config, such as '{\"tile_m\":64}', or 'baseline' for none.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Seed of the inputs; printed with every verdict.")
]


def names(text: str | None) -> list[str]:
    """A comma-separated option as a list."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def flags(text: str | None) -> dict[str, str] | None:
    """`K=V,...` as a dict; raises UsageError for a part that is not."""
    from tilewright.errors import UsageError

    if text is None:
        return None
    values = {}
    for part in names(text):
        key, separator, value = part.partition("=")
        if not separator:
            raise UsageError(f"'{part}' in --flags is not NAME=VALUE, such as b_layout=KN")
        values[key] = value
    return values


def shape(text: str | None) -> dict[str, int] | None:
    """`--shape` as a dict."""
    from tilewright.cases import parse_shape

    return None if text is None else parse_shape(text)


def config(text: str | None) -> dict[str, int] | None:
    """`--config` as a dict."""
    from tilewright.space import parse_config

    return None if text is None else parse_config(text)
