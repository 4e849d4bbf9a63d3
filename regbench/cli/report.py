"""``regbench report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regbench.cli import options

MANY = 10
"""Kinds of figures, about, where a suite names none."""


def report(
    run: Annotated[
        str | None,
        typer.Argument(
            help="The run: its name, its directory, or the suite file (default: the last run).",
            autocompletion=options.run_names,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the report (default: reports/SUITE).", show_default=False),
    ] = None,
    plugin: options.Plugin = None,
    runs_dir: options.RunsDir = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> None:
    """Write tables, figures and one HTML file from a run, finished or not."""
    import sys

    from regbench.report.processes import prepare, processes_for
    from regbench.store.location import find_run
    from regbench.store.records import Run

    def tell(what: str) -> None:
        if not quiet:
            print(what, file=sys.stderr, flush=True)

    found = Run.open(find_run(run, runs_dir))
    # Before the imports, which take as long here as there.
    processes = processes_for(len(found.suite["figures"]) or MANY, len(found.datasets))
    if processes > 1:
        prepare()
    from regbench.report.build import FiguresFailed, write_report

    written = write_report(found, out, plugins=plugin or (), progress=tell, processes=processes)
    from regbench.report.terminal import print_claims, print_tables

    print_claims(written.claims)
    # What fits a terminal; costs, latent space and figures are in the files.
    print_tables(written.tables, groups=("metric", "difference"))
    for file in (*written.texts, *written.numbers, written.html, written.figures):
        print(file)
    if written.failures:
        raise FiguresFailed(written.failures)
