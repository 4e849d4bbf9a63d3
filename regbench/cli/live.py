"""A running suite in a terminal: bars that stay at the bottom, for the suite and for each running cell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from regbench.cli.progress import duration, finished, losses, resumed, retried, selected, summary, tuning

if TYPE_CHECKING:
    from regbench.execution.events import Event

MOST_BARS = 8
"""Of running cells, at a time; a terminal has only so many lines."""


class Live:
    """A listener; its ``progress`` is to be entered while events come."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._todo = 0
        self._finished = 0
        self._started = time.monotonic()
        self._suite: Any = None
        self._cells: dict[str, Any] = {}
        """Bars of the running cells."""
        self._shares: dict[str, float] = {}
        """How much of each running cell is done."""

    def __call__(self, event: Event) -> None:
        getattr(self, f"_{type(event).__name__}")(event)

    def _TuningStarted(self, event: Any) -> None:
        self._say(tuning(event))
        self._begin(f"{event.suite} tuning", event.todo)

    def _StudyFinished(self, event: Any) -> None:
        self._say(selected(event))

    def _SuiteStarted(self, event: Any) -> None:
        self._say(f"{event.suite}: {event.todo} of {event.cells} cells to run on {event.device}")
        self._begin(event.suite, event.todo)

    def _begin(self, title: str, todo: int) -> None:
        """Fresh bars: the tuning has its own, and then the suite."""
        for task in (self._suite, *self._cells.values()):
            if task is not None:
                self.progress.remove_task(task)
        self._suite = None
        self._cells, self._shares = {}, {}
        self._todo, self._finished, self._started = todo, 0, time.monotonic()
        if todo:
            self._suite = self.progress.add_task(title, total=todo, note="")

    def _CellStarted(self, event: Any) -> None:
        shown = len(self._cells) < MOST_BARS
        self._cells[event.cell] = self.progress.add_task(
            event.cell, total=event.epochs, note="", visible=shown
        )
        self._shares[event.cell] = 0.0

    def _CellResumed(self, event: Any) -> None:
        self._say(resumed(event), style="yellow" if event.notes else None)
        self._reach(event, "")

    def _CellRetried(self, event: Any) -> None:
        self._say(retried(event), style="yellow")
        self.progress.update(self._cells[event.cell], completed=0, note="")
        self._shares[event.cell] = 0.0

    def _EpochFinished(self, event: Any) -> None:
        note = f"{event.phase}  {losses(event.losses)}  {event.images_per_second:.0f} images/s  "
        self._reach(event, note + f"{duration(event.seconds_left)} left")
        self._total()

    def _reach(self, event: Any, note: str) -> None:
        self.progress.update(self._cells[event.cell], completed=event.epoch, note=note)
        self._shares[event.cell] = event.epoch / event.epochs

    def _CellFinished(self, event: Any) -> None:
        self._finished += 1
        self._say(finished(event), style=None if event.status == "done" else "bold red")
        bar = self._cells.pop(event.cell, None)  # a cell that was never begun has none
        self._shares.pop(event.cell, None)
        if bar is not None:
            self.progress.remove_task(bar)
        for task in list(self._cells.values())[:MOST_BARS]:
            self.progress.update(task, visible=True)
        self.progress.update(self._suite, completed=self._finished)
        self._total()

    def _SuiteFinished(self, event: Any) -> None:
        self._say(summary(event))

    def _total(self) -> None:
        done = self._finished + sum(self._shares.values())
        elapsed = time.monotonic() - self._started
        left = elapsed / done * (self._todo - done) if done else 0.0
        self.progress.update(self._suite, note=f"{duration(left)} left in all")

    def _say(self, text: str, style: str | None = None) -> None:
        self.progress.console.print(text, style=style, markup=False, highlight=False)
