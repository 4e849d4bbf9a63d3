"""Showing a running suite: live bars in a terminal, one line per event elsewhere, JSON lines, or nothing."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regbench.execution.events import Event, Listener


@contextmanager
def listener(*, quiet: bool, as_json: bool) -> Iterator[Listener]:
    """The listener that fits the options and the terminal. Progress goes to stderr, JSON lines to stdout."""
    from rich.console import Console

    from regbench.execution.events import ignore

    if as_json:
        yield _json_line
    elif quiet:
        yield ignore
    elif sys.stderr.isatty():
        live = _Live(Console(stderr=True))
        with live.progress:
            yield live
    else:
        yield _Plain()


def _json_line(event: Event) -> None:
    from regbench.store.writer import finite

    print(json.dumps({"event": type(event).__name__, **finite(dataclasses.asdict(event))}), flush=True)


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def _losses(losses: Any) -> str:
    return "  ".join(f"{name} {value + 0.0:.4g}" for name, value in losses.items())  # -0.0 + 0.0 = 0.0


def _finished(event: Any) -> str:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
    detail = event.reason.partition("\n")[0] if event.reason else metrics
    return f"{event.cell}: {event.status} in {duration(event.seconds)}; {detail}"


def _selected(event: Any) -> str:
    head = f"{event.study}: tuned, {event.trials} trials" + (
        f", {event.failed} failed" if event.failed else ""
    )
    if event.chosen is None:
        return f"{head}; nothing to select from"
    return f"{head}; selected {settings(event.values)} ({event.value:.4g}, trial {event.chosen})"


def settings(values: Any) -> str:
    """``training.lr = 0.003, options.weight = 2``."""
    return ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in values.items()
    )


def _tuning(event: Any) -> str:
    return f"{event.suite}: up to {event.todo} of {event.trials} tuning trials to run on {event.device}"


class _Plain:
    """One plain line per event; of the epochs one every half minute."""

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._todo = 0

    def __call__(self, event: Event) -> None:
        line = getattr(self, f"_{type(event).__name__}")(event)
        if line:
            print(line, file=sys.stderr, flush=True)

    def _TuningStarted(self, event: Any) -> str:
        self._todo = event.todo
        return f"{_tuning(event)}, in {event.run}"

    def _StudyFinished(self, event: Any) -> str:
        return _selected(event)

    def _SuiteStarted(self, event: Any) -> str:
        self._todo = event.todo
        return f"{event.suite}: {event.todo} of {event.cells} cells to run on {event.device}, in {event.run}"

    def _CellStarted(self, event: Any) -> str:
        self._quiet_until = time.monotonic() + 30
        return f"[{event.number}/{self._todo}] {event.cell}: {event.epochs} epochs"

    def _EpochFinished(self, event: Any) -> str:
        if time.monotonic() < self._quiet_until:
            return ""
        self._quiet_until = time.monotonic() + 30
        pace = f"{event.images_per_second:.0f} images/s, {duration(event.seconds_left)} left"
        return f"  epoch {event.epoch}/{event.epochs} {event.phase}: {_losses(event.losses)}; {pace}"

    def _CellFinished(self, event: Any) -> str:
        return f"[{event.number}/{self._todo}] {_finished(event)}"

    def _SuiteFinished(self, event: Any) -> str:
        return _summary(event)


def _summary(event: Any) -> str:
    parts = [f"{event.done} done"]
    if event.failed:
        parts.append(f"{event.failed} failed")
    if event.missing:
        parts.append(f"{event.missing} missing")
    return f"{', '.join(parts)} in {duration(event.seconds)}"


class _Live:
    """Two bars that stay at the bottom: the running cell's epochs and the suite's cells."""

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
        self._cell: Any = None
        self._suite: Any = None

    def __call__(self, event: Event) -> None:
        getattr(self, f"_{type(event).__name__}")(event)

    def _TuningStarted(self, event: Any) -> None:
        self._say(_tuning(event))
        self._begin(f"{event.suite} tuning", event.todo)

    def _StudyFinished(self, event: Any) -> None:
        self._say(_selected(event))

    def _SuiteStarted(self, event: Any) -> None:
        self._say(f"{event.suite}: {event.todo} of {event.cells} cells to run on {event.device}")
        self._begin(event.suite, event.todo)

    def _begin(self, title: str, todo: int) -> None:
        """Fresh bars: the tuning has its own, and then the suite."""
        for task in (self._suite, self._cell):
            if task is not None:
                self.progress.remove_task(task)
        self._suite = self._cell = None
        self._todo, self._finished, self._started = todo, 0, time.monotonic()
        if todo:
            self._suite = self.progress.add_task(title, total=todo, note="")
            self._cell = self.progress.add_task("", total=None, note="")

    def _CellStarted(self, event: Any) -> None:
        self.progress.reset(self._cell, total=event.epochs, description=event.cell, note="")

    def _EpochFinished(self, event: Any) -> None:
        note = f"{event.phase}  {_losses(event.losses)}  {event.images_per_second:.0f} images/s  "
        self.progress.update(
            self._cell,
            completed=event.epoch,
            total=event.epochs,
            note=note + f"{duration(event.seconds_left)} left",
        )
        self._total(self._finished + event.epoch / event.epochs)

    def _CellFinished(self, event: Any) -> None:
        self._finished += 1
        self._say(_finished(event), style=None if event.status == "done" else "bold red")
        self.progress.update(self._suite, completed=self._finished)
        self._total(self._finished)

    def _SuiteFinished(self, event: Any) -> None:
        self._say(_summary(event))

    def _total(self, finished: float) -> None:
        elapsed = time.monotonic() - self._started
        left = elapsed / finished * (self._todo - finished) if finished else 0.0
        self.progress.update(self._suite, note=f"{duration(left)} left in all")

    def _say(self, text: str, style: str | None = None) -> None:
        self.progress.console.print(text, style=style, markup=False, highlight=False)
