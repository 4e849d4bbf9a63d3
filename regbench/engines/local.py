"""Worker processes on this machine: one per slot, used again from job to job, replaced when they fail.

Importing torch takes seconds and a gigabyte, so a worker lives as long as the engine. The protocol is one line of
JSON per message: jobs to its standard input, ``started`` and ``returned`` back through a pipe. What it prints goes
to ``workers/worker-<n>.log`` in the run directory.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

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
from regbench.store.files import storage_errors

COMMAND = (sys.executable, "-m", "regbench.execution.worker")


class LocalOptions(EngineOptions):
    """The local engine has no options: ``--jobs`` says all."""


@dataclass
class _Worker:
    """One slot's process and what it is doing."""

    slot: int
    process: subprocess.Popen[bytes]
    handle: str = ""
    """Of its job; empty: none."""
    unread: bytes = b""
    kill_at: float | None = None
    """When its job has been cancelled: on the monotonic clock."""
    retiring: bool = False
    """It has said that it ends after this job."""


class Local(Engine):
    """Several cells at a time on this machine, each in a process of its own."""

    name: ClassVar[str] = "local"
    Options = LocalOptions

    @classmethod
    def default_jobs(cls, options: EngineOptions, device: str) -> int:
        """One for each GPU; one on a CPU, of which a cell takes all cores."""
        return max(1, len(visible_gpus())) if device == "cuda" else 1

    def __init__(self, options: EngineOptions, setting: Setting) -> None:
        super().__init__(options, setting)
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
        for worker in list(self._workers.values()):
            if worker.handle:
                _kill(worker.process, signal.SIGKILL)
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
                _kill(worker.process, signal.SIGTERM)
                worker.kill_at = time.monotonic() + grace_seconds

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
            handle, job = self._queue.popleft()
            worker.handle = handle
            assert worker.process.stdin is not None
            try:
                worker.process.stdin.write(json.dumps(job).encode() + b"\n")
                worker.process.stdin.flush()
            except OSError:  # it has died while idle; its end is read below, and the job goes to the next
                worker.handle = ""
                self._queue.appendleft((handle, job))
                self._remove(worker)

    def _start(self, slot: int) -> _Worker:
        log = self.setting.run / "workers" / f"worker-{slot}.log"
        with storage_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as stream:
                process = subprocess.Popen(
                    COMMAND,
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

    def _gpu(self, slot: int) -> dict[str, str]:
        """Slots share the visible GPUs in turn."""
        if self.setting.device != "cuda":
            return {}
        visible = visible_gpus()
        return {"CUDA_VISIBLE_DEVICES": visible[slot % len(visible)]} if visible else {}

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        content = worker.process.stdout.read()
        if content is None:
            return
        if not content:
            self._ended(worker)
            return
        *lines, worker.unread = (worker.unread + content).split(b"\n")
        for line in lines:
            self._hear(worker, json.loads(line))

    def _hear(self, worker: _Worker, message: dict[str, str]) -> None:
        if message["kind"] == "started":
            self._happened.append(
                Started(worker.handle, f"{socket.gethostname()}, process {worker.process.pid}")
            )
        else:
            self._happened.append(Returned(worker.handle, message["answer"]))
            worker.handle, worker.kill_at = "", None
            worker.retiring = message["kind"] == "retiring"

    def _ended(self, worker: _Worker) -> None:
        """Its pipe is closed: it has died, or retired."""
        handle = worker.handle
        self._remove(worker)
        if handle:
            code = worker.process.returncode
            number = -code if code < 0 else None
            how = f"was killed by {_signal_name(number)}" if number else f"ended with exit code {code}"
            self._happened.append(Lost(handle, f"its process {how}", number))

    def _remove(self, worker: _Worker) -> None:
        process = worker.process
        assert process.stdin is not None
        assert process.stdout is not None
        self._selector.unregister(process.stdout)
        process.stdout.close()
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            _kill(process, signal.SIGKILL)
            process.wait()
        self._workers.pop(worker.slot, None)

    def _enforce(self) -> None:
        """Kill what was cancelled and did not end in its grace."""
        now = time.monotonic()
        for worker in list(self._workers.values()):
            if worker.kill_at is not None and now >= worker.kill_at:
                worker.kill_at = None
                _kill(worker.process, signal.SIGKILL)


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


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
