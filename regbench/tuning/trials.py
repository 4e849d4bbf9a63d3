"""Trials in the store: ordinary cells below ``runs/<suite>/tuning/``, evaluated on the held-out images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regbench.execution.events import Listener, StudyFinished
from regbench.execution.planning import PlannedCell, Shelf
from regbench.execution.serial import Runs
from regbench.store.records import CellRecord, Outcome
from regbench.suite.cells import CellSpec
from regbench.tuning.study import Study, Trial, TrialState, follow

FOLDER = "tuning"


class Trials:
    """The trials of one suite, as the store has them and as they are run."""

    def __init__(
        self,
        run_dir: Path,
        metric: str,
        source: str,
        *,
        force: Sequence[str] = (),
        accept_stale: bool = False,
    ) -> None:
        """``source`` is the hash of the metric's code; ``force`` fits trials by their names, like cells."""
        self.directory = run_dir / FOLDER
        self.metric = metric
        self.shelf = Shelf(self.directory, {metric: source}, force=force, accept_stale=accept_stale)
        self._ran: dict[str, tuple[str, Outcome]] = {}
        """Slug and outcome of what was run by this object, by the cell's id."""

    def known(self, number: int, values: Mapping[str, Any], spec: CellSpec) -> Trial | None:
        """How a trial ended, if it did; a failed one is not tried again unless it is forced."""
        if spec.id in self._ran:
            slug, outcome = self._ran[spec.id]
            return self._trial(number, values, slug, outcome)
        cell = self.shelf.look_up(spec)
        record = CellRecord(cell.id, spec.method, spec.dataset, spec.seed, {}, self.shelf.cells / cell.slug)
        if cell.state in ("finished", "accepted"):
            outcome = Outcome("done", "", record.result["metrics"]["mean"])
        elif cell.state == "diverged" or (record.status == "failed" and not cell.forced):
            outcome = record.outcome_now
        else:
            return None
        return self._trial(number, values, cell.slug, outcome)

    def _trial(self, number: int, values: Mapping[str, Any], slug: str, outcome: Outcome) -> Trial:
        if outcome.status == "done":
            return Trial(number, values, "done", outcome.metrics[self.metric], slug=slug)
        state: TrialState = "diverged" if outcome.status == "diverged" else "failed"
        return Trial(number, values, state, None, outcome.reason.partition("\n")[0], slug)

    def replay(self, study: Study) -> Study:
        """The study as far as the store knows its trials; nothing is run."""
        return follow(study, self.known)

    def run(self, studies: Sequence[Study], runs: Runs, emit: Listener) -> tuple[Study, ...]:
        """Run the trials that are missing, study by study. What ``runs`` raises comes through."""
        finished = []
        for study in studies:
            ran = len(self._ran)

            def answer(number: int, values: Mapping[str, Any], spec: CellSpec) -> Trial | None:
                return self.known(number, values, spec) or self._run(number, values, spec, runs)

            study = follow(study, answer)
            if len(self._ran) > ran:
                emit(_event(study))
            finished.append(study)
        return tuple(finished)

    def _run(self, number: int, values: Mapping[str, Any], spec: CellSpec, runs: Runs) -> Trial:
        cell = self.shelf.look_up(spec)
        outcome = runs.run([cell], first=len(self._ran) + 1)[cell.id]
        self._ran[spec.id] = cell.slug, outcome
        return self._trial(number, values, cell.slug, outcome)


def _event(study: Study) -> StudyFinished:
    best = study.best
    return StudyFinished(
        study=study.title,
        trials=len(study.trials),
        failed=sum(trial.state != "done" for trial in study.trials),
        chosen=None if best is None else best.number,
        value=None if best is None else best.value,
        values={} if best is None else dict(best.values),
    )


def typical_trials(studies: Iterable[Study]) -> dict[tuple[str, str], PlannedCell]:
    """For each data set and method a trial with the suite's own settings, to estimate what a trial costs."""
    specs = {study.place: study.trial_spec(0, {}) for study in studies}
    return {
        place: PlannedCell(spec, spec.slug, spec.id, "todo", "")
        for place, spec in specs.items()
        if isinstance(spec, CellSpec)
    }
