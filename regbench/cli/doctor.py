"""``regbench doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regbench.cli import options, placement

FAULTS = 4
"""Exit code where something keeps suites from running."""


def doctor(
    suite: Annotated[
        Path | None,
        typer.Argument(
            help="Also look at this suite's data and the space for its results.",
            autocompletion=options.suite_files,
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    plugin: options.Plugin = None,
    engine: placement.Engine = "",
    jobs: placement.Jobs = None,
    address: placement.Address = None,
    engine_option: placement.EngineOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
    runs_dir: options.RunsDir = None,
    data_dir: options.DataDir = None,
) -> None:
    """Look at everything that running suites needs here: disk, locks, libraries, GPU, plugins, data."""
    from regbench.doctor.examination import examine

    found = []
    for finding in examine(
        suite,
        device=device,
        runs_dir=runs_dir,
        data_dir=data_dir,
        plugins=plugin or [],
        placement=placement.asked(engine, jobs, address, engine_option or [], None, None, None),
    ):
        found.append(finding)
        if not as_json:
            typer.echo(f"{finding.level:<8} {finding.what}: {_indented(finding.said)}")
            if finding.todo:
                typer.echo(f"{'':<8} -> {_indented(finding.todo)}")
    if as_json:
        import dataclasses
        import json

        typer.echo(json.dumps([dataclasses.asdict(each) for each in found], indent=1))
    if any(finding.level == "fault" for finding in found):
        raise typer.Exit(FAULTS)


def _indented(text: str) -> str:
    return text.replace("\n", f"\n{'':<9}")
