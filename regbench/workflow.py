"""The verbs as functions: what the command line does, for notebooks and scripts.

run = regbench.run("suites/quick.toml", device="cpu")
frame = regbench.load_results(run.path)
regbench.write_report(run.path)
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from regbench.errors import CellsFailed, DataError, Interrupted, PluginError
from regbench.execution.events import Listener, SuiteFinished, SuiteStarted, TuningStarted, ignore
from regbench.resolve import Asked, Plan, load_plugins, load_suite, look_up, look_up_all, plan, trials_of
from regbench.store.location import find_run, mark_last
from regbench.store.records import FAILED, CellRecord, Outcome, Run

if TYPE_CHECKING:
    import pandas as pd

    from regbench.engines.base import Engine
    from regbench.execution.interrupt import Stop, StopSignal

SHOWN = 5
"""Of the cells that failed for one and the same reason."""

__all__ = ["execute", "load_plugins", "load_results", "load_suite", "plan", "run", "write_report"]


def run(suite: Path | str, *, listener: Listener = ignore, **asked: Unpack[Asked]) -> Run:
    """Run the cells of a suite that have no result yet, and return the run.

    Raises ``CellsFailed`` at the end if a cell has failed or diverged (the others are run all the same),
    ``DataError`` before any training where data are missing, ``Interrupted`` on Ctrl-C.
    """
    return execute(plan(suite, **asked), listener)


def execute(ready: Plan, listener: Listener = ignore) -> Run:
    """Run what a plan has to do; see :func:`run`."""
    from regbench.cell import ListenerFailed
    from regbench.execution.interrupt import Stop, stoppable
    from regbench.store.writer import RunWriter

    _check_launch(ready)
    _check_data(ready)
    writer = RunWriter(ready.run_dir)
    started = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    stopped: Stop | None = None
    with writer.locked():
        ready = look_up_all(ready)  # another process may have finished cells in the meantime
        _write_lock(ready, writer)
        mark_last(ready.run_dir)
        try:
            with stoppable() as signal, _engine(ready) as engine:
                if ready.to_tune:
                    ready = _tune(ready, listener, signal, engine)
                    _write_lock(ready, writer)
                listener(_started(ready))
                runs = ready.runs(writer, ready.suite.metrics, listener, signal, engine)
                outcomes = runs.run(ready.todo)
        except Stop as stop:
            stopped = stop
        except ListenerFailed as failed:
            raise failed.error from failed
    return _conclude(ready, outcomes, stopped, time.monotonic() - started, listener)


def _engine(ready: Plan) -> AbstractContextManager[Engine | None]:
    """What runs the cells, if not this process; not opened where nothing is to be run."""
    from regbench.execution.placement import opened

    if not (ready.todo or ready.to_tune):
        return nullcontext()
    return opened(ready.wishes.placement, ready.registry, ready.run_dir, ready.device)


def _started(ready: Plan) -> SuiteStarted:
    where, device = str(ready.run_dir), str(ready.device)
    return SuiteStarted(ready.suite.name, where, len(ready.cells), len(ready.todo), device)


def _tune(ready: Plan, listener: Listener, signal: StopSignal, engine: Engine | None) -> Plan:
    """Run the trials that are missing, and look the cells up that follow from them."""
    from regbench.store.writer import RunWriter

    trials = trials_of(ready)
    wanted = ready.to_tune
    todo = sum(study.pending for study in wanted)
    writer = RunWriter(trials.directory)
    runs = ready.runs(writer, (trials.metric,), listener, signal, engine)
    listener(
        TuningStarted(
            ready.suite.name,
            str(trials.directory),
            sum(study.budget for study in wanted),
            todo,
            str(ready.device),
        )
    )
    ran = {study.place: study for study in trials.run(wanted, runs, listener)}
    return look_up(replace(ready, studies=tuple(ran.get(study.place, study) for study in ready.studies)))


def _conclude(
    ready: Plan, outcomes: Mapping[str, Outcome], stopped: Stop | None, seconds: float, listener: Listener
) -> Run:
    """Say how the run ended: by a value, by ``CellsFailed``, or by ``Interrupted``."""
    finished = Run.open(ready.run_dir)
    # A cell that was run again and failed still has its earlier result: its outcome is what counts here.
    ended = [(cell, outcomes.get(cell.id) or cell.outcome_now) for cell in finished.cells]
    states = [outcome.status for _, outcome in ended]
    failed = [(cell, outcome) for cell, outcome in ended if outcome.status in FAILED]
    missing = states.count("missing") + states.count("interrupted")
    listener(SuiteFinished(states.count("done"), len(failed), missing, seconds))
    if stopped is not None:
        interrupted = Interrupted(
            f"stopped; {states.count('done')} of {len(states)} cells are finished and kept",
            hint=f"run the same command again to go on: {_command(ready)}",
        )
        interrupted.exit_code = stopped.exit_code
        raise interrupted
    if failed:
        raise CellsFailed(
            f"{len(failed)} of {len(states)} cells failed:\n{_failures(failed)}{_untuned(ready)}",
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


def _command(ready: Plan) -> str:
    """What the user typed, or would have to."""
    program, *arguments = sys.argv
    if Path(program).stem in ("regbench", "__main__") and arguments[:1] == ["run"]:
        return shlex.join(["regbench", *arguments])
    return f"regbench run {ready.suite.file}"


def _failures(failed: Sequence[tuple[CellRecord, Outcome]]) -> str:
    """The cells that failed, those of one reason together: where all have it, it is said a few times."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for cell, outcome in failed:
        by_reason.setdefault((outcome.status, outcome.reason), []).append(_failure(cell, outcome))
    lines = []
    for same in by_reason.values():
        lines += same[:SHOWN]
        if len(same) > SHOWN:
            lines.append(f"  and {len(same) - SHOWN} more for the same reason")
    return "\n".join(lines)


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


def _check_launch(ready: Plan) -> None:
    """Where a suite says that steps are compiled, they must be, before anything is trained."""
    from regbench.cell import launch_of

    if ready.wishes.placement.elsewhere(ready.registry):
        return  # each worker finds out for itself
    for spec in [study.base for study in ready.to_tune] + [
        cell.spec for cell in ready.todo if cell.state == "todo"
    ]:
        if spec.compile == "on":
            method = ready.registry.regularizer(spec.regularizer).cls
            launch_of(spec, method, ready.device, ready.launch_wishes)


def _check_data(ready: Plan) -> None:
    """All data sets that cells to run need must be there and sound, before anything is trained."""
    from regbench.verify import data_problems

    problems: list[str] = []
    mends: list[str] = []
    specs = [study.base for study in ready.to_tune] + [cell.spec for cell in ready.todo]
    for spec in {spec.dataset: spec for spec in specs}.values():
        found, mend = data_problems(spec, ready.registry, ready.data_root)
        problems += found
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
