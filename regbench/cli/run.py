"""``regbench run`` and ``regbench plan``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regbench.cli import options, placement

if TYPE_CHECKING:
    from regbench.estimate import Estimate
    from regbench.resolve import Plan

_STARTED = time.monotonic()
"""About when the process began: what takes its time is imported later."""

Force = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Run finished cells again: a method, data set, or title, with * as in a shell; may be repeated.",
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Run only the cells that fit; may be repeated.", show_default=False),
]
AcceptStale = Annotated[bool, typer.Option(help="Keep results whose plugin's code has changed since.")]
Eager = Annotated[
    bool,
    typer.Option(
        "--eager", help="Neither CUDA graphs nor compilation: slower; errors name the line that failed."
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="The same bits each time on the same GPU; slower there."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON object per event, or the plan, to stdout.")
]


def run(
    suite: options.Suite,
    device: options.Device = "auto",
    plugin: options.Plugin = None,
    force: Force = None,
    only: Only = None,
    accept_stale: AcceptStale = False,
    eager: Eager = False,
    deterministic: Deterministic = False,
    jobs: placement.Jobs = None,
    engine: placement.Engine = "",
    address: placement.Address = None,
    engine_option: placement.EngineOption = None,
    gpus_per_cell: placement.Gpus = None,
    cpus_per_cell: placement.Cpus = None,
    time_limit: placement.Limit = None,
    checkpoint_every: Annotated[
        str,
        typer.Option(metavar="INTERVAL", help="Save trainings so often: 90s, 5m, 2h, '10 epochs', or off."),
    ] = "5m",
    dry_run: Annotated[bool, typer.Option(help="Show the plan and run nothing: regbench plan.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing unless a cell fails.")] = False,
    as_json: Json = False,
    runs_dir: options.RunsDir = None,
    data_dir: options.DataDir = None,
) -> None:
    """Run the cells of a suite that have no result yet; what is finished is kept."""
    from regbench.cli.progress import listener
    from regbench.resolve import plan as make_plan
    from regbench.workflow import execute

    ready = make_plan(
        suite,
        device=device,
        plugins=plugin or [],
        force=force or [],
        only=only or [],
        accept_stale=accept_stale,
        eager=eager,
        deterministic=deterministic,
        placement=placement.asked(
            engine, jobs, address, engine_option or [], cpus_per_cell, gpus_per_cell, time_limit
        ),
        checkpoints=checkpoint_every,
        runs_dir=runs_dir,
        data_dir=data_dir,
    )
    if dry_run:
        _show(ready, as_json=as_json, probe=True, every=False)
        return
    with listener(quiet=quiet, as_json=as_json) as listen:
        execute(ready, listen)
    if not (quiet or as_json):
        typer.echo(f"finished: {ready.run_dir}; tables and figures: regbench report", err=True)


def plan(
    suite: options.Suite,
    device: options.Device = "auto",
    plugin: options.Plugin = None,
    force: Force = None,
    only: Only = None,
    accept_stale: AcceptStale = False,
    eager: Eager = False,
    deterministic: Deterministic = False,
    probe: Annotated[
        bool, typer.Option(help="Estimate time and memory by trying each kind of cell for a moment.")
    ] = True,
    every: Annotated[bool, typer.Option("--all", help="List every cell, not one line per method.")] = False,
    as_json: Json = False,
    runs_dir: options.RunsDir = None,
    data_dir: options.DataDir = None,
) -> None:
    """Show a suite's cells, which are finished and why, and what the others will cost. Writes nothing."""
    from regbench.resolve import plan as make_plan

    ready = make_plan(
        suite,
        device=device,
        plugins=plugin or [],
        force=force or [],
        only=only or [],
        accept_stale=accept_stale,
        eager=eager,
        deterministic=deterministic,
        runs_dir=runs_dir,
        data_dir=data_dir,
    )
    _show(ready, as_json=as_json, probe=probe, every=every)


def _show(ready: Plan, *, as_json: bool, probe: bool, every: bool) -> None:
    from rich.console import Console

    from regbench.estimate import Estimate, estimate
    from regbench.tuning.trials import typical_trials

    started = _seconds_so_far()
    trials = typical_trials(ready.to_tune)
    cells = [*ready.cells, *trials.values()]
    found = Estimate()
    if ready.wishes.placement.elsewhere(ready.registry):
        probe = False  # what this machine takes says nothing of others
    if probe and any(cell.ahead for cell in cells):
        found = estimate(
            cells,
            ready.registry,
            ready.device,
            ready.data_root,
            metrics=ready.suite.metrics,
            run_dir=ready.run_dir,
            wishes=ready.launch_wishes,
        )
    costs = found.cells
    tuning_cost = {place: costs[cell.id] for place, cell in trials.items() if cell.id in costs}
    total = None
    if costs:
        ahead = {cell.spec.id for cell in ready.cells if cell.ahead}
        total = started + found.once + sum(found.datasets.values()) + sum(costs[id].seconds for id in ahead)
        total += sum(tuning_cost[study.place].seconds * study.pending for study in ready.to_tune)
    if as_json:
        _show_json(ready, found, tuning_cost, total)
        return
    console = Console(soft_wrap=True, highlight=False)
    _print(console, f"{ready.suite.name}: {len(ready.cells)} cells in {ready.run_dir}, on {ready.device}")
    if ready.studies:
        from regbench.cli.tuning import show_tuning

        show_tuning(console, ready, tuning_cost)
    if every:
        _every(console, ready)
    else:
        _by_method(console, ready, costs)
    _launches(console, ready)
    _totals(console, ready, found, total)


