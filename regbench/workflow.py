"""The verbs as functions: what the command line does, for notebooks and scripts.

run = regbench.run("suites/quick.toml", device="cpu")
frame = regbench.load_results(run.path)
regbench.write_report(run.path)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regbench.errors import CellsFailed, DataError, Interrupted, PluginError, RegbenchError
from regbench.execution.events import Listener, SuiteFinished, SuiteStarted, TuningStarted, ignore
from regbench.names import remember
from regbench.plugins import Registry, registry
from regbench.store.location import find_run, mark_last
from regbench.store.location import runs_dir as locate_runs
from regbench.store.records import CellRecord, Outcome, Run

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from regbench.execution.interrupt import Stop
    from regbench.execution.local import LocalExecutor
    from regbench.execution.planning import PlannedCell
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

    def executor(self, writer: RunWriter, metrics: Sequence[str], listener: Listener) -> LocalExecutor:
        """What runs the cells, with all that was asked for."""
        from regbench.execution.local import LocalExecutor

        wishes = self.launch_wishes
        return LocalExecutor(writer, self.registry, metrics, self.device, self.data_root, listener, wishes)

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
    return _look_up_all(Plan(loaded, found, specs, (), directory, root, where, wishes, 0, studies))


def _look_up_all(ready: Plan) -> Plan:
    """The plan with its trials and its cells as the store has them now."""
    if ready.studies:
        trials = _trials(ready)
        ready = replace(ready, studies=tuple(trials.replay(study) for study in ready.studies))
    return _look_up(ready)


def _trials(ready: Plan) -> Trials:
    from regbench.tuning.trials import Trials

    metric = ready.studies[0].tuning.metric
    source, wishes = ready.registry.metric(metric).source, ready.wishes
    return Trials(ready.run_dir, metric, source, force=wishes.force, accept_stale=wishes.accept_stale)


def _look_up(ready: Plan) -> Plan:
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


def run(
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
    listener: Listener = ignore,
) -> Run:
    """Run the cells of a suite that have no result yet, and return the run.

    Raises ``CellsFailed`` at the end if a cell has failed or diverged (the others are run all the same),
    ``DataError`` before any training where data are missing, ``Interrupted`` on Ctrl-C.
    """
    ready = plan(
        suite,
        device=device,
        runs_dir=runs_dir,
        data_dir=data_dir,
        plugins=plugins,
        force=force,
        only=only,
        accept_stale=accept_stale,
        eager=eager,
        deterministic=deterministic,
    )
    return execute(ready, listener)


def execute(ready: Plan, listener: Listener = ignore) -> Run:
    """Run what a plan has to do; see :func:`run`."""
    from regbench.cell import ListenerFailed
    from regbench.execution.interrupt import Stop, stoppable
    from regbench.store.writer import RunWriter

    _check_data(ready)
    writer = RunWriter(ready.run_dir)
    started = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    stopped: Stop | None = None
    with writer.locked():
        ready = _look_up_all(ready)  # another process may have finished cells in the meantime
        run = _write_lock(ready, writer)
        mark_last(ready.run_dir)
        executor = ready.executor(writer, ready.suite.metrics, listener)
        try:
            with stoppable():
                if ready.to_tune:
                    ready = _tune(ready, listener)
                    run = _write_lock(ready, writer)
                listener(_started(ready))
                outcomes = executor.run(ready.todo, run)
        except Stop as stop:
            stopped = stop
        except ListenerFailed as failed:
            raise failed.error from failed
    return _conclude(ready, outcomes, stopped, time.monotonic() - started, listener)


def _started(ready: Plan) -> SuiteStarted:
    where, device = str(ready.run_dir), str(ready.device)
    return SuiteStarted(ready.suite.name, where, len(ready.cells), len(ready.todo), device)


def _tune(ready: Plan, listener: Listener) -> Plan:
    """Run the trials that are missing, and look the cells up that follow from them."""
    from regbench.store.writer import RunWriter

    trials = _trials(ready)
    wanted = ready.to_tune
    todo = sum(study.pending for study in wanted)
    writer = RunWriter(trials.directory)
    executor = ready.executor(writer, (trials.metric,), listener)
    listener(
        TuningStarted(
            ready.suite.name,
            str(trials.directory),
            sum(study.budget for study in wanted),
            todo,
            str(ready.device),
        )
    )
    ran = {study.place: study for study in trials.run(wanted, executor, listener)}
    return _look_up(replace(ready, studies=tuple(ran.get(study.place, study) for study in ready.studies)))


def _conclude(
    ready: Plan, outcomes: Mapping[str, Outcome], stopped: Stop | None, seconds: float, listener: Listener
) -> Run:
    """Say how the run ended: by a value, by ``CellsFailed``, or by ``Interrupted``."""
    finished = Run.open(ready.run_dir)
    # A cell that was run again and failed still has its earlier result: its outcome is what counts here.
    ended = [(cell, outcomes.get(cell.id) or cell.outcome_now) for cell in finished.cells]
    states = [outcome.status for _, outcome in ended]
    failed = [(cell, outcome) for cell, outcome in ended if outcome.status in ("failed", "diverged")]
    missing = states.count("missing") + states.count("interrupted")
    listener(SuiteFinished(states.count("done"), len(failed), missing, seconds))
    if stopped is not None:
        interrupted = Interrupted(
            f"stopped; {states.count('done')} of {len(states)} cells are finished and kept",
            hint=f"run the same command again to go on: regbench run {ready.suite.file}",
        )
        interrupted.exit_code = stopped.exit_code
        raise interrupted
    if failed:
        listing = "\n".join(_failure(cell, outcome) for cell, outcome in failed)
        raise CellsFailed(
            f"{len(failed)} of {len(states)} cells failed:\n{listing}{_untuned(ready)}",
            hint="log.txt in a cell's latest attempt has the traceback; a second run tries failed cells again, "
            "diverged ones only with --force",
        )
    if untuned := _untuned(ready):
        raise CellsFailed(untuned.strip(), hint="narrow the search space, or try again: --force '* trial *'")
    return finished


def _untuned(ready: Plan) -> str:
    """One line for each study that has nothing to select from."""
    lines = (
        f"\n{study.title}: all {study.budget} trials failed, so its cells are not run; the last one: "
        f"{study.trials[-1].reason}"
        for study in ready.studies
        if study.failed
    )
    return "".join(lines)


def _failure(cell: CellRecord, outcome: Outcome) -> str:
    kept = "; its earlier result stays" if cell.status == "done" else ""
    reason = outcome.reason.partition("\n")[0]
    title = f"{cell.dataset} {cell.method} seed {cell.seed}"
    return f"  {title}: {outcome.status}: {reason}{kept}\n    {cell.directory}"


def load_results(run: Path | str | None = None, *, runs_dir: Path | None = None) -> pd.DataFrame:
    """One row per planned cell with its status, metrics, diagnostics and costs; by default of the last run."""
    from regbench.report.frame import load_frame

    return load_frame(Run.open(find_run(run, runs_dir)))


def write_report(
    run: Path | str | None = None,
    *,
    out: Path | None = None,
    runs_dir: Path | None = None,
    plugins: Sequence[Path | str] = (),
) -> Any:
    """Write tables, figures and the HTML report of a run (by default the last) below ``reports/<suite>/``."""
    from regbench.report.build import write_report as write

    return write(Run.open(find_run(run, runs_dir)), out, plugins=plugins)


def _check_data(ready: Plan) -> None:
    """All data sets that cells to run need must be there and sound, before anything is trained."""
    from regbench.suite.cells import dataset_of

    problems: list[str] = []
    mends: list[str] = []
    specs = [study.base for study in ready.to_tune] + [cell.spec for cell in ready.todo]
    for spec in {spec.dataset: spec for spec in specs}.values():
        dataset = dataset_of(spec, ready.registry)
        try:
            found = dataset.check(ready.data_root)
        except RegbenchError:
            raise
        except Exception as error:  # a plugin's code
            raise DataError(
                f"data set {spec.dataset}: checking it failed: {type(error).__name__}: {error}"
            ) from error
        problems += found
        mend = dataset.mend(ready.data_root) if found else None
        mends += [mend] if mend else []
    if problems:
        raise DataError("\n".join(problems), hint="; ".join(mends) or "regbench data ls shows what is where")


def _write_lock(ready: Plan, writer: Any) -> Run:
    from regbench.suite.methods import families_of
    from regbench.tuning.record import tuning_record

    suite = ready.suite
    head: Mapping[str, Any] = {
        **suite.suite.model_dump(mode="json"),
        "baseline": suite.baseline,
        "metric_info": {name: _metric_info(ready.registry.metric(name).cls) for name in suite.metrics},
        "figures": [figure.model_dump(mode="json") for figure in suite.figures],
        "claims": [claim.model_dump(mode="json") for claim in suite.claims],
        "families": families_of(suite.regularizers, ready.registry),
        "tuning": tuning_record(ready.studies),
        "file": suite.file,
    }
    run: Run = writer.write_lock(
        head,
        _distinct(cell.spec.method for cell in ready.cells),
        _distinct(cell.spec.dataset for cell in ready.cells),
        [cell.entry() for cell in ready.cells],
        [suite.path.read_bytes(), *(base.read_bytes() for base in suite.bases)],
    )
    return run


def _metric_info(metric: Any) -> dict[str, str]:
    for attribute in ("label", "better", "definition"):
        if not isinstance(getattr(metric, attribute, None), str):
            raise PluginError(
                f"metric {metric.name}: it has no `{attribute}`", hint="see docs/hooks/metrics.md"
            )
    return {"label": metric.label, "better": metric.better, "definition": metric.definition}


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
