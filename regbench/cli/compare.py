"""``regbench compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from regbench.cli import options


def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="The run to compare with: a path, or its name.", autocompletion=options.run_names
        ),
    ],
    b: Annotated[
        str, typer.Argument(help="The run to judge: a path, or its name.", autocompletion=options.run_names)
    ],
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this metric; may be repeated.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    runs_dir: options.RunsDir = None,
) -> None:
    """Show two result sets side by side: ~ insignificant, + better, - worse, ! newly failed, * fixed."""
    from regbench.report.compare import compare as compare_runs
    from regbench.store.location import find_run
    from regbench.store.records import Run

    comparison = compare_runs(
        Run.open(find_run(a, runs_dir)), Run.open(find_run(b, runs_dir)), metrics=metric
    )
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps(asdict(comparison), indent=1))
        return
    from regbench.report.compare_terminal import print_comparison

    print_comparison(comparison)
