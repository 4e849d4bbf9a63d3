"""A suite resolved on one machine: its cells, and what will happen to each. Nothing is run or written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regbench.execution.events import Listener
from regbench.names import remember
from regbench.plugins import Registry, registry
from regbench.store.location import runs_dir as locate_runs

if TYPE_CHECKING:
    import torch

    from regbench.execution.interrupt import StopSignal
    from regbench.execution.planning import PlannedCell
    from regbench.execution.serial import Runs
    from regbench.store.writer import RunWriter
    from regbench.suite.cells import CellSpec
    from regbench.suite.schema import Suite
    from regbench.training.launch import LaunchWishes
    from regbench.tuning.study import Study
    from regbench.tuning.trials import Trials

KINDS = ("regularizers", "datasets", "metrics", "figures")


@dataclass(frozen=True)
class Wishes:
    """What was asked for besides the suite."""

    force: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    accept_stale: bool = False
    eager: bool = False
    """Neither CUDA graphs nor compilation."""
    deterministic: bool = False


@dataclass(frozen=True)
class Plan:
    """A suite resolved on one machine: its cells, and what will happen to each."""

    suite: Suite
    registry: Registry
    specs: tuple[CellSpec, ...]
    """The cells as the suite has them, before tuning."""
    cells: tuple[PlannedCell, ...]
    run_dir: Path
    data_root: Path
    device: torch.device
    wishes: Wishes
    unnamed: int
    """Cells in the run directory that the suite no longer names; they are kept, and left out of reports."""
    studies: tuple[Study, ...] = ()
    """Where the suite has ``[tuning]``: each method on each data set, with the trials that have ended."""

    @property
    def todo(self) -> tuple[PlannedCell, ...]:
        """Cells to run, each once, whatever methods share it."""
        first = {cell.id: cell for cell in reversed(self.cells) if cell.todo}
        return tuple(cell for cell in self.cells if first.get(cell.id) is cell)

    @property
    def to_tune(self) -> tuple[Study, ...]:
        """Studies whose trials are to be run: those that lack some, of methods that are not left out."""
        from regbench.execution.planning import matches

        def wanted(study: Study) -> bool:
            own = [spec for spec in self.specs if study.fits(spec)]
            return not self.wishes.only or any(matches(spec, self.wishes.only) for spec in own)

        return tuple(study for study in self.studies if study.pending and wanted(study))

    def runs(self, writer: RunWriter, metrics: Sequence[str], listener: Listener, signal: StopSignal) -> Runs:
        """What runs the cells, with all that was asked for."""
        from regbench.execution.runner import CellRunner, How
        from regbench.execution.serial import Serial

        how = How(self.launch_wishes)
        runner = CellRunner(writer, self.registry, metrics, self.device, self.data_root, how)
        return Serial(runner, listener, signal)

    @property
    def launch_wishes(self) -> LaunchWishes:
        """What was asked for of the way that steps reach the device."""
        from regbench.training.launch import LaunchWishes

        return LaunchWishes(self.wishes.eager, self.wishes.deterministic)


def load_plugins(files: Sequence[Path | str] = ()) -> Registry:
    """Everything that plugins offer; ``files`` are Python files with plugins of your own."""
    found = registry(files)
    if not files:
        remember({kind: getattr(found, kind) for kind in KINDS})
    return found


def load_suite(path: Path | str, *, plugins: Sequence[Path | str] = ()) -> Suite:
    """Read and check a suite file. Raises ``SuiteError`` with every fault of the file."""
    from regbench.suite.load import load_suite as load

    return load(path, load_plugins(plugins))


def plan(
    suite: Path | str,
    *,
    device: str = "auto",
    runs_dir: Path | None = None,
    data_dir: Path | None = None,
    plugins: Sequence[Path | str] = (),
    force: Sequence[str] = (),
    only: Sequence[str] = (),
    accept_stale: bool = False,
    eager: bool = False,
    deterministic: bool = False,
) -> Plan:
    """Resolve a suite into cells and look each up in the store; nothing is run or written there."""
    from regbench.data.location import data_root
    from regbench.execution.planning import check_patterns
    from regbench.suite.cells import expand
    from regbench.suite.load import load_suite as load
    from regbench.training.precision import resolve_device, resolve_precision
    from regbench.tuning.study import studies_of, trial_names

    found = load_plugins(plugins)
    loaded = load(suite, found)
    where = resolve_device(device)
    root = data_root(data_dir)
    specs = expand(loaded, found, root, lambda precision: resolve_precision(precision, where))
    studies = studies_of(loaded, found, specs)
    check_patterns([*specs, *trial_names(studies)], force)
    check_patterns(specs, only)
    directory = locate_runs(runs_dir) / loaded.name
    wishes = Wishes(tuple(force), tuple(only), accept_stale, eager, deterministic)
    return look_up_all(Plan(loaded, found, specs, (), directory, root, where, wishes, 0, studies))


def look_up_all(ready: Plan) -> Plan:
    """The plan with its trials and its cells as the store has them now."""
    if ready.studies:
        trials = trials_of(ready)
        ready = replace(ready, studies=tuple(trials.replay(study) for study in ready.studies))
    return look_up(ready)


def trials_of(ready: Plan) -> Trials:
    from regbench.tuning.trials import Trials

    metric = ready.studies[0].tuning.metric
    source, wishes = ready.registry.metric(metric).source, ready.wishes
    return Trials(ready.run_dir, metric, source, force=wishes.force, accept_stale=wishes.accept_stale)


def look_up(ready: Plan) -> Plan:
    """The plan with its cells as the store has them now, given its trials."""
    from regbench.execution.planning import folders, matches, plan_cells
    from regbench.tuning.study import resolve

    wishes = ready.wishes
    sources = {name: ready.registry.metric(name).source for name in ready.suite.metrics}
    specs, reasons = resolve(ready.specs, ready.studies)
    planned = plan_cells(specs, ready.run_dir, sources, force=wishes.force, accept_stale=wishes.accept_stale)
    planned = [
        cell if cell.spec.phase == "final" else cell.waiting(reasons[cell.spec.dataset, cell.spec.method])
        for cell in planned
    ]
    if wishes.only:
        planned = [
            cell if matches(cell.spec, wishes.only) or not cell.ahead else cell.skipped("left out by --only")
            for cell in planned
        ]
    present = folders(ready.run_dir / "cells")
    return replace(ready, cells=tuple(planned), unnamed=len(present - {cell.slug for cell in planned}))