def _every(console: Any, ready: Plan) -> None:
    for cell in ready.cells:
        _print(console, f"  {cell.state:<10} {cell.spec.title}: {cell.why}")


def _by_method(console: Any, ready: Plan, costs: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from regbench.cli.progress import duration

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("data set", "method", "seeds", "finished", "to run", "why", "time per cell", "memory"):
        table.add_column(column, overflow="fold")
    groups: dict[tuple[str, str], list[Any]] = {}
    for cell in ready.cells:
        groups.setdefault((cell.spec.dataset, cell.spec.method), []).append(cell)
    for (dataset, method), cells in groups.items():
        todo = [cell for cell in cells if cell.todo]
        ahead = [cell for cell in cells if cell.ahead]
        cost = costs.get(ahead[0].spec.id) if ahead else None
        row = [
            dataset,
            method,
            str(len(cells)),
            str(sum(cell.state in ("finished", "accepted") for cell in cells)),
            str(len(todo)),
            "; ".join(dict.fromkeys(cell.why for cell in (ahead or cells))),
            "" if cost is None else duration(cost.seconds),
            "" if cost is None else f"{cost.memory_bytes / 1e9:.1f} GB",
        ]
        table.add_row(*(Text(text) for text in row))
    console.print(table)


def _launches(console: Any, ready: Plan) -> None:
    """How steps will reach the device, and why they are compiled or not."""
    from regbench.cell import launch_of

    if ready.wishes.placement.elsewhere(ready.registry):
        _print(console, "cells run on other machines: time, memory and launching are not estimated here")
        return
    cells: dict[str, int] = {}
    for cell in ready.cells:
        if cell.ahead:
            method = ready.registry.regularizer(cell.spec.regularizer).cls
            launch = launch_of(cell.spec, method, ready.device, ready.launch_wishes)
            compiled = "compiled" if launch.compile else "not compiled"
            said = f"steps on {ready.device}: {launch.title}; {compiled}: {launch.compile_why}"
            cells[said] = cells.get(said, 0) + 1
    for said, count in cells.items():
        _print(console, said if len(cells) == 1 else f"{said} ({count} cells)")


def _seconds_so_far() -> float:
    """What this process has taken until now: starting to run the cells takes as long."""
    return time.monotonic() - _STARTED


def _totals(console: Any, ready: Plan, found: Estimate, total: float | None) -> None:
    from regbench.cli.progress import duration

    waiting = sum(cell.state == "waiting" for cell in ready.cells)
    parts = [f"{len(ready.todo)} to run, {len(ready.cells) - len(ready.todo) - waiting} not"]
    if waiting:
        parts.append(f"{waiting} once their settings are selected")
    if total is not None:
        sets = duration(sum(found.datasets.values()))
        probed = duration(found.probe_seconds)
        parts.append(
            f"about {duration(total)} in all on {ready.device}, {sets} of it for the data sets themselves; "
            f"estimated in {probed} of trying every kind"
        )
    _print(console, "; ".join(parts))
    if ready.unnamed:
        _print(
            console,
            f"{ready.unnamed} cells in {ready.run_dir / 'cells'} are not named by this suite: they are kept, "
            "and stay out of its report",
        )


def _show_json(ready: Plan, found: Estimate, tuning_cost: Any, total: float | None) -> None:
    import dataclasses
    import json

    from regbench.tuning.record import tuning_record

    tuning = tuning_record(ready.studies)
    for study, entry in zip(ready.studies, tuning["studies"] if tuning else [], strict=True):
        cost = tuning_cost.get(study.place)
        entry |= {"missing": study.pending, "estimate": None if cost is None else dataclasses.asdict(cost)}
    cells = [
        {
            **cell.entry(),
            "state": cell.state,
            "why": cell.why,
            "estimate": dataclasses.asdict(found.cells[cell.spec.id])
            if cell.spec.id in found.cells
            else None,
        }
        for cell in ready.cells
    ]
    record = {
        "suite": ready.suite.name,
        "run": str(ready.run_dir),
        "device": str(ready.device),
        "tuning": tuning,
        "cells": cells,
        "estimate": None
        if total is None
        else {"seconds": total, "datasets": dict(found.datasets), "probe_seconds": found.probe_seconds},
    }
    typer.echo(json.dumps({**record, "unnamed": ready.unnamed}, indent=1))


def _print(console: Any, text: str) -> None:
    console.print(text, markup=False)
