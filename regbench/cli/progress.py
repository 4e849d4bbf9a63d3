"""Showing a running suite: live bars in a terminal, one line per event elsewhere, JSON lines, or nothing."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from regbench.execution.events import Event, Listener


@contextmanager
def listener(*, quiet: bool, as_json: bool) -> Iterator[Listener]:
    """The listener that fits the options and the terminal. Progress goes to stderr, JSON lines to stdout."""
    from rich.console import Console

    from regbench.execution.events import ignore

    if as_json:
        yield partial(_json_line, sys.stdout)  # whatever else prints, and wherever to
    elif quiet:
        yield ignore
    elif sys.stderr.isatty():
        from regbench.cli.live import Live

        live = Live(Console(stderr=True))
        with live.progress:
            yield live
    else:
        yield _Plain()


def _json_line(out: TextIO, event: Event) -> None:
    from regbench.store.writer import finite

    line = json.dumps({"event": type(event).__name__, **finite(dataclasses.asdict(event))})
    print(line, file=out, flush=True)


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def losses(losses: Any) -> str:
    return "  ".join(f"{name} {value + 0.0:.4g}" for name, value in losses.items())  # -0.0 + 0.0 = 0.0


def finished(event: Any) -> str:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
    detail = event.reason.partition("\n")[0] if event.reason else metrics
    return f"{event.cell}: {event.status} in {duration(event.seconds)}; {detail}"


def resumed(event: Any) -> str:
    if not event.epoch and not event.batch:
        head = f"{event.cell}: begins anew"
    else:
        within = f" and {event.batch} batches" if event.batch else ""
        head = f"{event.cell}: goes on after {event.epoch} of {event.epochs} epochs{within}"
    return "\n".join([head, *(f"  {note}" for note in event.notes)])


def retried(event: Any) -> str:
    return f"{event.cell}: tried again: {event.reason}"


def selected(event: Any) -> str:
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


def tuning(event: Any) -> str:
    return f"{event.suite}: up to {event.todo} of {event.trials} tuning trials to run on {event.device}"


class _Plain:
    """One plain line per event; of a cell's epochs one every half minute."""

    def __init__(self) -> None:
        self._quiet_until: dict[str, float] = {}
        """Of each running cell."""
        self._todo = 0

    def __call__(self, event: Event) -> None:
        line = getattr(self, f"_{type(event).__name__}")(event)
        if line:
            print(line, file=sys.stderr, flush=True)

    def _TuningStarted(self, event: Any) -> str:
        self._todo = event.todo
        return f"{tuning(event)}, in {event.run}"

    def _StudyFinished(self, event: Any) -> str:
        return selected(event)

    def _SuiteStarted(self, event: Any) -> str:
        self._todo = event.todo
        return f"{event.suite}: {event.todo} of {event.cells} cells to run on {event.device}, in {event.run}"

    def _CellStarted(self, event: Any) -> str:
        self._quiet_until[event.cell] = time.monotonic() + 30
        return f"[{event.number}/{self._todo}] {event.cell}: {event.epochs} epochs"

    def _CellResumed(self, event: Any) -> str:
        return f"  {resumed(event)}"

    def _CellRetried(self, event: Any) -> str:
        return f"  {retried(event)}"

    def _EpochFinished(self, event: Any) -> str:
        if time.monotonic() < self._quiet_until.get(event.cell, 0.0):
            return ""
        self._quiet_until[event.cell] = time.monotonic() + 30
        pace = f"{event.images_per_second:.0f} images/s, {duration(event.seconds_left)} left"
        whose = f"{event.cell}: " if len(self._quiet_until) > 1 else ""
        return f"  {whose}epoch {event.epoch}/{event.epochs} {event.phase}: {losses(event.losses)}; {pace}"

    def _CellFinished(self, event: Any) -> str:
        self._quiet_until.pop(event.cell, None)
        return f"[{event.number}/{self._todo}] {finished(event)}"

    def _SuiteFinished(self, event: Any) -> str:
        return summary(event)


def summary(event: Any) -> str:
    parts = [f"{event.done} done"]
    if event.failed:
        parts.append(f"{event.failed} failed")
    if event.missing:
        parts.append(f"{event.missing} missing")
    return f"{', '.join(parts)} in {duration(event.seconds)}"
