"""Options of ``regbench run`` that say where cells run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regbench.cli.options import engine_names

if TYPE_CHECKING:
    from regbench.execution.placement import Placement

PANEL = "Where cells run"

Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        help="Run up to N cells at a time, each in a worker process. Without it: one by one, in this process.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What runs the workers: local, ray, slurm, or a plugin's.",
        show_default=False,
        autocompletion=engine_names,
        rich_help_panel=PANEL,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Of the engine's cluster: short for --engine-option address=ADDRESS.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of the engine; may be repeated. regbench plugins --options NAME lists them.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="GPU share of a cell, 0.25 for four at a time on each; by default one.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Cpus = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="CPU threads of a cell; by default this machine's cores divided by --jobs, 1 elsewhere.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Limit = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="End a cell that takes longer: 90s, 30m, 2h. Runs cells in worker processes.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


def asked(
    engine: str,
    jobs: int | None,
    address: str | None,
    pairs: list[str],
    cpus: int | None,
    gpus: float | None,
    limit: str | None,
) -> Placement:
    """What the options say. Raises ``UsageError``."""
    from regbench.errors import UsageError
    from regbench.execution.durations import time_limit
    from regbench.execution.placement import Placement

    options = {} if address is None else {"address": address}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"--engine-option {pair!r}: expected NAME=VALUE")
        options[name] = value
    seconds = None if limit is None else time_limit(limit)
    return Placement(engine, jobs, options, cpus, gpus, seconds)
