"""What a Ray worker does with a job. Light: it is imported before the job's environment is set."""

from __future__ import annotations

import importlib
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOK_EVERY_S = 0.5
RETIRE_S = 60.0
"""A worker that retires is ended once its answer has come; by itself after so long."""

_logged = False


@dataclass(frozen=True)
class Order:
    """One job, as the worker gets it."""

    job: str
    entry: str
    """What is called with it, as ``module:function``."""
    folder: Path
    """For the worker's output."""
    cancel: Path
    """A file: once it is there, the job is to end."""
    environment: Mapping[str, str]


def perform(order: Order) -> Iterator[tuple[Any, ...]]:
    """The task: runs in a Ray worker's main thread, which serves job after job."""
    import ray

    os.environ.update(order.environment)  # before torch is imported, in the first job
    _log_to(order.folder)
    node = ray.get_runtime_context().get_node_id()
    yield "started", node, platform.node(), os.getpid()
    with _cancelled_by(order.cancel):
        module, _, function = order.entry.partition(":")
        answer = getattr(importlib.import_module(module), function)(order.job)
    retire = bool(json.loads(answer).get("retire"))
    yield "returned", answer, retire
    if retire:  # it is killed as soon as the answer has come; to end here might overtake it
        time.sleep(RETIRE_S)
        os._exit(0)


def kill(process: int) -> None:
    """Another task, on the same node."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


@contextmanager
def _cancelled_by(file: Path) -> Iterator[None]:
    """SIGTERM to this process once the file is there.

    Ray can interrupt a task, but then drops what it answers, and no longer kills it if it does not end.
    """
    ended = threading.Event()
    lock = threading.Lock()

    def look() -> None:
        while not ended.wait(LOOK_EVERY_S):
            if file.exists():
                with lock:
                    if not ended.is_set():
                        os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=look, name="cancel", daemon=True).start()
    try:
        yield
    finally:
        with lock:
            ended.set()


def _log_to(folder: Path) -> None:
    """Output of this process goes to the run directory from now on, not to one of Ray's below /tmp."""
    global _logged
    if _logged:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"ray-{platform.node()}-{os.getpid()}.log").open("ab") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    _logged = True
