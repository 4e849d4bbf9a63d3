"""A worker: runs one job at a time against the store, wherever an engine has placed it.

What a cell does ends in the store, as in a run without workers; the answer tells only what the store cannot.
"""

from __future__ import annotations

import faulthandler
import json
import platform
import signal as signals
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from regbench.cell import outcome_of
from regbench.errors import PluginError, StoreError
from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.execution.events import ignore
from regbench.execution.interrupt import Stop, StopSignal, TimeLimit, stoppable
from regbench.execution.job import Job, Site, check_code, harness_source
from regbench.execution.runner import CellRunner, How, Task, never_begun
from regbench.plugins import registry
from regbench.store.claims import ClaimLost
from regbench.store.files import storage_errors
from regbench.store.records import Outcome
from regbench.store.writer import CellWriter, RunWriter
from regbench.training.launch import LaunchWishes
from regbench.training.precision import resolve_device

harness_source()  # what is imported now, not what lies there when the first job comes

Verdict = Literal["ended", "stopped", "superseded", "refused", "environment"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``run_job`` returns, as JSON."""

    verdict: Verdict
    """``ended``: the attempt's outcome is in the store. ``stopped``: it was asked to, and can be continued.
    ``superseded``: the cell is another attempt's. ``refused``: this process cannot do such a job, and has begun
    nothing. ``environment``: the disk or the store failed."""
    reason: str = ""
    hint: str | None = None
    retire: bool = False
    """This process must take no other job."""

    def to_json(self) -> str:
        return json.dumps(
            {"verdict": self.verdict, "reason": self.reason, "hint": self.hint, "retire": self.retire}
        )

    @classmethod
    def from_json(cls, text: str) -> Answer:
        return cls(**json.loads(text))


_runner: tuple[Site, CellRunner] | None = None


def run_job(text: str) -> str:
    """Run the job and return an :class:`Answer`. Raises nothing that a cell, the disk or a signal is to blame for."""
    try:
        job = Job.from_json(text)
        writer = RunWriter(Path(job.site.run)).cell(job.slug, job.token)
        task = Task(job.spec, writer, job.replace, job.remeasure)
        with _stopping(writer) as signal, _limited(job):
            outcome = _run(job, task, signal)
    except PluginError as error:
        return Answer("refused", str(error), error.hint).to_json()
    except Stop as stop:
        return Answer("stopped", str(stop)).to_json()
    except ClaimLost as lost:
        return Answer("superseded", str(lost)).to_json()
    except StoreError as error:
        return Answer("environment", str(error), error.hint, retire=True).to_json()
    except TimeLimit:
        # It came just as the attempt ended, and the store knows how. What it has kept from being tidied up does not
        # matter to a process that ends.
        return Answer("ended", retire=True).to_json()
    retire = outcome.status in ("oom", "timeout")  # who knows what such an end leaves behind
    return Answer("ended", outcome.reason, retire=retire).to_json()


def _run(job: Job, task: Task, signal: StopSignal) -> Outcome:
    """Run the cell; what keeps it from beginning is an end of its attempt, too."""
    before = task.writer.attempt()  # an engine may have placed this very job before
    try:
        runner = _runner_of(job.site)
        check_code(job, runner.registry, platform.node())
        return runner.run(task, ignore, signal)
    except (Stop, StoreError):
        raise
    except BaseException as error:
        # No data here, no such device, other code, a data set that calls sys.exit(), a fault of ours.
        attempt = task.writer.attempt()
        if attempt is None or (before is not None and attempt.directory == before.directory):
            return never_begun(task, error, job.site.engine)
        outcome = outcome_of(error)  # the time was over just as the attempt ended
        if not attempt.ended:
            attempt.end(outcome.status, outcome.reason)
        return outcome


def _runner_of(site: Site) -> CellRunner:
    """The runner of this process: kept from job to job, with the data set that it holds."""
    global _runner
    if _runner is None or _runner[0] != site:
        _runner = None
        if site.threads is not None:
            torch.set_num_threads(site.threads)
        how = How(
            LaunchWishes(site.eager, site.deterministic),
            CheckpointPolicy.parse(site.checkpoints),
            site.engine,
        )
        found = registry(site.plugins)
        writer, device = RunWriter(Path(site.run)), resolve_device(site.device)
        _runner = (
            site,
            CellRunner(writer, found, site.metrics, device, Path(site.data_root), how),
        )
    return _runner[1]


@contextmanager
def _stopping(writer: CellWriter) -> Iterator[StopSignal]:
    """Signals, and what the claim says, reach the running job."""
    with stoppable(StopSignal(also=writer.claim.stop_level)) as signal:
        yield signal


@contextmanager
def _limited(job: Job) -> Iterator[None]:
    """Raise ``TimeLimit`` after the job's time; end the process, with all tracebacks, if that does not help.

    The second is done by a thread of the interpreter that needs none of Python: code that hangs inside a library
    is ended, too.
    """
    if job.site.limit is None:
        yield
        return
    limit = job.site.limit
    file = hang_file(Path(job.site.run), job.token)
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        stream = file.open("w", encoding="utf-8")

    def over(number: int, frame: FrameType | None) -> None:
        raise TimeLimit(limit)

    main = threading.current_thread() is threading.main_thread()
    before: Any = signals.signal(signals.SIGALRM, over) if main else None
    faulthandler.dump_traceback_later(limit + job.site.grace, exit=True, file=stream)
    try:
        if main:
            signals.setitimer(signals.ITIMER_REAL, limit)
        yield
    finally:
        if main:
            signals.setitimer(signals.ITIMER_REAL, 0)
            signals.signal(signals.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()
        stream.close()
        file.unlink(missing_ok=True)


def hang_file(run: Path, token: str) -> Path:
    """Where the tracebacks go of a job that did not end when its time was over."""
    return run / "workers" / f"hang-{token}.txt"
