"""``regbench new``: start something of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Start something of your own from a template.")


@app.callback()
def new() -> None:
    """Start something of your own from a template."""


@app.command()
def plugin(
    name: Annotated[str, typer.Argument(help="What suites will call the method, e.g. my-method.")],
    into: Annotated[Path, typer.Option(help="Directory to create the package in.", file_okay=False)] = Path(),
) -> None:
    """Write an installable package around a small working regularizer, with its test."""
    from regbench.scaffold import new_plugin

    directory = new_plugin(name, into)
    (method,) = (directory / "src").rglob("*.py")
    typer.echo(f"wrote {directory}; the method is {method}. Next:")
    typer.echo(f"  pip install --editable '{directory}[test]'")
    typer.echo(f"  pytest {directory}")
    typer.echo(f"  regbench run {directory / 'compare.toml'}")
