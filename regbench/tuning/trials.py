"""Trials in the store: ordinary cells below ``runs/<suite>/tuning/``, evaluated on the held-out images."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from regbench.execution.events import Listener, StudyFinished
from regbench.execution.planning import PlannedCell, Shelf
from regbench.execution.serial import Runs
from regbench.store.records import FAILED, CellRecord, Outcome
from regbench.suite.cells import CellSpec
from regbench.tuning.study import Answer, Question, Study, Trial, TrialState, follow, questions

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

    def known(self, question: Question) -> Trial | None:
        """How a trial ended, if it did; a failed one is not tried again unless it is forced."""
        spec = question.spec
        if spec.id in self._ran:
            slug, outcome = self._ran[spec.id]
            return _trial(question, slug, outcome, self.metric)
        cell = self.shelf.look_up(spec)
        record = CellRecord(cell.id, spec.method, spec.dataset, spec.seed, {}, self.shelf.cells / cell.slug)
        if cell.state in ("finished", "accepted"):
            outcome = Outcome("done", "", record.result["metrics"]["mean"])
        elif cell.state == "diverged" or (record.status in FAILED and not cell.forced):
            outcome = record.outcome_now
        else:
            return None
        return _trial(question, cell.slug, outcome, self.metric)

    def replay(self, study: Study) -> Study:
        """The study as far as the store knows its trials; nothing is run."""
        return follow(study, self.known)

    def run(self, studies: Sequence[Study], runs: Runs, emit: Listener) -> tuple[Study, ...]:
        """Run the trials that are missing: study by study, or where cells run side by side the next trial of each.

        What ``runs`` raises comes through.
        """
        if runs.side_by_side:
            return self._together(studies, runs, emit)
        return tuple(self._together([study], runs, emit)[0] for study in studies)

    def _together(self, studies: Sequence[Study], runs: Runs, emit: Listener) -> tuple[Study, ...]:
        """Studies know nothing of each other, so each asks the same as it would alone."""
        asking = {study.place: _Asking(questions(study)) for study in studies}
        while True:
            for each in asking.values():
                each.advance(self.known)
                if each.study is not None and each.ran:
                    emit(_event(each.study))
                    each.ran = False
            open_ = [each for each in asking.values() if each.question is not None]
            if not open_:
                return tuple(each.study for each in asking.values() if each.study is not None)
            self._run([each.question.spec for each in open_ if each.question is not None], runs)
            for each in open_:
                each.ran = True

    def _run(self, specs: Sequence[CellSpec], runs: Runs) -> None:
        # Two methods may ask for the very same settings: one cell for both.
        cells = list({spec.id: self.shelf.look_up(spec) for spec in specs}.values())
        outcomes = runs.run(cells, first=len(self._ran) + 1)
        self._ran |= {cell.id: (cell.slug, outcomes[cell.id]) for cell in cells}


@dataclass
class _Asking:
    """A study that asks for its trials one after another."""

    generator: Generator[Question, Trial | None, Study]
    question: Question | None = None
    """What it waits for."""
    study: Study | None = None
    """Once all is answered."""
    ran: bool = False
    """Whether a trial of it has been run, and nothing been told of its end."""

    def advance(self, known: Answer) -> None:
        """Answer what is known, up to the first trial that must be run."""
        try:
            if self.question is None and self.study is None:
                self.question = next(self.generator)
            while self.question is not None and (trial := known(self.question)) is not None:
                self.question = self.generator.send(trial)
        except StopIteration as end:
            self.question, self.study = None, end.value


def _trial(question: Question, slug: str, outcome: Outcome, metric: str) -> Trial:
    number, values = question.number, question.values
    if outcome.status == "done":
        return Trial(number, values, "done", outcome.metrics[metric], slug=slug)
    state: TrialState = "diverged" if outcome.status == "diverged" else "failed"
    return Trial(number, values, state, None, outcome.reason.partition("\n")[0], slug)


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
