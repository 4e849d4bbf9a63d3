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
    Returned,
    Setting,
    Started,
    Submission,
    Waiting,
)
from regbench.execution.job import Job
from regbench.execution.worker import Answer
from regbench.store.claims import ClaimLost
from regbench.store.writer import AttemptWriter, CellWriter, RunWriter

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
