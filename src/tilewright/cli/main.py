"""tilewright's commands by name. Nothing heavy is imported here: `--help` and `list` stay fast."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
import typer
from typer.core import TyperGroup

# Command name to its module and one line for --help. Each module has `app`, a typer application.
COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("tilewright.cli.listing", "Show every family, backend and target, and what this machine can do."),
    "doctor": ("tilewright.cli.doctor", "Show instruction levels, measured ceilings, devices and toolchains."),
    "check": ("tilewright.cli.check", "Compare outputs with the fp64 reference."),
    "bench": ("tilewright.cli.bench", "Check, then time; against peers in interleaved pairs if asked."),
    "tune": ("tilewright.cli.tune", "Search a family's configs on a target; keep the best."),
    "compile": ("tilewright.cli.compile", "Compile Triton kernels ahead of time and read static facts."),
    "twin": ("tilewright.cli.twin", "Run AscendC kernels on the host twin of the 910B."),
    "model": ("tilewright.cli.model", "Predict times from the twin's instruction stream (a model, not a measurement)."),
    "ship": ("tilewright.cli.ship", "Write a bundle of compiled ops that installs with no compiler."),
    "verify": ("tilewright.cli.verify", "Verify a bundle on this machine with its own verify.py."),
    "report": ("tilewright.cli.report", "Write one offline HTML file from the JSON of other commands."),
}


class LazyGroup(TyperGroup):
    """A command group that imports a command's module when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        return _command(cmd_name, entry[0])

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and lines from the table: no command is imported to print the list."""
        formatter.write_usage("tilewright", "[--version] COMMAND [OPTIONS]")
        formatter.write_paragraph()
        formatter.write_text(
            "Declare an inference kernel once; check, benchmark, tune, model and ship it. Every number says whether "
            "it was measured, modelled, compiled or published."
        )
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])
        formatter.write_paragraph()
        formatter.write_text(
            "tilewright COMMAND --help explains one. Exit codes: 0 good; 1 the check, verdict or verification failed; "
            "2 wrong usage; 3 could not be decided or is not available here."
        )


def _command(name: str, module: str) -> click.Command:
    loaded: Any = importlib.import_module(module)
    made = typer.main.get_command(loaded.app)
    made.name = name
    return made


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Declare an inference kernel once; check, benchmark, tune, model and ship it."""
    if version:
        from tilewright import __version__

        print(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code; a known failure is one sentence on standard error."""
    from tilewright.errors import TilewrightError

    command = typer.main.get_command(app)
    try:
        outcome = command.main(args=arguments, prog_name="tilewright", standalone_mode=False)
    except TilewrightError as error:
        print(f"tilewright: {error}", file=sys.stderr)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        print("tilewright: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return outcome if isinstance(outcome, int) else 0


