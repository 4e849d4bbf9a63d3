"""``regbench reproduce``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regbench.cli import options

if TYPE_CHECKING:
    from regbench.reproduce import Reproduction

DIFFERENT = 3
"""Exit code where the second result does not agree with the first."""


def reproduce(
    result: Annotated[
        str,
        typer.Argument(
            help="A cell's directory or a file in it; or a run, with CELL saying which of its cells.",
            autocompletion=options.run_names,
        ),
    ],
    cell: Annotated[
        str | None,
        typer.Argument(help="Of a run: a cell's title, id or directory name.", show_default=False),
    ] = None,
    device: options.Device = "auto",
    plugin: options.Plugin = None,
    accept_stale: Annotated[
        bool, typer.Option("--accept-stale", help="Go on although the code is not what made the result.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="New directory to keep the second result in.", file_okay=False, show_default=False),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    runs_dir: options.RunsDir = None,
    data_dir: options.DataDir = None,
) -> None:
    """Make a result again from its own record: identical, statistically equal, or different?"""
    from regbench.cli.progress import listener
    from regbench.reproduce import reproduce as make_again

    with listener(quiet=quiet, as_json=False) as listen:
        found = make_again(
            result,
            cell,
            device=device,
            runs_dir=runs_dir,
            data_dir=data_dir,
            plugins=plugin or [],
            accept_stale=accept_stale,
            out=out,
            listener=listen,
        )
    if as_json:
        import dataclasses
        import json

        from regbench.store.writer import finite

        typer.echo(json.dumps(finite(dataclasses.asdict(found)), indent=1, allow_nan=False))
    else:
        _show(found)
    if found.verdict == "different":
        raise typer.Exit(DIFFERENT)


def _show(found: Reproduction) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    _print(console, f"{found.cell}, {found.id[:16]}, made again on {found.device}")
    if found.code:
        _changes(console, "code", found.code)
    if found.metrics:
        _metrics(console, found)
    _print(console, _weights(found))
    if found.environment is None:
        _print(console, "environment: the result has no record of the one that it was made in")
    elif found.environment:
        _changes(console, "environment", found.environment)
    else:
        _print(console, "environment: the same")
    if found.out:
        _print(console, f"the second result is in {found.out}")
    _print(console, f"{found.verdict}: {found.why}")


def _metrics(console: Any, found: Reproduction) -> None:
    rows = []
    for each in found.metrics:
        rerun = each.rerun
        half = "unknown" if rerun.half_width is None else f"{rerun.half_width:.3g}"
        row = (each.name, f"{rerun.original:.8g}", f"{rerun.again:.8g}", f"{rerun.difference:.3g}", half)
        rows.append((*row, SAID[rerun.agreement]))
    _table(console, ("metric", "then", "now", "difference", "another run ±", ""), rows)


SAID = {
    "identical": "identical",
    "rounding": "equal to five digits",
    "within": "within it",
    "beyond": "beyond",
}


def _weights(found: Reproduction) -> str:
    if found.weights_difference is None:
        return "weights: identical"
    since = found.first_other_epoch
    when = (
        "; the losses of all epochs are the same"
        if since is None
        else f"; losses differ from epoch {since} on"
    )
    return f"weights: they differ by up to {found.weights_difference:.3g}{when}"


def _changes(console: Any, what: str, changes: Any) -> None:
    _table(console, (what, "then", "now"), [(each.what, each.then, each.now) for each in changes])


def _table(console: Any, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print(console: Any, text: str) -> None:
    console.print(text, markup=False)
