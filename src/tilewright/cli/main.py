"""tilewright's commands by name. Nothing heavy is imported here: `--help` and `list` stay fast."""

from __future__ import annotations

import importlib
import sys

# Command name to its module and one line for --help. Each module has `app`, a typer application.
COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("listing", "Show every family, backend and target, and what this machine can do."),
    "doctor": ("doctor", "Show instruction levels, measured ceilings, devices, toolchains."),
    "check": ("check", "Compare outputs with the fp64 reference."),
    "bench": ("bench", "Check, then time; against peers in interleaved pairs if asked."),
    "gate": ("gate", "Compare host kernels with another revision's, in interleaved pairs."),
    "tune": ("tune", "Search a family's configs on a target; keep the best."),
    "store": (
        "store",
        "List, export and import measurements of configs; serve a storage to other machines.",
    ),
    "replay": ("replay", "Simulate tuning on recorded spaces, to judge samplers."),
    "compile": ("compile", "Compile Triton kernels ahead of time and read static facts."),
    "toolchain": ("toolchain", "Install compilers that live in environments of their own."),
    "twin": ("twin", "Run AscendC kernels on the host twin of the 910B."),
    "model": (
        "model",
        "Predict times of AscendC kernels by a cycle model; hold it against published ones.",
    ),
    "pages": ("pages", "What a page size of the KV cache costs, and how fast the page pool is."),
    "engine": ("engine", "Run a real model on the kernels: generate, chat, perplexity, memory."),
    "ship": ("ship", "Write a bundle of compiled ops that installs with no compiler."),
    "verify": ("verify", "Verify a bundle on this machine with its own verify.py."),
    "export": ("export", "Write a bench document in a format of the field's own tools."),
    "report": ("report", "Write one offline HTML file from the JSON of other commands."),
}


def overview() -> str:
    """What `tilewright --help` prints."""
    lines = [f"  {name:<10}{line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: tilewright [--version] COMMAND [OPTIONS]",
            "",
            "Declare an inference kernel once; check, benchmark, tune, model and ship it.",
            "Every number says whether it was measured, modelled, compiled or published.",
            "",
            "Commands:",
            *lines,
            "",
            "tilewright COMMAND --help explains one; --json FILE|- writes what it found.",
            "Exit codes: 0 good; 1 the check, verdict or verification failed; 2 wrong usage;",
            "3 could not be decided or is not available here, with the reason in words.",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code; a known failure is one sentence on stderr."""
    from tilewright.errors import TilewrightError, unknown

    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("--help", "-h"):
        print(overview())
        return 0 if given else 2
    if given[0] == "--version":
        from tilewright import __version__

        print(__version__)
        return 0
    try:
        if given[0] not in COMMANDS:
            raise unknown("command", given[0], list(COMMANDS))
        return _run(given[0], given[1:])
    except TilewrightError as error:
        print(f"tilewright: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _run(name: str, arguments: list[str]) -> int:
    module = importlib.import_module(f"tilewright.cli.{COMMANDS[name][0]}")
    try:
        module.app(arguments, prog_name=f"tilewright {name}")
    except SystemExit as finished:
        return finished.code if isinstance(finished.code, int) else int(finished.code is not None)
    return 0
