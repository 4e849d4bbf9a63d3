"""An engine that runs nothing: its jobs do to the store what they are told to, in the order they are told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from regbench.engines.base import (
    Engine,
    EngineOptions,
    Happening,
    Lost,
    Resources,
    Returned,
    Setting,
    Started,
    Submission,
    Waiting,
)
from regbench.execution.interrupt import StopSignal
from regbench.execution.job import Job, Site
from regbench.execution.planning import PlannedCell
from regbench.execution.scheduler import Scheduler
from regbench.execution.worker import Answer
from regbench.plugins import registry
from regbench.store.claims import ClaimLost
from regbench.store.records import Outcome, read_json
from regbench.store.writer import AttemptWriter, CellWriter, RunWriter

CELLS = 4
EPOCHS = 2
Steps = Iterator[Happening | None]

Play = Callable[["Played"], Iterator[Happening | None]]
"""What a job does: step by step, each with what the engine says of it, if anything."""


@dataclass
class Played:
    """A job in the hands of the engine."""

    handle: str
    job: Job
    beside: int
    """Jobs that were there when it was submitted."""
    cancelled: float | None = None
    """The grace that it was cancelled with."""
    attempt: AttemptWriter | None = None

    @property
    def writer(self) -> CellWriter:
        return RunWriter(Path(self.job.site.run)).cell(self.job.slug, self.job.token)

    def begin(self) -> AttemptWriter:
        self.attempt = self.writer.begin(self.job.spec.key(), {"cell": self.job.spec.id})
        return self.attempt

    def row(self, epoch: int) -> None:
        assert self.attempt is not None
        self.attempt.metrics(
            {"epoch": epoch, "phase": "warmup", "seconds": 0.1, "losses": {"loss": 1.0 / epoch}}
        )

    def commit(self) -> None:
        assert self.attempt is not None
        result = {"attempt": self.attempt.directory.name, "metrics": {"mean": {"mse": 0.5}}}
        self.attempt.commit({"result.json": json.dumps(result).encode()}, replace=self.job.replace)

    def answers(self, verdict: Any = "ended", reason: str = "") -> Returned:
        return Returned(self.handle, Answer(verdict, reason).to_json())

    def lost(self, *, cells_own: bool = True, signal: int | None = 9) -> Lost:
        return Lost(self.handle, "its process was killed", signal, cells_own)


class Simulated(Engine):
    """Every poll takes every job a step on."""

    name: ClassVar[str] = "simulated"
    play: Play

    def __init__(self, run: Path, jobs: int, play: Play) -> None:
        super().__init__(EngineOptions(), Setting(run, jobs, "cpu"))
        self.play = play
        self.given: list[Played] = []
        self._going: dict[str, tuple[Played, Iterator[Happening | None]]] = {}

    def open(self) -> None:
        pass

    def close(self) -> None:
        self._going.clear()

    def submit(self, jobs: Sequence[Submission]) -> list[str]:
        handles = []
        beside = len(self._going)
        for job in jobs:
            played = Played(str(len(self.given)), Job.from_json(job.job), beside + len(jobs) - 1)
            self.given.append(played)
            self._going[played.handle] = (played, self.play(played))
            handles.append(played.handle)
        assert len(self._going) <= self.setting.jobs
        return handles

    def poll(self, seconds: float) -> list[Happening]:
        found: list[Happening] = []
        for handle, (_, steps) in list(self._going.items()):
            said = next(steps, None)
            if said is not None:
                found.append(said)
                if not isinstance(said, Started | Waiting):
                    del self._going[handle]
        return found

    def cancel(self, handle: str, grace_seconds: float) -> None:
        if handle in self._going:
            played, steps = self._going[handle]
            played.cancelled = grace_seconds
            self._going[handle] = (played, _obey(played, steps, grace_seconds))


def _obey(played: Played, steps: Iterator[Happening | None], grace: float) -> Iterator[Happening | None]:
    """A worker that is killed; with a grace it stops as it is asked to."""
    if grace and played.attempt is not None:
        played.attempt.end("interrupted", "stopped by a signal")
        yield played.answers("stopped", "stopped by a signal")
    else:
        yield played.lost()


def refused(action: Callable[[], object]) -> bool:
    """Whether the store refuses an attempt that was given up."""
    try:
        action()
    except ClaimLost:
        return True
    return False


FOUND = registry()


class Trial:
    """A scheduler over the simulated engine, with all that it tells."""

    def __init__(self, run: Path, play: Play, *, jobs: int = 2, **site: Any) -> None:
        self.run_dir = run
        self.events: list[Any] = []
        self.signal = StopSignal()
        self.engine = Simulated(run, jobs, play)
        shared = Site(str(run), (), ("mse",), str(run), "cpu", "simulated", **site)
        self.scheduler = Scheduler(
            self.engine, RunWriter(run), FOUND, shared, Resources(), self.listen, self.signal
        )
        self.scheduler.late_seconds = 0.0

    def listen(self, event: Any) -> None:
        self.events.append(event)

    def run(self, cells: Any) -> dict[str, Outcome]:
        with self.engine:
            return self.scheduler.run(cells)

    def told(self, kind: type[Any], cell: PlannedCell | None = None) -> list[Any]:
        title = None if cell is None else cell.spec.title
        return [event for event in self.events if isinstance(event, kind) and title in (None, event.cell)]

    def of(self, cell: PlannedCell) -> list[Played]:
        return [played for played in self.engine.given if played.job.slug == cell.slug]

    def statuses(self, cell: PlannedCell) -> list[str]:
        """How the cell's attempts ended, as the store has it."""
        found = sorted((self.run_dir / "cells" / cell.slug / "attempts").iterdir())
        return [str(read_json(each / "outcome.json")["status"]) for each in found]


def done(played: Played) -> Steps:
    yield Started(played.handle, "here")
    played.begin()
    for epoch in range(1, EPOCHS + 1):
        played.row(epoch)
        yield None
    played.commit()
    yield played.answers()


def first_then(first: Play, then: Play = done) -> Play:
    """The first job of each cell does the one, all further ones the other."""
    seen: set[str] = set()

    def play(played: Played) -> Steps:
        again = played.job.slug in seen
        seen.add(played.job.slug)
        return (then if again else first)(played)

    return play


def begun(end: Callable[[Played], Happening], *, rows: int = 1) -> Play:
    """Begins, brings some epochs behind it, and ends so."""

    def play(played: Played) -> Steps:
        yield Started(played.handle, "here")
        played.begin()
        for epoch in range(1, rows + 1):
            played.row(epoch)
        yield None
        yield end(played)

    return play


def ended(status: str, verdict: str = "ended") -> Callable[[Played], Happening]:
    def end(played: Played) -> Happening:
        assert played.attempt is not None
        played.attempt.end(status, f"it is {status}")
        return played.answers(verdict)

    return end
