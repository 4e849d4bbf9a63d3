"""What Slurm's own commands tell and do: one call for all jobs, never one for each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from regbench.engines.base import Lost
from regbench.errors import EnvironmentFault

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "srun")
"""``srun`` is not used, but submitit takes a machine without it for one without Slurm."""
TIMEOUT_S = 20.0
IDS_PER_CALL = 500

PLACE_GONE = {
    "NODE_FAIL": "its node {nodes} failed",
    "BOOT_FAIL": "its node {nodes} did not boot",
    "PREEMPTED": "Slurm pre-empted it",
    "REVOKED": "Slurm took it back",
}
"""Ends that a cell is not to blame for."""
JOBS_OWN = {
    "OUT_OF_MEMORY": "Slurm ended it, for it used more memory than its job may",
    "TIMEOUT": "Slurm ended it when its job's time was over",
    "DEADLINE": "Slurm ended it at its job's deadline",
    "CANCELLED": "it was cancelled",
    "COMPLETED": "its process ended without an answer",
}
NOT_OVER = (
    "PENDING",
    "RUNNING",
    "REQUEUED",
    "COMPLETING",
    "CONFIGURING",
    "SUSPENDED",
    "RESIZING",
    "REQUEUE_HOLD",
)
"""States that the accounts may still show when the queue no longer has the job."""


class SlurmSilent(Exception):
    """Slurm could not be asked; the message is what the command said."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A job in the queue."""

    state: str
    nodes: str
    start: str
    """When it began, if it runs; another time after each requeue."""
    reason: str
    comment: str

    @property
    def stuck(self) -> bool:
        """Put back into the queue so that it never begins by itself: its node's prolog failed, or too often."""
        if self.state in ("SPECIAL_EXIT", "REQUEUE_HOLD"):
            return True
        reason = self.reason.lower().replace("_", " ")
        return self.state == "PENDING" and ("requeued" in reason or reason == "jobholdmaxrequeue")


def absent() -> list[str]:
    """Those of Slurm's commands that are not here."""
    return [name for name in COMMANDS if shutil.which(name) is None]


def queue() -> dict[str, Queued]:
    """All jobs of this user that wait or run, by id, such as ``17_3``."""
    text = _call("squeue", f"--user={os.getuid()}", "--noheader", "--array", "--format=%i|%T|%N|%S|%r|%k")
    jobs = {}
    for line in text.splitlines():
        fields = line.split("|", 5)
        if len(fields) == 6:
            identity, *rest = (field.strip() for field in fields)
            jobs[identity] = Queued(*rest)
    return jobs


def accounts(ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """State, exit code and nodes of jobs that have left the queue, as far as the accounts know them."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    arrays = sorted({identity.partition("_")[0] for identity in ids})
    text = _call(
        "sacct",
        "--allocations",
        "--parsable2",
        "--format=JobID,State,ExitCode,NodeList",
        f"--jobs={','.join(arrays)}",
    )
    found = SlurmInfoWatcher().read_info(text)
    # What was cancelled before it began stands there as its array alone.
    pairs = ((identity, found.get(identity) or found.get(identity.partition("_")[0])) for identity in ids)
    return {identity: record for identity, record in pairs if record is not None}


def account_problem() -> str:
    """Why ``sacct`` cannot be used; empty: it can."""
    try:
        _call("sacct", "--allocations", "--noheader", "--starttime=now")
    except SlurmSilent as error:
        return str(error)
    return ""


def lost(handle: str, record: Mapping[str, str], cancelled: bool) -> Lost | None:
    """What the accounts say of a job without an answer; ``None``: that it is not over."""
    state = (record["State"].split() or [""])[0]  # "CANCELLED by 1000"
    if state in NOT_OVER:
        return None
    code, number = (int(part) for part in (record.get("ExitCode") or "0:0").split(":")[:2])
    if state in PLACE_GONE:
        return Lost(handle, PLACE_GONE[state].format(nodes=record.get("NodeList", "")), cells_own=False)
    if cancelled:
        began = not record.get("NodeList", "").startswith("None")
        return Lost(handle, "it was cancelled" if began else "it was cancelled before it began")
    if state == "OUT_OF_MEMORY":
        return Lost(handle, JOBS_OWN[state], 9)
    if state == "CANCELLED":
        return Lost(handle, f"somebody else cancelled it ({record['State']})")
    if state in JOBS_OWN:
        return Lost(handle, JOBS_OWN[state], number or None)
    if number:
        # Slurm's own SIGTERM, or somebody's: a cell sends none to itself.
        return Lost(handle, f"its process was killed by signal {number}", number, cells_own=number != 15)
    return Lost(handle, f"its process ended with exit code {code} ({state})")


def cancel(ids: Sequence[str], *how: str) -> None:
    """``scancel`` with these options; jobs that are over meanwhile are no fault."""
    for first in range(0, len(ids), IDS_PER_CALL):
        _call("scancel", "--quiet", *how, *ids[first : first + IDS_PER_CALL], fails=False)


@contextmanager
def outside_job() -> Iterator[None]:
    """Hide the variables of the job that this process runs in, if any: jobs submitted from it would inherit them."""
    keep = ("SLURM_CONF", "SLURM_CLUSTERS")
    inside = "SLURM_JOB_ID" in os.environ
    names = [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_")) and name not in keep]
    hidden = {name: os.environ.pop(name) for name in names if inside}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C in the terminal does not reach what is started inside the block; this process hears of it afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    # The mask is for what is started, which inherits it. Of this process another thread may take the signal.
    handler = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
        if heard:
            signal.raise_signal(signal.SIGINT)


def silent_fault(error: SlurmSilent, seconds: float) -> EnvironmentFault:
    return EnvironmentFault(
        f"Slurm has not answered for {seconds:.0f} s: {error}",
        hint="submitted jobs go on where they can; the same command continues from the store once Slurm answers",
    )


def _call(name: str, *arguments: str, fails: bool = True) -> str:
    try:
        done = subprocess.run(
            (name, *arguments),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal is the scheduler's to answer
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmSilent(f"{name} took longer than {TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise SlurmSilent(f"{name} cannot be run: {error.strerror}") from error
    if done.returncode and fails:
        raise SlurmSilent(f"{name}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
