"""What happens while a suite runs, as values: the progress display, ``--json`` and the Python API listen to these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SuiteStarted:
    suite: str
    run: str
    """Path of the run directory."""
    cells: int
    """Cells of the suite."""
    todo: int
    """Cells that will be run now."""
    device: str


@dataclass(frozen=True, slots=True)
class CellStarted:
    cell: str
    """Short name, ``<data set> <method> seed <n>``."""
    number: int
    """1 to ``todo``."""
    epochs: int


@dataclass(frozen=True, slots=True)
class CellResumed:
    """The cell goes on from a checkpoint; or it cannot, and begins anew, with the reasons in ``notes``."""

    cell: str
    epoch: int
    """Whole epochs that are done; 0 with ``batch`` 0 where the cell begins anew."""
    epochs: int
    batch: int
    """Batches of the next epoch that are done."""
    notes: tuple[str, ...] = ()
    """Checkpoints that could not be used, each with the reason."""


@dataclass(frozen=True, slots=True)
class CellRetried:
    """The cell is tried once more; it begins anew unless ``CellResumed`` follows."""

    cell: str
    reason: str
    """What became of the attempt before."""


@dataclass(frozen=True, slots=True)
class EpochFinished:
    cell: str
    epoch: int
    epochs: int
    phase: str
    losses: Mapping[str, float]
    images_per_second: float
    seconds_left: float
    """Of this cell, at the pace of its latest epochs."""
    evaluation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CellFinished:
    cell: str
    number: int
    status: str
    """``done``, ``failed``, ``diverged``, ``oom``, ``timeout`` or ``interrupted``."""
    reason: str
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """At the mean code."""


@dataclass(frozen=True, slots=True)
class TuningStarted:
    """Trials come before the suite's own cells; each is a cell, too, and has a cell's events."""

    suite: str
    run: str
    """Path of the directory that the trials lie in."""
    trials: int
    """Trials of the methods that are tuned now."""
    todo: int
    """At most so many of them will be run; the others have ended before."""
    device: str


@dataclass(frozen=True, slots=True)
class StudyFinished:
    """All trials of one method on one data set have ended."""

    study: str
    """Short name, ``<data set> <method>``."""
    trials: int
    failed: int
    chosen: int | None
    """Number of the trial that is selected; ``None``: all have failed."""
    value: float | None
    """Its metric on the held-out images."""
    values: Mapping[str, Any]
    """Its settings."""


@dataclass(frozen=True, slots=True)
class SuiteFinished:
    done: int
    failed: int
    """Cells of this run that failed or diverged."""
    missing: int
    seconds: float


Event = (
    TuningStarted
    | StudyFinished
    | SuiteStarted
    | CellStarted
    | CellResumed
    | CellRetried
    | EpochFinished
    | CellFinished
    | SuiteFinished
)
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that does nothing."""
