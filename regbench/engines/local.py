"""Worker processes on this machine: one per slot, used again from job to job, replaced when they fail.

Importing torch takes seconds and a gigabyte, so a worker lives as long as the engine. The protocol is one line of
JSON per message: jobs to its standard input, ``started`` and ``returned`` back through a pipe. What it prints goes
to ``workers/worker-<n>.log`` in the run directory.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from regbench.engines.base import (
    Engine,
    EngineOptions,
    Happening,
    Lost,
    Returned,
    Setting,
    Started,
    Submission,
)
from regbench.errors import EnvironmentFault
from regbench.store.files import storage_errors

COMMAND = (sys.executable, "-m", "regbench.engines.local_worker")
VISIBLE = "CUDA_VISIBLE_DEVICES"
END_S = 5.0
"""A worker without a job has so long to end when its input has."""
FAILED_STARTS = 3
"""After so many in a row there is no use in a further one."""


class LocalOptions(EngineOptions):
    """The local engine has no options: ``--jobs`` says all."""


@dataclass
class _Worker:
    """One slot's process and what it is doing."""

    slot: int
    process: subprocess.Popen[bytes]
    handle: str = ""
    """Of its job; empty: none."""
    job: str = ""
    up: bool = False
    """It has taken a job: its start was a success."""
    unread: bytes = b""
    kill_at: float | None = None
    """When its job has been cancelled: on the monotonic clock."""
    retiring: bool = False
    """It has said that it ends after this job."""


