"""A worker: runs one job at a time against the store, wherever an engine has placed it.

``python -m regbench.execution.worker`` serves the local engine: a job per line of standard input. What a cell does
ends in the store, as in a run without workers; the answer tells only what the store cannot.
"""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import queue
import signal as signals
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from regbench.errors import RegbenchError, StoreError
from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.execution.events import ignore
from regbench.execution.interrupt import Stop, StopSignal, TimeLimit, stoppable
from regbench.execution.job import Job, Site, check_code, harness_source
from regbench.execution.runner import CellRunner, How, Task
from regbench.plugins import registry
from regbench.store.claims import ClaimLost
from regbench.store.files import storage_errors
from regbench.store.records import Outcome
from regbench.store.writer import CellWriter, RunWriter
from regbench.training.launch import LaunchWishes

harness_source()  # what is imported now, not what lies there when the first job comes

Verdict = Literal["ended", "stopped", "superseded", "environment"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``run_job`` returns, as JSON."""

    verdict: Verdict
    """``ended``: the attempt's outcome is in the store. ``stopped``: it was asked to, and can be continued.
    ``superseded``: the cell is another attempt's. ``environment``: the disk or the store failed."""
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


_signal: StopSignal | None = None
"""Of the running job, for whoever else learns that it must stop."""
_runner: tuple[Site, CellRunner] | None = None


def run_job(text: str) -> str:
    """Run the job and return an :class:`Answer`. Raises nothing that a cell, the disk or a signal is to blame for."""
    job = Job.from_json(text)
    writer = RunWriter(Path(job.site.run)).cell(job.slug, job.token)
    try:
        with _stopping(writer) as signal, _limited(job, writer):
            outcome = _run(job, writer, signal)
    except Stop as stop:
        return Answer("stopped", str(stop)).to_json()
    except ClaimLost as lost:
        return Answer("superseded", str(lost)).to_json()
    except (StoreError, TimeLimit) as error:
        return Answer("environment", str(error), getattr(error, "hint", None), retire=True).to_json()
    retire = outcome.status in ("oom", "timeout")  # who knows what such an end leaves behind
    return Answer("ended", outcome.reason, retire=retire).to_json()


def _run(job: Job, writer: CellWriter, signal: StopSignal) -> Outcome:
    """Run the cell; what keeps it from beginning is an end of its attempt, too."""
    try:
        runner = _runner_of(job.site)
        check_code(job, runner.registry, platform.node())
        task = Task(job.spec, writer, job.replace, job.remeasure, job.fresh)
        return runner.run(task, ignore, signal)
    except StoreError:
        raise
    except RegbenchError as error:  # no data here, no such device, other code
        return _never_begun(job, writer, error)
    except Exception as error:
        # A plugin's import, no memory for the data, a fault of ours: not before the store has it.
        return _never_begun(job, writer, error)


def _never_begun(job: Job, writer: CellWriter, error: Exception) -> Outcome:
    hint = f"; {error.hint}" if isinstance(error, RegbenchError) and error.hint else ""
    reason = f"{type(error).__name__}: {error}{hint}"
    attempt = writer.attempt() or writer.begin(
        job.spec.key(), {"cell": job.spec.id, "engine": job.site.engine, "host": platform.node()}
    )
    attempt.log("".join(traceback.format_exception(error)))
    attempt.end("failed", reason)
    return Outcome("failed", reason, {})


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
        writer, device = RunWriter(Path(site.run)), torch.device(site.device)
        _runner = (
            site,
            CellRunner(writer, found, site.metrics, device, Path(site.data_root), how),
        )
    return _runner[1]


@contextmanager
def _stopping(writer: CellWriter) -> Iterator[StopSignal]:
    """Signals, and what the claim says, reach the running job."""
    global _signal
    signal = StopSignal(also=writer.claim.stop_level)
    with stoppable(signal):
        _signal = signal
        try:
            yield signal
        finally:
            _signal = None


@contextmanager
def _limited(job: Job, writer: CellWriter) -> Iterator[None]:
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


def serve() -> None:
    """Take jobs from standard input, one a line, until it ends; a job that runs then is stopped at its next batch."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what plugins print belongs to the log, not among the answers
    jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            jobs.put(json.loads(line))
        # Whoever gave out the jobs is gone: nobody will ask for more, and somebody else may run these cells.
        if _signal is not None:
            _signal.ask("batch", signals.SIGTERM)
        jobs.put(None)

    def say(kind: str, answer: str = "") -> None:
        answers.write(json.dumps({"kind": kind, "answer": answer}) + "\n")
        answers.flush()

    threading.Thread(target=listen, name="jobs", daemon=True).start()
    signals.signal(signals.SIGINT, signals.SIG_IGN)  # between jobs; each job handles its own
    while (job := jobs.get()) is not None:
        say("started")
        answer = run_job(job)
        retire = Answer.from_json(answer).retire
        say("retiring" if retire else "returned", answer)
        if retire:
            return


if __name__ == "__main__":
    serve()
