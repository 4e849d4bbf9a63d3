"""A suite resolved on one machine: its cells, and what will happen to each. Nothing is run or written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.execution.events import Listener
from regbench.execution.placement import Placement
from regbench.names import remember
from regbench.plugins import Registry, registry
from regbench.store.location import runs_dir as locate_runs

if TYPE_CHECKING:
    import torch

    from regbench.engines.base import Engine, Resources
    from regbench.execution.interrupt import StopSignal
    from regbench.execution.job import Site
    from regbench.execution.planning import PlannedCell
    from regbench.execution.serial import Runs
    from regbench.store.writer import RunWriter
    from regbench.suite.cells import CellSpec
    from regbench.suite.schema import Suite
    from regbench.training.launch import LaunchWishes
    from regbench.tuning.study import Study
    from regbench.tuning.trials import Trials

KINDS = ("regularizers", "datasets", "metrics", "figures", "engines")


class Asked(TypedDict, total=False):
    """What may be asked for besides the suite: keywords of :func:`plan` and :func:`regbench.run`."""

    device: str
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    runs_dir: Path | None
    data_dir: Path | None
    plugins: Sequence[Path | str]
    """Python files with plugins of your own."""
    force: Sequence[str]
    """Patterns of cells to run again, from their beginning."""
    only: Sequence[str]
    """Patterns of the cells to run; the others are left alone."""
    accept_stale: bool
    """Keep results whose plugin's code has changed since."""
    eager: bool
    """Neither CUDA graphs nor compilation."""
    deterministic: bool
    """The same bits each time on the same GPU."""
    checkpoints: str
    """How often a training is saved: ``5m``, ``10 epochs``, ``off``."""
    placement: Placement
    """Where cells run: in this process, or through an engine."""


@dataclass(frozen=True)
class Wishes:
    """What was asked for besides the suite."""

    force: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    accept_stale: bool = False
    eager: bool = False
    deterministic: bool = False
    checkpoints: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    placement: Placement = field(default_factory=Placement)
    plugins: tuple[str, ...] = ()
    """Absolute paths: workers load them, too."""

    @classmethod
    def of(cls, asked: Asked) -> Wishes:
        return cls(
            force=tuple(asked.get("force", ())),
            only=tuple(asked.get("only", ())),
            accept_stale=asked.get("accept_stale", False),
            eager=asked.get("eager", False),
            deterministic=asked.get("deterministic", False),
            checkpoints=CheckpointPolicy.parse(asked.get("checkpoints", "5m")),
            placement=asked.get("placement", Placement()).checked(),
            plugins=tuple(str(Path(file).resolve()) for file in asked.get("plugins", ())),
        )


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

    def runs(
        self,
        writer: RunWriter,
        metrics: Sequence[str],
        listener: Listener,
        signal: StopSignal,
        engine: Engine | None,
    ) -> Runs:
        """What runs the cells, with all that was asked for; without an engine in this process."""
        if engine is None:
            from regbench.execution.runner import CellRunner, How
            from regbench.execution.serial import Serial

            how = How(self.launch_wishes, self.wishes.checkpoints)
            runner = CellRunner(writer, self.registry, metrics, self.device, self.data_root, how)
            return Serial(runner, listener, signal)
        from regbench.execution.placement import resources
        from regbench.execution.scheduler import Scheduler

        needs = resources(self.wishes.placement, engine, self.device)
        site = self._site(writer.path, metrics, needs)
        return Scheduler(engine, writer, self.registry, site, needs, listener, signal)

    def _site(self, run: Path, metrics: Sequence[str], needs: Resources) -> Site:
        from regbench.execution.job import Site

        wishes = self.wishes
        return Site(
            run=str(run.resolve()),
            plugins=wishes.plugins,
            metrics=tuple(metrics),
            data_root=str(self.data_root.resolve()),
            device=self.device.type,  # which one is the engine's to say
            engine=wishes.placement.name,
            eager=wishes.eager,
            deterministic=wishes.deterministic,
            checkpoints=str(wishes.checkpoints),
            limit=wishes.placement.limit,
            grace=wishes.placement.grace,
            threads=needs.cpus,
        )

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


def plan(suite: Path | str, **asked: Unpack[Asked]) -> Plan:
    """Resolve a suite into cells and look each up in the store; nothing is run or written there."""
    from regbench.data.location import data_root
    from regbench.execution.planning import check_patterns
    from regbench.suite.cells import expand
    from regbench.suite.load import load_suite as load
    from regbench.training.precision import precision_elsewhere, resolve_device, resolve_precision
    from regbench.tuning.study import studies_of, trial_names

    found = load_plugins(asked.get("plugins", ()))
    loaded = load(suite, found)
    wishes = Wishes.of(asked)
    elsewhere = wishes.placement.elsewhere(found)
    where = resolve_device(asked.get("device", "auto"), elsewhere=elsewhere)
    root = data_root(asked.get("data_dir"))
    resolve = precision_elsewhere if elsewhere else resolve_precision
    specs = expand(loaded, found, root, lambda precision: resolve(precision, where))
    studies = studies_of(loaded, found, specs)
    check_patterns([*specs, *trial_names(studies)], wishes.force)
    check_patterns(specs, wishes.only)
    directory = locate_runs(asked.get("runs_dir")) / loaded.name
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
