"""tilewright toolchain: compilers and peer tools in environments of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright.cli import options
from tilewright.cli.output import emit, say, table

if TYPE_CHECKING:
    from tilewright.toolchains import Toolchain

app = options.application()


@app.callback()
def toolchain() -> None:
    """Install compilers and tools of others that cannot share an environment with tilewright, and show which are there.

    Each is a folder of pinned packages below the cache folder (TILEWRIGHT_CACHE), used by its own
    process; nothing of it is imported here. `ascend-ir` is triton-ascend and ascendnpu-ir, which take
    Triton kernels to planned HIVM for `tilewright compile FAMILY --target ascend:910b1`; `bench-readers` is
    what reads the files of `tilewright export`, `kernel-tuner` what `tilewright replay` is compared with.
    """


@app.command("install")
def install(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="ascend-ir, bench-readers or kernel-tuner; `toolchain list` shows them.",
        ),
    ],
    again: Annotated[
        bool, typer.Option("--again", help="Make it anew, such as after a damaged one.")
    ] = False,
    json: options.Json = None,
) -> None:
    """Install a toolchain from the configured package index; does nothing where it is installed.

    An interrupted install goes on where it stopped: what was downloaded is used again. It counts as
    installed when it has done a small piece of its work. pip's settings (PIP_INDEX_URL, ...) hold. Exit code
    3 where this machine cannot have it or the index cannot be reached, with the reason.

    \b
    Example:
      tilewright toolchain install ascend-ir
    """
    from tilewright.errors import Unavailable
    from tilewright.toolchains import toolchain as toolchain_named
    from tilewright.toolchains.install import install as make

    one = toolchain_named(name)

    def report(text: str) -> None:
        # Steps, not a bar: pip shows its own while it downloads.
        print(f"{one.name}: {text}", file=sys.stderr, flush=True)

    try:
        found, fresh = make(one, report, again=again)
    except KeyboardInterrupt:
        raise Unavailable(
            f"interrupted; `{one.command}` goes on with what was downloaded"
        ) from None
    emit(json, "toolchain", [_row(one)])
    say(f"{one.versions} {'installed' if fresh else 'already installed'} in {found.folder}", json)


@app.command("list")
def show(json: options.Json = None) -> None:
    """Show every toolchain: whether it is installed, its versions, size and folder.

    \b
    Example:
      tilewright toolchain list --json -
    """
    from tilewright.toolchains import TOOLCHAINS

    rows = [_row(one) for one in TOOLCHAINS.values()]
    emit(json, "toolchain", rows)
    table(
        ("name", "state", "MiB", "what", "", "hint"),
        [
            (r["name"], r["state"], r["mib"], r["summary"], _versions(r), r["hint"] or r["folder"])
            for r in rows
        ],
        json=json,
    )


_SHOWN = 3  # of a toolchain's packages; the document has all


def _versions(row: dict[str, Any]) -> str:
    pins = [f"{name} {version}" for name, version in row["packages"].items()]
    more = [f"{len(pins) - _SHOWN} more"] if len(pins) > _SHOWN + 1 else []
    return ", ".join(pins[:_SHOWN] + more if more else pins)


def _row(one: Toolchain) -> dict[str, Any]:
    """`state` is installed, absent or unsupported; `mib` on disk, or of wheels where it is not there."""
    from tilewright import toolchains

    found = toolchains.installed(one)
    reason = toolchains.unsupported(one)
    size = one.mib if found is None else round(int(str(toolchains.stamp(found)["bytes"])) / 2**20)
    return {
        "name": one.name,
        "state": "installed" if found else "unsupported" if reason else "absent",
        "ok": found is not None,
        "summary": one.summary,
        "packages": {p.name: p.version for p in one.packages},
        "mib": size,
        "folder": str(toolchains.folder(one)),
        "hint": toolchains.why_missing(one),
    }
