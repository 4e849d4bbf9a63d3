"""Jobs of a Slurm cluster, as arrays submitted with submitit (``regbench[slurm]``).

Each job is a Python process of its own, with this machine's interpreter unless told otherwise, and works in the run
directory, which must be at the same path everywhere. submitit's files lie in ``slurm/`` there, a directory for each
time the engine is opened.

How Slurm's signals and ours fit together. The interpreter replaces the batch script's shell (``exec``, no ``srun``):
what Slurm sends to the script reaches the worker, once. A time limit sends SIGTERM ``warn_seconds`` ahead, a requeue,
a pre-emption or a cancelled job sends it ``KillWait`` (30 s by default) before SIGKILL; the worker then stops at its
next batch and writes a checkpoint. submitit's own answer to a warning, which is to raise in the middle of a step and
to requeue the job itself, is switched off.

An answer counts once Slurm no longer has the job: a worker that was stopped by a requeue has answered, too, but
Slurm is going to run the same job again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import math
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

from regbench.engines import slurm_commands as commands
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
from regbench.engines.slurm_options import SlurmOptions, parameters
from regbench.errors import EnvironmentFault
from regbench.store.files import storage_errors

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)

PATIENCE_S = 600.0
"""Slurm may be silent for so long, for example while its controller is restarted."""
LATE_S = 120.0
"""Accounts, and files of a network file system, may be late by so much."""


@dataclass
class _Placed:
    """A job that Slurm has."""

    job: submitit.Job[str]
    begun: str = ""
    """When it began, as Slurm writes it; empty: it waits."""
    gone_at: float | None = None
    """When it was first missing from the queue without an answer: on the monotonic clock."""
    kill_at: float | None = None
    cancelled: bool = False


class Slurm(Engine):
    """Several cells at a time as jobs of a Slurm cluster."""

    name: ClassVar[str] = "slurm"
    Options = SlurmOptions
    target: ClassVar[str] = "regbench.execution.worker:run_job"
    """Module and function that gets a job's text in the job and returns its answer."""

    @classmethod
    def elsewhere(cls, options: EngineOptions) -> bool:
        """Jobs run on the cluster's nodes."""
        return True

    @classmethod
    def default_jobs(cls, options: EngineOptions, device: str) -> int:
        """So many wait or run at a time; how many of them run is the cluster's to say."""
        return 32

    @classmethod
    def check(cls, options: EngineOptions) -> list[str]:
        problems = []
        try:
            import submitit  # noqa: F401
        except ImportError:
            problems.append("submitit is not installed: pip install 'regbench[slurm]'")
        if absent := commands.absent():
            problems.append(
                f"no {', '.join(absent)} on this machine's PATH: run regbench where jobs are submitted, "
                "such as the cluster's login node"
            )
        elif why := commands.account_problem():
            problems.append(
                f"Slurm's accounts cannot be read ({why}): the engine needs slurmctld and slurmdbd running"
            )
        return problems

    def __init__(self, options: EngineOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        run = hashlib.sha256(str(setting.run).encode()).hexdigest()[:16]
        self._mark = f"regbench:{run}:"
        """How comments of this run directory's jobs begin, whoever submitted them."""
        self._session = uuid.uuid4().hex[:12]
        self._folder = setting.run / "slurm" / self._session
        self._placed: dict[str, _Placed] = {}
        self._happened: list[Happening] = []
        self._asked = -math.inf
        self._silent_since: float | None = None

    def open(self) -> None:
        """See that Slurm can be used, and cancel what an earlier process in this run directory has left there."""
        if problems := self.check(self.options):
            raise EnvironmentFault(
                f"Slurm cannot be used here: {problems[0]}", hint="; ".join(problems[1:]) or None
            )
        with storage_errors(self._folder):
            self._folder.mkdir(parents=True)
        try:
            left = [
                identity for identity, job in commands.queue().items() if job.comment.startswith(self._mark)
            ]
            commands.cancel(left)
        except commands.SlurmSilent as error:
            raise EnvironmentFault(
                f"Slurm cannot be used here: {error}", hint="is slurmctld running?"
            ) from error

    def close(self) -> None:
        """Cancel what is left of ours; it gets SIGTERM first."""
        left, self._placed = list(self._placed), {}
        try:
            commands.cancel(left)
        except commands.SlurmSilent as error:
            log.warning("%d Slurm jobs could not be cancelled, the next run will: %s", len(left), error)

    def submit(self, jobs: Sequence[Submission]) -> list[str]:
        handles: list[str] = []
        for needs, alike in groupby(jobs, key=lambda job: job.needs):
            handles += self._submit(list(alike), needs)
        return handles

    def poll(self, seconds: float) -> list[Happening]:
        deadline = time.monotonic() + seconds
        while True:
            self._enforce()
            due = self._asked + self.options.poll_seconds
            if time.monotonic() >= due and self._placed:
                self._ask()
                due = self._asked + self.options.poll_seconds
            if self._happened or time.monotonic() >= deadline:
                happened, self._happened = self._happened, []
                return happened
            until = min(deadline, due) if self._placed else deadline
            time.sleep(max(0.0, min(until - time.monotonic(), 0.5)))

    def cancel(self, handle: str, grace_seconds: float) -> None:
        placed = self._placed.get(handle)
        if placed is None:
            return
        placed.cancelled = True
        placed.kill_at = time.monotonic() + grace_seconds
        try:
            commands.cancel([handle], "--state=PENDING")
            if grace_seconds > 0:
                commands.cancel([handle], "--batch", "--signal=TERM")
        except commands.SlurmSilent as error:  # it is killed once Slurm answers
            log.info("%s", error)
        self._enforce()

    def _submit(self, jobs: list[Submission], needs: Resources) -> list[str]:
        """One array; submitit makes a plain job of a single one."""
        import submitit

        python = self.options.python or shlex.quote(sys.executable)
        executor = submitit.SlurmExecutor(folder=self._folder, python=f"exec {python}")
        comment = f"{self._mark}{self._session}"
        try:
            with (
                commands.outside_job(),
                commands.uninterrupted(),
                contextlib.redirect_stderr(io.StringIO()),
                storage_errors(self._folder),
            ):
                executor.update_parameters(
                    **parameters(self.options, self.setting, needs, jobs[0].name, comment)
                )
                submitted = executor.map_array(run_task, [self.target] * len(jobs), [job.job for job in jobs])
        except submitit.core.utils.FailedJobError as error:
            raise EnvironmentFault(
                f"Slurm does not take the jobs: {str(error).strip()}",
                hint="see --engine-option (partition, account, qos, minutes, mem_gb, gres, sbatch), and sinfo",
            ) from error
        for job in submitted:
            self._placed[job.job_id] = _Placed(job)
        return [job.job_id for job in submitted]

    def _ask(self) -> None:
        """One look at the queue, and one at the accounts if a job has left it without an answer."""
        self._asked = time.monotonic()
        try:
            queue = commands.queue()
            missing = [handle for handle in list(self._placed) if not self._waits_or_runs(handle, queue)]
            unanswered = [handle for handle in missing if not self._answered(handle)]
            records = commands.accounts(unanswered) if unanswered else {}
        except commands.SlurmSilent as error:
            self._not_answered(error)
            return
        self._silent_since = None
        for handle in unanswered:
            self._missing(handle, records.get(handle))

    def _not_answered(self, error: commands.SlurmSilent) -> None:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since > PATIENCE_S:
            raise commands.silent_fault(error, PATIENCE_S) from error

    def _waits_or_runs(self, handle: str, queue: dict[str, commands.Queued]) -> bool:
        placed, job = self._placed[handle], queue.get(handle)
        if job is None:
            return False
        placed.gone_at = None
        if job.stuck:
            commands.cancel([handle])
            reason = f"Slurm holds it in its queue ({job.reason}), for it could not be run"
            self._over(Lost(handle, reason, cells_own=False))
        elif job.state == "RUNNING" and job.start != placed.begun:
            placed.begun = job.start
            self._happened.append(Started(handle, f"{job.nodes}, Slurm job {handle}"))
        elif job.state == "PENDING" and placed.begun:
            placed.begun = ""
            self._happened.append(Waiting(handle))
        return True

    def _answered(self, handle: str) -> bool:
        """Whether there is an answer; then it has been told."""
        job = self._placed[handle].job
        with contextlib.suppress(OSError):
            next(self._folder.iterdir(), None)  # a network file system looks anew when a directory is read
        if not job.paths.result_pickle.exists():
            return False
        self._over(_answer(handle, job))
        return True

    def _missing(self, handle: str, record: dict[str, str] | None) -> None:
        """The job has left the queue without an answer: told once the accounts know how, or after a while."""
        placed = self._placed[handle]
        found = commands.lost(handle, record, placed.cancelled) if record is not None else None
        placed.gone_at = placed.gone_at or time.monotonic()
        late = time.monotonic() - placed.gone_at > LATE_S
        if found is not None and (late or record is None or not record["State"].startswith("COMPLETED")):
            if found.cells_own and not (found.signal or placed.cancelled):
                found = replace(found, reason=f"{found.reason}; see {placed.job.paths.stdout}")
            self._over(found)
        elif late:
            self._over(Lost(handle, "Slurm does not know it any more", cells_own=False))

    def _over(self, happening: Lost | Returned) -> None:
        self._happened.append(happening)
        del self._placed[happening.handle]

    def _enforce(self) -> None:
        """Kill what was cancelled and did not end in its grace."""
        now = time.monotonic()
        due = [
            h for h, placed in self._placed.items() if placed.kill_at is not None and now >= placed.kill_at
        ]
        if not due:
            return
        for handle in due:
            self._placed[handle].kill_at = None
        try:
            commands.cancel(due, "--full", "--signal=KILL")
            commands.cancel(due)  # what Slurm was about to run again
        except commands.SlurmSilent as error:
            log.info("%s", error)
            for handle in due:
                self._placed[handle].kill_at = now + self.options.poll_seconds


def run_task(target: str, job: str) -> str:
    """What a job does: call ``target``, a ``module:function``, with the job's text."""
    import submitit

    # submitit has taken these over. Until the worker handles SIGTERM, there is nothing to save.
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    # What this job's run before a requeue has left: its answer, or a part of it.
    earlier = submitit.JobEnvironment().paths.result_pickle
    for file in (earlier, earlier.with_suffix(f"{earlier.suffix}.save_tmp")):
        file.unlink(missing_ok=True)
    module, _, function = target.partition(":")
    answer: str = getattr(importlib.import_module(module), function)(job)
    return answer


def _answer(handle: str, job: submitit.Job[str]) -> Lost | Returned:
    """What the job has left in its result file."""
    try:
        error = job.exception()
        if error is None:
            return Returned(handle, job.result())
        reason = f"its process could not run it: {_last_line(str(error))}"
    except Exception as broken:  # a file that holds no pickle may raise anything
        reason = f"its answer cannot be read: {broken!r}"
    return Lost(handle, f"{reason}; see {job.paths.stdout}")


def _last_line(text: str) -> str:
    """The exception itself in submitit's account of it, which stands between two rules."""
    _, rule, trace = text.partition("-" * 22)
    lines = trace.partition(rule)[0].split("\n") if rule else text.split("\n")[:1]
    return [line for line in lines if line.strip()][-1].strip()