class Local(Engine):
    """Several cells at a time on this machine, each in a process of its own."""

    name: ClassVar[str] = "local"
    Options = LocalOptions
    entry: str = "regbench.execution.worker:run_job"
    """What a worker calls, as ``module:function``."""

    @classmethod
    def default_jobs(cls, options: EngineOptions, device: str) -> int:
        """One for each GPU; one on a CPU, of which a cell takes all cores."""
        return max(1, len(visible_gpus())) if device == "cuda" else 1

    @classmethod
    def check(cls, options: EngineOptions) -> list[str]:
        if os.name == "posix":
            return []
        return ["worker processes need a POSIX system: run cells in this process, without --jobs, or use WSL"]

    def __init__(self, options: EngineOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        self._failed_starts = 0
        self._workers: dict[int, _Worker] = {}
        self._queue: deque[tuple[str, str]] = deque()
        self._taken = 0
        self._selector = selectors.DefaultSelector()
        self._happened: list[Happening] = []

    def open(self) -> None:
        """Nothing is to be done: workers are started when they are first needed."""

    def close(self) -> None:
        """Kill what is left; a worker that does nothing ends when its standard input does."""
        self._queue.clear()
        for worker in self._workers.values():
            if worker.handle:
                _kill(worker.process, signal.SIGKILL)
            _end_input(worker.process)
        for worker in list(self._workers.values()):
            self._remove(worker)

    def submit(self, jobs: Sequence[Submission]) -> list[str]:
        handles = []
        for job in jobs:
            self._taken += 1
            handle = str(self._taken)
            self._queue.append((handle, job.job))
            handles.append(handle)
        self._place()
        return handles

    def poll(self, seconds: float) -> list[Happening]:
        deadline = time.monotonic() + seconds
        while True:
            self._place()
            wait = 0.0 if self._happened else max(0.0, min(deadline - time.monotonic(), 0.2))
            for key, _ in self._selector.select(wait):
                self._read(key.data)
            self._reap()
            self._enforce()
            if self._happened or time.monotonic() >= deadline:
                happened, self._happened = self._happened, []
                return happened

    def cancel(self, handle: str, grace_seconds: float) -> None:
        for index, (queued, _) in enumerate(self._queue):
            if queued == handle:
                del self._queue[index]
                self._happened.append(Lost(handle, "it was cancelled before it began"))
                return
        for worker in self._workers.values():
            if worker.handle == handle:
                kill_at = time.monotonic() + grace_seconds
                if worker.kill_at is None:
                    _kill(worker.process, signal.SIGTERM)
                    worker.kill_at = kill_at
                worker.kill_at = min(worker.kill_at, kill_at)

    def _place(self) -> None:
        """Give waiting jobs to free slots; a slot's process is started when it is first needed."""
        for slot in range(self.setting.jobs):
            if not self._queue:
                return
            worker = self._workers.get(slot)
            if worker is None:
                worker = self._workers[slot] = self._start(slot)
            if worker.handle or worker.retiring:
                continue
            worker.handle, worker.job = self._queue.popleft()
            assert worker.process.stdin is not None
            try:
                worker.process.stdin.write(json.dumps(worker.job).encode() + b"\n")
                worker.process.stdin.flush()
            except OSError:  # it has died while idle: the job goes to the next
                self._remove(worker)
                if worker.up:
                    self._queue.appendleft((worker.handle, worker.job))
                else:
                    self._not_started(worker, worker.handle, _how(worker.process))

    def _start(self, slot: int) -> _Worker:
        log = self._log(slot)
        with storage_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as stream:
                process = subprocess.Popen(
                    (*COMMAND, self.entry),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    # A session of its own: Ctrl-C in the terminal is the scheduler's to answer.
                    start_new_session=True,
                    env={**os.environ, **self.setting.environment, **self._gpu(slot)},
                )
        assert process.stdout is not None
        worker = _Worker(slot, process)
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _log(self, slot: int) -> Path:
        return self.setting.run / "workers" / f"worker-{slot}.log"

    def _gpu(self, slot: int) -> dict[str, str]:
        """Slots share the visible GPUs in turn."""
        if self.setting.device != "cuda":
            return {}
        visible = visible_gpus(self.setting.environment)
        return {VISIBLE: visible[slot % len(visible)]} if visible else {}

    def _read(self, worker: _Worker) -> bool:
        """Hear what it has said since; whether its pipe is open still."""
        assert worker.process.stdout is not None
        content = worker.process.stdout.read()
        *lines, worker.unread = (worker.unread + (content or b"")).split(b"\n")
        for line in lines:
            self._hear(worker, json.loads(line))
        if content == b"":
            self._ended(worker)
        return content != b""

    def _hear(self, worker: _Worker, message: dict[str, str]) -> None:
        if message["kind"] == "started":
            worker.up, self._failed_starts = True, 0
            self._happened.append(
                Started(worker.handle, f"{socket.gethostname()}, process {worker.process.pid}")
            )
        else:
            self._happened.append(Returned(worker.handle, message["answer"]))
            worker.handle, worker.kill_at = "", None
            worker.retiring = message["kind"] == "retiring"

    def _reap(self) -> None:
        """See which processes have ended: a process that they forked may hold their pipe open."""
        for worker in list(self._workers.values()):
            if _dead(worker.process) and self._read(worker):
                self._ended(worker)

    def _ended(self, worker: _Worker) -> None:
        """It has died, or retired."""
        handle = worker.handle
        self._remove(worker)
        if not handle:
            return
        how = _how(worker.process)
        if worker.up or worker.kill_at is not None:
            code = worker.process.returncode
            self._happened.append(Lost(handle, f"its process {how}", -code if code < 0 else None))
        else:
            self._not_started(worker, handle, how)

    def _not_started(self, worker: _Worker, handle: str, how: str) -> None:
        """A process that did not get as far as its first job; that is not the job's fault."""
        self._failed_starts += 1
        if self._failed_starts < FAILED_STARTS:
            self._queue.appendleft((handle, worker.job))
            return
        raise EnvironmentFault(
            f"worker processes do not start, {FAILED_STARTS} in a row: the last one {how} before its first job",
            hint=f"what they said is in {self._log(worker.slot)}; where memory is short, use fewer --jobs",
        )

    def _remove(self, worker: _Worker) -> None:
        """See the process end, and all that it started with it."""
        process = worker.process
        assert process.stdout is not None
        self._workers.pop(worker.slot, None)
        self._selector.unregister(process.stdout)
        process.stdout.close()
        deadline = time.monotonic() + END_S
        while not _dead(process) and time.monotonic() < deadline:
            time.sleep(0.01)
        _kill(process, signal.SIGKILL)  # and what it has left behind; before its number is free again
        process.wait()
        _end_input(process)  # not before: a worker whose input ends takes that for its giver's death

    def _enforce(self) -> None:
        """Kill what was cancelled and did not end in its grace."""
        now = time.monotonic()
        for worker in list(self._workers.values()):
            if worker.kill_at is not None and now >= worker.kill_at:
                worker.kill_at = math.inf
                _kill(worker.process, signal.SIGKILL)


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them.

    ``environment``: where that variable, if it is there, is looked up first.
    """
    given = environment.get(VISIBLE, os.environ.get(VISIBLE))
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _dead(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child has ended; it is not waited for, so that its number stays its own."""
    if process.returncode is not None:
        return True
    try:
        return psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _how(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _end_input(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()


def _kill(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a worker and, where it is to die, to all that it started."""
    with suppress(ProcessLookupError):
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
