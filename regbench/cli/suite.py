"""``regbench schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regbench.cli import options


def schema(
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; without it, standard output.", dir_okay=False, show_default=False),
    ] = None,
    plugin: options.Plugin = None,
) -> None:
    """Write the JSON Schema of suite files, with the options of all installed plugins, for editors."""
    import json

    from regbench.errors import EnvironmentFault
    from regbench.plugins import registry
    from regbench.suite.jsonschema import json_schema

    text = json.dumps(json_schema(registry(plugin or [])), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"cannot write {out}: {error.strerror}") from error
    typer.echo(f"wrote {out}", err=True)
