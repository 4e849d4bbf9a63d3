"""Engines: where worker processes run. The boundary for ``local``, ``ray``, ``slurm``, and anybody's own.

An engine places jobs, says what became of them, and kills them. It knows nothing of cells: a job is text for
:func:`regbench.execution.worker.run_job`, its outcome and its progress lie in the store. Jobs may be placed again
at any time; the store lets only one attempt at a cell commit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class Resources:
    """What one job needs."""

    cpus: int = 1
    gpus: float = 0.0
    """Share of a GPU: 0 without one, 0.5 for two jobs on each, 1 for one alone."""
    seconds: float | None = None
    """After so long the worker ends by itself; ``None``: no limit. Queues may be told."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One job to be placed."""

    job: str
    """For :func:`regbench.execution.worker.run_job`, as it is."""
    name: str
    """For people: what queues and dashboards show."""
    needs: Resources


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken the job up; again, where the engine itself has put it elsewhere."""

    handle: str
    where: str
    """Host and process, as people name them."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The engine has taken a job from its worker, and is going to start it again by itself, perhaps much later."""

    handle: str


@dataclass(frozen=True, slots=True)
class Returned:
    """``run_job`` has returned ``answer``."""

    handle: str
    answer: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The job ended without an answer, and the engine will not place it again: its process or its node is gone."""

    handle: str
    reason: str
    """A sentence without a full stop, such as ``its process was killed by signal 9``."""
    signal: int | None = None
    """The signal that ended the process, where that is known."""
    cells_own: bool = True
    """Whether what the job did may be the cause. False where the node died or the job was pre-empted."""


Happening = Started | Waiting | Returned | Lost


class EngineOptions(BaseModel):
    """Options of an engine, given as ``--engine-option NAME=VALUE``; each needs a type, a default, a description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class Setting:
    """What an engine is opened for."""

    run: Path
    """The run directory; absolute. It must be at this path wherever jobs run."""
    jobs: int
    """At most so many jobs at a time."""
    device: str
    """``cpu`` or ``cuda``."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that workers need besides what they have anyhow."""


class Engine(ABC):
    """An engine. Subclasses have a ``name``, perhaps ``Options``; the hook is ``regbench_engines``.

    Used as a context manager: ``with engine: ...`` opens it and, whatever happens, closes it.
    """

    name: ClassVar[str]
    Options: ClassVar[type[EngineOptions]] = EngineOptions

    def __init__(self, options: EngineOptions, setting: Setting) -> None:
        self.options: Any = options
        self.setting = setting

    @classmethod
    def elsewhere(cls, options: EngineOptions) -> bool:
        """Whether jobs may run on other machines than this one, whose devices say nothing of theirs."""
        return False

    @classmethod
    def default_jobs(cls, options: EngineOptions, device: str) -> int:
        """Jobs at a time where the user does not say."""
        return 1

    @classmethod
    def check(cls, options: EngineOptions) -> list[str]:
        """What keeps the engine from working here, each with what to do; empty: nothing. Starts nothing that stays."""
        return []

    @abstractmethod
    def open(self) -> None:
        """Connect, or start what must be there before the first job. Raises ``EnvironmentFault``."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything that ``open`` or ``submit`` started; also after a failure, also twice."""

    @abstractmethod
    def submit(self, jobs: Sequence[Submission]) -> list[str]:
        """Take jobs, all at once, and return a handle for each, unique within the engine's life; never waits."""

    @abstractmethod
    def poll(self, seconds: float) -> list[Happening]:
        """What has happened since; waits at most so long for the first."""

    @abstractmethod
    def cancel(self, handle: str, grace_seconds: float) -> None:
        """End a job: SIGTERM or the engine's like, and after the grace, whatever it does, kill it; never waits.

        Afterwards ``poll`` tells of it once more, with ``Returned`` or ``Lost``.
        """

    def __enter__(self) -> Engine:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
