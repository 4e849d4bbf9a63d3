"""``regbench merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regbench.cli import options


def merge(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="Runs to join: paths, or names.", autocompletion=options.run_names
        ),
    ],
    into: Annotated[
        Path, typer.Option(help="A new directory for the merged run; or one of the runs, to add to it.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of sentences.")] = False,
    runs_dir: options.RunsDir = None,
) -> None:
    """Join runs of one suite from several machines; all is verified first, and contradictions are refused."""
    from regbench.merge import merge as join

    done = join(runs, into, runs_dir=runs_dir)
    if as_json:
        import dataclasses
        import json

        typer.echo(json.dumps(dataclasses.asdict(done), indent=1))
        return
    for note in done.notes:
        typer.echo(note)
    for run, count in done.copied.items():
        typer.echo(f"{_results(count)} copied from {run}")
    if done.kept:
        typer.echo(f"{_results(done.kept)} there already, or the same in several runs")
    for run, count in done.left_out.items():
        typer.echo(f"{_results(count)} of {run} left out: its suite does not name them any more")
    for dataset, count in done.remeasure.items():
        typer.echo(
            f"{_results(count)} on {dataset} judged by another classifier than the one that was kept: "
            "regbench run measures them again from their saved weights"
        )
    typer.echo(f"{done.run}: {done.finished} of {done.cells} cells finished; regbench report {done.run}")


def _results(count: int) -> str:
    return "1 result" if count == 1 else f"{count} results"
