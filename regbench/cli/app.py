"""The command line: parse, call, print. Here is the one place that turns errors into messages and exit codes.

Modules of this package import nothing heavy at their top, so that ``regbench --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from regbench import __version__
from regbench.cli import compare, data, doctor, merge, new, plugins, report, reproduce, run, suite
from regbench.errors import RegbenchError

app = typer.Typer(
    name="regbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benchmark latent regularizers of autoencoders: fair, paired, with honest statistics.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"regbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(run.run)
app.command()(run.plan)
app.command()(report.report)
app.command()(compare.compare)
app.command()(reproduce.reproduce)
app.command()(merge.merge)
app.command()(doctor.doctor)
app.command()(plugins.plugins)
app.command()(plugins.check)
app.command()(suite.schema)
app.add_typer(data.data_app, name="data")
app.add_typer(new.app, name="new")


def main() -> int:
    """Run the command line and return its exit code: see :mod:`regbench.errors`."""
    try:
        code = app(prog_name="regbench", standalone_mode=False)
    except RegbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`regbench ... | head`): nothing is left to say, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if hasattr(error, "show") and hasattr(
            error, "exit_code"
        ):  # a fault of the command line, found by typer
            error.show()
            return int(error.exit_code)
        print("This is a bug of regbench; please report it with the traceback below.", file=sys.stderr)
        raise
    return code if isinstance(code, int) else 0
